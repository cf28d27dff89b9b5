"""Elementwise functions of floats beyond those of MAX: what the array API standard asks for.

`scalar` is the C expression of one element; the `mm_` functions are in the preludes, most of them
as those of the C library and of CUDA. Half types arrive as float32.
"""

from __future__ import annotations

from maxmod.dtype import DType
from maxmod.op import Kind, Operands, op
from maxmod.op.rules import broadcasting, elementwise, is_float, predicate
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import ArrayModule

E = Kind.ELEMENTWISE
PROMOTED = Operands.PROMOTED


def is_wide_float(dtype: DType) -> bool:
    """Float32 and float64 only."""
    return dtype in (DType.float32, DType.float64)


@op(E, elementwise(is_float), scalar="mm_tan({0})", domain=(-1.5, 1.5))
def tan(xp: ArrayModule, x: Tensor) -> Tensor:
    """Tangent of x in radians, elementwise."""
    return xp.tan(x)


@op(E, elementwise(is_float), scalar="mm_asin({0})", domain=(-0.99, 0.99))
def asin(xp: ArrayModule, x: Tensor) -> Tensor:
    """Arc sine in radians, elementwise; NaN outside [-1, 1]."""
    return xp.arcsin(x)


@op(E, elementwise(is_float), scalar="mm_atan({0})")
def atan(xp: ArrayModule, x: Tensor) -> Tensor:
    """Arc tangent in radians, elementwise."""
    return xp.arctan(x)


@op(E, elementwise(is_float), scalar="mm_sinh({0})")
def sinh(xp: ArrayModule, x: Tensor) -> Tensor:
    """Hyperbolic sine, elementwise."""
    return xp.sinh(x)


@op(E, elementwise(is_float), scalar="mm_cosh({0})")
def cosh(xp: ArrayModule, x: Tensor) -> Tensor:
    """Hyperbolic cosine, elementwise."""
    return xp.cosh(x)


@op(E, elementwise(is_float), scalar="mm_asinh({0})")
def asinh(xp: ArrayModule, x: Tensor) -> Tensor:
    """Inverse hyperbolic sine, elementwise."""
    return xp.arcsinh(x)


@op(E, elementwise(is_float), scalar="mm_acosh({0})", domain=(1.1, 1e3))
def acosh(xp: ArrayModule, x: Tensor) -> Tensor:
    """Inverse hyperbolic cosine, elementwise; NaN below 1."""
    return xp.arccosh(x)


@op(E, elementwise(is_float), scalar="mm_expm1({0})")
def expm1(xp: ArrayModule, x: Tensor) -> Tensor:
    """e ** x - 1, elementwise, exact near 0."""
    return xp.expm1(x)


@op(E, elementwise(is_float), scalar="mm_log2({0})", domain=(1e-3, 1e3))
def log2(xp: ArrayModule, x: Tensor) -> Tensor:
    """Logarithm to the base 2, elementwise; -inf at 0, NaN below."""
    return xp.log2(x)


@op(E, elementwise(is_float), scalar="mm_log10({0})", domain=(1e-3, 1e3))
def log10(xp: ArrayModule, x: Tensor) -> Tensor:
    """Logarithm to the base 10, elementwise; -inf at 0, NaN below."""
    return xp.log10(x)


@op(E, predicate(is_float), scalar="mm_signbit({0})")
def signbit(xp: ArrayModule, x: Tensor) -> Tensor:
    """True where the sign bit is set, elementwise: numbers below 0, -0.0, and NaN with a sign."""
    return xp.signbit(x)


@op(E, broadcasting(is_float), operands=PROMOTED, scalar="mm_atan2({0}, {1})")
def atan2(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Angle of the point (rhs, lhs) in radians, elementwise with broadcasting."""
    return xp.arctan2(lhs, rhs)


@op(E, broadcasting(is_float), operands=PROMOTED, scalar="mm_hypot({0}, {1})")
def hypot(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """sqrt(lhs^2 + rhs^2), elementwise with broadcasting; the squares do not overflow."""
    return xp.hypot(lhs, rhs)


@op(E, broadcasting(is_float), operands=PROMOTED, scalar="mm_copysign({0}, {1})")
def copysign(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """The size of lhs with the sign of rhs, elementwise with broadcasting."""
    return xp.copysign(lhs, rhs)


@op(E, broadcasting(is_wide_float), operands=PROMOTED, scalar="mm_nextafter({0}, {1})")
def nextafter(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """The neighbour of lhs in its dtype in the direction of rhs, elementwise with broadcasting."""
    return xp.nextafter(lhs, rhs)
