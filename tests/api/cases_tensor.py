"""Rules of `Tensor`: construction, properties, methods, operators, indexing, printing."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from typing import Any

import numpy as np
import pytest
from api.proving import named, proves
from emulated_cuda import emulated_cuda

from maxmod import CPU, DeviceRef, Dim, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod import tensor as tensor_module
from maxmod.driver import Buffer, DLPackArray
from maxmod.graph import Graph, TensorValue
from maxmod.runtime.compiled import compile_function
from maxmod.tensor import default_device, default_dtype, defaults, defaults_like
from maxmod.values.sharding import Replicated

X = Tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
ROW = Tensor([1.0, 2.0, 3.0])
WHOLE = Tensor([7, -7], dtype=DType.int32)
FLAGS = Tensor([True, False], dtype=DType.bool)


def traced(fn: Any, *sizes: Any, dtype: DType = DType.float32) -> Any:
    """The compiled function of a tensor of the given sizes."""
    return compile_function(fn, [TensorType(dtype, sizes, CPU())], name="case", parameters={})


def listed(x: Tensor) -> Any:
    """The elements."""
    return x.to_numpy().tolist()


@proves(*named("tensor", "defaults default_device default_dtype defaults_like"))
@proves("tensor.driver_tensor_type", "tensor.contextvar_context", "tensor.Tensor")
@proves("tensor.TensorType")
def defaults_follow_the_device() -> None:
    assert defaults() == (DType.float32, CPU())
    with emulated_cuda() as (gpu, _):
        assert defaults() == (DType.bfloat16, gpu)
        assert defaults(device=CPU()) == (DType.float32, CPU())
        with default_device(CPU()) as inner:
            assert inner == CPU()
            assert defaults() == (DType.float32, CPU())
        with default_device(DeviceRef.CPU()), default_dtype(DType.float64):
            assert defaults() == (DType.float64, CPU())
        with default_dtype(DType.int8), pytest.raises(KeyError), default_dtype(DType.int16):
            raise KeyError
        assert defaults() == (DType.bfloat16, gpu)
        for like in (X, X.type):
            with defaults_like(like):
                assert defaults() == (DType.float32, CPU())
    assert Tensor.arange(3).dtype is DType.float32
    assert tensor_module.driver_tensor_type(X.driver_tensor) == X.type
    assert tensor_module.TensorType is TensorType
    variable = contextvars.ContextVar("case", default=1)
    with tensor_module.contextvar_context(variable, 2) as value:
        assert value == variable.get() == 2
    assert variable.get() == 1


@proves(*named("Tensor", "from_dlpack constant full zeros ones full_like zeros_like ones_like"))
@proves(*named("Tensor", "arange range_like from_dim from_graph_value storage driver_tensor"))
def construction() -> None:
    for arguments in ((), (1.0,)):
        with pytest.raises(TypeError):
            Tensor(*arguments, storage=X.storage if arguments else None)
    assert Tensor(storage=X.driver_tensor).type == X.type
    with pytest.raises(TypeError):
        Tensor(storage=X.storage, dtype=DType.int8)
    host = np.arange(6.0).reshape(2, 3)
    shared = Tensor.from_dlpack(host)
    host[0, 0] = 9
    assert shared[0, 0].item() == 9
    assert Tensor.from_dlpack(shared) is shared
    with pytest.raises(ValueError):
        Tensor.from_dlpack(host.T)
    assert Tensor.constant(np.array([1, 2])).dtype is DType.int64
    assert Tensor.constant([1, 2], dtype=DType.int8).dtype is DType.int8
    with pytest.raises(ValueError, match="DType must match input dtype"):
        Tensor(np.array([1, 2]), dtype=DType.float32)
    with pytest.raises(ValueError, match="rectangular"):
        Tensor([[1, 2], [3]])
    with pytest.raises(ValueError, match="out of range"):
        Tensor([300], dtype=DType.int8)
    with pytest.raises(ValueError, match="has a fraction"):
        Tensor([1.5], dtype=DType.int8)
    assert Tensor([]).shape == [0]
    assert Tensor((1, 2)).shape == [2]
    for wrong in ("text", [X], None):
        with pytest.raises(TypeError):
            Tensor(wrong)
    assert listed(Tensor.full((2,), 3, dtype=DType.int16)) == [3, 3]
    assert (Tensor.zeros([Dim(2)]).shape, Tensor.ones([]).item()) == ([2], 1)
    with pytest.raises(TypeError):
        Tensor.zeros(2)
    for like in (WHOLE, WHOLE.type):
        assert listed(Tensor.full_like(like, 5)) == [5, 5]
        assert Tensor.zeros_like(like).type == Tensor.ones_like(like).type == WHOLE.type
        assert listed(Tensor.range_like(like)) == [0, 1]
    with pytest.raises(IndexError):
        Tensor.range_like(Tensor(1.0))
    assert listed(Tensor.arange(1, 6, 2)) == [1, 3, 5]
    assert Tensor.from_dim(Dim(4)).type == TensorType(DType.int64, [], CPU())
    for use in (lambda: Tensor.from_dim("n"), lambda: Tensor.zeros(["n"])):
        with pytest.raises(ValueError, match="the size 'n' is not known outside of a trace"):
            use()
    with Graph("values", input_types=[X.type]) as graph:
        value = graph.inputs[0].tensor
        assert Tensor.from_graph_value(value).shape == [2, 3]
    with pytest.raises(TypeError):
        Tensor.from_graph_value(X)


@proves(*named("Tensor", "type shape rank dtype device real realize T item num_elements to cast"))
@proves(*named("Tensor", "materialize __await__"))
def properties() -> None:
    assert X.type == TensorType(DType.float32, [2, 3], CPU())
    assert X.shape == [2, 3]
    assert X.shape != (2, 3)
    assert (X.rank, X.dtype, X.device) == (2, DType.float32, CPU())
    assert X.T.shape == [3, 2]
    scalar = Tensor(2.5)
    assert scalar.T is scalar
    with pytest.raises(IndexError):
        _ = ROW.T
    assert scalar.item() == Tensor([[2.5]]).item() == 2.5
    assert type(FLAGS[0].item()) is bool
    assert type(WHOLE[0].item()) is int
    with pytest.raises(TypeError):
        X.item()
    assert (X.num_elements(), scalar.num_elements()) == (6, 1)
    assert X.to(CPU()) is X
    assert X.cast(DType.float32) is X
    with F.lazy():
        lazy = Tensor.ones([2])
    assert not lazy.real
    with pytest.raises(TypeError):
        _ = lazy.driver_tensor
    assert lazy.storage is None
    assert lazy.materialize() is lazy
    assert lazy.real

    async def waits() -> Any:
        with F.lazy():
            first, second = Tensor.ones([1]), Tensor.zeros([1])
        return await first, await second.realize

    assert [t.item() for t in asyncio.run(waits())] == [1, 0]
    with pytest.raises(TypeError):
        traced(lambda x: x * x.num_elements(), "n")


@proves(*named("Tensor", "reshape permute transpose argmax max mean sum clip squeeze unsqueeze"))
@proves(*named("Tensor", "split broadcast_to min prod to_numpy"))
def methods() -> None:
    assert X.reshape([3, 2]).shape == [3, 2]
    assert X.permute([1, 0]).shape == X.transpose(0, 1).shape == [3, 2]
    assert (listed(X.max()), listed(X.min(0))) == ([[3], [5]], [[1, -2, -6]])
    assert (listed(X.sum()), listed(X.mean(0))) == ([[2], [3]], [[2.5, 1.5, -1.5]])
    assert X.prod(axis=None).shape == X.argmax(None).shape == [1]
    assert listed(ROW.clip(min=3, max=2)) == [2, 2, 2]
    assert listed(ROW.clip(max=2)) == [1, 2, 2]
    with pytest.raises(TypeError):
        ROW.clip(1, 2)
    assert X.unsqueeze(0).squeeze(0).shape == [2, 3]
    assert [p.shape for p in X.split(2, axis=1)] == [[2, 2], [2, 1]]
    assert ROW.broadcast_to([2, 3]).shape == [2, 3]
    with pytest.raises(ValueError):
        ROW.cast(DType.bfloat16).to_numpy()


@proves(*named("Tensor", "layout mesh mapping placements is_distributed num_shards local_shards"))
@proves(*named("Tensor", "buffers graph_values external_name"))
def what_code_for_several_devices_asks() -> None:
    assert X.layout.as_tensor() == X.type
    assert X.mapping.mesh == X.mesh
    assert X.mapping.to_placements() == X.placements == (Replicated(),)
    assert (X.is_distributed, X.num_shards, X.external_name) == (False, 1, None)
    assert X.local_shards[0] is X
    assert X.mesh.devices[0] == CPU()
    assert X.buffers[0].to_numpy() is X.data
    with pytest.raises(TypeError):
        _ = X.graph_values
    with F.lazy():
        lazy = Tensor.ones([1])
    with pytest.raises(TypeError):
        _ = lazy.buffers
    with Graph("values", input_types=[X.type]) as graph:
        value = graph.inputs[0].tensor
        assert value.graph_values[0] is value


@proves(*named("Tensor", "__add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__"))
@proves(*named("Tensor", "__rtruediv__ __floordiv__ __rfloordiv__ __mod__ __rmod__ __divmod__"))
@proves(*named("Tensor", "__rdivmod__ __pow__ __rpow__ __matmul__ __rmatmul__ __neg__ __abs__"))
def arithmetic_operators() -> None:
    array = np.array([1.0, 2.0, 3.0], np.float32)
    for found, wanted in (
        (ROW + 1, array + 1),
        (1 + ROW, 1 + array),
        (array + ROW, array + array),
        (ROW - 1, array - 1),
        (1 - ROW, 1 - array),
        (ROW * 2, array * 2),
        (2 * ROW, 2 * array),
        (ROW / 2, array / 2),
        (2 / ROW, 2 / array),
        (ROW // 2, array // 2),
        (7 // ROW, 7 // array),
        (ROW % 2, array % 2),
        (7 % ROW, 7 % array),
        (ROW**2, array**2),
        (2**ROW, 2**array),
        (-ROW, -array),
        (abs(-ROW), array),
        (ROW @ ROW, array @ array),
        (divmod(ROW, 2)[0], array // 2),
        (divmod(7, ROW)[1], 7 % array),
    ):
        np.testing.assert_allclose(found.to_numpy(), wanted, rtol=1e-6)
    assert (WHOLE / 2).dtype is DType.float64
    assert listed(WHOLE // 2) == [3, -4]
    with pytest.raises(TypeError):
        _ = ROW @ array
    with pytest.raises(TypeError):
        _ = array @ ROW
    with pytest.raises(TypeError):
        _ = +ROW  # type: ignore[operator]
    for wrong in (None, "a", [1], 1j):
        with pytest.raises(TypeError):
            _ = ROW + wrong


@proves(*named("Tensor", "__and__ __rand__ __or__ __ror__ __xor__ __rxor__ __invert__ __bool__"))
@proves(*named("Tensor", "__eq__ __ne__ __gt__ __ge__ __lt__ __le__ __hash__"))
def logical_operators() -> None:
    assert listed(FLAGS & True) == listed(True & FLAGS) == [True, False]
    assert listed(FLAGS | FLAGS) == listed(False | FLAGS) == [True, False]
    assert listed(FLAGS ^ True) == listed(True ^ FLAGS) == listed(~FLAGS) == [False, True]
    with pytest.raises(ValueError):
        _ = WHOLE & WHOLE
    with pytest.raises(ValueError):
        _ = ~WHOLE
    nan = Tensor([float("nan"), 2.0])
    assert listed(nan == nan) == [False, True]
    assert listed(nan != nan) == [True, False]
    assert (listed(nan > 1), listed(nan >= 2)) == ([False, True], [False, True])
    assert (listed(nan < 1), listed(nan <= 1)) == ([True, False], [True, False])
    for other in (None, "a", object()):
        with pytest.raises(TypeError):
            _ = other == ROW
    assert hash(ROW) == id(ROW)
    assert bool(Tensor([1.0]))
    with pytest.raises(TypeError):
        bool(ROW)
    with pytest.raises(TypeError):
        traced(lambda x: x if x[0] > 0 else -x, "n")


# Operand dtypes and the result of a sum, from the table of promotion; None is a ValueError.
PROMOTION = (
    ("uint8 int8", None),
    ("uint8 int16", "int16"),
    ("uint16 float16", None),
    ("uint64 float64", None),
    ("int8 float16", "float16"),
    ("int8 bfloat16", "bfloat16"),
    ("int16 float32", "float32"),
    ("int32 float32", None),
    ("int32 float64", "float64"),
    ("int64 float64", None),
    ("float16 bfloat16", None),
    ("bfloat16 float32", "float32"),
    ("float32 float64", "float64"),
    ("int64 int8", "int64"),
    ("uint32 int64", "int64"),
)


@proves("Tensor.__add__")
def promotion() -> None:
    for pair, wanted in PROMOTION:
        a, b = (Tensor.ones([1], dtype=DType[name]) for name in pair.split())
        for left, right in ((a, b), (b, a)):
            if wanted is None:
                with pytest.raises(ValueError, match="Insert an explicit cast op"):
                    _ = left + right
            else:
                assert (left + right).dtype is DType[wanted]
    half = Tensor([1.0], dtype=DType.bfloat16)
    assert (half * 256).dtype is DType.bfloat16
    with pytest.raises(ValueError, match=r"Can't promote python int with value \(1000\)"):
        _ = half * 1000
    assert (half * 1000.0).dtype is DType.bfloat16
    with pytest.raises(ValueError, match="Can't promote python float"):
        _ = WHOLE * 2.0
    with pytest.raises(ValueError, match="Refusing to implicitly promote float array"):
        _ = WHOLE + np.array([1.0, 2.0])
    with pytest.raises(ValueError):
        _ = Tensor([1.0], dtype=DType.float16) + np.array([4096])
    with pytest.raises(ValueError):
        _ = X / X.shape[-1]
    assert (WHOLE.cast(DType.int64) + X.shape[-1]).dtype is DType.int64
    with emulated_cuda() as (gpu, _), pytest.raises(ValueError, match="on the same device"):
        _ = ROW + ROW.to(gpu)


@proves("Tensor.__getitem__", "Tensor.__setitem__")
def indexing() -> None:
    assert X[0].shape == [3]
    assert listed(X[[0, 1]]) == listed(X)  # a list holds positions, as in NumPy
    assert X[None, ..., 0].shape == [1, 2]
    assert listed(ROW[-3:]) == listed(ROW[...]) == [1, 2, 3]
    assert (ROW[0:0].shape, ROW[3:].shape, listed(ROW[::2])) == ([0], [0], [1, 3])
    assert listed(X[np.int64(1)]) == [4, 5, -6]
    assert listed(ROW[Tensor([0, 2], dtype=DType.int64)]) == [1, 3]
    with pytest.raises(TypeError):
        _ = X[True]
    assert listed(ROW[Tensor(1, dtype=DType.int64)]) == 2
    assert listed(ROW[(slice(Tensor(1, dtype=DType.int64), None), "n"),]) == [2, 3]
    assert ROW[Dim(1) : Dim(1) + 2].shape == [2]
    assert Tensor(1.0)[None].shape == [1]
    for wrong in (3, -4, slice(0, 1024), slice(4, None), slice(-5, None), slice(2, 1)):
        with pytest.raises(ValueError):
            _ = ROW[wrong]
        with pytest.raises(IndexError):
            _ = ROW[wrong]
    assert listed(ROW[::-1]) == [3, 2, 1]
    for wrong in (slice(0, 2, -1), slice(None, None, 0), (0, 0), (..., ...)):
        with pytest.raises(ValueError):
            _ = ROW[wrong]
    for wrong in (
        Tensor(1, dtype=DType.int32),
        (None, Tensor(1, dtype=DType.int64)),
    ):
        with pytest.raises(ValueError):
            _ = ROW[wrong]
    with pytest.raises(ValueError):
        _ = Tensor(1.0)[0]
    with pytest.raises(TypeError):
        _ = ROW["x"]
    assert [t.item() for t in ROW] == [1, 2, 3]
    for index, sizes in (
        (slice(1, None), "n + -1"),
        (slice(None, -1), "n + -1"),
        (slice(None, None, 2), "((n + 1) // 2)"),
    ):
        assert str(traced(lambda x, index=index: x[index], "n").out_layouts[0].shape[0]) == sizes
    model = traced(lambda x: x[5], "n")
    assert model(Tensor.arange(6)).item() == 5
    with pytest.raises(ValueError):
        model(ROW)
    stored = Tensor([1.0, 2.0, 3.0])
    stored[1:] = Tensor([5.0, 6.0])
    assert listed(stored) == [1, 5, 6]
    stored[0] = 7.0
    stored[1:] = Tensor([5.0])
    assert listed(stored) == [7, 5, 5]
    with pytest.raises(ValueError):
        stored[1:] = Tensor([5.0, 6.0, 7.0])


@proves("Tensor.__copy__", "Tensor.__deepcopy__", "Tensor.__array__")
@proves(*named("Tensor", "__dlpack__ __dlpack_device__ __cuda_array_interface__"))
def exchange() -> None:
    assert copy.deepcopy(X) is X
    shallow = copy.copy(X)
    assert shallow is not X
    assert shallow.data is X.data
    assert np.shares_memory(np.asarray(X), X.data)
    assert np.array(X, dtype=np.float64).dtype == np.float64
    assert np.shares_memory(np.from_dlpack(X), X.data)
    assert X.__dlpack_device__() == (1, 0)
    assert X.__dlpack__(stream=None, max_version=(1, 0), dl_device=(1, 0), copy=True)
    assert isinstance(X, DLPackArray)
    assert not hasattr(X, "__cuda_array_interface__")
    for missing in ("ndim", "size", "astype", "numpy", "flatten", "exp", "view", "clone"):
        assert not hasattr(X, missing)
    assert len(X) == 2


@proves("Tensor.__repr__")
def printing() -> None:
    place = "dtype=DType.float32, device=Device(type=cpu,id=0))"
    assert repr(Tensor([1.2346, 2.5, 100])) == f"Tensor([1.235   2.5   100], shape=[3], {place}"
    cube = Tensor.arange(8).reshape([2, 2, 2])
    assert repr(cube).split()[:4] == ["Tensor([[[0", "1]", "[2", "3]]"]
    assert repr(Tensor(2.0)) == f"Tensor(2, shape=[], {place}"
    assert repr(Tensor([])) == f"Tensor([], shape=[0], {place}"
    assert "..." in repr(Tensor.arange(1001))
    assert repr(FLAGS).startswith("Tensor([ True False], shape=[2], dtype=DType.bool")
    with F.lazy():
        lazy = Tensor.ones([2])
    assert repr(lazy).startswith("Tensor(<unrealized>")
    assert not lazy.real


def _value_of_graph(x: TensorValue) -> list[Any]:
    return [
        x.reshape([2, "n"]),
        x.flatten(),
        x.broadcast_to([3, "n", 2]),
        x.cast(DType.float64),
        x.rebind(["m", 2]),
        x.permute([1, 0]),
        x.transpose(0, 1),
        x.to(DeviceRef.CPU()),
        x.argmax(),
        x.max(),
        x.mean(),
        x.min(),
        x.stdev(),
        x.var(),
        x.T,
    ]


_METHODS = "reshape flatten broadcast_to cast rebind permute transpose to argmax max mean min"


@proves(*named("TensorValue", f"{_METHODS} stdev var print tensor buffer"))
@proves(
    *named("graph", "TensorValue BufferValue BufferValueLike Value Graph Weight"),
    "Graph.add_weight",
)
@proves("engine.InferenceSession", "engine.Model", "engine.TensorSpec")
def values_of_graphs() -> None:
    from maxmod.engine import InferenceSession
    from maxmod.graph import BufferType, BufferValue, Value, Weight

    pair = TensorType(DType.float32, ["n", 2], CPU())
    with Graph("methods", input_types=[pair, BufferType(DType.float32, [1], CPU())]) as graph:
        x, buffer = graph.inputs
        assert isinstance(x, TensorValue)
        assert isinstance(buffer, BufferValue)
        assert isinstance(buffer, Value)
        assert x.tensor is x
        assert buffer.buffer is buffer
        assert isinstance(buffer[...], TensorValue)
        assert buffer.type == BufferType(DType.float32, [1], CPU())
        assert x.device == DeviceRef.CPU()
        for wrong in (lambda: x.buffer, lambda: buffer.tensor, lambda: TensorValue(3)):
            with pytest.raises(TypeError):
                wrong()
        for wrong in (lambda: iter(x), lambda: x in x, lambda: x == "x", lambda: x == None):  # noqa: E711
            with pytest.raises(TypeError):
                wrong()
        with pytest.raises(TypeError):
            x.cast(DType.bool).var()
        x.print("x")
        weight = graph.add_weight(Weight("w", DType.float32, [2], CPU()))
        graph.output(*_value_of_graph(x), x + weight)
    model = InferenceSession(devices=[CPU()]).load(
        graph, weights_registry={"w": np.ones(2, np.float32), "other": np.ones(1)}
    )
    data = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = model(data, Buffer.zeros([1], DType.float32))
    assert len(found) == 16
    np.testing.assert_allclose(found[12].to_numpy(), data.std(-1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(found[13].to_numpy(), data.var(-1, keepdims=True), rtol=1e-6)
    assert found[15].to_numpy().tolist() == (data + 1).tolist()
    assert [spec.shape for spec in model.input_metadata] == [["n", 2], [1]]
    with pytest.raises(KeyError):
        InferenceSession().load(graph)
