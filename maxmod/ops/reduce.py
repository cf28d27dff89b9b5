"""Reductions. A reduced axis stays, with size 1, unless the call says otherwise."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, Unpack, overload

import numpy as np

from maxmod.dtype import DType, compute_dtype
from maxmod.errors import ArgumentError, OperandError
from maxmod.interpreters.operands import strong
from maxmod.op import Kind, function, op
from maxmod.op.rules import axis_in_rank, is_any, is_numeric, normalize_axis, reduced, same_for_axis
from maxmod.op.spelling import unknown_keyword
from maxmod.ops.arithmetic import add, floor_div, maximum, minimum, mul
from maxmod.ops.comparison import greater, logical_and, not_equal, where
from maxmod.ops.shape import flatten, permute, reshape
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import ArrayModule
from maxmod.values.axes import Axes, AxisKeywords, Extreme, Wanted

__all__ = ["argmax", "argmin", "cumsum", "max", "mean", "min", "prod", "sum"]

R = Kind.REDUCE


def over_axes(
    name: str,
    reduction: Callable[..., Tensor],
    x: TensorLike,
    axis: Axes,
    keywords: AxisKeywords,
    *,
    several: bool = True,
) -> Tensor:
    """Reduces a tensor over one axis, several or all.

    Args:
        name: What to call the function in errors.
        reduction: `reduction(x, axis)` of one axis, which stays with size 1.
        x: Operand.
        axis: Of the call.
        keywords: Of the call.
        several: Whether more than one axis can be given.
    """
    x = strong(name, x)
    if not keywords:
        if axis is None:
            return reduction(flatten(x), 0)
        if isinstance(axis, int):
            return reduction(x, normalize_axis(name, axis, x.rank))
    axes, keep, _ = wanted_axes(name, axis, keywords)
    if isinstance(axes, tuple) and not several:
        raise OperandError(f"{name}: axis: expected an int or None, got {axes}.")
    if axes is None and keep is None:
        return reduction(flatten(x), 0)
    chosen = _chosen(name, x, axes)
    keep = keep is not False
    sizes = [1 if a in chosen else n for a, n in enumerate(x.sizes) if keep or a not in chosen]
    if len(chosen) == 1:
        return reshape(reduction(x, chosen[0]), sizes)
    order = [a for a in builtins.range(x.rank) if a not in chosen]
    return reshape(reduction(flatten(permute(x, [*order, *chosen]), len(order)), -1), sizes)


def wanted_axes(name: str, axis: Axes, keywords: AxisKeywords) -> Wanted:
    """Returns the axes that a call names; a keyword that there is not is an error."""
    for keyword in keywords:
        if keyword not in ("dim", "keepdim", "keepdims"):
            known = ["x", "axis", "keepdims", "dim", "keepdim"]
            raise OperandError(unknown_keyword(name, keyword, known))
    if "dim" in keywords and axis not in (-1, None):
        raise ArgumentError(f"{name}: give either axis or dim, not both.")
    return Wanted.of(axis, keywords)


def _chosen(name: str, x: Tensor, axes: int | tuple[int, ...] | None) -> list[int]:
    """Returns the axes from the front, each once."""
    if axes is None:
        return list(builtins.range(x.rank))
    several = axes if isinstance(axes, tuple) else (axes,)
    chosen = [normalize_axis(name, axis, x.rank) for axis in several]
    if not chosen or len({*chosen}) != len(chosen):
        raise ArgumentError(f"{name}: expected each axis once and at least one, got {axes}.")
    return chosen


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


def _sum(x: Tensor, axis: int) -> Tensor:
    """Sum along an axis; of bool, the number of true elements."""
    return reduce_sum(x.cast(DType.int64) if x.dtype is DType.bool else x, axis)


@function
def sum(x: Tensor, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Tensor:
    """Sum along an axis.

    Args:
        x: Tensor; of bool, the true elements are counted.
        axis: The axis, counted from the end if it is negative; several, which all stay; None
            flattens first and gives the shape [1].
        **keywords: `keepdims=False` drops the axes. `dim=1` is as in PyTorch: the axis goes, unless
            `keepdim=True`, and `dim=None` gives a scalar.

    Returns:
        The dtype of x (integers are not widened, they wrap; bool gives int64), size 1 on `axis`; 0
        for an empty axis. Narrow floats are summed in float32 and rounded once.

    Raises:
        ValueError: If the axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> F.sum(x).to_numpy().tolist()  # the axis stays
        [[3.0], [7.0]]
        >>> F.sum(x, axis=None).to_numpy().tolist()
        [10.0]
        >>> F.sum(x, axis=0, keepdims=False).to_numpy().tolist()
        [4.0, 6.0]
        >>> F.sum(x, dim=0).to_numpy().tolist()  # as in PyTorch
        [4.0, 6.0]
        >>> F.sum(x > 2, axis=None).item()
        2
    """
    return over_axes("sum", _sum, x, axis, keywords)


@function
def mean(x: Tensor, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Tensor:
    """Mean along an axis.

    Args:
        x: Numeric tensor.
        axis: The axis; None flattens first and gives the shape [1].
        **keywords: `keepdims`, `dim` and `keepdim`, as for `sum`.

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
    return over_axes("mean", _mean, x, axis, keywords)


