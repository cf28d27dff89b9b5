"""Branches, loops, side streams, printing, and the single-device forms of collective calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ops.compiling import assert_compiles, sizes_of, type_of

from maxmod import functional as F
from maxmod.backends.devices import Accelerator, Device
from maxmod.device import CPU_REF
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DTypeError, LazyError, ShapeError, TraceError
from maxmod.tensor import Tensor
from maxmod.tensor_type import TensorType

X = Tensor([1.0, 2.0])
TRUE, FALSE = Tensor(True, dtype=DType.bool), Tensor(False, dtype=DType.bool)


def raises() -> Any:
    raise AssertionError("the branch that is not chosen was called")


# ---- cond --------------------------------------------------------------------------------------


def test_cond_calls_one_branch() -> None:
    found = F.cond(TRUE, [X.type], lambda: X + 1, raises)
    assert isinstance(found, list)
    assert found[0].to_numpy().tolist() == [2, 3]
    first, second = F.cond(FALSE, [X.type, X.type], raises, lambda: (X, X * 2))
    assert first is X
    assert second.to_numpy().tolist() == [2, 4]
    assert F.cond(True, None, lambda: None, raises) == []
    assert F.cond(FALSE, [], raises, list) == []
    (only,) = F.cond(TRUE, X.type, lambda: X, raises)
    assert only is X


def test_names_in_out_types_stand_for_any_size() -> None:
    wide = Tensor.zeros([2, 3])
    square = TensorType(DType.float32, ["n", "n"], CPU_REF)
    assert F.cond(TRUE, [TensorType(DType.float32, ["n", "m"], CPU_REF)], lambda: wide, raises)
    with pytest.raises(ShapeError, match=r"result 0 has another type: expected float32\[n,n\]"):
        F.cond(TRUE, [square], lambda: wide, raises)


def test_cond_errors() -> None:
    with pytest.raises(DTypeError, match="cond: pred: expected bool, got float32"):
        F.cond(Tensor(1.0), None, list, list)
    with pytest.raises(ShapeError, match="cond: pred: expected a scalar, got bool"):
        F.cond(Tensor([True], dtype=DType.bool), None, list, list)
    with pytest.raises(TypeError, match="cond: .*expected a Tensor, got int"):
        F.cond(1, None, list, list)
    with pytest.raises(ArgumentError, match="cond: expected 2 results, got 1"):
        F.cond(TRUE, [X.type, X.type], lambda: X, raises)
    with pytest.raises(ArgumentError, match="cond: expected 0 results, got 1"):
        F.cond(TRUE, None, lambda: X, raises)
    with pytest.raises(ShapeError, match="result 0 has another type"):
        F.cond(TRUE, [X.type.cast(DType.float64)], lambda: X, raises)
    with pytest.raises(TypeError, match="expected a Tensor, got float"):
        F.cond(TRUE, [X.type], lambda: 1.0, raises)


def test_a_graph_has_no_branches_on_data() -> None:
    def fn(x: Tensor) -> Any:
        return F.cond(F.sum(x)[0] > 0, [x.type], lambda: x, lambda: -x)

    with pytest.raises(TraceError, match="cond: pred depends on data .* Hint: F.where selects"):
        sizes_of(fn, type_of("n"))


def test_a_branch_on_a_known_value_can_be_traced() -> None:
    def fn(x: Tensor) -> list[Tensor]:
        return F.cond(FALSE, [x.type], raises, lambda: x * 2.0)

    assert_compiles(fn, (type_of("n"),), (np.ones(3, np.float32),))


def test_nothing_is_known_in_a_lazy_block() -> None:
    with F.lazy():
        flag = Tensor.ones([1], dtype=DType.bool)[0]
        with pytest.raises(LazyError):
            F.cond(flag, None, list, list)


# ---- while_loop --------------------------------------------------------------------------------


def test_while_loop() -> None:
    found = F.while_loop(
        (Tensor(0, dtype=DType.int32), X),
        lambda i, x: i < 3,
        lambda i, x: (i + 1, x * 2),
    )
    assert [t.to_numpy().tolist() for t in found] == [3, [8, 16]]
    (same,) = F.while_loop(X, lambda x: False, raises)
    assert same is X
    (only,) = F.while_loop([X], lambda x: F.max(x)[0] < 10, lambda x: x + 3)
    assert only.to_numpy().tolist() == [10, 11]


def test_while_loop_errors() -> None:
    with pytest.raises(ArgumentError, match="while_loop: expected at least one initial value"):
        F.while_loop([], lambda: True, list)
    with pytest.raises(DTypeError, match="while_loop: the condition: expected bool"):
        F.while_loop(X, lambda x: x[0], lambda x: x)
    with pytest.raises(ShapeError, match="while_loop: the condition: expected a scalar"):
        F.while_loop(X, lambda x: x > 0, lambda x: x)
    with pytest.raises(ArgumentError, match="while_loop: expected 1 results, got 2"):
        F.while_loop(X, lambda x: True, lambda x: (x, x))
    with pytest.raises(ShapeError, match="while_loop: result 0 has another type"):
        F.while_loop(X, lambda x: True, lambda x: x.cast(DType.float64))
    with pytest.raises(ShapeError, match="while_loop: result 0 has another type"):
        F.while_loop(X, lambda x: True, lambda x: F.concat([x, x]))
    with pytest.raises(TypeError, match="while_loop: .*expected a Tensor, got float"):
        F.while_loop(1.0, lambda x: True, lambda x: x)


def test_a_graph_has_no_loops() -> None:
    def fn(x: Tensor) -> Any:
        return F.while_loop(x, lambda x: F.sum(x)[0] < 100, lambda x: x * 2.0)

    with pytest.raises(TraceError, match="while_loop: the condition .* a Python loop with a fixed"):
        sizes_of(fn, type_of("n"))


# ---- side_stream and print ---------------------------------------------------------------------


def test_side_stream_is_a_call() -> None:
    assert F.side_stream(X, lambda x: None) == []
    found = F.side_stream([X, X], lambda x, y: x + y, result_types=[X.type])
    assert found[0].to_numpy().tolist() == [2, 4]
    with pytest.raises(ShapeError, match="side_stream: result 0 has another type"):
        F.side_stream(X, lambda x: x[:1], result_types=[X.type])
    with pytest.raises(ArgumentError, match="stream_id: expected at least 1, got 0"):
        F.side_stream(X, lambda x: x, stream_id=0)
    assert_compiles(
        lambda x: F.side_stream(x, lambda x: (x * 2.0, x + 1.0)),
        (type_of("n"),),
        (np.ones(3, np.float32),),
    )


def test_print(capsys: pytest.CaptureFixture[str]) -> None:
    F.print(X, "x")
    assert capsys.readouterr().out == f"Tensor x= {X!r}\n"
    assert "1" in repr(X)
    F.print("here")
    assert capsys.readouterr().out == "here\n"
    with pytest.raises(TypeError, match="print: expected a Tensor or a text, got float"):
        F.print(1.0)


def test_print_shows_the_type_while_tracing(capsys: pytest.CaptureFixture[str]) -> None:
    def fn(x: Tensor) -> Tensor:
        F.print(x, "x")
        return x * 2.0

    sizes_of(fn, type_of("n"))
    out = capsys.readouterr().out
    assert out.startswith("Tensor x= Tensor(")
    assert "Dim('n')" in out


# ---- several devices, on one -------------------------------------------------------------------


def test_sums_and_joins_of_lists() -> None:
    y = Tensor([10.0, 20.0])
    found = F.allreduce_sum([X, y, X], [None] * 3)
    assert [t.to_numpy().tolist() for t in found] == [[12, 24]] * 3
    assert F.allreduce_sum([X], [None])[0] is X
    assert F.allreduce_sum(X) is X
    joined = F.allgather([X, y], [None] * 2)
    assert [t.to_numpy().tolist() for t in joined] == [[1, 2, 10, 20]] * 2
    rows = F.allgather([X.reshape([2, 1]), y.reshape([2, 1])], [None] * 2, axis=-1)
    assert rows[1].to_numpy().tolist() == [[1, 10], [2, 20]]
    assert F.allgather(X) is X
    assert F.allgather([X], [None])[0] is X


def test_results_stay_on_the_devices_of_the_inputs(emulated_accelerator: Device) -> None:
    other = Accelerator(1)
    inputs = [X.to(emulated_accelerator), X.to(other)]
    for found in (F.allreduce_sum(inputs, [None] * 2), F.allgather(inputs, [None] * 2)):
        assert [t.device for t in found] == [emulated_accelerator, other]


@pytest.mark.parametrize("name", ["allreduce_sum", "allgather"])
def test_collective_errors(name: str) -> None:
    fn = getattr(F, name)
    with pytest.raises(ArgumentError, match=f"{name}: inputs and signal_buffers .* 2 and 1"):
        fn([X, X], [None])
    with pytest.raises(ArgumentError, match=f"{name}: expected at least one tensor"):
        fn([], [])
    with pytest.raises(TypeError, match="expected a Tensor, got float"):
        fn([1.0], [None])


def test_more_collective_errors() -> None:
    with pytest.raises(ArgumentError, match="must have one shape and dtype"):
        F.allreduce_sum([X, X[:1]], [None] * 2)
    with pytest.raises(ValueError, match="allgather: Invalid axis=1"):
        F.allgather([X, X], [None] * 2, axis=1)
    with pytest.raises(ShapeError):
        F.allgather([X, X.reshape([1, 2])], [None] * 2)


def test_identities_on_one_device() -> None:
    assert F.reduce_scatter(X, axis=0) is X
    assert F.distributed_broadcast(X) is X
    for fn in (F.reduce_scatter, F.distributed_broadcast):
        with pytest.raises(TypeError):
            fn(1.0)


def test_block_formats_are_left_out() -> None:
    with pytest.raises(NotImplementedError, match="dequantize: maxmod stores weights .* Hint"):
        F.dequantize("Q4_0", X)
    with pytest.raises(NotImplementedError, match="qmatmul: "):
        F.qmatmul("Q4_0", None, X, X)
