"""Tensor: construction, properties, data access, operators."""

from __future__ import annotations

import asyncio
import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

from maxmod import CPU, DType, Shape, Tensor, TensorType, default_device, default_dtype, driver
from maxmod import functional as F
from maxmod.interpreters.lazy import lazy
from maxmod.op import FUNCTIONS
from maxmod.runtime.compiled import compile_function

F32 = DType.float32


# ---- construction ------------------------------------------------------------------------------


def test_exactly_one_source():
    for arguments in ({}, {"data": 1.0, "storage": Tensor(1.0).storage}):
        with pytest.raises(TypeError, match="exactly one of data and storage"):
            Tensor(**arguments)
    with pytest.raises(TypeError):
        Tensor(storage=Tensor(1.0).storage, dtype=F32)


def test_arrays_keep_the_dtype_and_share_memory():
    array = np.arange(3)
    x = Tensor(array)
    assert x.dtype is DType.int64
    array[0] = 7
    assert x[0].item() == 7
    with pytest.raises(ValueError, match="DType must match input dtype"):
        Tensor(array, dtype=F32)
    with pytest.raises(ValueError, match="C-contiguous"):
        Tensor(np.ones((2, 3)).T)
    with pytest.raises(TypeError, match="speaks DLPack"):
        Tensor(object())
    frozen = np.ones(2)
    frozen.flags.writeable = False
    assert Tensor(frozen).to_numpy().flags.writeable


def test_storage():
    x = Tensor(storage=driver.Buffer.from_numpy(np.ones(2, np.float32)))
    assert x.type == TensorType(F32, [2], CPU())
    assert x.driver_tensor.to_numpy().tolist() == [1.0, 1.0]


def test_from_dlpack_returns_tensors_unchanged():
    x = Tensor([1.0])
    assert Tensor.from_dlpack(x) is x
    narrow = Tensor.from_dlpack(np.ones(2, ml_dtypes.bfloat16))
    assert narrow.dtype is DType.bfloat16


def test_defaults():
    with default_dtype(DType.float64):
        assert Tensor([1, 2]).dtype is DType.float64
        assert Tensor.arange(3).dtype is DType.float64
        assert Tensor.zeros([1]).dtype is DType.float64
    with pytest.raises(TypeError, match="expected a DType"):
        Tensor([1], dtype="float32")


# ---- realizing ----------------------------------------------------------------------------------


def test_realize_is_a_coroutine():
    with lazy():
        x = Tensor.ones([2])
    later = x.realize
    assert not x.real
    assert asyncio.run(later) is x
    assert x.real
    assert asyncio.run(later) is x  # again

    async def several():
        task = asyncio.create_task((x + 1).realize)
        return await asyncio.gather(x.realize, task), await x

    (first, second), third = asyncio.run(several())
    assert first is third is x
    assert second.to_numpy().tolist() == [2, 2]


def test_realize_fails_without_data():
    with lazy():
        x = Tensor.ones([2])
        with pytest.raises(TypeError, match="Can't realize tensor before"):
            asyncio.run(x.realize)
    with pytest.raises(KeyError, match="stop"):
        x.realize.throw(KeyError("stop"))
    with pytest.raises(KeyError):
        x.realize.throw(KeyError)
    x.realize.close()
    assert not x.real


# ---- properties --------------------------------------------------------------------------------


def test_properties():
    x = Tensor.zeros([2, 3], dtype=DType.int16)
    assert x.shape == [2, 3]
    assert x.shape != (2, 3)
    assert (x.rank, x.dtype, x.device) == (2, DType.int16, CPU())
    assert x.num_elements() == 6
    assert Tensor(1.0).num_elements() == 1
    assert x.real
    assert x.T.shape == [3, 2]
    with pytest.raises(AttributeError):
        x.real = False


def test_item():
    assert Tensor([[2.5]]).item() == 2.5
    assert type(Tensor(1, dtype=DType.bool).item()) is bool
    assert type(Tensor(1, dtype=DType.uint8).item()) is int
    assert type(Tensor(1, dtype=DType.bfloat16).item()) is float
    for x in (Tensor([1.0, 2.0]), Tensor([])):
        with pytest.raises(TypeError, match="expected one element"):
            x.item()


def test_truth():
    assert Tensor(2.0)
    assert not Tensor([[0.0]])
    with pytest.raises(TypeError):
        bool(Tensor([1.0, 2.0]))


