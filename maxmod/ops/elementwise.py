"""Elementwise ops: one result element from the elements at its position.

`scalar` is the C expression of one element; the functions starting with `mm_` stand in the prelude
of each kernel dialect, where NaN rules and half types are settled. Half types arrive as float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from maxmod.dtype import DType, compute_dtype, storage_dtype
from maxmod.errors import ArgumentError, DTypeError, OperandError
from maxmod.op import Kind, Op, Operands, function, op
from maxmod.operands import promote_operands, strong
from maxmod.rules import (
    broadcast_type,
    broadcasting,
    elementwise,
    expect_same_dtype,
    is_any,
    is_bool,
    is_float,
    is_numeric,
    is_signed,
    predicate,
)
from maxmod.tensor import Tensor
from maxmod.tensor_type import TensorType

TensorLike = Any
E = Kind.ELEMENTWISE
PROMOTED = Operands.PROMOTED


# ---- arithmetic --------------------------------------------------------------------------------


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


# ---- functions of floats -----------------------------------------------------------------------


@op(E, elementwise(is_float), scalar="mm_exp({0})")
def exp(xp: Any, x: Tensor) -> Tensor:
    """Exponential e ** x, elementwise."""
    return xp.exp(x)


@op(E, elementwise(is_float), scalar="mm_log({0})", domain=(1e-3, 1e3))
def log(xp: Any, x: Tensor) -> Tensor:
    """Natural logarithm, elementwise; -inf at 0, NaN below."""
    return xp.log(x)


@op(E, elementwise(is_float), scalar="mm_log1p({0})", domain=(-0.9, 1e3))
def log1p(xp: Any, x: Tensor) -> Tensor:
    """log(1 + x), elementwise, exact near 0."""
    return xp.log1p(x)


@op(E, elementwise(is_float), scalar="mm_sqrt({0})", domain=(0.0, 1e3))
def sqrt(xp: Any, x: Tensor) -> Tensor:
    """Square root, elementwise; NaN below 0."""
    return xp.sqrt(x)


@op(E, elementwise(is_float), scalar="mm_rsqrt({0})", domain=(1e-3, 1e3))
def rsqrt(xp: Any, x: Tensor) -> Tensor:
    """Reciprocal square root 1 / sqrt(x), elementwise."""
    return xp.divide(1, xp.sqrt(x))


@op(E, elementwise(is_float), scalar="mm_sin({0})")
def sin(xp: Any, x: Tensor) -> Tensor:
    """Sine of x in radians, elementwise."""
    return xp.sin(x)


@op(E, elementwise(is_float), scalar="mm_cos({0})")
def cos(xp: Any, x: Tensor) -> Tensor:
    """Cosine of x in radians, elementwise."""
    return xp.cos(x)


@op(E, elementwise(is_float), scalar="mm_tanh({0})")
def tanh(xp: Any, x: Tensor) -> Tensor:
    """Hyperbolic tangent, elementwise."""
    return xp.tanh(x)


@op(E, elementwise(is_float), scalar="mm_atanh({0})", domain=(-0.99, 0.99))
def atanh(xp: Any, x: Tensor) -> Tensor:
    """Inverse hyperbolic tangent, elementwise; NaN outside [-1, 1]."""
    return xp.arctanh(x)


@op(E, elementwise(is_float), scalar="mm_acos({0})", domain=(-0.99, 0.99))
def acos(xp: Any, x: Tensor) -> Tensor:
    """Arc cosine in radians, elementwise. Narrower types than float64 are clamped to [-1, 1]."""
    return xp.arccos(x if x.dtype.itemsize == 8 else xp.clip(x, -1, 1))


@op(E, elementwise(is_float), scalar="mm_erf({0})")
def erf(xp: Any, x: Tensor) -> Tensor:
    """Error function 2/sqrt(pi) * integral of exp(-t^2) from 0 to x, elementwise."""
    return _erf(xp, x)


@op(E, elementwise(is_float), scalar="mm_floor({0})")
def floor(xp: Any, x: Tensor) -> Tensor:
    """Largest whole number not above x, elementwise; the dtype stays a float."""
    return xp.floor(x)


@op(E, elementwise(is_float), scalar="mm_ceil({0})")
def ceil(xp: Any, x: Tensor) -> Tensor:
    """Smallest whole number not below x, elementwise; the dtype stays a float."""
    return xp.ceil(x)


@op(E, elementwise(is_float), scalar="mm_trunc({0})")
def trunc(xp: Any, x: Tensor) -> Tensor:
    """Whole part of x, rounded toward zero, elementwise; the dtype stays a float."""
    return xp.trunc(x)


@op(E, elementwise(is_float), scalar="mm_round({0})")
def round(xp: Any, x: Tensor) -> Tensor:
    """Nearest whole number, ties to even, elementwise; the dtype stays a float."""
    return xp.rint(x)


@op(E, predicate(is_numeric), scalar="mm_is_nan({0})")
def is_nan(xp: Any, x: Tensor) -> Tensor:
    """True where x is NaN, elementwise; always False for integers."""
    return xp.isnan(x)


@op(E, predicate(is_numeric), scalar="mm_is_inf({0})")
def is_inf(xp: Any, x: Tensor) -> Tensor:
    """True where x is an infinity of either sign, elementwise; always False for integers."""
    return xp.isinf(x)


# ---- activations -------------------------------------------------------------------------------


@op(E, elementwise(is_numeric), scalar="mm_relu({0})")
def relu(xp: Any, x: Tensor) -> Tensor:
    """max(x, 0), elementwise; NaN stays NaN."""
    return xp.maximum(x, xp.zeros((), dtype=x.dtype))


@op(E, elementwise(is_float), scalar="mm_sigmoid({0})")
def sigmoid(xp: Any, x: Tensor) -> Tensor:
    """Logistic function 1 / (1 + exp(-x)), elementwise."""
    return _sigmoid(xp, x)


@op(E, elementwise(is_float), scalar="({0} * mm_sigmoid({0}))")
def silu(xp: Any, x: Tensor) -> Tensor:
    """x * sigmoid(x), elementwise (also called swish)."""
    return xp.multiply(x, _sigmoid(xp, x))


def _sigmoid(xp: Any, x: Any) -> Any:
    # exp of a negative number only, so that nothing overflows.
    small = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1 / (1 + small), small / (1 + small))


_APPROXIMATIONS = ("none", "tanh", "quick")


def _known_approximation(op: Op, x: TensorType, *, approximate: Any) -> dict[str, Any]:
    if approximate not in _APPROXIMATIONS:
        raise ArgumentError(
            f"gelu: Invalid approximation method: {approximate!r}: expected one of "
            f"{', '.join(_APPROXIMATIONS)}."
        )
    return {"approximate": approximate}


@op(E, elementwise(is_float), prepare=_known_approximation, scalar="mm_gelu_{approximate}({0})")
def gelu(xp: Any, x: Tensor, approximate: str = "none") -> Tensor:
    """Gaussian error linear unit, elementwise.

    Args:
        x: Tensor of a float dtype.
        approximate: `"none"`: x/2 (1 + erf(x/sqrt 2)); `"tanh"`: x/2 (1 + tanh(sqrt(2/pi) (x +
            0.044715 x^3))); `"quick"`: x sigmoid(1.702 x).

    Raises:
        ValueError: For another approximation or a dtype that is no float.

    Source: D. Hendrycks and K. Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.gelu(Tensor([0.0, 100.0]), approximate="tanh").to_numpy().tolist()
        [0.0, 100.0]
    """
    if approximate == "none":
        return 0.5 * x * (1 + _erf(xp, x * math.sqrt(0.5)))
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + xp.tanh(inner))
    return x * _sigmoid(xp, 1.702 * x)


# Coefficients of erf and erfc on four intervals. Source: W. J. Cody, Rational Chebyshev
# approximations for the error function, Math. Comp. 23 (1969) 631-637, as tabulated in the
# CALERF routine; relative error below 1.2e-16.
_ERF_P: tuple[float, ...] = (3.16112374387056560e00, 1.13864154151050156e02, 3.77485237685302021e02)
_ERF_P += (3.20937758913846947e03, 1.85777706184603153e-1)
_ERF_Q: tuple[float, ...] = (2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03)
_ERF_Q += (2.84423683343917062e03,)
_ERFC_P: tuple[float, ...] = (5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e01)
_ERFC_P += (2.98635138197400131e02, 8.81952221241769090e02, 1.71204761263407058e03)
_ERFC_P += (2.05107837782607147e03, 1.23033935479799725e03, 2.15311535474403846e-8)
_ERFC_Q: tuple[float, ...] = (
    1.57449261107098347e01,
    1.17693950891312499e02,
    5.37181101862009858e02,
)
_ERFC_Q += (1.62138957456669019e03, 3.29079923573345963e03, 4.36261909014324716e03)
_ERFC_Q += (3.43936767414372164e03, 1.23033935480374942e03)


def _erf(xp: Any, x: Any) -> Any:
    y = xp.abs(x)
    square = y * y
    top = _ERF_P[4] * square
    bottom = square
    for p, q in zip(_ERF_P[:3], _ERF_Q[:3], strict=True):
        top = (top + p) * square
        bottom = (bottom + q) * square
    small = x * (top + _ERF_P[3]) / (bottom + _ERF_Q[3])
    # erf(4) differs from 1 by 2e-8 and erf(6) by 2e-17: beyond 6 the sign is the answer.
    z = xp.minimum(y, 6)
    top = _ERFC_P[8] * z
    bottom = z
    for p, q in zip(_ERFC_P[:7], _ERFC_Q[:7], strict=True):
        top = (top + p) * z
        bottom = (bottom + q) * z
    tail = xp.exp(-z * z) * (top + _ERFC_P[7]) / (bottom + _ERFC_Q[7])
    large = xp.copysign(1 - tail, x)
    return xp.where(y <= 0.46875, small, large)


# ---- comparison and logic ----------------------------------------------------------------------


def _comparison(op: Op, lhs: TensorType, rhs: TensorType) -> TensorType:
    expect_same_dtype(op, lhs, rhs)
    return broadcast_type(op, DType.bool, lhs, rhs)


@op(E, _comparison, operands=PROMOTED, scalar="({0} == {1})")
def equal(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs == rhs, elementwise with broadcasting; bool. NaN equals nothing."""
    return xp.equal(lhs, rhs)


