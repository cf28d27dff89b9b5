"""Reductions along one axis. The reduced axis stays, with size 1; `squeeze` drops it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from maxmod.dtype import DType, compute_dtype
from maxmod.errors import ArgumentError
from maxmod.interpreters.operands import strong
from maxmod.op import Kind, function, op
from maxmod.op.rules import axis_in_rank, is_any, is_numeric, normalize_axis, reduced, same_for_axis
from maxmod.ops.arithmetic import add, floor_div, maximum, minimum, mul
from maxmod.ops.comparison import greater, logical_and, not_equal, where
from maxmod.ops.shape import flatten
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import ArrayModule

__all__ = ["argmax", "argmin", "cumsum", "max", "mean", "min", "prod", "sum"]

R = Kind.REDUCE


def _flat(name: str, x: TensorLike, axis: int | None) -> tuple[Tensor, int]:
    """Handles `axis=None`: the tensor is flattened first."""
    x = strong(name, x)
    if axis is None:
        return flatten(x), 0
    return x, normalize_axis(name, axis, x.rank)


@op(
    R,
    reduced(is_numeric),
    prepare=axis_in_rank,
    combine="add",
    identity=0,
    label="sum",
)
def reduce_sum(xp: ArrayModule, x: Tensor, axis: int) -> Tensor:
    """Sum along an axis in the dtype of x."""
    return xp.sum(x, axis=axis, keepdims=True, dtype=x.dtype)


@op(
    R,
    reduced(is_numeric),
    prepare=axis_in_rank,
    combine="mul",
    identity=1,
    label="prod",
)
def reduce_prod(xp: ArrayModule, x: Tensor, axis: int) -> Tensor:
    """Product along an axis in the dtype of x."""
    return xp.prod(x, axis=axis, keepdims=True, dtype=x.dtype)


@op(
    R,
    reduced(is_any, empty=False),
    prepare=axis_in_rank,
    combine="maximum",
    label="max",
)
def reduce_max(xp: ArrayModule, x: Tensor, axis: int) -> Tensor:
    """Largest element along an axis; NaN if there is one."""
    # No user gets here with an empty axis; softmax does, and has no element that reads the result.
    return xp.max(x, axis=axis, keepdims=True) if x.shape[axis] else _unread(xp, x, axis)


@op(
    R,
    reduced(is_any, empty=False),
    prepare=axis_in_rank,
    combine="minimum",
    label="min",
)
def reduce_min(xp: ArrayModule, x: Tensor, axis: int) -> Tensor:
    """Smallest element along an axis; NaN if there is one."""
    return xp.min(x, axis=axis, keepdims=True)


def _unread(xp: ArrayModule, x: Tensor, axis: int) -> Tensor:
    """Returns zeros of the shape of a reduction."""
    return xp.zeros((*x.shape[:axis], 1, *x.shape[axis + 1 :]), dtype=x.dtype)


def _expand_mean(x: Tensor, *, axis: int) -> Tensor:
    total = reduce_sum(x.cast(_sum_dtype(x.dtype)), axis=axis)
    count = Tensor.full((), x.sizes[axis], dtype=total.dtype, device=x.type.device)
    if x.dtype.is_float():
        return (total / count).cast(x.dtype)
    if x.dtype.is_unsigned_integral():
        return floor_div(total, count).cast(x.dtype)
    # Rounded up where a negative total leaves a rest: the smallest integer has no size.
    quotient = floor_div(total, count)
    up = logical_and(greater(0, total), not_equal(mul(quotient, count), total))
    return where(up, add(quotient, 1), quotient).cast(x.dtype)


def _sum_dtype(dtype: DType) -> DType:
    """The dtype in which a mean is summed, so that narrow integers do not wrap."""
    if dtype.is_float():
        return compute_dtype(dtype)
    return DType.uint64 if dtype.is_unsigned_integral() else DType.int64


@op(
    Kind.COMPOSITE,
    reduced(is_numeric),
    prepare=axis_in_rank,
    expand=_expand_mean,
    name="reduce_mean",
    label="mean",
)
def _mean(xp: ArrayModule, x: Tensor, axis: int) -> Tensor:
    """Mean along an axis; integers are summed in 64 bits and divided toward zero."""
    if x.dtype.kind == "f":
        return xp.sum(x, axis=axis, keepdims=True, dtype=x.dtype) / x.dtype.type(x.shape[axis])
    wide = np.int64 if x.dtype.kind == "i" else np.uint64
    total = xp.sum(x, axis=axis, keepdims=True, dtype=wide)
    quotient = total // wide(x.shape[axis])
    up = (total < 0) & (quotient * wide(x.shape[axis]) != total)
    return (quotient + up.astype(wide)).astype(x.dtype)


@op(
    Kind.OPAQUE,
    reduced(is_any, DType.int64, empty=False),
    prepare=axis_in_rank,
    upcasts=True,
    name="reduce_argmax",
    label="argmax",
)
def _argmax(xp: ArrayModule, x: Tensor, axis: int) -> Tensor:
    """Position of the largest element along an axis; the first of equals."""
    return xp.argmax(x, axis=axis, keepdims=True)


@op(
    Kind.OPAQUE,
    reduced(is_any, DType.int64, empty=False),
    prepare=axis_in_rank,
    upcasts=True,
    name="reduce_argmin",
    label="argmin",
)
def _argmin(xp: ArrayModule, x: Tensor, axis: int) -> Tensor:
    """Position of the smallest element along an axis; the first of equals."""
    return xp.argmin(x, axis=axis, keepdims=True)


@function
def sum(x: Tensor, axis: int | None = -1) -> Tensor:
    """Sum along an axis.

    Args:
        x: Numeric tensor.
        axis: The axis, counted from the end if it is negative; None flattens first and gives the
            shape [1].

    Returns:
        The dtype of x (integers are not widened, they wrap), size 1 on `axis`; 0 for an empty axis.
        Narrow floats are summed in float32 and rounded once.

    Raises:
        ValueError: If the axis lies outside the rank, or the dtype is bool.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> F.sum(x).to_numpy().tolist()  # the axis stays
        [[3.0], [7.0]]
        >>> F.sum(x, axis=None).to_numpy().tolist()
        [10.0]
        >>> F.squeeze(F.sum(x, axis=0), 0).to_numpy().tolist()
        [4.0, 6.0]
    """
    return reduce_sum(*_flat("sum", x, axis))


@function
def mean(x: Tensor, axis: int | None = -1) -> Tensor:
    """Mean along an axis.

    Args:
        x: Numeric tensor.
        axis: The axis; None flattens first and gives the shape [1].

    Returns:
        The dtype of x, size 1 on `axis`. Integers are summed in 64 bits and divided toward zero,
        narrow floats in float32. An empty axis gives NaN, 0 for integers.

    Raises:
        ValueError: If the axis lies outside the rank, or the dtype is bool.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.mean(Tensor([[1.0, 2.0], [3.0, 5.0]])).to_numpy().tolist()
        [[1.5], [4.0]]
        >>> F.mean(Tensor([100, 101], dtype=DType.int8)).to_numpy().tolist()
        [100]
    """
    return _mean(*_flat("mean", x, axis))


@function
def prod(x: Tensor, axis: int | None = -1) -> Tensor:
    """Product along an axis.

    Args:
        x: Numeric tensor.
        axis: The axis; None flattens first and gives the shape [1].

    Returns:
        The dtype of x (integers wrap), size 1 on `axis`; 1 for an empty axis.

    Raises:
        ValueError: If the axis lies outside the rank, or the dtype is bool.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.prod(Tensor([[1.0, 2.0], [3.0, 4.0]])).to_numpy().tolist()
        [[2.0], [12.0]]
    """
    return reduce_prod(*_flat("prod", x, axis))


@function
def argmax(x: Tensor, axis: int | None = -1) -> Tensor:
    """Position of the largest element along an axis.

    Args:
        x: Tensor of any dtype; NaN counts as the largest.
        axis: The axis; None flattens first and gives the shape [1].

    Returns:
        int64, size 1 on `axis`; the first of equals.

    Raises:
        ValueError: If the axis is empty or lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.argmax(Tensor([[1.0, 5.0, 5.0]])).to_numpy().tolist()
        [[1]]
        >>> F.argmax(Tensor([[1.0, 5.0], [7.0, 0.0]]), axis=None).to_numpy().tolist()
        [2]
    """
    return _argmax(*_flat("argmax", x, axis))


@function
def argmin(x: Tensor, axis: int | None = -1) -> Tensor:
    """Position of the smallest element along an axis.

    Args:
        x: Tensor of any dtype; NaN counts as the smallest.
        axis: The axis; None flattens first and gives the shape [1].

    Returns:
        int64, size 1 on `axis`; the first of equals.

    Raises:
        ValueError: If the axis is empty or lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.argmin(Tensor([[4.0, 1.0], [3.0, 2.0]]), axis=0).to_numpy().tolist()
        [[1, 0]]
    """
    return _argmin(*_flat("argmin", x, axis))


_AXIS_DEFAULT: Any = object()


@function
def max(x: TensorLike, y: TensorLike = None, /, axis: int | None = _AXIS_DEFAULT) -> Tensor:
    """Largest element along an axis, or the larger of two tensors.

    `max(x)` and `max(x, axis=0)` reduce; `max(x, y)` is elementwise with broadcasting, so that
    `max(x, 0)` is a relu. NaN wins in both.

    Args:
        x: Tensor of any dtype; with y also a number.
        y: Tensor or number; without it, x is reduced.
        axis: The axis to reduce, -1 if not given; None flattens first and gives the shape [1].

    Returns:
        The dtype of x and size 1 on `axis`; with y the promoted dtype and the broadcast shape.

    Raises:
        ValueError: If both y and an axis are given, the axis is empty or lies outside the rank, or
            the two cannot be promoted or broadcast.
        TypeError: If x is not a tensor (nor y).

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, 5.0], [4.0, 2.0]])
        >>> F.max(x, axis=0).to_numpy().tolist()
        [[4.0, 5.0]]
        >>> F.max(x, 3).to_numpy().tolist()
        [[3.0, 5.0], [4.0, 3.0]]
    """
    return _extreme("max", reduce_max, maximum, x, y, axis)


@function
def min(x: TensorLike, y: TensorLike = None, /, axis: int | None = _AXIS_DEFAULT) -> Tensor:
    """Smallest element along an axis, or the smaller of two tensors; see `max`.

    Args:
        x: Tensor of any dtype; with y also a number.
        y: Tensor or number; without it, x is reduced.
        axis: The axis to reduce, -1 if not given; None flattens first and gives the shape [1].

    Returns:
        The dtype of x and size 1 on `axis`; with y the promoted dtype and the broadcast shape.

    Raises:
        ValueError: If both y and an axis are given, the axis is empty or lies outside the rank, or
            the two cannot be promoted or broadcast.
        TypeError: If x is not a tensor (nor y).

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, 5.0], [4.0, 2.0]])
        >>> F.min(x).to_numpy().tolist()
        [[1.0], [2.0]]
        >>> F.min(x, 3).to_numpy().tolist()
        [[1.0, 3.0], [3.0, 2.0]]
    """
    return _extreme("min", reduce_min, minimum, x, y, axis)


def _extreme(
    name: str,
    reduction: Callable[..., Tensor],
    pair: Callable[..., Tensor],
    x: TensorLike,
    y: TensorLike | None,
    axis: Any,
) -> Tensor:
    if y is None:
        return reduction(*_flat(name, x, -1 if axis is _AXIS_DEFAULT else axis))
    if axis is not _AXIS_DEFAULT:
        raise ArgumentError(f"{name}: give either a second tensor or an axis, not both.")
    return pair(x, y)


@op(Kind.OPAQUE, same_for_axis(is_numeric), prepare=axis_in_rank, upcasts=True)
def cumsum(
    xp: ArrayModule, x: Tensor, axis: int = -1, exclusive: bool = False, reverse: bool = False
) -> Tensor:
    """Running sum along an axis.

    Args:
        x: Numeric tensor.
        axis: The axis.
        exclusive: Leave the element itself out: [1, 2, 3] gives [0, 1, 3].
        reverse: Sum from the end: [1, 2, 3] gives [6, 5, 3].

    Returns:
        The shape and dtype of x.

    Raises:
        ValueError: If the axis lies outside the rank, or the dtype is bool.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.cumsum(Tensor([1.0, 2.0, 3.0]), exclusive=True).to_numpy().tolist()
        [0.0, 1.0, 3.0]
    """
    source = xp.flip(x, axis) if reverse else x
    total = xp.cumsum(source, axis=axis, dtype=x.dtype)
    if exclusive:
        # Shifted by one element; total - source would turn an infinity into NaN.
        before = (slice(None),) * axis
        shifted = xp.zeros_like(total)
        shifted[(*before, slice(1, None))] = total[(*before, slice(None, -1))]
        total = shifted
    return xp.flip(total, axis) if reverse else total


@op(Kind.OPAQUE, same_for_axis(is_numeric), prepare=axis_in_rank, upcasts=True)
def cumprod(xp: ArrayModule, x: Tensor, axis: int = -1) -> Tensor:
    """Running product along an axis, in the dtype of x."""
    return xp.cumprod(x, axis=axis, dtype=x.dtype)