def test_numpy_conversions():
    x = Tensor([1.0, 2.0])
    assert np.asarray(x).tolist() == [1.0, 2.0]
    assert np.array(x, dtype=np.int32).dtype == np.int32
    shared = np.from_dlpack(x)
    shared[0] = 5
    assert x[0].item() == 5
    half = x.cast(DType.bfloat16)
    for convert in (Tensor.to_numpy, np.from_dlpack):
        with pytest.raises((ValueError, RuntimeError, BufferError)):
            convert(half)
    assert np.asarray(half).astype(np.float32).tolist() == [5.0, 2.0]
    assert isinstance(x, driver.DLPackArray)


def test_identity_hash_and_copies():
    x, y = Tensor([1.0]), Tensor([1.0])
    assert hash(x) == id(x)
    assert len({x, y}) == 2
    assert copy.deepcopy(x) is x
    shallow = copy.copy(x)
    assert shallow is not x
    assert np.shares_memory(shallow.to_numpy(), x.to_numpy())


def test_moving_and_casting_to_the_same_place():
    x = Tensor([1.0])
    assert x.to(CPU()) is x
    assert x.cast(x.dtype) is x
    with pytest.raises(TypeError, match="expected a Device"):
        x.to("cpu")


def test_awaiting():
    async def wait(x):
        assert (await x) is x
        return await x.realize

    x = Tensor([1.0])
    coroutine = wait(x)
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value is x


# ---- lazy tensors ------------------------------------------------------------------------------


def test_lazy_tensors_are_made_on_first_use():
    with F.lazy():
        x = Tensor.ones([2])
        y = x + 1
        with pytest.raises(TypeError, match="before realization context is completed"):
            y.item()
    assert not y.real
    assert y.storage is None
    with pytest.raises(TypeError, match="not realized"):
        _ = y.driver_tensor
    assert y.to_numpy().tolist() == [2.0, 2.0]
    assert y.real
    assert x.materialize() is x


def test_lazy_calls_are_checked_at_once():
    with F.lazy(), pytest.raises(ValueError, match="broadcastable"):
        Tensor.ones([2]) + Tensor.ones([3])


# ---- operators ---------------------------------------------------------------------------------


def test_operators():
    x = Tensor([5.0, -3.0])
    cases = {
        "x + 1": x + 1,
        "1 - x": 1 - x,
        "x * x": x * x,
        "15 / x": 15 / x,
        "x // 2": x // 2,
        "x % 2": x % 2,
        "x ** 2": x**2,
        "-x": -x,
        "abs(x)": abs(x),
        "divmod(x, 2)[1]": divmod(x, 2)[1],
        "divmod(7, x)[0]": divmod(7, x)[0],
        "7 % x": 7 % x,
        "2 ** x": 2**x,
        "x > 0": x > 0,
        "x <= -3": x <= -3,
    }
    for text, result in cases.items():
        expected = eval(text, {"x": np.array([5.0, -3.0]), "divmod": np.divmod})
        np.testing.assert_allclose(result.to_numpy(), expected, rtol=1e-6, err_msg=text)


def test_comparisons_with_nan():
    x = Tensor([float("nan"), 1.0])
    for result in (x < 1.0, x <= 0.5):
        assert result.to_numpy().tolist() == [True, False]
    for result in (x > 1.0, x >= 1.5, x == x + 1):
        assert result.to_numpy().tolist() == [False, False]
    assert (x != x).to_numpy().tolist() == [True, False]


def test_logic_is_for_bools_only():
    a = Tensor([1, 1, 0, 0], dtype=DType.bool)
    b = Tensor([1, 0, 1, 0], dtype=DType.bool)
    assert (a & b).to_numpy().tolist() == [True, False, False, False]
    assert (a | b).to_numpy().tolist() == [True, True, True, False]
    assert (a ^ b).to_numpy().tolist() == [False, True, True, False]
    assert (~a).to_numpy().tolist() == [False, False, True, True]
    assert (a & True).to_numpy().tolist() == (1 & a).to_numpy().tolist() == [1, 1, 0, 0]
    whole = Tensor([1], dtype=DType.int32)
    for operation in (lambda: whole & whole, lambda: ~whole, lambda: whole | True):
        with pytest.raises(ValueError, match="logical, not bitwise"):
            operation()


