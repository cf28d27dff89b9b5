"""Elementwise arithmetic: sums, products, quotients, powers, the larger and the smaller of two."""

from __future__ import annotations

from typing import Any

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import DTypeError
from maxmod.op import Kind, Operands, function, op
from maxmod.operands import promote_operands
from maxmod.rules import broadcasting, elementwise, is_any, is_float, is_numeric, is_signed
from maxmod.tensor import Tensor

TensorLike = Any
E = Kind.ELEMENTWISE
PROMOTED = Operands.PROMOTED


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="({0} + {1})")
def add(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Sum, lhs + rhs, elementwise with broadcasting. Integers wrap on overflow."""
    return xp.add(lhs, rhs)


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="({0} - {1})")
def sub(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Difference, lhs - rhs, elementwise with broadcasting. Integers wrap on overflow."""
    return xp.subtract(lhs, rhs)


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="({0} * {1})")
def mul(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Product, lhs * rhs, elementwise with broadcasting. Integers wrap on overflow."""
    return xp.multiply(lhs, rhs)


@op(E, broadcasting(is_float), operands=PROMOTED, scalar="({0} / {1})", name="true_div")
def _true_div(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Quotient of floats, lhs / rhs."""
    return xp.divide(lhs, rhs)


@function
def div(lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Quotient, lhs / rhs, elementwise with broadcasting; x / 0 is an infinity or NaN.

    Args:
        lhs: Tensor or number, numeric dtype.
        rhs: Tensor or number, numeric dtype.

    Returns:
        The promoted dtype; float64 where both operands are integers.

    Raises:
        ValueError: If dtypes cannot be promoted (an integer tensor with a Python float).
    """
    lhs, rhs = promote_operands("div", (lhs, rhs))
    if lhs.dtype.is_integral():
        lhs, rhs = lhs.cast(DType.float64), rhs.cast(DType.float64)
    elif lhs.dtype is DType.bool:
        raise DTypeError("div: operands have an unsupported dtype: expected numbers, got bool.")
    return _true_div(lhs, rhs)


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="mm_floor_div({0}, {1})")
def floor_div(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Quotient rounded toward minus infinity; integers stay integers (x // 0 is 0).

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.floor_div(Tensor([7, -7], dtype=DType.int32), 2).to_numpy().tolist()
        [3, -4]
    """
    if lhs.dtype.kind == "f":
        return xp.floor(xp.divide(lhs, rhs))
    return xp.floor_divide(lhs, rhs)


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="mm_mod({0}, {1})")
def mod(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Remainder with the sign of the divisor (Python's rule); x % 0 is NaN, 0 for integers."""
    if lhs.dtype.kind != "f":
        return xp.remainder(lhs, rhs)
    # fmod is exact; lhs - floor(lhs / rhs) * rhs, as some array libraries do it, is not.
    rest = xp.fmod(lhs, rhs)
    rest = xp.where((rest != 0) & ((rest < 0) != (rhs < 0)), rest + rhs, rest)
    return xp.where(rest == 0, xp.copysign(rest, rhs), rest)


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="mm_pow({0}, {1})", domain=(0.1, 3.0))
def pow(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Power, lhs ** rhs. Integers stay integers; with a negative exponent they give
    1 / lhs ** -rhs truncated: 1 and -1 keep their sign rule, everything else is 0.
    """
    if lhs.dtype.kind == "f":
        return _float_power(xp, lhs, rhs)
    if lhs.dtype.kind == "u":
        return xp.power(lhs, rhs)
    negative = rhs < 0
    positive = xp.power(lhs, xp.where(negative, 0, rhs).astype(lhs.dtype))
    odd = (rhs & 1).astype(bool)
    unit = xp.where(lhs == 1, 1, xp.where(lhs == -1, xp.where(odd, -1, 1), 0))
    return xp.where(negative, unit, positive).astype(lhs.dtype)


def _float_power(xp: Any, lhs: Any, rhs: Any) -> Any:
    power = xp.power(lhs, rhs)
    is_root = rhs == 0.5
    if xp is not np or not is_root.any():
        return power
    # NumPy takes the square root where the exponent is one number: another value for -inf, -0.0.
    return xp.where(is_root & (xp.isinf(lhs) | (lhs == 0)), xp.abs(lhs), power)


@op(E, broadcasting(is_any), operands=PROMOTED, scalar="mm_max({0}, {1})")
def maximum(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Larger of two, elementwise with broadcasting; NaN if either is NaN."""
    return xp.maximum(lhs, rhs)


@op(E, broadcasting(is_any), operands=PROMOTED, scalar="mm_min({0}, {1})")
def minimum(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Smaller of two, elementwise with broadcasting; NaN if either is NaN."""
    return xp.minimum(lhs, rhs)


@function
def elementwise_max(lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Larger of two, elementwise with broadcasting; NaN if either is NaN."""
    return maximum(lhs, rhs)


@function
def elementwise_min(lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Smaller of two, elementwise with broadcasting; NaN if either is NaN."""
    return minimum(lhs, rhs)


@function
def clamp(x: TensorLike, lower_bound: TensorLike, upper_bound: TensorLike) -> Tensor:
    """max(min(x, upper_bound), lower_bound), elementwise with broadcasting.

    The lower bound wins where it lies above the upper one (in `Tensor.clip` the upper one wins).

    Args:
        x: Tensor or number, numeric dtype.
        lower_bound: Tensor or number.
        upper_bound: Tensor or number.

    Returns:
        The promoted dtype, the broadcast shape.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.clamp(Tensor([-2.0, 0.5, 9.0]), -1, 1).to_numpy().tolist()
        [-1.0, 0.5, 1.0]
    """
    return maximum(minimum(x, upper_bound), lower_bound)


@op(E, elementwise(is_numeric), scalar="mm_abs({0})")
def abs(xp: Any, x: Tensor) -> Tensor:
    """Absolute value |x|, elementwise."""
    return xp.abs(x)


@op(E, elementwise(is_signed), scalar="(-{0})")
def negate(xp: Any, x: Tensor) -> Tensor:
    """Negation -x, elementwise; floats and signed integers."""
    return xp.negative(x)
