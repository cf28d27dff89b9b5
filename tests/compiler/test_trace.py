"""Tracing: recorded ops, rejected calls, and the source lines of errors and nodes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from compiler.graphs import compiled, f32, op_names, traced

from maxmod import DType, Tensor
from maxmod import functional as F
from maxmod.errors import GraphError, TraceError
from maxmod.op import ir
from maxmod.values.device import CPU_REF


def test_text_form_names_types_ops_and_lines() -> None:
    graph = traced(lambda x, y: F.exp(x) + y, f32("n", 3), f32(3))
    lines = str(graph).splitlines()
    assert lines[0] == "graph f(%x: float32[n,3], %y: float32[3])"
    assert lines[1].startswith("  %0: float32[n,3] = exp %x")
    assert lines[2].startswith("  %1: float32[n,3] = add %0 %y")
    assert "# test_trace.py:" in lines[1]
    assert lines[3] == "  return %1"


def test_parameters_become_weights_and_tied_ones_share_one() -> None:
    w = Tensor.ones([3], dtype=DType.float32)
    graph = traced(lambda x: x * w + w, f32(3), weights={"a": w, "b": w})
    assert list(graph.weights) == ["a"]


def test_tensors_from_outside_become_constants_at_trace_time() -> None:
    c = Tensor(np.ones(3, np.float32))
    row = Tensor(np.ones((2, 3), np.float32))[0]
    model = compiled(lambda x: x + c + row, f32(3))
    F.buffer_store(c, c * 7.0)
    F.buffer_store(row, row * 7.0)
    assert c.to_numpy().tolist() == [7, 7, 7]
    assert row[0:1][0:1].to_numpy().tolist() == [7]
    assert model(np.zeros(3, np.float32)).to_numpy().tolist() == [2, 2, 2]
    assert len(traced(lambda x: x + c, f32(3)).constants) == 1


def test_numbers_become_full_nodes() -> None:
    graph = traced(lambda x: x * 2.0, f32(3))
    assert op_names(graph) == ["full", "mul"]
    assert graph.nodes[0].kwargs["value"] == 2.0


def test_sizes_stay_symbolic_through_shape_arithmetic() -> None:
    graph = traced(lambda x: x.reshape([x.shape[0] * 2, 3])[1:], f32("n", 6))
    assert graph.outputs[0].type.short() == "float32[(n * 2) + -1,3]"


def test_creation_inside_the_function_is_recorded() -> None:
    graph = traced(
        lambda x: x + Tensor.arange(x.shape[0], dtype=DType.float32, device=CPU_REF), f32("n")
    )
    assert "iota" in op_names(graph)


@pytest.mark.parametrize(
    "look",
    [
        lambda t: bool(t.sum() > 0),
        lambda t: t.sum().item(),
        lambda t: np.asarray(t),
        lambda t: t.to_numpy(),
        lambda t: np.from_dlpack(t),
        lambda t: t.data,
    ],
    ids=["bool", "item", "asarray", "to_numpy", "dlpack", "data"],
)
def test_looking_at_data_is_a_type_error(look: object) -> None:
    def fn(x: Tensor) -> Tensor:
        look(x)  # type: ignore[operator]
        return x

    with pytest.raises(TypeError, match="Can't realize symbolic tensors"):
        traced(fn, f32(3))


def test_errors_inside_a_trace_carry_the_line_of_the_user() -> None:
    def fn(x: Tensor) -> Tensor:
        return x @ x

    with pytest.raises(ValueError, match=r"(?s)inner sizes differ.*at test_trace\.py:\d+ in .*fn"):
        traced(fn, f32("n", 3))


def test_names_broadcast_with_themselves_and_with_one_only() -> None:
    assert traced(lambda x, y: x + y, f32("n"), f32(1)).outputs[0].type == f32("n")
    with pytest.raises(ValueError, match=r"broadcastable.*symbolic size"):
        traced(lambda x, y: x + y, f32("n"), f32("m"))


def test_a_function_must_return_tensors() -> None:
    with pytest.raises(TraceError, match="must return tensors, got int"):
        traced(lambda x: 3, f32(3))


def test_symbolic_tensors_of_another_trace_are_refused() -> None:
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x + 1

    traced(keep, f32(3))
    with pytest.raises(TraceError, match="another trace"):
        traced(lambda x: x + kept[0], f32(3))


def test_other_threads_stay_eager_during_a_trace() -> None:
    seen: list[bool] = []

    def fn(x: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: seen.append(Tensor.ones([2]).real))
        thread.start()
        thread.join()
        return x + 1

    traced(fn, f32(3))
    assert seen == [True]


def test_an_exception_ends_the_trace() -> None:
    with pytest.raises(ZeroDivisionError):
        traced(lambda x: 1 // 0, f32(3))
    assert (Tensor.ones([2]) + 1).real


def test_verify_finds_wrong_types_and_wrong_order() -> None:
    graph = traced(lambda x: F.exp(F.exp(x)), f32(3))
    first, second = graph.nodes
    with pytest.raises(GraphError, match="used before it is bound"):
        ir.verify(ir.rebuild(graph, [second, first], {}))
    wrong = ir.Node(first.op, first.inputs, (), (ir.Value(f32(4)),), first.source)
    with pytest.raises(GraphError, match=r"expected float32\[3\], got float32\[4\]"):
        ir.verify(ir.rebuild(graph, [wrong], {}))
    with pytest.raises(GraphError, match="bound twice"):
        ir.verify(ir.rebuild(graph, [first, first, second], {}))