def test_comparison_with_other_objects_is_an_error():
    x = Tensor([1.0])
    for other in (None, "a", object()):
        with pytest.raises(TypeError):
            x == other  # noqa: B015
        with pytest.raises(TypeError):
            x != other  # noqa: B015


def test_numpy_on_the_left_defers():
    x = Tensor([1.0, 2.0])
    assert isinstance(np.ones(2) + x, Tensor)
    assert isinstance(np.float32(2) * x, Tensor)


def test_in_place_operators_rebind():
    x = y = Tensor([1.0])
    x += 1
    assert (x.item(), y.item()) == (2.0, 1.0)


def test_clip_gives_the_upper_bound_the_last_word():
    x = Tensor([-1.0, 0.5, 2.0])
    assert x.clip(min=0, max=1).to_numpy().tolist() == [0.0, 0.5, 1.0]
    assert x.clip(min=3, max=1).to_numpy().tolist() == [1.0, 1.0, 1.0]
    assert F.clip(x, 3, 1).to_numpy().tolist() == [3.0, 3.0, 3.0]
    assert F.clamp(x, lower_bound=0, upper_bound=1).to_numpy().tolist() == [0.0, 0.5, 1.0]
    assert x.clip().to_numpy().tolist() == x.to_numpy().tolist()
    with pytest.raises(TypeError):
        x.clip(0, 1)


def test_methods_are_functions():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    for name in ("sum", "mean", "prod", "max", "min", "argmax"):
        np.testing.assert_array_equal(
            getattr(x, name)(axis=0).to_numpy(), getattr(F, name)(x, axis=0).to_numpy()
        )
        assert getattr(x, name)(axis=None).shape == [1]
    assert x.unsqueeze(0).squeeze(0).shape == [2, 2]
    assert x.broadcast_to([3, 2, 2]).shape == [3, 2, 2]
    assert x.permute([1, 0]).to_numpy().tolist() == x.T.to_numpy().tolist()
    assert x.reshape([4]).to_numpy().tolist() == [1.0, 2.0, 3.0, 4.0]


def test_where():
    x, y = Tensor([1.0, 2.0]), Tensor([5.0, 6.0])
    condition = x > 1
    assert F.where(condition, x, y).to_numpy().tolist() == [5.0, 2.0]
    assert F.where(condition, x, 0).to_numpy().tolist() == [0.0, 2.0]
    assert F.where(condition=condition, x=-1, y=y).to_numpy().tolist() == [5.0, -1.0]
    assert F.where(condition, Tensor([[1.0], [2.0]]), y).shape == [2, 2]
    with pytest.raises(ValueError, match="expected bool"):
        F.where(x, x, y)
    for arguments in ((condition, 1.0, 2.0), (True, x, y), (np.array([True, False]), x, y)):
        with pytest.raises(TypeError):
            F.where(*arguments)


def test_elementwise_extremes_have_two_names():
    x = Tensor([1.0, float("nan")])
    assert F.elementwise_max(x, 2).to_numpy()[0] == 2.0
    assert F.elementwise_min(0, x).to_numpy()[0] == 0.0
    assert np.isnan(F.elementwise_max(x, 2).to_numpy()[1])


# ---- functions of functions --------------------------------------------------------------------


def test_functional_decorator():
    @F.functional
    def split(x, n):
        """Doc."""
        return None if n == 0 else (x for _ in range(n))

    x = Tensor([1.0])
    assert split.__name__ == "split"
    assert split.__doc__ == "Doc."
    assert split(x, 0) is None
    assert split(x, 2) == [x, x]
    assert F.functional(lambda x: x + 1)(x).item() == 2.0
    with pytest.raises(TypeError, match="expected a Tensor, got str"):
        F.functional(lambda: ["a"])()
    with pytest.raises(TypeError, match="expected a Tensor, got float"):
        F.functional(lambda: 1.0)()


def test_contexts():
    assert not F.in_graph_context()
    with F.ensure_context(), F.lazy():
        assert not F.in_graph_context()


@pytest.mark.parametrize("name", [n for n in F.__all__ if n in FUNCTIONS])
def test_public_functions_have_docstrings(name):
    assert getattr(F, name).__doc__