@function
def prod(x: Tensor, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Tensor:
    """Product along an axis.

    Args:
        x: Numeric tensor.
        axis: The axis; None flattens first and gives the shape [1].
        **keywords: `keepdims`, `dim` and `keepdim`, as for `sum`.

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
    return over_axes("prod", reduce_prod, x, axis, keywords)


@function
def argmax(x: Tensor, axis: int | None = -1, **keywords: Unpack[AxisKeywords]) -> Tensor:
    """Position of the largest element along an axis.

    Args:
        x: Tensor of any dtype; NaN counts as the largest.
        axis: The axis; None flattens first and gives the shape [1].
        **keywords: `keepdims`, `dim` and `keepdim`, as for `sum`.

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
    return over_axes("argmax", _argmax, x, axis, keywords, several=False)


@function
def argmin(x: Tensor, axis: int | None = -1, **keywords: Unpack[AxisKeywords]) -> Tensor:
    """Position of the smallest element along an axis.

    Args:
        x: Tensor of any dtype; NaN counts as the smallest.
        axis: The axis; None flattens first and gives the shape [1].
        **keywords: `keepdims`, `dim` and `keepdim`, as for `sum`.

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
    return over_axes("argmin", _argmin, x, axis, keywords, several=False)


_AXIS_DEFAULT: Any = object()


@overload
def max(x: TensorLike, /, *, dim: int, keepdim: bool = ...) -> Extreme[Tensor]: ...


@overload
def max(
    x: TensorLike, y: TensorLike | None = None, /, axis: Axes = ..., *, keepdims: bool = ...
) -> Tensor: ...


@function
def max(
    x: TensorLike,
    y: TensorLike | None = None,
    /,
    axis: Axes = _AXIS_DEFAULT,
    **keywords: Unpack[AxisKeywords],
) -> Tensor | Extreme[Tensor]:
    """Largest element along an axis, or the larger of two tensors.

    `max(x)` and `max(x, axis=0)` reduce; `max(x, y)` is elementwise with broadcasting, so that
    `max(x, 0)` is a relu. NaN wins in both.

    Args:
        x: Tensor of any dtype; with y also a number.
        y: Tensor or number; without it, x is reduced.
        axis: The axis to reduce, or several, -1 if not given; None flattens first and gives the
            shape [1].
        **keywords: `keepdims=False` drops the axis. `dim` and `keepdim` are as in PyTorch.

    Returns:
        The dtype of x and size 1 on `axis`; with y the promoted dtype and the broadcast shape. With
        `dim` a pair (values, indices).

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
    return _extreme("max", x, y, axis, keywords)


@overload
def min(x: TensorLike, /, *, dim: int, keepdim: bool = ...) -> Extreme[Tensor]: ...


@overload
def min(
    x: TensorLike, y: TensorLike | None = None, /, axis: Axes = ..., *, keepdims: bool = ...
) -> Tensor: ...


@function
def min(
    x: TensorLike,
    y: TensorLike | None = None,
    /,
    axis: Axes = _AXIS_DEFAULT,
    **keywords: Unpack[AxisKeywords],
) -> Tensor | Extreme[Tensor]:
    """Smallest element along an axis, or the smaller of two tensors; see `max`.

    Args:
        x: Tensor of any dtype; with y also a number.
        y: Tensor or number; without it, x is reduced.
        axis: The axis to reduce, or several, -1 if not given; None flattens first and gives the
            shape [1].
        **keywords: `keepdims=False` drops the axis. `dim` and `keepdim` are as in PyTorch.

    Returns:
        The dtype of x and size 1 on `axis`; with y the promoted dtype and the broadcast shape. With
        `dim` a pair (values, indices).

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
    return _extreme("min", x, y, axis, keywords)


_EXTREMES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., Tensor]]] = {
    "max": (reduce_max, _argmax, maximum),
    "min": (reduce_min, _argmin, minimum),
}


def _extreme(
    name: str, x: TensorLike, y: TensorLike | None, axis: Axes, keywords: AxisKeywords
) -> Tensor | Extreme[Tensor]:
    values, positions, pair = _EXTREMES[name]
    if y is not None:
        if axis is not _AXIS_DEFAULT or keywords:
            raise ArgumentError(f"{name}: give either a second tensor or an axis, not both.")
        return pair(x, y)
    axis = -1 if axis is _AXIS_DEFAULT else axis
    found = over_axes(name, values, x, axis, keywords)
    if not isinstance(keywords.get("dim"), int):
        return found
    return Extreme(found, over_axes(name, positions, x, axis, keywords))


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
