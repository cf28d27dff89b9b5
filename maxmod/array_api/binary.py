"""Elementwise functions of two arrays, or of an array and a Python number; they broadcast."""

from __future__ import annotations

import math
from typing import TypeAlias

from maxmod import functional as F
from maxmod.array_api.array import Array, binary, bits, operand, operands
from maxmod.array_api.dtypes import (
    common_dtype,
    is_any,
    is_bool,
    is_float,
    is_integral,
    is_number,
    is_numeric,
    number,
    weak_dtype,
)
from maxmod.array_api.operators import function
from maxmod.ops import arithmetic, bitwise, transcendental
from maxmod.tensor import Tensor

Operand: TypeAlias = Array | bool | int | float  # at least one operand is an Array

# ---- arithmetic --------------------------------------------------------------------------------


@function
def add(x1: Operand, x2: Operand, /) -> Array:
    """x1 + x2; integers wrap."""
    return binary(F.add, x1, x2, is_numeric)


@function
def subtract(x1: Operand, x2: Operand, /) -> Array:
    """x1 - x2; integers wrap."""
    return binary(F.sub, x1, x2, is_numeric, "subtract")


@function
def multiply(x1: Operand, x2: Operand, /) -> Array:
    """x1 * x2; integers wrap."""
    return binary(F.mul, x1, x2, is_numeric, "multiply")


@function
def divide(x1: Operand, x2: Operand, /) -> Array:
    """x1 / x2 of floats."""
    return binary(F.div, x1, x2, is_float, "divide")


@function
def floor_divide(x1: Operand, x2: Operand, /) -> Array:
    """The exact quotient rounded down, in the dtype of x1 and x2; x // 0 of integers is 0."""
    first, second = operands("floor_divide", x1, x2, is_numeric)
    floor = F.floor_div(first, second)
    if not first.dtype.is_float():
        return Array(floor)
    # The quotient may have been rounded up to a whole number; what `remainder` leaves is exact.
    rest = F.mod(first, second)
    whole = F.round(F.div(F.sub(first, rest), second))
    whole = transcendental.copysign(whole, F.div(first, second))  # zeros too
    infinity = number(math.inf, rest.dtype, rest.type.device)
    is_finite = F.greater(infinity, F.abs(rest))
    is_rest = F.logical_and(is_finite, F.not_equal(rest, 0))
    return Array(F.where(is_rest, whole, floor))


@function
def remainder(x1: Operand, x2: Operand, /) -> Array:
    """The rest of the division, with the sign of x2; x % 0 of integers is 0."""
    return binary(F.mod, x1, x2, is_numeric, "remainder")


@function
def pow(x1: Operand, x2: Operand, /) -> Array:
    """x1 ** x2; integers stay integers, with negative exponents as in `F.pow`."""
    return binary(F.pow, x1, x2, is_numeric)


@function
def maximum(x1: Operand, x2: Operand, /) -> Array:
    """The larger one; NaN if either is NaN."""
    return binary(arithmetic.maximum, x1, x2, is_numeric)


@function
def minimum(x1: Operand, x2: Operand, /) -> Array:
    """The smaller one; NaN if either is NaN."""
    return binary(arithmetic.minimum, x1, x2, is_numeric)


@function
def clip(x: Array, /, min: Operand | None = None, max: Operand | None = None) -> Array:
    """min(max(x, min), max) in the dtype of x; NaN stays NaN."""
    tensor = operand("clip", x, is_numeric)
    if min is not None:
        tensor = arithmetic.maximum(tensor, _bound(min, tensor))
    if max is not None:
        tensor = arithmetic.minimum(tensor, _bound(max, tensor))
    return Array(tensor)


def _bound(value: Operand, like: Tensor) -> Tensor:
    if is_number(value):
        return number(value, weak_dtype("clip", value, like.dtype), like.type.device)
    bound = operand("clip", value, is_numeric)
    common_dtype("clip", bound.dtype, like.dtype)
    return bound.cast(like.dtype)


# ---- functions of floats -----------------------------------------------------------------------


@function
def atan2(x1: Operand, x2: Operand, /) -> Array:
    """The angle of the point (x2, x1) in radians."""
    return binary(transcendental.atan2, x1, x2, is_float)


