"""Elementwise arithmetic: sums, products, quotients, powers, the larger and the smaller of two."""

from __future__ import annotations

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import DTypeError
from maxmod.interpreters.operands import promote_operands
from maxmod.op import Kind, Operands, function, op
from maxmod.op.rules import broadcasting, elementwise, is_any, is_float, is_numeric, is_signed
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import Array, ArrayModule

__all__ = [
    "abs",
    "add",
    "clamp",
    "div",
    "elementwise_max",
    "elementwise_min",
    "floor_div",
    "mod",
    "mul",
    "negate",
    "pow",
    "sub",
]

E = Kind.ELEMENTWISE
PROMOTED = Operands.PROMOTED


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="({0} + {1})")
def add(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Sum, lhs + rhs, elementwise with broadcasting. Integers wrap on overflow.

    Args:
        lhs: Tensor or number, numeric dtype.
        rhs: Tensor or number, numeric dtype; one of the two must be a tensor.

    Returns:
        The promoted dtype, the broadcast shape. A number takes the dtype of the tensor.

    Raises:
        ValueError: If neither dtype holds all values of the other exactly, a number does not fit
            into the dtype of the tensor, shapes or devices do not fit, or the dtype is bool.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.add(Tensor([[1.0], [2.0]]), Tensor([10.0, 20.0, 30.0])).to_numpy().tolist()
        [[11.0, 21.0, 31.0], [12.0, 22.0, 32.0]]
        >>> F.add(Tensor([250], dtype=DType.uint8), 10).to_numpy().tolist()
        [4]

        Nothing is cast silently: float32 does not hold every int32.

        >>> F.add(Tensor([1.0]), Tensor([1], dtype=DType.int32))
        Traceback (most recent call last):
            ...
        maxmod.errors.DTypeError: add: float32[1], int32[1]: Failed to resolve valid dtype: Unsafe
        cast from ...
    """
    return xp.add(lhs, rhs)


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="({0} - {1})")
def sub(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Difference, lhs - rhs, elementwise with broadcasting. Integers wrap on overflow.

    Args:
        lhs: Tensor or number, numeric dtype.
        rhs: Tensor or number, numeric dtype; one of the two must be a tensor.

    Returns:
        The promoted dtype, the broadcast shape.

    Raises:
        ValueError: If dtypes cannot be promoted, shapes or devices differ, or the dtype is bool.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.sub(1, Tensor([[0.25], [0.5]])).to_numpy().tolist()
        [[0.75], [0.5]]
        >>> F.sub(Tensor([0], dtype=DType.uint8), 1).to_numpy().tolist()
        [255]
    """
    return xp.subtract(lhs, rhs)


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="({0} * {1})")
def mul(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Product, lhs * rhs, elementwise with broadcasting. Integers wrap on overflow.

    Args:
        lhs: Tensor or number, numeric dtype.
        rhs: Tensor or number, numeric dtype; one of the two must be a tensor.

    Returns:
        The promoted dtype, the broadcast shape.

    Raises:
        ValueError: If dtypes cannot be promoted, shapes or devices differ, or the dtype is bool.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> half = Tensor([1.0, 2.0], dtype=DType.float16)
        >>> F.mul(half, Tensor([[3.0], [4.0]], dtype=DType.float32)).type
        TensorType(dtype=float32, shape=[Dim(2), Dim(2)], device=cpu:0)
        >>> F.mul(half, 3).dtype
        float16
    """
    return xp.multiply(lhs, rhs)


@op(E, broadcasting(is_float), operands=PROMOTED, scalar="({0} / {1})", label="div")
def true_div(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Quotient of floats, lhs / rhs."""
    return xp.divide(lhs, rhs)


@function
def div(lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Quotient, lhs / rhs, elementwise with broadcasting; x / 0 is an infinity or NaN.

    Args:
        lhs: Tensor or number, numeric dtype.
        rhs: Tensor or number, numeric dtype; one of the two must be a tensor.

    Returns:
        The promoted dtype, float64 where it is an integer dtype; the broadcast shape.

    Raises:
        ValueError: If dtypes cannot be promoted (an integer tensor with a Python float), shapes or
            devices differ, or the dtype is bool.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.div(Tensor([1.0, 0.0, -1.0]), 0)
        Tensor([ inf  nan -inf], shape=[3], dtype=DType.float32, device=Device(type=cpu,id=0))
        >>> F.div(Tensor([7, 8], dtype=DType.int32), 2)
        Tensor([3.5   4], shape=[2], dtype=DType.float64, device=Device(type=cpu,id=0))
    """
    lhs, rhs = promote_operands("div", (lhs, rhs))
    if lhs.dtype.is_integral():
        lhs, rhs = lhs.cast(DType.float64), rhs.cast(DType.float64)
    elif lhs.dtype is DType.bool:
        raise DTypeError("div: operands have an unsupported dtype: expected numbers, got bool.")
    return true_div(lhs, rhs)


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="mm_floor_div({0}, {1})")
def floor_div(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Quotient rounded toward minus infinity, elementwise with broadcasting.

    Args:
        lhs: Tensor or number, numeric dtype.
        rhs: Tensor or number, numeric dtype; one of the two must be a tensor.

    Returns:
        The promoted dtype, the broadcast shape; integers stay integers, and x // 0 is 0 for them.

    Raises:
        ValueError: If dtypes cannot be promoted, shapes or devices differ, or the dtype is bool.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.floor_div(Tensor([7, -7], dtype=DType.int32), 2).to_numpy().tolist()
        [3, -4]
        >>> F.floor_div(Tensor([7.5, -7.5]), 2).to_numpy().tolist()
        [3.0, -4.0]
    """
    if lhs.dtype.kind == "f":
        return xp.floor(xp.divide(lhs, rhs))
    return xp.floor_divide(lhs, rhs)


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="mm_mod({0}, {1})")
def mod(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Remainder of `floor_div`, with the sign of the divisor (as `%` of Python), elementwise.

    Args:
        lhs: Tensor or number, numeric dtype.
        rhs: Tensor or number, numeric dtype; one of the two must be a tensor.

    Returns:
        The promoted dtype, the broadcast shape; x % 0 is NaN for floats, 0 for integers.

    Raises:
        ValueError: If dtypes cannot be promoted, shapes or devices differ, or the dtype is bool.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.mod(Tensor([7, -7], dtype=DType.int32), 3).to_numpy().tolist()
        [1, 2]
        >>> F.mod(Tensor([5.5, -5.5]), -2).to_numpy().tolist()
        [-0.5, -1.5]
    """
    if lhs.dtype.kind != "f":
        return xp.remainder(lhs, rhs)
    # fmod is exact; lhs - floor(lhs / rhs) * rhs, as some array libraries do it, is not.
    rest = xp.fmod(lhs, rhs)
    rest = xp.where((rest != 0) & ((rest < 0) != (rhs < 0)), rest + rhs, rest)
    return xp.where(rest == 0, xp.copysign(rest, rhs), rest)


@op(E, broadcasting(is_numeric), operands=PROMOTED, scalar="mm_pow({0}, {1})", domain=(0.1, 3.0))
def pow(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Power, lhs ** rhs, elementwise with broadcasting.

    Args:
        lhs: Tensor or number, numeric dtype.
        rhs: Tensor or number, numeric dtype; one of the two must be a tensor.

    Returns:
        The promoted dtype, the broadcast shape. Integers stay integers and wrap; with a negative
        exponent they give 1 / lhs ** -rhs truncated: 1 or -1 where lhs is 1 or -1, else 0.

    Raises:
        ValueError: If dtypes cannot be promoted (an integer tensor with a Python float), shapes or
            devices differ, or the dtype is bool.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.pow(Tensor([2.0, -2.0, 0.0]), -1).to_numpy().tolist()
        [0.5, -0.5, inf]
        >>> base = Tensor([2, -1, 2], dtype=DType.int32)
        >>> F.pow(base, Tensor([5, -3, -1], dtype=DType.int32)).to_numpy().tolist()
        [32, -1, 0]
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


def _float_power(xp: ArrayModule, lhs: Array, rhs: Array) -> Array:
    power = xp.power(lhs, rhs)
    is_root = rhs == 0.5
    if xp is not np or not is_root.any():
        return power
    # NumPy takes the square root where the exponent is one number: another value for -inf, -0.0.
    return xp.where(is_root & (xp.isinf(lhs) | (lhs == 0)), xp.abs(lhs), power)


@op(E, broadcasting(is_any), operands=PROMOTED, scalar="mm_max({0}, {1})")
def maximum(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Larger of two, elementwise with broadcasting; NaN if either is NaN."""
    return xp.maximum(lhs, rhs)


@op(E, broadcasting(is_any), operands=PROMOTED, scalar="mm_min({0}, {1})")
def minimum(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Smaller of two, elementwise with broadcasting; NaN if either is NaN."""
    return xp.minimum(lhs, rhs)


@function
def elementwise_max(lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Larger of two, elementwise with broadcasting; NaN if either is NaN.

    Args:
        lhs: Tensor or number, any dtype.
        rhs: Tensor or number, any dtype; one of the two must be a tensor.

    Returns:
        The promoted dtype, the broadcast shape.

    Raises:
        ValueError: If dtypes cannot be promoted, or shapes or devices differ.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.elementwise_max(Tensor([1.0, float("nan"), -1.0]), 0).to_numpy().tolist()
        [1.0, nan, 0.0]
    """
    return maximum(lhs, rhs)


@function
def elementwise_min(lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Smaller of two, elementwise with broadcasting; NaN if either is NaN.

    Args:
        lhs: Tensor or number, any dtype.
        rhs: Tensor or number, any dtype; one of the two must be a tensor.

    Returns:
        The promoted dtype, the broadcast shape.

    Raises:
        ValueError: If dtypes cannot be promoted, or shapes or devices differ.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.elementwise_min(Tensor([[1.0], [3.0]]), Tensor([0.0, 2.0])).to_numpy().tolist()
        [[0.0, 1.0], [0.0, 2.0]]
    """
    return minimum(lhs, rhs)


@function
def clamp(x: TensorLike, lower_bound: TensorLike, upper_bound: TensorLike) -> Tensor:
    """max(min(x, upper_bound), lower_bound), elementwise with broadcasting.

    The lower bound wins where it lies above the upper one (in `Tensor.clip` the upper one wins).

    Args:
        x: Tensor or number, any dtype.
        lower_bound: Tensor or number.
        upper_bound: Tensor or number; `x` or this one must be a tensor.

    Returns:
        The promoted dtype, the broadcast shape; NaN stays NaN.

    Raises:
        ValueError: If dtypes cannot be promoted, or shapes or devices differ.
        TypeError: If neither `x` nor the upper bound is a tensor.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.clamp(Tensor([-2.0, 0.5, 9.0]), -1, 1).to_numpy().tolist()
        [-1.0, 0.5, 1.0]
        >>> F.clamp(Tensor([0.0]), 3, 1).to_numpy().tolist()
        [3.0]
    """
    return maximum(minimum(x, upper_bound), lower_bound)


@op(E, elementwise(is_numeric), scalar="mm_abs({0})")
def abs(xp: ArrayModule, x: Tensor) -> Tensor:
    """Absolute value |x|, elementwise.

    Args:
        x: Tensor, numeric dtype.

    Returns:
        The type of x. The smallest integer stays itself, as it has no counterpart.

    Raises:
        ValueError: If the dtype is bool.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.abs(Tensor([-3, 2, -128], dtype=DType.int8)).to_numpy().tolist()
        [3, 2, -128]
    """
    return xp.abs(x)


@op(E, elementwise(is_signed), scalar="(-{0})")
def negate(xp: ArrayModule, x: Tensor) -> Tensor:
    """Negation, -x, elementwise.

    Args:
        x: Tensor of floats or signed integers.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is unsigned or bool (`F.logical_not` is for those).

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.negate(Tensor([1, -2], dtype=DType.int32)).to_numpy().tolist()
        [-1, 2]
    """
    return xp.negative(x)