@pytest.mark.parametrize("a_dtype", [DType.bool, F32])
def test_bool_arithmetic_is_refused(a_dtype):
    flag = Tensor([1], dtype=DType.bool)
    if a_dtype is DType.bool:
        with pytest.raises(ValueError, match="add: .*unsupported dtype"):
            flag + flag
        return
    assert (flag + Tensor([1.0])).item() == 2.0


class TestArraysOfAnotherDevice:
    """`Tensor(array, device=...)` copies at once, whatever is going on."""

    def test_the_default_device_is_for_arrays_too(self, emulated_accelerator):
        array = np.ones(2, np.float32)
        for made in (Tensor(array), Tensor.constant(array), F.constant(array)):
            assert made.device == emulated_accelerator
            assert made.dtype is F32
        assert Tensor.from_dlpack(array).device == CPU()
        assert Tensor(Tensor.from_dlpack(array)).device == CPU()
        with default_device(CPU()):
            assert Tensor(array).device == CPU()

    def test_an_array_becomes_a_constant_of_the_trace(self, emulated_accelerator):
        model = compile_function(
            lambda x: x + Tensor(np.array([1, 2], np.float32), device=x.device),
            [TensorType(DType.float32, [2], emulated_accelerator)],
            name="f",
            parameters={},
        )
        assert [node.op.name for node in model.staged.graph.nodes] == ["add"]
        x = Tensor([10.0, 20.0], dtype=F32, device=emulated_accelerator)
        assert model(x).to_numpy().tolist() == [11, 22]

    def test_in_a_lazy_block(self, emulated_accelerator):
        with lazy():
            x = Tensor(np.ones(2), device=emulated_accelerator)
            y = Tensor(Tensor.zeros([2], dtype=F32), device=emulated_accelerator)
        assert x.real
        for tensor in (x, y):
            assert tensor.device == emulated_accelerator
            assert tensor.to_numpy().shape == (2,)

    def test_of_a_lazy_tensor_and_of_a_traced_one(self):
        with lazy():
            x = Tensor.ones([2])
        assert Tensor(x).to_numpy().tolist() == [1, 1]
        found = compile_function(
            lambda x: Tensor(x) * 2, [Tensor.ones([2]).type], name="f", parameters={}
        )
        assert found(Tensor([1.0, 2.0])).to_numpy().tolist() == [2, 4]


# ---- shapes that cannot be changed ---------------------------------------------------------------


def test_a_change_of_a_shape_is_not_lost():
    def change(name, *args):
        return lambda shape: getattr(shape, name)(*args)

    changes = [
        change("__setitem__", 0, 10),
        change("__delitem__", 0),
        change("__iadd__", [1]),
        change("__imul__", 2),
        change("append", 1),
        change("extend", [1]),
        change("insert", 0, 1),
        change("pop"),
        change("remove", 2),
        change("clear"),
        change("reverse"),
        change("sort"),
    ]
    x = Tensor.zeros([2, 3])
    for owner in (x, x.type, TensorType(F32, [2, 3], CPU()), x.type.as_buffer()):
        for one in changes:
            with pytest.raises(TypeError, match=r"Hint: shape = list\(x.shape\) is a copy"):
                one(owner.shape)
        assert owner.shape == [2, 3]
        with pytest.raises(AttributeError):
            owner.shape = [3]
        for copied in (list(owner.shape), Shape(owner.shape), copy.deepcopy(owner.shape)):
            copied[0] = 10
            assert copied[0] == 10
        assert pickle.loads(pickle.dumps(owner.shape)) == [2, 3]
        assert owner.shape + [4] == [2, 3, 4]  # noqa: RUF005  (a list, as in MAX)


def test_names_of_the_axes_of_transpose():
    x = Tensor.zeros([2, 3, 4])
    for swapped in (
        x.transpose(0, 2),
        x.transpose(dim1=0, dim2=-1),
        x.transpose(dim_1=0, dim_2=2),
        x.transpose(0, dim_2=2),
    ):
        assert swapped.shape == [4, 3, 2]
    for given in ({}, {"dim1": 0}, {"dim_2": 0}):
        with pytest.raises(TypeError, match="transpose: dim[12]: the axis is missing"):
            x.transpose(**given)
    with pytest.raises(TypeError, match="dim1: the axis is given twice, also as dim_1"):
        x.transpose(0, 1, dim_1=0)
