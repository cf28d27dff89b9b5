"""Sums, products, means, extremes along axes; sums and differences of neighbours; all and any."""

from __future__ import annotations

from typing import Any

from maxmod import functional as F
from maxmod.array_api.array import Array, TensorFunction, operand, tensor_of
from maxmod.array_api.dtypes import (
    DEFAULT_INTEGER,
    is_float,
    is_numeric,
    number,
)
from maxmod.array_api.manipulation import Axes, concat, normalized_axes
from maxmod.array_api.operators import function
from maxmod.dtype import DType
from maxmod.errors import ArgumentError
from maxmod.op.rules import normalize_axis
from maxmod.ops import arithmetic, reduce
from maxmod.ops.shape import slice_axis
from maxmod.tensor import Tensor
from maxmod.values.shape import product


def along(name: str, op: TensorFunction, tensor: Tensor, axes: Axes, keepdims: bool) -> Tensor:
    """Reduces several axes at once with an op that reduces one."""
    chosen = normalized_axes(name, axes, tensor.rank)
    kept = [axis for axis in range(tensor.rank) if axis not in chosen]
    sizes = tensor.sizes
    if len(chosen) != 1:
        order = [*kept, *chosen]
        if order != list(range(tensor.rank)):
            tensor = tensor.permute(order)
        tensor = tensor.reshape([*[sizes[a] for a in kept], product(sizes[a] for a in chosen)])
        result = op(tensor, axis=-1)
    else:
        result = op(tensor, axis=chosen[0])
    if keepdims:
        return result.reshape([1 if a in chosen else s for a, s in enumerate(sizes)])
    return result.reshape([sizes[a] for a in kept])


def _accumulated(name: str, x: Array, dtype: DType | None) -> Tensor:
    """Brings an operand to the dtype of its sum: at least 64 bits for integers."""
    tensor = tensor_of(name, x)
    if dtype is None:
        dtype = tensor.dtype
        if dtype.is_unsigned_integral():
            dtype = DType.uint64
        elif not dtype.is_float():
            dtype = DEFAULT_INTEGER
    return tensor.cast(dtype)


@function
def sum(
    x: Array, /, *, axis: Axes = None, dtype: DType | None = None, keepdims: bool = False
) -> Array:
    """Sum along axes; integers are added in 64 bits unless a dtype is given."""
    return Array(along("sum", F.sum, _accumulated("sum", x, dtype), axis, keepdims))


@function
def prod(
    x: Array, /, *, axis: Axes = None, dtype: DType | None = None, keepdims: bool = False
) -> Array:
    """Product along axes; integers are multiplied in 64 bits unless a dtype is given."""
    return Array(along("prod", F.prod, _accumulated("prod", x, dtype), axis, keepdims))


@function
def max(x: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """Largest element along axes; NaN if there is one. `ValueError` if there is no element."""
    return Array(along("max", F.max, operand("max", x, is_numeric), axis, keepdims))


@function
def min(x: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """Smallest element along axes; NaN if there is one. `ValueError` if there is no element."""
    return Array(along("min", F.min, operand("min", x, is_numeric), axis, keepdims))


@function
def mean(x: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """Mean of floats along axes; NaN if there is no element."""
    return Array(along("mean", F.mean, operand("mean", x, is_float), axis, keepdims))


@function
def var(
    x: Array, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Variance of floats along axes: squared distances from the mean over N - correction."""
    tensor = operand("var", x, is_float)
    axes = normalized_axes("var", axis, tensor.rank)
    centre = along("var", F.mean, tensor, axes, keepdims=True)
    distance = F.sub(tensor, centre)
    total = along("var", F.sum, F.mul(distance, distance), axes, keepdims)
    count = Tensor.full(
        (), product(tensor.sizes[a] for a in axes), dtype=tensor.dtype, device=tensor.type.device
    )
    return Array(F.div(total, arithmetic.maximum(F.sub(count, float(correction)), 0)))


@function
def std(
    x: Array, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> Array:
    """Standard deviation of floats along axes: the square root of the variance."""
    squares = var(x, axis=axis, correction=correction, keepdims=keepdims)
    return Array(F.sqrt(squares.tensor))


# ---- neighbours --------------------------------------------------------------------------------


def _cumulative(
    name: str, op: TensorFunction, x: Array, axis: int | None, dtype: Any, first: int | None
) -> Array:
    tensor = _accumulated(name, x, dtype)
    if axis is None:
        if tensor.rank != 1:
            raise ArgumentError(f"{name}: an array with {tensor.rank} axes needs an axis.")
        axis = 0
    axis = normalize_axis(name, axis, tensor.rank)
    result = op(tensor, axis)
    if first is None:
        return Array(result)
    initial = number(first, tensor.dtype, tensor.type.device)
    before = initial.broadcast_to([1 if a == axis else s for a, s in enumerate(tensor.sizes)])
    return Array(F.concat([before, result], axis))


@function
def cumulative_sum(
    x: Array,
    /,
    *,
    axis: int | None = None,
    dtype: DType | None = None,
    include_initial: bool = False,
) -> Array:
    """Running sum along an axis, which vectors need not name; with a 0 in front on demand."""
    first = 0 if include_initial else None
    return _cumulative("cumulative_sum", F.cumsum, x, axis, dtype, first)


@function
def cumulative_prod(
    x: Array,
    /,
    *,
    axis: int | None = None,
    dtype: DType | None = None,
    include_initial: bool = False,
) -> Array:
    """Running product along an axis, which vectors need not name; with a 1 in front on demand."""
    first = 1 if include_initial else None
    return _cumulative("cumulative_prod", reduce.cumprod, x, axis, dtype, first)


@function
def diff(
    x: Array,
    /,
    *,
    axis: int = -1,
    n: int = 1,
    prepend: Array | None = None,
    append: Array | None = None,
) -> Array:
    """Differences of neighbours along an axis, n times over.

    Args:
        x: Array of numbers.
        axis: The axis.
        n: How often differences are taken; 0 gives the elements themselves.
        prepend: Array that is put before x along the axis first.
        append: Array that is put behind it.
    """
    tensor = operand("diff", x, is_numeric)
    axis = normalize_axis("diff", axis, tensor.rank)
    if n < 0:
        raise ArgumentError(f"diff: n must not be negative, got {n}.")
    parts = [part for part in (prepend, x, append) if part is not None]
    if n and len(parts) > 1:
        tensor = concat(parts, axis=axis).tensor
    for _ in range(n):
        size = int(tensor.sizes[axis])
        if size < 2:
            return Array(slice_axis(tensor, axis, 0, 0))
        later = slice_axis(tensor, axis, 1, size)
        tensor = F.sub(later, slice_axis(tensor, axis, 0, size - 1))
    return Array(tensor)


# ---- truth -------------------------------------------------------------------------------------


def counted(name: str, x: Tensor, axis: Axes, keepdims: bool) -> Tensor:
    """How many elements along axes are not 0, int64."""
    return along(name, F.sum, x.cast(DType.bool).cast(DType.int64), axis, keepdims)


@function
def all(x: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """True where all elements along axes are not 0; True if there are none."""
    is_zero = F.logical_not(tensor_of("all", x).cast(DType.bool))
    return Array(F.equal(counted("all", is_zero, axis, keepdims), 0))


@function
def any(x: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """True where some element along axes is not 0; False if there are none."""
    return Array(F.greater(counted("any", tensor_of("any", x), axis, keepdims), 0))
