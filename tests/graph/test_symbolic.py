"""Rules of shapes and dtypes on symbolic sizes, reached through `maxmod.graph.ops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from maxmod.dtype import DType
from maxmod.engine import InferenceSession
from maxmod.graph import BufferType, DeviceRef, Dim, Graph, InterpolationMode, TensorType, ops

HOST = DeviceRef.CPU()
A, B, N = Dim("a"), Dim("b"), Dim("n")


def typed(shape: Any, dtype: DType = DType.float32) -> TensorType:
    return TensorType(dtype, shape, HOST)


def infer(fn: Callable[..., Any], *types: TensorType) -> TensorType:
    """The type of the only output of a graph."""
    (found,) = Graph("infer", fn, types).output_types
    return found


# (function, input shapes, shape of the result)
SHAPES: dict[str, tuple[Callable[..., Any], list[Any], list[Any]]] = {
    "same name": (ops.add, [["n", 2], ["n", 2]], ["n", 2]),
    "name with 1": (ops.mul, [["n", 1], [1, "m"]], ["n", "m"]),
    "name with nothing": (ops.sub, [["a", "b"], ["b"]], ["a", "b"]),
    "equal expressions": (ops.add, [[N * 2 + 1], [1 + N + N]], [N * 2 + 1]),
    "matmul": (ops.matmul, [["b", "n", "k"], ["b", "k", 4]], ["b", "n", 4]),
    "matmul broadcasts": (ops.matmul, [["b", 1, "n", 3], ["h", 3, "m"]], ["b", "h", "n", "m"]),
    "outer": (ops.outer, [["a"], ["b"]], ["a", "b"]),
    "concat": (lambda x, y: ops.concat([x, y], axis=1), [[2, "a"], [2, "b"]], [2, A + B]),
    "concat of one name": (lambda x: ops.concat([x, x, x]), [["a", "b"]], [A * 3, "b"]),
    "stack": (lambda x: ops.stack([x, x], axis=-1), [["n", 3]], ["n", 3, 2]),
    "reshape": (lambda x: ops.reshape(x, [-1, 6]), [["n", 2, 3]], ["n", 6]),
    "reshape splits": (lambda x: ops.reshape(x, ["n", 2, "m"]), [[N * 2, "m"]], ["n", 2, "m"]),
    "flatten": (lambda x: ops.flatten(x, 1), [["a", "b", 4]], ["a", B * 4]),
    "permute": (lambda x: ops.permute(x, [2, 0, 1]), [["a", "b", 4]], [4, "a", "b"]),
    "broadcast_to": (lambda x: ops.broadcast_to(x, ["a", "n", 3]), [["n", 1]], ["a", "n", 3]),
    "slice": (lambda x: x[1:-1], [["n"]], [N - 2]),
    "slice with a step": (lambda x: x[::2], [["n"]], [(N + 1) // 2]),
    "index": (lambda x: x[-1], [["n", "m"]], ["m"]),
    "slice with names": (lambda x: x[1 : N + 1], [[N * 2]], ["n"]),
    "reduction": (lambda x: ops.sum(x, 0), [["n", "m"]], [1, "m"]),
    "reduction of all": (lambda x: ops.mean(x, None), [["n", "m"]], [1]),
    "argmax": (lambda x: ops.argmax(x, 1), [["n", "m"]], ["n", 1]),
    "cumsum": (ops.cumsum, [["n", "m"]], ["n", "m"]),
    "softmax": (ops.softmax, [["n", "m"]], ["n", "m"]),
    "band_part": (lambda x: ops.band_part(x, None, 0), [["b", "n", "n"]], ["b", "n", "n"]),
    "pad": (lambda x: ops.pad(x, [1, 2, 0, 1]), [["n", 3]], [N + 3, 4]),
    "tile": (lambda x: ops.tile(x, [2, 3]), [["n", "m"]], [N * 2, Dim("m") * 3]),
    "repeat": (lambda x: ops.repeat_interleave(x, 3, 0), [["n", 2]], [N * 3, 2]),
    "gather": (
        lambda x: ops.gather(x, ops.constant([[0, 1]], DType.int64, HOST), axis=0),
        [["n", "m"]],
        [1, 2, "m"],
    ),
    "top_k": (lambda x: ops.top_k(x, 2)[0], [["n", 5]], ["n", 2]),
    "rebind": (lambda x: ops.rebind(x, ["a", "b"]), [["n", N + 1]], ["a", "b"]),
    "arange": (lambda x: ops.range(0, N, 1, dtype=DType.float32, device=HOST), [["n"]], ["n"]),
    "arange with a step": (
        lambda x: ops.arange(1, N * 2, 2, dtype=DType.float32, device=HOST),
        [["n"]],
        ["n"],
    ),
    "conv2d": (
        lambda x, w: ops.conv2d(x, w, padding=(1, 1, 1, 1)),
        [["n", "h", 8, 3], [3, 3, 3, 4]],
        ["n", "h", 8, 4],
    ),
    "max_pool2d": (
        lambda x: ops.max_pool2d(x, (2, 2), stride=2),
        [["n", 8, 8, 3]],
        ["n", 4, 4, 3],
    ),
    "resize": (
        lambda x: ops.resize(x, ["n", 3, 4, 4], InterpolationMode.BILINEAR),
        [["n", 3, 8, 8]],
        ["n", 3, 4, 4],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str) -> None:
    fn, shapes, expected = SHAPES[name]
    assert infer(fn, *map(typed, shapes)).shape == list(typed(expected).shape)


def test_mask_of_a_graph() -> None:
    """Names come back as the same names, so results combine with the inputs."""

    def masked(x: Any) -> Any:
        positions = ops.range(0, x.shape[0], 1, dtype=DType.int64, device=HOST)
        return ops.where(ops.unsqueeze(positions, 1) >= positions, x, 0.0)

    assert infer(masked, typed(["n", "n"])).shape == ["n", "n"]


# (function, input types, class of the error, what the message has to say)
ERRORS: dict[str, tuple[Callable[..., Any], list[TensorType], type[Exception], tuple[str, ...]]] = {
    "two names": (ops.add, [typed(["n"]), typed(["m"])], ValueError, ("float32[n]", "float32[m]")),
    "name and number": (ops.mul, [typed(["n"]), typed([4])], ValueError, ("[n]", "[4]")),
    "expressions": (
        ops.add,
        [typed([N * 2 + 1]), typed([N * 2])],
        ValueError,
        ("n * 2) + 1", "n * 2"),
    ),
    "inner sizes": (
        ops.matmul,
        [typed(["b", "k"]), typed(["m", 4])],
        ValueError,
        ("float32[b,k]", "float32[m,4]"),
    ),
    "concat": (
        lambda x, y: ops.concat([x, y]),
        [typed(["a", "n"]), typed(["b", "m"])],
        ValueError,
        ("[a,n]", "[b,m]"),
    ),
    "reshape": (
        lambda x: ops.reshape(x, ["n", 5]),
        [typed(["n", 2, 3])],
        ValueError,
        ("[n,2,3]", "[n,5]"),
    ),
    "reshape of names": (
        lambda x: ops.reshape(x, ["m"]),
        [typed(["n"])],
        ValueError,
        ("[n]", "[m]"),
    ),
    "broadcast_to": (
        lambda x: ops.broadcast_to(x, ["m"]),
        [typed(["n"])],
        ValueError,
        ("[n]", "[m]"),
    ),
    "chunk": (lambda x: ops.chunk(x, 2), [typed(["n"])], TypeError, ("chunk",)),
    "squeeze": (lambda x: ops.squeeze(x, 0), [typed(["n"])], ValueError, ("[n]",)),
    "axis": (lambda x: ops.sum(x, 2), [typed(["n", 2])], ValueError, ("axis=2", "rank=2")),
    "rebind of a rank": (lambda x: ops.rebind(x, ["n"]), [typed(["n", 2])], ValueError, ("[n,2]",)),
    "rebind of a number": (lambda x: ops.rebind(x, [3]), [typed([2])], ValueError, ("2", "3")),
    "dtypes": (
        ops.add,
        [typed(["n"]), typed(["n"], DType.int32)],
        ValueError,
        ("si32", "f32"),
    ),
    "float only": (ops.exp, [typed(["n"], DType.int32)], ValueError, ("int32[n]",)),
    "weak operand": (lambda x: ops.add(1, 2), [typed([1])], TypeError, ("at least one",)),
    "size as a float": (
        lambda x: x / x.shape[0],
        [typed(["n"])],
        ValueError,
        ("Unsafe cast", "si64"),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name: str) -> None:
    fn, types, error, parts = ERRORS[name]
    with pytest.raises(error) as caught:
        Graph("wrong", fn, types)
    message = str(caught.value)
    assert [part for part in parts if part not in message] == []


def test_errors_name_the_line() -> None:
    with (
        Graph("line", input_types=[typed(["n"]), typed(["m"])]) as graph,
        pytest.raises(ValueError, match=r"\n  at test_symbolic\.py:\d+ in test_errors_name"),
    ):
        _ = graph.inputs[0] + graph.inputs[1]


def test_devices_are_not_mixed() -> None:
    gpu = TensorType(DType.float32, ["n"], DeviceRef.GPU())  # needs no GPU
    with pytest.raises(ValueError, match="Input values must be on the same device"):
        Graph("devices", ops.add, [typed(["n"]), gpu])
    moved = Graph("moved", lambda x, y: x + ops.transfer_to(y, HOST), [typed(["n"]), gpu])
    assert moved.output_types == [typed(["n"])]
    with pytest.raises(ValueError, match="uses gpu:0, the session has cpu:0"):
        InferenceSession(devices=[]).load(moved)


# ---- running -------------------------------------------------------------------------------------


def test_one_model_serves_all_sizes() -> None:
    def fn(x: Any, y: Any) -> Any:
        both = ops.concat([x, y], axis=0)  # [n + m, 3]
        return both, ops.reshape(both, [-1]), TensorShape(both)

    model = InferenceSession().load(Graph("sizes", fn, [typed(["n", 3]), typed(["m", 3])]))
    for n, m in ((1, 2), (5, 1), (0, 3), (0, 0)):
        x, y = np.ones([n, 3], np.float32), np.zeros([m, 3], np.float32)
        both, flat, shape = (part.to_numpy() for part in model(x, y))
        np.testing.assert_array_equal(both, np.concatenate([x, y]))
        np.testing.assert_array_equal(flat, np.concatenate([x, y]).reshape(-1))
        assert shape.tolist() == [n + m, 3]


def TensorShape(x: Any) -> Any:  # noqa: N802
    return ops.shape_to_tensor(x.shape)


def test_derived_sizes_are_checked() -> None:
    graph = Graph("derived", lambda x, y: (x, y), [typed(["n"]), typed([N * 2 + 1])])
    model = InferenceSession().load(graph)
    assert [part.shape for part in model(np.ones(3, np.float32), np.ones(7, np.float32))] == [
        (3,),
        (7,),
    ]
    with pytest.raises(ValueError, match=r"input1.*n \* 2.*\+ 1 = 7, got 6"):
        model(np.ones(3, np.float32), np.ones(6, np.float32))


def test_rebind_is_checked_when_the_graph_runs() -> None:
    def fn(x: Any, y: Any) -> Any:
        return x + ops.rebind(y, ["n"], message="as many as x")

    model = InferenceSession().load(Graph("rebind", fn, [typed(["n"]), typed(["m"])]))
    ones = np.ones(3, np.float32)
    assert model(ones, ones)[0].to_numpy().tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="as many as x"):
        model(ones, np.ones(4, np.float32))


def test_rebind_can_introduce_a_name() -> None:
    """What it gives the name to stays in memory as long as the result is used."""

    def fn(x: Any, w: Any) -> Any:
        y = ops.rebind(ops.exp(x) @ w, ["m", 4])
        z = y @ w @ w
        other = ops.rebind(x @ w @ w, ["m", 4])
        return z + other + y, ops.concat([y, y[0:1]])

    graph = Graph("name", fn, [typed(["n", 4]), typed([4, 4])])
    assert [kind.shape for kind in graph.output_types] == [["m", 4], [Dim("m") + 1, 4]]
    model = InferenceSession().load(graph)
    rng = np.random.default_rng(0)
    w = rng.normal(size=[4, 4]).astype(np.float32)
    for rows in (1, 3, 8):
        x = rng.normal(size=[rows, 4]).astype(np.float32)
        first, second = (part.to_numpy() for part in model(x, w))
        y = np.exp(x.astype(np.float64)) @ w
        np.testing.assert_allclose(first, y @ w @ w + x @ w @ w + y, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(second, np.concatenate([y, y[:1]]), rtol=1e-4, atol=1e-4)
    assert model.compiled.memory_plan(n=3).output_nbytes == 4 * 12


def test_rebind_of_a_fused_value() -> None:
    """The check is made although no op is run for it."""

    def fn(x: Any, y: Any) -> Any:
        return ops.sqrt(ops.rebind(ops.abs(y), [2, "n"]) + ops.abs(x))

    graph = Graph("fused", fn, [typed([2, "n"]), typed(["m", N + 1])])
    model = InferenceSession().load(graph)
    y = np.arange(6, dtype=np.float32).reshape(2, 3)
    with pytest.raises(ValueError, match=r"expected n = 2, got n \+ 1 = 3\.\n  at test_symbolic"):
        model(y[:, :2].copy(), y)
    exact = Graph("exact", fn, [typed([2, "n"]), typed(["m", "k"])])
    model = InferenceSession().load(exact)
    np.testing.assert_allclose(model(y, y)[0].to_numpy(), np.sqrt(2 * y.astype(np.float64)))
    with pytest.raises(ValueError, match=r"rebind: expected 2, got m = 3\."):
        model(y, np.zeros([3, 3], np.float32))


def test_equal_names_are_equal_sizes() -> None:
    model = InferenceSession().load(Graph("equal", ops.add, [typed(["n"]), typed(["n"])]))
    with pytest.raises(ValueError, match="'n'"):
        model(np.ones(3, np.float32), np.ones(1, np.float32))


def test_buffers_and_tensors_are_different_types() -> None:
    assert BufferType(DType.float32, ["n"], HOST) != typed(["n"])
    graph = Graph("types", lambda b: b[...], [BufferType(DType.float32, ["n"], HOST)])
    assert graph.output_types == [typed(["n"])]
