"""Literals: what `Tensor([...])` takes and refuses."""

from __future__ import annotations

from array import array
from collections import UserList, deque

import numpy as np
import pytest

from maxmod import DType, Tensor, default_dtype
from maxmod import functional as F


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (1, []),
        ([], [0]),
        ([[], []], [2, 0]),
        ([1, 2], [2]),
        (((1, 2), (3, 4)), [2, 2]),
        ([[[1]]], [1, 1, 1]),
    ],
)
def test_shapes(value, shape):
    x = Tensor(value)
    assert x.shape == shape
    assert x.dtype is DType.float32


def test_rows_must_be_rectangular():
    for value in ([[1, 2], [3]], [1, [2]], [[1], 2], [[[1]], [[1, 2]]]):
        with pytest.raises(ValueError, match="Array literals must be rectangular"):
            Tensor(value)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (128, DType.int8),
        (-1, DType.uint8),
        (2, DType.bool),
        (2**63, DType.int64),
        (2**64, DType.uint64),
        (300.5, DType.uint8),
        (float("nan"), DType.int32),
        (float("inf"), DType.int32),
        (10**400, DType.int64),
        (np.float32("inf"), DType.int64),
    ],
)
def test_integers_out_of_range(value, dtype):
    with pytest.raises(ValueError, match="Refusing to implicitly promote external array"):
        Tensor([value], dtype=dtype)


@pytest.mark.parametrize("value", [1.5, -0.25, np.float32(2.5)])
@pytest.mark.parametrize("dtype", [DType.int32, DType.uint8, DType.bool])
def test_fractions_are_not_cut_off(value, dtype):
    made = [
        lambda: Tensor([value], dtype=dtype),
        lambda: Tensor.constant([[1, value]], dtype=dtype),
        lambda: Tensor.full([2], value, dtype=dtype),
        lambda: F.constant(value, dtype=dtype),
    ]
    for make in made:
        with pytest.raises(ValueError, match="Unsafe cast"):
            make()
    with pytest.raises(ValueError, match=r"Hint: Tensor\(1.5\).cast\(DType.int32\) cuts it"):
        Tensor(1.5, dtype=DType.int32)
    assert Tensor(1.5).cast(DType.int32).item() == 1


def test_whole_floats_are_integers():
    assert Tensor([2.0, -3.0], dtype=DType.int32).to_numpy().tolist() == [2, -3]
    assert Tensor([1.0, 0.0], dtype=DType.bool).to_numpy().tolist() == [True, False]


def test_large_numbers():
    assert Tensor([2**64 - 1], dtype=DType.uint64).item() == 2**64 - 1
    assert Tensor([2**24 + 1]).item() == 2**24
    assert np.isinf(Tensor([1e39]).item())
    assert np.isinf(Tensor([1e6], dtype=DType.float16).item())
    with pytest.raises(ValueError, match="no float type holds"):
        Tensor([10**400])


def test_narrow_floats_are_refused():
    with pytest.raises(TypeError, match="literals cannot have the dtype float4_e2m1fn"):
        Tensor([1.0], dtype=DType.float4_e2m1fn)


@pytest.mark.parametrize("value", ["12", ["a"], [None], [[1, "b"]], [1j], [Tensor]])
def test_values_that_are_not_numbers_are_refused(value):
    with pytest.raises((TypeError, ValueError)):
        Tensor.constant(value)


def test_numpy_numbers_are_literals():
    assert Tensor(np.float32(1.5)).dtype is DType.float32
    with default_dtype(DType.bfloat16):
        assert Tensor([np.int64(3), True, 2.5]).dtype is DType.bfloat16


def test_rounding_is_to_nearest_even():
    values = [1 + 2.0**-8, 1 + 3 * 2.0**-8]
    x = Tensor(values, dtype=DType.bfloat16).cast(DType.float64)
    assert x.to_numpy().tolist() == [1.0, 1 + 2.0**-6]


@pytest.mark.parametrize(
    "make",
    [
        lambda: range(2, 12, 3),
        lambda: array("i", [2, 5, 8, 11]),
        lambda: deque([2, 5, 8, 11]),
        lambda: (2, np.int8(5), 8.0, 11),
        lambda: UserList([2, 5, 8, 11]),
        lambda: memoryview(b"\x02\x05\x08\x0b"),
    ],
    ids=["range", "array", "deque", "tuple", "user_list", "memoryview"],
)
def test_any_sequence(make):
    for made in (Tensor(make()), F.constant(make()), Tensor.constant(make())):
        assert made.dtype is DType.float32
        assert made.to_numpy().tolist() == [2, 5, 8, 11]
    assert Tensor(make(), dtype=DType.int16).type.short() == "int16[4]"
    assert Tensor([make(), make()]).shape == [2, 4]


def test_other_objects_than_sequences_of_numbers():
    for value in ("ab", ["ab"], [["1"]]):
        with pytest.raises((ValueError, TypeError), match=r"expected a number.*got (a )?str"):
            Tensor(value)
    with pytest.raises(ValueError, match=r"got a bytes. Hint: numpy.frombuffer reads bytes"):
        Tensor(b"ab")
    for value in ({1, 2}, iter([1]), (x for x in [1])):
        with pytest.raises(TypeError, match=r"Hint: Tensor\(list\(x\)\) takes numbers"):
            Tensor(value)
    with pytest.raises(TypeError, match=r"got dict\.$"):
        Tensor({1: 2})
