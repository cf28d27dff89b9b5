"""Elementwise functions of one array: signs, rounding, powers, logarithms, angles, tests."""

from __future__ import annotations

from maxmod import functional as F
from maxmod.array_api.array import Array, TensorFunction, operand, tensor_of, unary
from maxmod.array_api.dtypes import (
    expect,
    is_bits,
    is_bool,
    is_float,
    is_numeric,
    number,
)
from maxmod.array_api.operators import function
from maxmod.ops import bitwise, transcendental
from maxmod.tensor import Tensor


def _filled(value: float, like: Tensor) -> Tensor:
    return number(value, like.dtype, like.type.device)


def _rounded(op: TensorFunction, x: Array) -> Array:
    """Applies a rounding op; integers are whole already."""
    tensor = operand(op.__name__, x, is_numeric)
    return Array(op(tensor)) if tensor.dtype.is_float() else Array(tensor)


# ---- signs and rounding ------------------------------------------------------------------------


@function
def positive(x: Array, /) -> Array:
    """The numbers themselves."""
    return Array(operand("positive", x, is_numeric))


@function
def negative(x: Array, /) -> Array:
    """-x; unsigned integers wrap."""
    tensor = operand("negative", x, is_numeric)
    if tensor.dtype.is_unsigned_integral():
        return Array(F.sub(_filled(0, tensor), tensor))
    return Array(F.negate(tensor))


@function
def abs(x: Array, /) -> Array:
    """|x|."""
    return unary(F.abs, x, is_numeric)


@function
def sign(x: Array, /) -> Array:
    """-1, 0 or 1; NaN stays."""
    tensor = operand("sign", x, is_numeric)
    zero = _filled(0, tensor)
    rest = F.abs(tensor) if tensor.dtype.is_float() else tensor  # NaN, or 0 without a sign
    result = F.where(F.greater(tensor, zero), _filled(1, tensor), rest)
    if tensor.dtype.is_unsigned_integral():
        return Array(result)
    return Array(F.where(F.greater(zero, tensor), _filled(-1, tensor), result))


@function
def signbit(x: Array, /) -> Array:
    """True where the sign bit of a float is set, -0.0 and some NaN included."""
    return unary(transcendental.signbit, x, is_float)


@function
def ceil(x: Array, /) -> Array:
    """The smallest whole number not below x, in the dtype of x."""
    return _rounded(F.ceil, x)


@function
def floor(x: Array, /) -> Array:
    """The largest whole number not above x, in the dtype of x."""
    return _rounded(F.floor, x)


@function
def trunc(x: Array, /) -> Array:
    """The whole part of x, in the dtype of x."""
    return _rounded(F.trunc, x)


@function
def round(x: Array, /) -> Array:
    """The nearest whole number, ties to even, in the dtype of x."""
    return _rounded(F.round, x)


@function
def conj(x: Array, /) -> Array:
    """The numbers themselves: there is no complex dtype."""
    return Array(operand("conj", x, is_numeric))


@function
def real(x: Array, /) -> Array:
    """The numbers themselves: there is no complex dtype."""
    return Array(operand("real", x, is_numeric))


@function
def imag(x: Array, /) -> Array:
    """Zeros: there is no complex dtype."""
    return Array(Tensor.zeros_like(operand("imag", x, is_numeric).type))


# ---- powers and logarithms ---------------------------------------------------------------------


@function
def square(x: Array, /) -> Array:
    """x * x."""
    tensor = operand("square", x, is_numeric)
    return Array(F.mul(tensor, tensor))


@function
def sqrt(x: Array, /) -> Array:
    """Square root; NaN below 0."""
    return unary(F.sqrt, x, is_float)


@function
def reciprocal(x: Array, /) -> Array:
    """1 / x."""
    tensor = operand("reciprocal", x, is_float)
    return Array(_filled(1, tensor) / tensor)


