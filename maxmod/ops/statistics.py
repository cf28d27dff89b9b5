"""Reductions that are written in other ops: any, all, variance, deviation and norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Unpack

from maxmod.dtype import DType, compute_dtype
from maxmod.errors import ArgumentError, DTypeError
from maxmod.interpreters.operands import strong
from maxmod.op import function
from maxmod.ops.arithmetic import abs, div, mul, pow, sub
from maxmod.ops.comparison import greater, logical_not, not_equal
from maxmod.ops.elementwise import sqrt
from maxmod.ops.reduce import over_axes, reduce_max, reduce_min, reduce_sum
from maxmod.tensor import Tensor
from maxmod.values.axes import Axes, AxisKeywords
from maxmod.values.dim import as_dim, as_size
from maxmod.values.plain import Scalar

__all__ = ["all", "any", "norm", "std", "var"]


def _is_true(x: Tensor) -> Tensor:
    return x if x.dtype is DType.bool else not_equal(x, 0)


def _some(x: Tensor, axis: int) -> Tensor:
    return greater(reduce_sum(_is_true(x).cast(DType.int64), axis), 0)


def _every(x: Tensor, axis: int) -> Tensor:
    return logical_not(_some(logical_not(_is_true(x)), axis))


@function
def any(x: Tensor, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Tensor:
    """True where at least one element along an axis is true, that is not 0.

    Args:
        x: Tensor of any dtype.
        axis: The axis, or several; None flattens first and gives the shape [1].
        **keywords: `keepdims`, `dim` and `keepdim`, as for `sum`.

    Returns:
        bool, size 1 on `axis`; false for an empty axis.

    Raises:
        ValueError: If the axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, -2.0], [3.0, 4.0]])
        >>> F.any(x < 0).to_numpy().tolist()
        [[True], [False]]
        >>> F.any(x < 0, axis=None).item()
        True
    """
    return over_axes("any", _some, x, axis, keywords)


@function
def all(x: Tensor, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Tensor:
    """True where every element along an axis is true, that is not 0.

    Args:
        x: Tensor of any dtype.
        axis: The axis, or several; None flattens first and gives the shape [1].
        **keywords: `keepdims`, `dim` and `keepdim`, as for `sum`.

    Returns:
        bool, size 1 on `axis`; true for an empty axis.

    Raises:
        ValueError: If the axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, -2.0], [3.0, 4.0]])
        >>> F.all(x > 0).to_numpy().tolist()
        [[False], [True]]
    """
    return over_axes("all", _every, x, axis, keywords)


def _expect_float(name: str, x: Tensor) -> Tensor:
    if not x.dtype.is_float():
        raise DTypeError(
            f"{name}: x has an unsupported dtype: expected floating point only, got "
            f"{x.type.short()}. Hint: F.{name}(x.cast(DType.float32))."
        )
    return x.cast(compute_dtype(x.dtype))


def _variance(
    name: str, x: Tensor, axis: Axes, correction: float | None, keywords: AxisKeywords
) -> Tensor:
    """Variance in the dtype of computing."""
    if correction is None:
        correction = 1 if "dim" in keywords else 0

    def along(x: Tensor, axis: int) -> Tensor:
        like = {"dtype": x.dtype, "device": x.type.device}
        size = x.sizes[axis]
        total = Tensor.full((), size, **like)
        distance = sub(x, div(reduce_sum(x, axis), total))
        rest = size - correction if isinstance(size, int) else None
        if rest is None and isinstance(correction, int):
            count = Tensor.full((), as_size(as_dim(size) - correction), **like)
        elif rest is None:
            count = sub(total, float(correction))
        else:
            count = Tensor.full((), float(max(rest, 0)), **like)
        return div(reduce_sum(mul(distance, distance), axis), count)

    return over_axes(name, along, x, axis, keywords)


@function
def var(
    x: Tensor,
    axis: Axes = -1,
    *,
    correction: float | None = None,
    **keywords: Unpack[AxisKeywords],
) -> Tensor:
    """Variance along an axis: the mean of the squared distances from the mean.

    Args:
        x: Tensor of a float dtype.
        axis: The axis, or several; None flattens first and gives the shape [1].
        correction: The sum is divided by the number of elements less this. By default 0, as in
            NumPy; with `dim`, as in PyTorch, 1.
        **keywords: `keepdims`, `dim` and `keepdim`, as for `sum`.

    Returns:
        The dtype of x, size 1 on `axis`. Narrow floats are computed in float32.

    Raises:
        ValueError: If the dtype is not a float, or the axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([1.0, 2.0, 3.0, 4.0])
        >>> F.var(x).item(), round(F.var(x, correction=1).item(), 4)
        (1.25, 1.6667)
    """
    x = strong("var", x)
    return _variance("var", _expect_float("var", x), axis, correction, keywords).cast(x.dtype)


@function
def std(
    x: Tensor,
    axis: Axes = -1,
    *,
    correction: float | None = None,
    **keywords: Unpack[AxisKeywords],
) -> Tensor:
    """Standard deviation along an axis: the square root of the variance.

    Args:
        x: Tensor of a float dtype.
        axis: The axis, or several; None flattens first and gives the shape [1].
        correction: As for `var`: 0, as in NumPy; with `dim`, as in PyTorch, 1.
        **keywords: `keepdims`, `dim` and `keepdim`, as for `sum`.

    Returns:
        The dtype of x, size 1 on `axis`. Narrow floats are computed in float32.

    Raises:
        ValueError: If the dtype is not a float, or the axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.std(Tensor([[1.0, 3.0], [5.0, 5.0]])).to_numpy().tolist()
        [[1.0], [0.0]]
    """
    x = strong("std", x)
    return sqrt(_variance("std", _expect_float("std", x), axis, correction, keywords)).cast(x.dtype)


def _norm_along(p: float) -> Callable[[Tensor, int], Tensor]:
    """Returns the reduction of the p-norm."""
    if math.isinf(p):
        extreme = reduce_max if p > 0 else reduce_min
        return lambda x, axis: extreme(abs(x), axis)
    if p == 0:
        return lambda x, axis: reduce_sum(not_equal(x, 0).cast(x.dtype), axis)
    if p == 1:
        return lambda x, axis: reduce_sum(abs(x), axis)
    if p == 2:
        return lambda x, axis: sqrt(reduce_sum(mul(x, x), axis))
    return lambda x, axis: pow(reduce_sum(pow(abs(x), p), axis), 1 / p)


@function
def norm(x: Tensor, p: Scalar = 2, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Tensor:
    """Norm of the vectors along an axis: the sum of |x|^p, to the power 1 / p.

    Args:
        x: Tensor of a float dtype.
        p: The power; infinity gives the largest magnitude, minus infinity the smallest, 0 the
            number of elements that are not 0.
        axis: The axis; several are one long vector; None flattens first and gives the shape [1].
        **keywords: `keepdims`, `dim` and `keepdim`, as for `sum`.

    Returns:
        The dtype of x, size 1 on `axis`. Narrow floats are computed in float32.

    Raises:
        ValueError: If the dtype is not a float, p not a number, or the axis outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.norm(Tensor([[3.0, 4.0], [0.0, -2.0]])).to_numpy().tolist()
        [[5.0], [2.0]]
    """
    x = strong("norm", x)
    if isinstance(p, str):
        raise ArgumentError(
            f"norm: p: expected a number, got {p!r}. Hint: F.norm(x, axis=None) is the norm of "
            "all elements (Frobenius); other norms of matrices are not here."
        )
    found = over_axes("norm", _norm_along(float(p)), _expect_float("norm", x), axis, keywords)
    return found.cast(x.dtype)