@function
def hypot(x1: Operand, x2: Operand, /) -> Array:
    """sqrt(x1^2 + x2^2), without overflow of the squares."""
    return binary(transcendental.hypot, x1, x2, is_float)


@function
def copysign(x1: Operand, x2: Operand, /) -> Array:
    """The size of x1 with the sign of x2."""
    return binary(transcendental.copysign, x1, x2, is_float)


@function
def nextafter(x1: Operand, x2: Operand, /) -> Array:
    """The neighbour of x1 in the direction of x2."""
    return binary(transcendental.nextafter, x1, x2, is_float)


@function
def logaddexp(x1: Operand, x2: Operand, /) -> Array:
    """log(e ** x1 + e ** x2), without overflow of the powers."""
    first, second = operands("logaddexp", x1, x2, is_float)
    # Equal infinities have no difference.
    same = F.equal(first, second)
    twice = F.add(first, number(math.log(2), first.dtype, first.type.device))
    distance = F.abs(F.sub(first, second))
    rest = F.log1p(F.exp(F.negate(distance)))
    larger = arithmetic.maximum(first, second)
    return Array(F.where(same, twice, F.add(larger, rest)))


# ---- comparison and logic ----------------------------------------------------------------------


@function
def equal(x1: Operand, x2: Operand, /) -> Array:
    """x1 == x2; NaN equals nothing."""
    return binary(F.equal, x1, x2, is_any)


@function
def not_equal(x1: Operand, x2: Operand, /) -> Array:
    """x1 != x2; NaN differs from everything."""
    return binary(F.not_equal, x1, x2, is_any)


@function
def greater(x1: Operand, x2: Operand, /) -> Array:
    """x1 > x2."""
    return binary(F.greater, x1, x2, is_numeric)


@function
def greater_equal(x1: Operand, x2: Operand, /) -> Array:
    """x1 >= x2."""
    return binary(F.greater_equal, x1, x2, is_numeric)


@function
def less(x1: Operand, x2: Operand, /) -> Array:
    """x1 < x2; unlike `<` of `Tensor`, false for NaN."""
    first, second = operands("less", x1, x2, is_numeric)
    return Array(F.greater(second, first))


@function
def less_equal(x1: Operand, x2: Operand, /) -> Array:
    """x1 <= x2; unlike `<=` of `Tensor`, false for NaN."""
    first, second = operands("less_equal", x1, x2, is_numeric)
    return Array(F.greater_equal(second, first))


@function
def logical_and(x1: Operand, x2: Operand, /) -> Array:
    """x1 and x2, of bools."""
    return binary(F.logical_and, x1, x2, is_bool)


@function
def logical_or(x1: Operand, x2: Operand, /) -> Array:
    """x1 or x2, of bools."""
    return binary(F.logical_or, x1, x2, is_bool)


@function
def logical_xor(x1: Operand, x2: Operand, /) -> Array:
    """Exactly one of both, of bools."""
    return binary(F.logical_xor, x1, x2, is_bool)


@function
def where(condition: Array, x1: Operand, x2: Operand, /) -> Array:
    """x1 where the condition is true, else x2; all three broadcast."""
    chosen = operand("where", condition, is_bool)
    return Array(F.where(chosen, *operands("where", x1, x2, is_any)))


# ---- bits --------------------------------------------------------------------------------------


@function
def bitwise_and(x1: Operand, x2: Operand, /) -> Array:
    """Bits set in both; and of bools."""
    return bits(bitwise.bitwise_and, F.logical_and, x1, x2)


@function
def bitwise_or(x1: Operand, x2: Operand, /) -> Array:
    """Bits set in either; or of bools."""
    return bits(bitwise.bitwise_or, F.logical_or, x1, x2)


@function
def bitwise_xor(x1: Operand, x2: Operand, /) -> Array:
    """Bits set in exactly one; exclusive or of bools."""
    return bits(bitwise.bitwise_xor, F.logical_xor, x1, x2)


@function
def bitwise_left_shift(x1: Operand, x2: Operand, /) -> Array:
    """x1 * 2 ** x2; 0 where x2 is negative or too large."""
    return binary(bitwise.bitwise_left_shift, x1, x2, is_integral)


@function
def bitwise_right_shift(x1: Operand, x2: Operand, /) -> Array:
    """x1 / 2 ** x2 rounded down."""
    return binary(bitwise.bitwise_right_shift, x1, x2, is_integral)