@function
def exp(x: Array, /) -> Array:
    """e ** x."""
    return unary(F.exp, x, is_float)


@function
def expm1(x: Array, /) -> Array:
    """e ** x - 1, exact near 0."""
    return unary(transcendental.expm1, x, is_float)


@function
def log(x: Array, /) -> Array:
    """Natural logarithm."""
    return unary(F.log, x, is_float)


@function
def log1p(x: Array, /) -> Array:
    """log(1 + x), exact near 0."""
    return unary(F.log1p, x, is_float)


@function
def log2(x: Array, /) -> Array:
    """Logarithm to the base 2."""
    return unary(transcendental.log2, x, is_float)


@function
def log10(x: Array, /) -> Array:
    """Logarithm to the base 10."""
    return unary(transcendental.log10, x, is_float)


# ---- angles ------------------------------------------------------------------------------------


@function
def sin(x: Array, /) -> Array:
    """Sine of x in radians."""
    return unary(F.sin, x, is_float)


@function
def cos(x: Array, /) -> Array:
    """Cosine of x in radians."""
    return unary(F.cos, x, is_float)


@function
def tan(x: Array, /) -> Array:
    """Tangent of x in radians."""
    return unary(transcendental.tan, x, is_float)


@function
def asin(x: Array, /) -> Array:
    """Arc sine in radians; NaN outside [-1, 1]."""
    return unary(transcendental.asin, x, is_float)


@function
def acos(x: Array, /) -> Array:
    """Arc cosine in radians; NaN outside [-1, 1]."""
    tensor = operand("acos", x, is_float)
    outside = F.greater(F.abs(tensor), _filled(1, tensor))
    return Array(F.where(outside, _filled(float("nan"), tensor), F.acos(tensor)))


@function
def atan(x: Array, /) -> Array:
    """Arc tangent in radians."""
    return unary(transcendental.atan, x, is_float)


@function
def sinh(x: Array, /) -> Array:
    """Hyperbolic sine."""
    return unary(transcendental.sinh, x, is_float)


@function
def cosh(x: Array, /) -> Array:
    """Hyperbolic cosine."""
    return unary(transcendental.cosh, x, is_float)


@function
def tanh(x: Array, /) -> Array:
    """Hyperbolic tangent."""
    return unary(F.tanh, x, is_float)


@function
def asinh(x: Array, /) -> Array:
    """Inverse hyperbolic sine."""
    return unary(transcendental.asinh, x, is_float)


@function
def acosh(x: Array, /) -> Array:
    """Inverse hyperbolic cosine; NaN below 1."""
    return unary(transcendental.acosh, x, is_float)


@function
def atanh(x: Array, /) -> Array:
    """Inverse hyperbolic tangent; NaN outside [-1, 1]."""
    return unary(F.atanh, x, is_float)


# ---- tests and bits ----------------------------------------------------------------------------


@function
def isnan(x: Array, /) -> Array:
    """True where x is NaN."""
    return unary(F.is_nan, x, is_numeric, "isnan")


@function
def isinf(x: Array, /) -> Array:
    """True where x is an infinity."""
    return unary(F.is_inf, x, is_numeric, "isinf")


@function
def isfinite(x: Array, /) -> Array:
    """True where x is neither NaN nor an infinity."""
    tensor = operand("isfinite", x, is_numeric)
    return Array(F.logical_not(F.logical_or(F.is_nan(tensor), F.is_inf(tensor))))


@function
def logical_not(x: Array, /) -> Array:
    """not x, of bools."""
    return unary(F.logical_not, x, is_bool)


@function
def bitwise_invert(x: Array, /) -> Array:
    """Every bit flipped; not x of bools."""
    tensor = tensor_of("bitwise_invert", x)
    expect("bitwise_invert", is_bits, tensor.dtype)
    return Array(F.logical_not(tensor) if is_bool(tensor.dtype) else bitwise.bitwise_invert(tensor))
