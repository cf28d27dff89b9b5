"""Graphs that are built by hand: inputs, outputs, values, buffers, weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import pytest

from maxmod import CPU, Tensor, nn
from maxmod import functional as F
from maxmod.driver import Buffer
from maxmod.dtype import DType
from maxmod.engine import InferenceSession
from maxmod.errors import NoGraphError
from maxmod.graph import (
    BufferType,
    BufferValue,
    DeviceRef,
    Dim,
    Graph,
    TensorType,
    TensorValue,
    Value,
    Weight,
    ops,
)

HOST = DeviceRef.CPU()


def f32(*shape: int | str) -> TensorType:
    return TensorType(DType.float32, shape, HOST)


def run(graph: Graph, *args: object) -> list[np.ndarray]:
    return [buffer.to_numpy() for buffer in InferenceSession().load(graph)(*args)]


# ---- building ------------------------------------------------------------------------------------


def test_with_block() -> None:
    with Graph("affine", input_types=[f32("n", 2), f32(2)]) as graph:
        x, bias = graph.inputs
        two = ops.constant(2, DType.float32, HOST)
        graph.output(ops.add(ops.mul(x, two), bias))
    assert graph.name == "affine"
    assert graph.output_types == [f32("n", 2)]
    found = run(graph, [[1.0, 2.0], [3.0, 4.0]], [10.0, 20.0])
    assert found[0].tolist() == [[12, 24], [16, 28]]


def test_values_of_a_dim() -> None:
    with Graph("size", input_types=[f32("n", 2)]) as graph:
        rows = TensorValue(graph.inputs[0].tensor.shape[0] * 2 + 1)
        graph.output(rows, ops.shape_to_tensor([Dim("n") + 1, 4]))
    assert graph.output_types[0] == TensorType(DType.int64, [], HOST)
    rows, shape = run(graph, np.zeros([3, 2], np.float32))
    assert rows == 7
    assert shape.tolist() == [4, 4]


def test_forward_is_called_at_once() -> None:
    graph = Graph("sum", ops.add, [f32("n"), f32("n")])
    assert run(graph, [1.0, 2.0], [3.0, 4.0])[0].tolist() == [4, 6]
    several = Graph("two", lambda x, k, *, shift: (x * k, x + shift), [f32(2)], None, 3, shift=1)
    first, second = run(several, [1.0, 2.0])
    assert (first.tolist(), second.tolist()) == ([3, 6], [2, 3])
    nothing = Graph("none", lambda x: None, [f32(2)])
    assert nothing.output_types == []
    assert run(nothing, [1.0, 2.0]) == []


def test_a_module_can_be_the_forward() -> None:
    layer = nn.Linear(3, 2)
    graph = Graph("layer", layer, [f32("n", 3)])
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = x.astype(np.float64) @ layer.weight.to_numpy().T + layer.bias.to_numpy()
    np.testing.assert_allclose(run(graph, x)[0], expected, rtol=1e-5, atol=1e-6)


def test_tensors_become_constants() -> None:
    held = Tensor([1.0, 2.0])
    with Graph("held", input_types=[f32(2)]) as graph:
        graph.output(graph.inputs[0] + held, held, TensorValue(held))
    added, first, second = run(graph, [10.0, 10.0])
    assert added.tolist() == [11, 12]
    assert first.tolist() == second.tolist() == [1, 2]


def test_current() -> None:
    with pytest.raises(LookupError, match="No graph found"):
        _ = Graph.current
    with Graph("outer") as outer:
        assert Graph.current is outer
        with Graph("inner") as inner:
            assert inner.current is inner
        assert Graph.current is outer
        with outer:  # again
            assert Graph.current is outer
        assert F.in_graph_context()
    with pytest.raises(LookupError):
        _ = outer.current
    assert not F.in_graph_context()


def test_an_error_leaves_the_block() -> None:
    with pytest.raises(ZeroDivisionError), Graph("wrong"):
        _ = 1 / 0
    with pytest.raises(LookupError):
        _ = Graph.current


def test_values_of_another_graph_are_refused() -> None:
    with Graph("one", input_types=[f32(2)]) as one:
        x = one.inputs[0]
    for use in (lambda: x + 1, lambda: F.exp(x), lambda: F.concat([x, x]), lambda: x.item()):
        with pytest.raises(NoGraphError, match="has no data"):
            use()
    for make in (
        lambda: ops.constant(1, DType.float32, HOST),
        lambda: ops.buffer_create(BufferType(DType.float32, [2], HOST)),
        lambda: ops.constant_external("w", f32(2)),
        lambda: ops.call(one, x),
        lambda: TensorValue(Tensor([1.0])),
    ):
        with pytest.raises(LookupError, match="No graph found"):
            make()
    with pytest.raises(TypeError, match="another trace"), Graph("two"):
        _ = x + 1


def test_data_is_not_known() -> None:
    with Graph("data", input_types=[f32(1)]) as graph:
        x = graph.inputs[0].tensor
        for use in (bool, lambda t: t.item(), np.asarray, np.from_dlpack):
            with pytest.raises(TypeError, match="Can't realize symbolic tensors"):
                use(x)


def test_outputs() -> None:
    graph = Graph("outputs", input_types=[f32(2)])
    with pytest.raises(TypeError, match="before output"):
        _ = graph.output_types
    with pytest.raises(ValueError, match=r"call graph.output"):
        InferenceSession().load(graph)
    with graph, pytest.raises(TypeError, match=r"Graph.output: .* got int"):
        graph.output(3)
    with graph:
        graph.output(graph.inputs[0])
    with pytest.raises(ValueError, match="output was already called"), graph:
        graph.output(graph.inputs[0])
    assert run(graph, [1.0, 2.0])[0].tolist() == [1, 2]


def test_text() -> None:
    with Graph("text", input_types=[f32("n")]) as graph:
        graph.output(graph.inputs[0] * graph.inputs[0])
    lines = repr(graph).splitlines()
    assert lines[0] == "graph text(%arg0: float32[n])"
    assert lines[1].startswith("  %0: float32[n] = mul %arg0 %arg0")
    assert "test_builder.py" in lines[1]
    assert lines[2] == "  return %0"


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r"input_types\[0\]: expected a TensorType"):
        Graph("wrong", input_types=[Tensor([1.0])])
    with pytest.raises(NotImplementedError, match="path"):
        Graph("wrong", path="model.mef")
    with pytest.raises(NotImplementedError, match="custom_extensions"):
        Graph("wrong", custom_extensions=["kernels"])
    Graph("right", custom_extensions=[], context=None, kernel_library=None, module=None)
    Graph("right", strict_device_placement=True, is_device_graph=True)


# ---- values --------------------------------------------------------------------------------------


@pytest.fixture
def x() -> Iterable[TensorValue]:
    with Graph("values", input_types=[f32("n", 3)]) as graph:
        yield graph.inputs[0].tensor


def test_properties(x: TensorValue) -> None:
    assert isinstance(x, TensorValue)
    assert isinstance(x, Value)
    assert not isinstance(x, BufferValue)
    assert x.dtype is DType.float32
    assert x.shape == ["n", 3]
    assert x.rank == 2
    assert x.device == DeviceRef.CPU()
    assert x.type == f32("n", 3)
    assert x.T.shape == [3, "n"]
    assert x.tensor is x
    with pytest.raises(TypeError, match="buffer: expected a BufferValue, got TensorValue"):
        _ = x.buffer


def test_results_are_values(x: TensorValue) -> None:
    for made in (x + 1, x @ x.T, F.exp(x), x[0], *x.split([1, 2], 1), x.max(), -x, x == x):
        assert type(made) is TensorValue


def test_methods(x: TensorValue) -> None:
    n = Dim("n")
    assert x.reshape([-1]).shape == [n * 3]
    assert x.flatten().shape == [n * 3]
    assert x.reshape([n, 3, 1]).flatten(1, 2).shape == ["n", 3]
    assert x.broadcast_to([2, "n", 3]).shape == [2, "n", 3]
    assert x.cast(DType.bfloat16).dtype is DType.bfloat16
    assert x.rebind(["m", 3]).shape == ["m", 3]
    assert x.permute([1, 0]).shape == x.transpose(0, 1).shape == [3, "n"]
    assert x.to(DeviceRef.CPU()) is x
    assert x.argmax().type == TensorType(DType.int64, ["n", 1], HOST)
    for reduced in (x.max(), x.min(), x.mean(), x.stdev(), x.var()):
        assert reduced.shape == ["n", 1]
    assert x.var(axis=0).shape == [1, 3]


def test_print(x: TensorValue, capsys: pytest.CaptureFixture[str]) -> None:
    x.print()
    (x + 1).print("sum")
    assert capsys.readouterr().out == (
        "Tensor debug_tensor= Tensor(<unrealized>, shape=[n, 3], "
        "dtype=DType.float32, device=Device(type=cpu,id=0))\n"
        "Tensor sum= Tensor(<unrealized>, shape=[n, 3], "
        "dtype=DType.float32, device=Device(type=cpu,id=0))\n"
    )


def test_no_items(x: TensorValue) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        iter(x)
    with pytest.raises(TypeError, match=r"not iterable|not a container"):
        _ = x in x
    with pytest.raises(TypeError, match="not iterable"):
        _ = [*x]
    assert not isinstance(x, Iterable)  # so that a forward may return it alone


@pytest.mark.parametrize("other", ["x", None, object(), [1.0], 1j])
def test_no_comparison_with_other_objects(x: TensorValue, other: object) -> None:
    for compare in (lambda: x == other, lambda: x != other, lambda: other == x):
        with pytest.raises(TypeError):
            compare()


def test_constructor(x: TensorValue) -> None:
    assert TensorValue(x) is x
    assert TensorValue(Dim("n")).type == TensorType(DType.int64, [], HOST)
    assert TensorValue(x.shape).shape == [2]
    for other in (3, 1.0, "x", None, [1.0], np.ones(3, np.float32)):
        with pytest.raises(TypeError, match=r"Hint: ops\.constant"):
            TensorValue(other)
    assert copy.copy(x) is x
    assert copy.deepcopy(x) is x


def test_variance() -> None:
    with Graph("variance", input_types=[f32("n", 5)]) as graph:
        x = graph.inputs[0].tensor
        graph.output(x.var(), x.stdev(), x.var(0))
        for method in ("var", "stdev"):
            with pytest.raises(TypeError, match=rf"{method}: .* bool\[n,5\]"):
                getattr(x > 0, method)()
    data = np.random.default_rng(0).normal(2, 3, [4, 5])
    found = run(graph, data.astype(np.float32))
    np.testing.assert_allclose(found[0], data.var(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(found[1], data.std(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(found[2], data.var(0, keepdims=True), rtol=1e-5)


# ---- buffers -------------------------------------------------------------------------------------


def test_buffer_is_changed_in_place() -> None:
    with Graph("count", input_types=[BufferType(DType.float32, ["n"], HOST)]) as graph:
        buffer = graph.inputs[0].buffer
        assert buffer.type == BufferType(DType.float32, ["n"], HOST)
        before = ops.buffer_load(buffer)
        buffer[...] = before + 1
        between = buffer[...]
        buffer[0:1] = ops.constant([9.0], DType.float32, HOST)
        graph.output(before, between, buffer[1:], ops.buffer_load(buffer))
    memory = Buffer.from_numpy(np.array([1.0, 2.0, 3.0], np.float32))
    found = [part.to_numpy().tolist() for part in InferenceSession().load(graph)(memory)]
    assert found == [[1, 2, 3], [2, 3, 4], [3, 4], [9, 3, 4]]
    assert memory.to_numpy().tolist() == [9, 3, 4]


def test_graph_that_only_stores() -> None:
    with Graph("store", input_types=[BufferType(DType.int32, [2], HOST), f32(2)]) as graph:
        ops.buffer_store(graph.inputs[0].buffer, graph.inputs[1].tensor.cast(DType.int32))
        graph.output()
    memory = Buffer.zeros([2], DType.int32)
    assert InferenceSession().load(graph)(memory, [1.5, -2.5]) == []
    assert memory.to_numpy().tolist() == [1, -2]


def test_created_buffer() -> None:
    with Graph("created", input_types=[f32(2)]) as graph:
        buffer = ops.buffer_create(BufferType(DType.float32, [2, 2], HOST))
        assert isinstance(buffer, BufferValue)
        ops.buffer_store_slice(buffer, graph.inputs[0], [1])
        graph.output(buffer[...])
    model = InferenceSession().load(graph)
    for values in ([1.0, 2.0], [3.0, 4.0]):  # nothing is left of the first call
        assert model(values)[0].to_numpy().tolist() == [[0, 0], values]


def test_wrong_buffers() -> None:
    with Graph("wrong", input_types=[f32(2)]) as graph:
        x = graph.inputs[0]
        with pytest.raises(TypeError, match="buffer_load: expected a BufferValue"):
            ops.buffer_load(x)
        with pytest.raises(TypeError, match="buffer_create: type"):
            ops.buffer_create(f32(2))
        with pytest.raises(TypeError, match="BufferType"):
            ops.buffer_store(x, x)
        with pytest.raises(TypeError, match="tensor: expected a TensorValue, got BufferValue"):
            _ = ops.buffer_create(BufferType(DType.float32, [2], HOST)).tensor


# ---- weights and graphs in graphs ----------------------------------------------------------------


def test_weights() -> None:
    weight = Weight("layer.weight", DType.float32, [3, 2], DeviceRef.CPU())
    with Graph("weights", input_types=[f32("n", 3)]) as graph:
        x = graph.inputs[0]
        shift = ops.constant_external("shift", f32(2))
        again = graph.add_weight(weight)
        graph.output(x @ weight + shift, again.T)
        with pytest.raises(ValueError, match="declared twice"):
            ops.constant_external("shift", f32(3))
    w = np.arange(6, dtype=np.float32).reshape(3, 2)
    registry = {"layer.weight": w, "shift": Tensor([1.0, 2.0]), "more": w}
    model = InferenceSession().load(graph, weights_registry=registry)
    data = np.ones([2, 3], np.float32)
    product, transposed = (part.to_numpy() for part in model(data))
    np.testing.assert_allclose(product, data.astype(np.float64) @ w + [1, 2])
    np.testing.assert_array_equal(transposed, w.T)
    with pytest.raises(KeyError, match="'shift' is missing"):
        InferenceSession().load(graph, weights_registry={"layer.weight": w})
    with pytest.raises(ValueError, match=r"'shift': expected float32\[2\], got float32\[3,2\]"):
        InferenceSession().load(graph, weights_registry={**registry, "shift": w})
    with pytest.raises(TypeError, match="constant_external: type"), Graph("wrong"):
        ops.constant_external("w", BufferType(DType.float32, [2], HOST))


def test_call() -> None:
    with Graph("inner", input_types=[f32("k", 2), f32("m")]) as inner:
        a, b = inner.inputs
        flat = a.tensor.reshape([Dim("k") * 2])
        weight = ops.constant_external("w", f32(1))
        inner.output(ops.concat([flat, b]) * weight, ops.full([Dim("k") + 1], 3.0))
    with Graph("outer", input_types=[f32("n", 2)]) as outer:
        x = outer.inputs[0].tensor
        long, filled = ops.call(inner, x, x[:, 0])
        assert long.shape == [Dim("n") * 3]
        assert filled.shape == [Dim("n") + 1]
        (again, _) = ops.call(inner, x[0:1], ops.constant([7.0], DType.float32, HOST))
        outer.output(long, filled, again)
        with pytest.raises(ValueError, match=r"argument 0 of inner: expected float32\[k,2\]"):
            ops.call(inner, x.T, x[0])
        with pytest.raises(TypeError, match="takes 2 arguments, got 1"):
            ops.call(inner, x)
    model = InferenceSession().load(outer, weights_registry={"w": np.full(1, 2, np.float32)})
    long, filled, again = (
        b.to_numpy() for b in model(np.arange(4, dtype=np.float32).reshape(2, 2))
    )
    assert long.tolist() == [0, 2, 4, 6, 0, 4]
    assert filled.tolist() == [3, 3, 3]
    assert again.tolist() == [0, 2, 14]


def test_random_values_need_a_seed() -> None:
    like = f32("n")
    with Graph("random", input_types=[like]) as graph:
        with pytest.raises(RuntimeError, match="No seed set!"):
            ops.random.normal(like)
        ops.random.set_seed(3)
        graph.output(ops.random.uniform(like, range=(1, 2)), ops.random.gaussian(like))
    model = InferenceSession().load(graph)
    first = [part.to_numpy() for part in model(np.zeros(100, np.float32))]
    second = [part.to_numpy() for part in model(np.zeros(100, np.float32))]
    np.testing.assert_array_equal(first, second)
    assert ((first[0] >= 1) & (first[0] < 2)).all()
    assert abs(first[1].mean()) < 0.5
    assert CPU().ref == HOST


def test_top_k_gives_a_tuple_of_values_and_a_list_of_tensors() -> None:
    with Graph("g", input_types=[f32("n", 4)]) as graph:
        found = ops.top_k(graph.inputs[0].tensor, 2)
        assert isinstance(found, tuple)
        assert all(isinstance(value, TensorValue) for value in found)
        graph.output(*found)
    values, indices = run(graph, np.array([[1, 4, 2, 3]], np.float32))
    assert values.tolist() == [[4, 3]]
    assert indices.tolist() == [[1, 3]]
    assert isinstance(ops.top_k(Tensor([1.0, 2.0]), 1), list)


# ---- what MAX has besides ------------------------------------------------------------------------


def test_a_kernel_library_is_ignored_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="maxmod"):
        graph = Graph("g", lambda x: x, input_types=[f32("n")], kernel_library=["kernels.mojopkg"])
    assert caplog.messages == [
        "Graph g: kernel_library is ignored: ['kernels.mojopkg']. maxmod.custom takes kernels."
    ]
    (y,) = InferenceSession().load(graph)(np.ones(3, np.float32))
    assert y.to_numpy().tolist() == [1, 1, 1]
    caplog.clear()
    Graph("g", lambda x: x, input_types=[f32("n")], kernel_library=[])
    assert caplog.messages == []


def test_subgraphs_are_called() -> None:
    with Graph("outer", input_types=[f32("n")]) as graph:
        (x,) = graph.inputs
        inner = graph.add_subgraph("twice", lambda v: v * 2, input_types=[f32("n")])
        with graph.add_subgraph("plus", input_types=[f32("n")]) as other:
            other.output(other.inputs[0] + 1)
        (y,) = ops.call(inner, x)
        (z,) = ops.call(graph.add_subgraph("plus"), y)
        graph.output(z, *ops.call(inner, z))
    assert graph.subgraphs == {"twice": inner, "plus": other}
    first, second = InferenceSession().compile(graph)(np.array([1, 2], np.float32))
    assert (first.to_numpy().tolist(), second.to_numpy().tolist()) == ([3, 5], [6, 10])
    with pytest.raises(ValueError, match="there is a subgraph 'twice' already"):
        graph.add_subgraph("twice", lambda v: v, input_types=[f32("n")])


def test_spread_of_integers() -> None:
    x = np.array([[1, 2, 3, 10], [-7, -7, 7, 8]])
    for dtype in (DType.int64, DType.int8, DType.float64):
        type = TensorType(dtype, ["n", 4], CPU())
        with Graph("spread", input_types=[type]) as graph:
            (v,) = graph.inputs
            graph.output(v.stdev(), v.var(), v.stdev(axis=0))
        assert [t.dtype for t in graph.output_types] == [dtype] * 3
        found = InferenceSession().load(graph)(x.astype(dtype.to_numpy()))
        wanted = [x.std(-1, keepdims=True), x.var(-1, keepdims=True), x.std(0, keepdims=True)]
        for one, want in zip(found, wanted, strict=True):
            want = want if dtype.is_float() else np.trunc(want)
            np.testing.assert_allclose(one.to_numpy(), want, rtol=1e-12)


def test_axes_of_transpose_and_labels_of_print(capsys: pytest.CaptureFixture[str]) -> None:
    with Graph("names", input_types=[TensorType(DType.float32, [2, 3], CPU())]) as graph:
        (x,) = graph.inputs
        assert x.transpose(dim_1=0, dim_2=1).shape == [3, 2]
        ops.print(x, label="x")
        x.print("y")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("=")[0] for line in lines] == ["Tensor x", "Tensor y"]
