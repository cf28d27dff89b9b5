"""Branches, loops, side streams, printing, and the single-device forms of collective calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated_cuda import emulated_cuda
from helpers import tensor
from ops.compiling import assert_compiles, sizes_of, type_of

from maxmod import configure
from maxmod import functional as F
from maxmod.backends.devices import CPU, Accelerator, Device
from maxmod.dtype import DType
from maxmod.engine import InferenceSession
from maxmod.errors import ArgumentError, DTypeError, LazyError, ShapeError, TraceError
from maxmod.graph import Graph, ops
from maxmod.graph.ops import random as graph_random
from maxmod.runtime.compiled import compile_function
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import BufferType, TensorType

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


W = Tensor([10.0, 20.0, 30.0])


def _halved_or_negated(x: Tensor) -> Any:
    return F.cond(F.sum(x)[0] > 3, [x.type], lambda: x / 2 + W, lambda: -x)[0] + 1


def test_a_graph_branches_on_data() -> None:
    model = assert_compiles(
        _halved_or_negated,
        (type_of(3),),
        (np.array([1, 2, 3], np.float32),),
        (np.array([1, -2, 3], np.float32),),
    )
    assert "graph then(%arg0: float32[3], %arg1: float32[3])" in str(model.graph)
    assert "types=[float32[3]]" in str(model.graph)


def test_branches_see_names_of_sizes_and_each_result_is_apart() -> None:
    def fn(x: Tensor) -> Any:
        return F.cond(
            F.max(x)[0] > 0,
            [x.type] * 2,
            lambda: (x, x),
            lambda: (x, F.concat([x, x])[x.shape[0] :]),
        )

    model = assert_compiles(
        fn, (type_of("n"),), (np.ones(3, np.float32),), (-np.ones(4, np.float32),)
    )
    argument = Tensor([1.0, 2.0])
    first, second = model(argument)
    first[0] = Tensor(7.0)
    assert argument.to_numpy().tolist() == second.to_numpy().tolist() == [1, 2]


def test_branches_of_a_graph_must_have_one_type() -> None:
    def fn(x: Tensor) -> Any:
        return F.cond(F.sum(x)[0] > 0, [type_of("m")], lambda: x, lambda: x[1:])

    with pytest.raises(ShapeError, match=r"cond: result 0 depends on the branch: float32\[n\] or"):
        sizes_of(fn, type_of("n"))
    with pytest.raises(ArgumentError, match="cond: expected 2 results, got 1"):
        sizes_of(lambda x: F.cond(x[0] > 0, [x.type] * 2, lambda: x, lambda: x), type_of("n"))


def test_a_branch_in_a_loop_in_a_graph() -> None:
    def fn(x: Tensor) -> Any:
        def body(x: Tensor, i: Tensor) -> Any:
            (y,) = F.cond(F.max(x)[0] > 10, [x.type], lambda: x + 100, lambda: x * W)
            return y, i + 1

        start = Tensor(0, dtype=DType.int64, device=CPU_REF)
        return F.while_loop((x, start), lambda x, i: F.sum(x)[0] < 100, body)

    assert_compiles(fn, (type_of(3),), (np.ones(3, np.float32),), (np.full(3, 50, np.float32),))


def test_a_branch_cannot_change_a_buffer() -> None:
    def fn(x: Tensor) -> Any:
        return F.cond(x[0] > 0, None, lambda: F.buffer_store(x, x + 1), lambda: None)

    with pytest.raises(TraceError, match="a branch or a loop .* cannot change a buffer"):
        sizes_of(fn, BufferType(DType.float32, ["n"], CPU_REF))


def test_random_numbers_after_a_branch_are_others() -> None:
    def fn(x: Tensor) -> Any:
        graph_random.set_seed(3)
        kind = {"dtype": DType.float32, "device": CPU_REF}
        (y,) = F.cond(
            x[0] > 0, [type_of(4)], lambda: F.uniform([4], **kind), lambda: F.normal([4], **kind)
        )
        return y, F.uniform([4], **kind)

    y, z = compile_function(fn, [type_of(1)], name="f", parameters={})(Tensor([1.0]))
    assert y.to_numpy().tolist() != z.to_numpy().tolist()


@pytest.mark.parametrize("switch", [{"compile": False}, {"noopt": True}, {"check": True}])
def test_branches_with_every_switch(switch: dict[str, Any]) -> None:
    with configure(**switch):
        assert_compiles(_halved_or_negated, (type_of(3),), (np.array([1, 2, 3], np.float32),))


def test_branches_on_an_accelerator() -> None:
    with emulated_cuda() as (device, _):
        x = Tensor([1.0, 2.0, 3.0], dtype=DType.float32, device=device)

        def fn(x: Tensor) -> Any:
            (y,) = F.cond(F.sum(x)[0] > 3, [x.type], lambda: x * x, lambda: -x)
            return F.while_loop(y + 1, lambda y: F.max(y)[0] < 50, lambda y: y + y)

        (found,) = compile_function(fn, [x.type], name="f", parameters={})(x)
        assert found.device == device
        assert found.to(CPU_REF).to_numpy().tolist() == [16, 40, 80]


def test_branches_of_a_graph_that_is_built() -> None:
    with Graph("g", input_types=[type_of(3)]) as graph:
        x = graph.inputs[0].tensor
        limit = ops.constant(3.0, DType.float32, CPU_REF)
        (y,) = ops.cond(
            ops.sum(x)[0] > limit,
            [x.type],
            lambda: x * ops.constant_external("w", type_of(3)),
            lambda: x.flatten() - limit,
        )
        graph.output(
            y, *ops.while_loop(y, lambda y: ops.max(y)[0] < 50, lambda y: y.rebind([3]) * y)
        )
    model = InferenceSession().load(graph, weights_registry={"w": W})
    first, second = model(Tensor([2.0, 2.0, 2.0]))
    assert first.to_numpy().tolist() == [20, 40, 60]
    assert second.to_numpy().tolist() == [20, 40, 60]
    first, second = model(Tensor([1.0, 0.0, -1.0]))
    assert first.to_numpy().tolist() == [-2, -3, -4]
    assert second.to_numpy().tolist() == [16, 81, 256]


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


def test_a_graph_loops_on_data() -> None:
    def fn(x: Tensor) -> Any:
        return F.while_loop(x, lambda x: F.sum(x)[0] < 100, lambda x: x * 2.0)

    calls = [np.ones(3, np.float32)], [np.full(5, 100, np.float32)]
    model = assert_compiles(fn, (type_of("n"),), *calls)
    assert "graph condition(%arg0: float32[n])" in str(model.graph)


def test_a_loop_whose_condition_is_known_is_unrolled() -> None:
    rounds = iter([True, True, False])
    model = compile_function(
        lambda x: F.while_loop(x, lambda x: next(rounds), lambda x: x * 2.0),
        [type_of("n")],
        name="f",
        parameters={},
    )
    assert model(Tensor([3.0]))[0].item() == 12
    assert "loop" not in str(model.graph)


def test_a_loop_in_a_graph_keeps_the_types() -> None:
    def fn(x: Tensor) -> Any:
        return F.while_loop(x, lambda x: x[0] < 3, lambda x: F.concat([x, x]))

    with pytest.raises(ShapeError, match="while_loop: result 0 has another type"):
        sizes_of(fn, type_of("n"))
    with pytest.raises(ShapeError, match="while_loop: the condition: expected a scalar"):
        sizes_of(lambda x: F.while_loop(x, lambda x: x < 3, lambda x: x), type_of("n"))


# ---- sizes that are known when a graph runs -----------------------------------------------------

KEPT = type_of("n")
SCALAR = type_of(dtype=DType.int64)
BOUND = np.array(2, np.int64)
LINE = np.array([1, 0, 2, 0, 3], np.float32)
LATE: dict[str, tuple[Any, Any, list[Any]]] = {
    "nonzero": (lambda x: F.nonzero(x, "k"), (KEPT,), [(LINE,), (LINE[:2],), (LINE[1:2],)]),
    "nonzero in other sizes": (
        lambda x: F.gather(x, F.nonzero(x, "k").reshape([-1]), 0) * 2 + F.sum(x),
        (KEPT,),
        [(LINE,), (LINE[:2],)],
    ),
    "two names": (
        lambda x: F.concat(
            [F.flatten(F.nonzero(x, "k")), F.flatten(F.nonzero(x - F.max(x), "m")) * 10]
        ),
        (KEPT,),
        [(LINE,), (LINE[:3],)],
    ),
    "masked_scatter": (
        lambda x, y: F.masked_scatter(x, x > 1, y, "k"),
        (KEPT, type_of("m")),
        [(LINE, LINE[:2] + 7)],
    ),
    "arange": (
        lambda stop: F.arange(0, stop, 3, out_dim="k", dtype=DType.int64, device=CPU_REF),
        (SCALAR,),
        [(np.array(n, np.int64),) for n in (7, 6, 0, -4)],
    ),
    "arange of floats": (
        lambda stop: F.arange(1, stop, 0.5, out_dim="k", dtype=DType.float32, device=CPU_REF),
        (type_of(),),
        [(np.float32(2.75),), (np.float32(1.0),)],
    ),
    "slice": (lambda x, i: x[(slice(i, None), "k"),], (KEPT, SCALAR), [(LINE, BOUND)]),
    "slice from the end": (lambda x, i: x[(slice(-i, -1), "k"),], (KEPT, SCALAR), [(LINE, BOUND)]),
    "repeat_interleave": (
        lambda x, n: F.repeat_interleave(x, n, 0, "k"),
        (KEPT, type_of("n", dtype=DType.int64)),
        [(LINE, np.array([1, 2, 0, 1, 3])), (LINE[:2], np.array([0, 0]))],
    ),
    "broadcast_to": (
        lambda x, n: F.broadcast_to(x, n, ["a", "n"]) + 1,
        (KEPT, type_of(2, dtype=DType.int64)),
        [(LINE, np.array([3, 5]))],
    ),
    "non_maximum_suppression": (
        lambda x, y: F.non_maximum_suppression(
            x, y, Tensor(2, dtype=DType.int64), Tensor(0.5), Tensor(0.5)
        ),
        (type_of(1, "n", 4), type_of(1, 1, "n")),
        [(np.arange(20, dtype=np.float32).reshape(1, 5, 4), LINE.reshape(1, 1, 5))],
    ),
}


@pytest.mark.parametrize("name", LATE)
def test_sizes_that_get_a_value_at_run_time(name: str) -> None:
    fn, types, calls = LATE[name]
    model = assert_compiles(fn, types, *calls)
    before = model.stats.programs
    model(*(tensor(np.asarray(array)) for array in calls[0]))
    assert model.stats.programs == before
    with configure(compile=False):
        assert_compiles(fn, types, *calls)
    with emulated_cuda(), configure(check=True):
        assert_compiles(fn, types, *calls)


def test_sizes_that_are_known_late_end_in_a_branch() -> None:
    def fn(x: Tensor) -> Any:
        def positions() -> Tensor:
            return F.sum(F.flatten(F.nonzero(x, "k")))

        zero = Tensor([0], dtype=DType.int64, device=CPU_REF)
        return F.cond(F.sum(x)[0] > 3, [zero.type], positions, lambda: zero)

    assert_compiles(fn, (KEPT,), (LINE,), (LINE[:2],))


def test_a_name_has_one_value() -> None:
    model = compile_function(lambda x: F.nonzero(x, "n"), [KEPT], name="f", parameters={})
    assert model(Tensor([1.0, 2.0])).shape == [2, 1]
    with pytest.raises(ShapeError, match="nonzero: out_dim is 5, but the data says 3"):
        model(tensor(LINE))


def test_sizes_that_disagree_later() -> None:
    def fn(x: Tensor, y: Tensor) -> Tensor:
        kept = F.gather(x, F.nonzero(x, "k").reshape([-1]), 0)
        return kept + F.rebind(y, ["k"], message="as many as are kept")

    model = compile_function(fn, [KEPT, type_of("m")], name="f", parameters={})
    assert model(tensor(LINE), tensor(LINE[:3])).to_numpy().tolist() == [2, 2, 5]
    with pytest.raises(ShapeError, match="out_dim is 5, but the data says 3"):
        model(tensor(LINE), tensor(LINE))


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
    F.print(X, label="scores")
    assert capsys.readouterr().out == f"Tensor scores= {X!r}\n"
    F.print("here")
    assert capsys.readouterr().out == "here\n"
    with pytest.raises(TypeError, match="print: expected a Tensor or a str, got float"):
        F.print(1.0)


def test_print_shows_the_type_while_tracing(capsys: pytest.CaptureFixture[str]) -> None:
    def fn(x: Tensor) -> Tensor:
        F.print(x, "x")
        return x * 2.0

    sizes_of(fn, type_of("n"))
    out = capsys.readouterr().out
    assert out.startswith("Tensor x= Tensor(")
    assert "shape=[n]" in out


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


# ---- values on several devices ------------------------------------------------------------------


def test_a_counter_on_the_host_in_a_loop_of_an_accelerator() -> None:
    with emulated_cuda() as (device, _):

        def fn(x: Tensor, y: Tensor) -> Any:
            start = Tensor(0, dtype=DType.int64, device=CPU_REF)
            turned, count = F.while_loop(
                (x, start), lambda x, i: i < y[0, 0] + 1, lambda x, i: (x * 2.0, i + 1)
            )
            (host,) = F.cond(F.max(turned)[0] > 3, [y.type], lambda: y @ y.T, lambda: y)
            return [turned + 1, count, host]

        x = Tensor([1.0, 2.0], dtype=DType.float32, device=device)
        model = compile_function(
            fn, [x.type, type_of(2, 2, dtype=DType.int64)], name="f", parameters={}
        )
        y = Tensor([[1, 1], [0, 2]], dtype=DType.int64, device=CPU_REF)
        turned, count, host = model(x, y)
        assert [t.device for t in (turned, count, host)] == [device, CPU(), CPU()]
        assert turned.to(CPU_REF).to_numpy().tolist() == [5, 9]
        assert count.item() == 2
        assert host.to_numpy().tolist() == [[2, 2], [2, 4]]


@pytest.mark.parametrize("dtype", [DType.float8_e4m3fn, DType.bfloat16, DType.float16])
def test_narrow_floats_on_an_accelerator(dtype: DType) -> None:
    with emulated_cuda() as (device, _):

        def fn(x: Tensor) -> Any:
            (y,) = F.cond(F.max(x)[0] > 1.0, [x.type], lambda: x * x, lambda: x)
            return F.while_loop(y, lambda y: F.max(y)[0] < 50.0, lambda y: y + y)

        x = Tensor([1.0, 2.0], dtype=DType.float32, device=CPU_REF).cast(dtype)
        model = compile_function(fn, [TensorType(dtype, ["n"], device)], name="f", parameters={})
        for values in (x, x / 2.0):
            (found,) = model(values.to(device))
            (wanted,) = fn(values)
            assert found.dtype is dtype
            assert found.to(CPU_REF).cast(DType.float32).to_numpy().tolist() == (
                wanted.cast(DType.float32).to_numpy().tolist()
            )
