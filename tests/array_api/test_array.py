"""`Array`: operators, conversions, indexing and stores, exchange with other libraries."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from array_api.both import (
    ALL,
    COMMON,
    REFUSED,
    SHAPES,
    assert_same,
    numbers,
    numpy_of,
    ours,
    tensor,
    theirs,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from maxmod import array_api as xp
from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF

OPERATORS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "pow": operator.pow,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "bitwise_left_shift": operator.lshift,
    "bitwise_right_shift": operator.rshift,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}
IN_PLACE = {
    "add": operator.iadd,
    "subtract": operator.isub,
    "multiply": operator.imul,
    "divide": operator.itruediv,
    "floor_divide": operator.ifloordiv,
    "remainder": operator.imod,
    "pow": operator.ipow,
    "bitwise_and": operator.iand,
    "bitwise_or": operator.ior,
    "bitwise_xor": operator.ixor,
    "bitwise_left_shift": operator.ilshift,
    "bitwise_right_shift": operator.irshift,
}


def _positive(dtype: str, seed: int = 0) -> np.ndarray[Any, Any]:
    x = np.abs(numbers(dtype, (4,), seed))
    return x if dtype == "bool" else (x + 1).astype(dtype)


def _outcome(call: Any, *args: Any) -> Any:
    """The result, or that there is none."""
    try:
        with np.errstate(all="ignore"):
            return call(*args)
    except REFUSED:
        return None


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    """Each is the function of the same meaning, from both sides."""
    apply = OPERATORS[name]
    for dtype in ALL:
        x, y = _positive(dtype), _positive(dtype, 1)
        for pair in ((ours(x), ours(y)), (ours(x), 2), (2, ours(x)), (ours(x), True)):
            by_name = _outcome(getattr(xp, name), *pair)
            found = _outcome(apply, *pair)
            assert (found is None) == (by_name is None)
            if found is not None:
                assert found.dtype is by_name.dtype
                np.testing.assert_array_equal(numpy_of(found), numpy_of(by_name))
        _assert_outcome(apply, [ours(x), ours(y)], [theirs(x), theirs(y)])


def _assert_outcome(apply: Any, mine: Any, other: Any) -> None:
    """Both give the same, or both refuse."""
    found, wanted = _outcome(apply, *mine), _outcome(apply, *other)
    assert (found is None) == (wanted is None)
    if wanted is not None:
        assert_same(found, wanted)


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name: str) -> None:
    for dtype in COMMON:
        x, y = _positive(dtype), _positive(dtype, 1)
        mine, other = ours(x), theirs(x)
        same = mine
        _assert_outcome(IN_PLACE[name], [mine, ours(y)], [other, theirs(y)])
        assert same is mine
        assert_same(mine, other)


def test_in_place_keeps_the_type() -> None:
    x = xp.asarray([1, 2], dtype=xp.int8)
    before = x
    x += xp.asarray([1, 1], dtype=xp.int8)
    assert x is before and numpy_of(x).tolist() == [2, 3]
    with pytest.raises(TypeError, match="cannot be kept"):
        x += xp.asarray([1, 1], dtype=xp.int16)
    with pytest.raises(TypeError, match="cannot be kept"):
        x += xp.asarray([[1, 1]], dtype=xp.int8)


def test_matmul_operator() -> None:
    x, y = numbers("float64", (2, 3)), numbers("float64", (3, 4))
    assert_same(ours(x) @ ours(y), theirs(x) @ theirs(y))
    z = ours(numbers("float64", (3, 3)))
    before = numpy_of(z).copy()
    z @= z
    np.testing.assert_allclose(numpy_of(z), before @ before, atol=1e-12)
    with pytest.raises(TypeError):
        ours(x) @ 2


def test_unary_operators() -> None:
    x = numbers("int32", (3,))
    for apply in (operator.neg, operator.pos, operator.abs, operator.invert):
        assert_same(apply(ours(x)), apply(theirs(x)))
    assert_same(~ours(numbers("bool")), ~theirs(numbers("bool")))


def test_operands_of_other_types_are_refused() -> None:
    x = ours(numbers("float64"))
    with pytest.raises(TypeError):
        x + "text"
    with pytest.raises(TypeError):
        np.ones(5) + x  # NumPy does not loop over its elements


def test_numpy_scalars_count_as_numbers() -> None:
    x = xp.asarray([1.5, 2.0])
    for half in (np.float64(0.5), np.float32(0.5)):
        assert (x * half).dtype is (half - x).dtype is xp.float32
        assert numpy_of(half - x).tolist() == [-1.0, -1.5]
    count = np.int64(2)
    assert numpy_of(xp.asarray([4, 7]) // count).tolist() == [2, 3]
    assert numpy_of(count < x).tolist() == [False, False]
    assert numpy_of(xp.asarray([True]) ^ np.True_).tolist() == [False]
    x += count
    assert numpy_of(x).tolist() == [3.5, 4.0]
    for wrong in (np.complex64(1), np.str_("text"), np.float32(0.5)):
        with pytest.raises(TypeError):
            xp.asarray([1]) + wrong
    with pytest.raises(TypeError):
        x + np.asarray([1.0])


def test_nan_compares_false() -> None:
    x = xp.asarray([float("nan"), 1.0])
    assert numpy_of(x < 2).tolist() == [False, True]
    assert numpy_of(x <= 2).tolist() == [False, True]


def test_properties() -> None:
    for shape in SHAPES:
        x = ours(numbers("int16", shape))
        assert x.shape == shape and isinstance(x.shape, tuple)
        assert x.ndim == len(shape)
        assert x.size == np.prod(shape)
        assert x.dtype is xp.int16
        assert x.device == CPU_REF.to_device()
    x = numbers("float32", (2, 3))
    assert_same(ours(x).T, theirs(x).T)
    assert_same(ours(numbers("float32", (4, 2, 3))).mT, theirs(numbers("float32", (4, 2, 3))).mT)
    with pytest.raises(ValueError, match="two axes"):
        _ = xp.ones((2, 2, 2)).T
    with pytest.raises(ValueError, match="matrix"):
        _ = xp.ones(3).mT
    with pytest.raises(TypeError):
        hash(xp.ones(3))


def test_python_values() -> None:
    assert bool(xp.asarray(2)) and not bool(xp.asarray(0.0)) and bool(xp.asarray(xp.nan))
    assert int(xp.asarray(2.7)) == 2 and float(xp.asarray(3)) == 3.0
    assert complex(xp.asarray(1.5)) == 1.5 + 0j
    assert [10, 20, 30][xp.asarray(1)] == 20
    with pytest.raises(TypeError, match="integer"):
        operator.index(xp.asarray(1.0))
    for convert in (bool, int, float, complex):
        with pytest.raises(TypeError, match="without axes"):
            convert(xp.asarray([1]))
    assert [int(x) for x in xp.asarray([1, 2])] == [1, 2]
    assert len(xp.ones((3, 2))) == 3
    with pytest.raises(TypeError):
        len(xp.asarray(1))


def test_repr() -> None:
    assert repr(xp.asarray([1, 2])).startswith("Array([1 2], shape=[2], dtype=DType.int64")


# ---- exchange ----------------------------------------------------------------------------------


def test_tensors_are_shared() -> None:
    t = tensor(np.arange(3.0))
    x = xp.asarray(t)
    assert x.tensor is t
    assert xp.asarray(x) is x
    assert xp.asarray(t, copy=True).tensor is not t
    assert F.exp(x).dtype is DType.float64  # functions of tensors take arrays
    x[0] = 7
    assert t.to_numpy().tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(TypeError, match="expected a Tensor"):
        xp.Array(3)  # type: ignore[arg-type]


def test_dlpack() -> None:
    x = xp.asarray([[1.0, 2.0], [3.0, 4.0]])
    assert x.__dlpack_device__() == (1, 0)
    np.testing.assert_array_equal(np.from_dlpack(x), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(np.from_dlpack(x.T), [[1, 3], [2, 4]])
    array = np.arange(4.0)
    shared = xp.from_dlpack(array)
    array[0] = 9
    assert float(shared[0]) == 9.0
    copied = xp.from_dlpack(array, copy=True)
    array[0] = 5
    assert float(copied[0]) == 9.0
    assert numpy_of(xp.from_dlpack(array[::2])).tolist() == [5.0, 2.0]
    assert xp.from_dlpack(x) is x
    row = xp.broadcast_to(xp.asarray([1.0, 2.0]), (3, 2))  # read-only memory
    for options in ({}, {"max_version": (0, 8)}, {"copy": True}, {"dl_device": (1, 0)}):
        assert row.__dlpack__(**options) is not None
    with pytest.raises(BufferError, match="read-only"):
        row.__dlpack__(copy=False)
    with pytest.raises(ValueError, match="copy is False"):
        xp.from_dlpack(array[::2], copy=False)
    with pytest.raises(BufferError):
        x.__dlpack__(dl_device=(2, 0))
    with pytest.raises(TypeError, match="DLPack"):
        xp.from_dlpack([1, 2])


def test_numpy_takes_arrays() -> None:
    x = xp.asarray([[1, 2], [3, 4]])
    assert np.asarray(x).dtype == np.int64
    assert np.array(x, dtype=np.float32).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    np.testing.assert_array_equal(x, [[1, 2], [3, 4]])


def test_to_device(emulated_accelerator: Any) -> None:
    x = xp.asarray([1, 2], device=CPU_REF)
    assert x.to_device(x.device) is x
    moved = x.to_device(emulated_accelerator)
    assert moved.device == emulated_accelerator
    assert numpy_of((moved + moved).to_device(CPU_REF)).tolist() == [2, 4]
    with pytest.raises(ValueError, match="device"):
        x + moved
    with pytest.raises(ValueError, match="stream"):
        x.to_device(emulated_accelerator, stream=1)


# ---- indexing ----------------------------------------------------------------------------------

shapes = st.lists(st.integers(0, 4), min_size=0, max_size=4).map(tuple)


@settings(max_examples=150)
@given(st.data())
def test_slices(data: Any) -> None:
    """Ints, slices with steps of either sign, None and `...`: as NumPy has them."""
    shape = data.draw(shapes)
    key = data.draw(basic_indices(shape, allow_newaxis=True))
    x = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    found, wanted = ours(x)[key], x[key]
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(numpy_of(found), wanted)


@settings(max_examples=150)
@given(st.data())
def test_stores(data: Any) -> None:
    shape = data.draw(shapes)
    key = data.draw(basic_indices(shape, allow_newaxis=True))
    x = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    part = np.asarray(x[key])
    keep = data.draw(st.integers(0, part.ndim))
    inner = part.shape[keep:]
    source = np.asarray(-1 - np.arange(np.prod(inner), dtype=np.int64).reshape(inner))
    mine, other = ours(x), x.copy()
    other[key] = source
    mine[key] = ours(source)
    np.testing.assert_array_equal(numpy_of(mine), other)
    np.testing.assert_array_equal(x, np.arange(x.size).reshape(shape))


def test_slices_are_clipped() -> None:
    x = np.arange(6)
    bounds = [None, -9, -6, -2, 0, 1, 5, 6, 9]
    for start in bounds:
        for stop in bounds:
            for step in (None, 1, 2, 5, -1, -3):
                key = slice(start, stop, step)
                assert numpy_of(ours(x)[key]).tolist() == x[key].tolist()


@settings(max_examples=100)
@given(st.data())
def test_integer_arrays(data: Any) -> None:
    """With ints and each other they broadcast; a single one can be combined with slices."""
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple))
    x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    count = data.draw(st.integers(1, len(shape)))
    key: list[Any] = []
    for size in shape[:count]:
        inner = data.draw(st.sampled_from([(), (3,), (2, 1), (2, 3)]))
        drawn = data.draw(st.lists(st.integers(-size, size - 1), min_size=6, max_size=6))
        array = np.array(drawn[: int(np.prod(inner))], np.int64).reshape(inner)
        key.append(int(array) if inner == () else array)
    mine = tuple(ours(item) for item in key)
    np.testing.assert_array_equal(numpy_of(ours(x)[mine]), x[tuple(key)])
    if any(isinstance(item, np.ndarray) for item in key):
        stored, other = ours(x), x.copy()
        other[tuple(key)] = -1.0
        stored[mine] = -1.0
        np.testing.assert_array_equal(numpy_of(stored), other)


def test_one_integer_array_beside_slices() -> None:
    x = np.arange(24).reshape(2, 3, 4)
    places = np.array([[2, 0], [-1, 1]], np.int32)
    found = numpy_of(ours(x)[::-1, ours(places), None, 1:])
    np.testing.assert_array_equal(found, x[::-1][:, places][..., None, 1:])


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_masks(rank: int) -> None:
    shape = (3, 4, 2)
    x = numbers("float64", shape)
    mask = numbers("bool", shape[:rank], seed=3)
    for chosen in (mask, np.ones_like(mask), np.zeros_like(mask)):
        np.testing.assert_array_equal(numpy_of(ours(x)[ours(chosen)]), x[chosen])
        for value in (np.float64(7), x[chosen] + 1, np.arange(2.0)):
            if np.ndim(value) > x[chosen].ndim:
                continue
            mine, other = ours(x), x.copy()
            if value.shape == (2,) and rank == 3:
                continue
            mine[ours(chosen)] = ours(np.asarray(value))
            other[chosen] = value
            np.testing.assert_array_equal(numpy_of(mine), other)


def test_empty_masks_fit_every_size() -> None:
    x = numbers("float64", (2, 3))
    for shape in ((0,), (0, 3), (2, 0)):
        mask = np.zeros(shape, np.bool_)
        assert ours(x)[ours(mask)].shape == x[mask].shape
        stored = ours(x)
        stored[ours(mask)] = 1.0
        np.testing.assert_array_equal(numpy_of(stored), x)


def test_stores_of_numbers_and_dtypes() -> None:
    x = xp.asarray([1, 2, 3], dtype=xp.int16)
    x[1] = 9
    x[2:] = xp.asarray(-1, dtype=xp.int8)
    assert numpy_of(x).tolist() == [1, 9, -1]
    for value in (1.5, True, xp.asarray(1), xp.asarray(1.0)):
        with pytest.raises(TypeError):
            x[0] = value
    y = xp.asarray(0.5)
    y[()] = 2
    y[...] = y + 1
    assert float(y) == 3.0


@pytest.mark.parametrize(
    "key",
    [3, -4, (0, 0), True, 1.0, "a", (..., ...), [0, 1], (0, slice(None)), slice(None, None, 0)],
)
def test_wrong_keys(key: Any) -> None:
    with pytest.raises((IndexError, TypeError, ValueError)):
        xp.asarray([1, 2, 3])[key]


def test_wrong_arrays_as_keys() -> None:
    x = xp.ones((2, 3))
    wrong: list[Any] = [
        xp.asarray([True, False, True]),
        (xp.asarray([True, False]), 0),
        xp.asarray([0.0]),
        (xp.asarray([0]), slice(None), 0),
        xp.asarray([5]),
        (xp.asarray([0, 1]), xp.asarray([0, 1, 2])),
    ]
    for key in wrong:
        with pytest.raises((IndexError, TypeError)):
            x[key]
    with pytest.raises(IndexError):
        x[xp.asarray([0]), :] = 1.0


def test_views_do_not_see_stores() -> None:
    x = xp.asarray([1.0, 2.0, 3.0])
    y, z = x[1:], xp.reshape(x, (3, 1))
    x[...] = 0
    assert numpy_of(y).tolist() == [2.0, 3.0]
    assert numpy_of(z).tolist() == [[1.0], [2.0], [3.0]]
    assert isinstance(x.tensor, Tensor)