@op(E, _comparison, operands=PROMOTED, scalar="({0} != {1})")
def not_equal(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs != rhs, elementwise with broadcasting; bool. NaN differs from everything."""
    return xp.not_equal(lhs, rhs)


@op(E, _comparison, operands=PROMOTED, scalar="({0} > {1})")
def greater(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs > rhs, elementwise with broadcasting; bool."""
    return xp.greater(lhs, rhs)


@op(E, _comparison, operands=PROMOTED, scalar="({0} >= {1})")
def greater_equal(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs >= rhs, elementwise with broadcasting; bool."""
    return xp.greater_equal(lhs, rhs)


@op(E, predicate(is_bool), operands=PROMOTED, scalar="({0} && {1})")
def logical_and(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs and rhs, elementwise with broadcasting; bool operands only."""
    return xp.logical_and(lhs, rhs)


@op(E, predicate(is_bool), operands=PROMOTED, scalar="({0} || {1})")
def logical_or(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs or rhs, elementwise with broadcasting; bool operands only."""
    return xp.logical_or(lhs, rhs)


@op(E, predicate(is_bool), operands=PROMOTED, scalar="({0} != {1})")
def logical_xor(xp: Any, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Exactly one of lhs and rhs, elementwise with broadcasting; bool operands only."""
    return xp.logical_xor(lhs, rhs)


@op(E, predicate(is_bool), scalar="(!{0})")
def logical_not(xp: Any, x: Tensor) -> Tensor:
    """not x, elementwise; bool only."""
    return xp.logical_not(x)


def _selected(op: Op, condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if condition.dtype is not DType.bool:
        raise DTypeError(
            f"where: condition has an unsupported dtype: expected bool, got {condition.short()}. "
            "Hint: compare it first, for example x != 0."
        )
    if x.dtype is not y.dtype:
        raise DTypeError(f"where: x and y must have the same dtype: {x.short()}, {y.short()}.")
    return broadcast_type(op, x.dtype, condition, x, y)


@op(E, _selected, scalar="({0} ? {1} : {2})", name="select")
def _select(xp: Any, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition is true, else y; x and y of one dtype."""
    return xp.where(condition, x, y)


@function
def where(condition: Tensor, x: TensorLike, y: TensorLike) -> Tensor:
    """Elements of x where the condition is true, else of y; all three broadcast.

    Args:
        condition: bool tensor.
        x: Tensor or number.
        y: Tensor or number; at least one of x and y is a tensor.

    Returns:
        The promoted dtype of x and y, the broadcast shape of all three.

    Raises:
        ValueError: If the condition is not bool, or shapes or dtypes do not fit.
        TypeError: If x and y are both numbers, or the condition is no tensor.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([-1.0, 2.0])
        >>> F.where(x > 0, x, 0).to_numpy().tolist()
        [0.0, 2.0]
    """
    condition = strong("where", condition)
    x, y = promote_operands("where", (x, y))
    return _select(condition, x, y)


# ---- conversion --------------------------------------------------------------------------------


def _cast_type(op: Op, x: TensorType, *, dtype: DType) -> TensorType:
    if not isinstance(dtype, DType):
        raise OperandError(f"cast: dtype: expected a DType, got {dtype!r}.")
    return x.cast(dtype)


@op(E, _cast_type, scalar="mm_cast_{dtype}({0})", upcasts=False, name="cast")
def _cast(xp: Any, x: Tensor, dtype: DType) -> Tensor:
    """Conversion to another dtype, elementwise."""
    source = DType.from_numpy(x.dtype)
    if compute_dtype(source) is not source and not dtype.is_float():
        x = x.astype(storage_dtype(compute_dtype(source)))
    if dtype is DType.bool:
        return xp.not_equal(x, xp.zeros((), dtype=x.dtype))
    return x.astype(storage_dtype(dtype))


def cast(x: Tensor, dtype: DType) -> Tensor:
    """Conversion to another dtype, elementwise; never an error.

    Floats become integers by truncation toward zero (out of range is unspecified), integers wrap,
    anything becomes bool by `!= 0`, floats are rounded to nearest even.

    Args:
        x: Tensor of any dtype.
        dtype: The dtype of the result.

    Returns:
        The shape of x; x itself if it has the dtype already.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.cast(Tensor([1.9, -1.9]), DType.int32).to_numpy().tolist()
        [1, -1]
    """
    x = strong("cast", x)
    return x if dtype is x.dtype else _cast(x, dtype=dtype)
