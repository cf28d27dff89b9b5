"""Scatter: errors, positions out of range, many equal positions, and compiled graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_close, numbers, tensor, values
from ops.compiling import assert_compiles, sizes_of, type_of

from maxmod import functional as F
from maxmod.backends.devices import CPU, Device
from maxmod.dtype import DType
from maxmod.errors import AxisError, DTypeError, ShapeError, SliceError
from maxmod.tensor import Tensor

ALONG = ("scatter", "scatter_add", "scatter_max", "scatter_min", "scatter_mul")
SLICES = ("scatter_nd", "scatter_nd_add", "scatter_nd_max", "scatter_nd_min", "scatter_nd_mul")
X = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
INT64 = DType.int64


def ints(data: Any, dtype: DType = INT64) -> Tensor:
    return Tensor(data, dtype=dtype)


def test_argument_order_and_default_axis() -> None:
    result = F.scatter(X, Tensor([[10.0], [20.0]]), ints([[2], [-3]]))
    assert result.to_numpy().tolist() == [[0, 1, 10], [20, 4, 5]]
    assert X.to_numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", ALONG)
def test_errors_along_an_axis(name: str) -> None:
    fn = getattr(F, name)
    updates, indices = Tensor([[1.0, 1.0, 1.0]]), ints([[0, 1, 0]])
    for axis in (2, -3):
        with pytest.raises(ValueError, match=f"{name}: Invalid axis={axis}") as caught:
            fn(X, updates, indices, axis=axis)
        assert isinstance(caught.value, AxisError)
    with pytest.raises(DTypeError, match=f"{name}: input and updates must have the same dtype"):
        fn(X, updates.cast(DType.float64), indices, axis=0)
    for dtype in (DType.int16, DType.uint32, DType.float32, DType.bool):
        with pytest.raises(DTypeError, match=f"{name}: indices .*expected int32 or int64"):
            fn(X, updates, indices.cast(dtype), axis=0)
    with pytest.raises(ShapeError, match=f"{name}: all three must have one rank"):
        fn(X, updates, ints([0, 1, 0]), axis=0)
    with pytest.raises(ShapeError, match="updates and indices one shape"):
        fn(X, updates, ints([[0, 1]]), axis=0)
    with pytest.raises(ShapeError, match="larger than input on axis 0"):
        fn(X, Tensor.zeros([3, 1]), ints([[0], [1], [2]]), axis=1)
    with pytest.raises(IndexError, match="position 2 out of range for an axis of size 2") as found:
        fn(X, updates, ints([[0, 2, 0]]), axis=0)
    assert isinstance(found.value, SliceError)
    with pytest.raises(IndexError, match="position -3 out of range"):
        fn(X, updates, ints([[0, -3, 0]]), axis=0)
    with pytest.raises(ValueError, match="Invalid axis=-1"):
        fn(Tensor(1.0), Tensor(1.0), ints(0))


@pytest.mark.parametrize("name", SLICES)
def test_errors_of_slices(name: str) -> None:
    fn = getattr(F, name)
    updates, indices = Tensor([[1.0, 1.0, 1.0]]), ints([[1]])
    with pytest.raises(DTypeError, match=f"{name}: input and updates must have the same dtype"):
        fn(X, updates.cast(DType.float64), indices)
    with pytest.raises(DTypeError, match=f"{name}: indices .*expected int32 or int64"):
        fn(X, updates, indices.cast(DType.float32))
    with pytest.raises(ShapeError, match="indices name 3 axes, input has 2"):
        fn(X, Tensor([1.0]), ints([[0, 0, 0]]))
    with pytest.raises(ShapeError, match=r"updates: expected \[1,3\], got float32\[1\]"):
        fn(X, Tensor([1.0]), indices)
    with pytest.raises(ShapeError, match="the last axis of indices must have a known size"):
        fn(X, updates, ints(1))
    with pytest.raises(IndexError, match="position 2 out of range for an axis of size 2"):
        fn(X, updates, ints([[2]]))


@pytest.mark.parametrize("name", ["scatter_add", "scatter_mul", "scatter_nd_add", "scatter_nd_mul"])
def test_bool_has_no_sums(name: str) -> None:
    x = Tensor([True, False], dtype=DType.bool)
    indices = ints([[0]]) if "nd" in name else ints([0])
    with pytest.raises(DTypeError, match=f"{name}: input has an unsupported dtype"):
        getattr(F, name)(x, x[:1], indices)


def test_many_equal_positions(device: Device) -> None:
    """A sum over few places is exact on every device, also where it is made by sorting."""
    rng = np.random.default_rng(0)
    places = rng.integers(-7, 7, 1000)
    updates = rng.integers(-99, 99, 1000).astype(np.float32)
    expected = np.zeros(7)
    np.add.at(expected, places % 7, updates)
    result = F.scatter_add(
        tensor(np.zeros(7, np.float32)).to(device),
        tensor(updates).to(device),
        tensor(places).to(device),
    )
    assert values(result.to(CPU())).tolist() == expected.tolist()
    assert result.device == device
    alone = F.scatter_add(
        tensor(np.ones(3, np.int8)).to(device),
        tensor(np.full(300, 1, np.int8)).to(device),
        tensor(np.full(300, 2)).to(device),
    )
    assert values(alone.to(CPU())).tolist() == [1, 1, 301 - 256]  # wraps


def test_halves_are_summed_in_float32() -> None:
    x = Tensor([256.0], dtype=DType.bfloat16)
    result = F.scatter_add(x, Tensor([0.5] * 8, dtype=DType.bfloat16), ints([0] * 8))
    assert result.dtype is DType.bfloat16
    assert result.cast(DType.float32).item() == 260  # each half alone would be rounded away


@pytest.mark.parametrize("name", ALONG)
def test_compiled_along_an_axis(name: str) -> None:
    rng = np.random.default_rng(1)
    calls = []
    for n in (1, 5, 0):
        x = numbers(rng, DType.float32, (n, 4))
        updates = numbers(rng, DType.float32, (n, 3))
        # Where equal positions are unspecified there are none.
        many = np.tile([1, -1, 0], (n, 1)) if name == "scatter" else rng.integers(-4, 4, (n, 3))
        calls.append((x, updates, many))
    types = (type_of("n", 4), type_of("n", 3), type_of("n", 3, dtype=INT64))
    assert_compiles(lambda x, u, i: getattr(F, name)(x * 2.0, u, i) + 1.0, types, *calls)


@pytest.mark.parametrize("name", SLICES[1:])
def test_compiled_slices(name: str) -> None:
    rng = np.random.default_rng(1)
    calls = []
    for n, m in ((1, 3), (5, 0), (2, 2)):
        x = numbers(rng, DType.float32, (4, n))
        updates = numbers(rng, DType.float32, (m, n))
        calls.append((x, updates, rng.integers(-4, 4, (m, 1))))
    types = (type_of(4, "n"), type_of("m", "n"), type_of("m", 1, dtype=INT64))
    assert_compiles(lambda x, u, i: getattr(F, name)(x, u, i), types, *calls)


def test_symbolic_sizes_are_checked() -> None:
    index = type_of("n", 3, dtype=INT64)
    assert sizes_of(F.scatter, type_of("n", 4), type_of("n", 3), index) == ["n,4"]
    with pytest.raises(ShapeError, match="updates and indices one shape"):
        sizes_of(F.scatter, type_of("n", 4), type_of("m", 3), index)
    with pytest.raises(ShapeError, match=r"updates: expected \[n,4\], got float32\[m,4\]"):
        sizes_of(F.scatter_nd, type_of(8, 4), type_of("m", 4), type_of("n", 1, dtype=INT64))
    with pytest.raises(ShapeError, match="must have a known size"):
        sizes_of(F.scatter_nd, type_of(8, 4), type_of("n", 4), type_of("n", "k", dtype=INT64))


@pytest.mark.parametrize("name", ["scatter_max", "scatter_min"])
def test_nan_wins(name: str) -> None:
    result = getattr(F, name)(Tensor([1.0, 2.0]), Tensor([np.nan, 3.0, 0.0]), ints([0, 0, 0]))
    assert_close(result, np.array([np.nan, 2.0]))
