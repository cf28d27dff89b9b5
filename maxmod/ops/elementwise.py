"""Elementwise ops: one result element from the elements at its position.

`scalar` is the C expression of one element; the functions starting with `mm_` are in the prelude
of each kernel dialect, where NaN rules and half types are settled. Half types arrive as float32.
"""

from __future__ import annotations

import math

from maxmod.dtype import DType, compute_dtype, storage_dtype
from maxmod.errors import OperandError
from maxmod.interpreters.operands import strong
from maxmod.op import Kind, Op, op
from maxmod.op.rules import elementwise, is_float, is_numeric, predicate
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule
from maxmod.values.narrow import narrowed
from maxmod.values.tensor_type import TensorType

__all__ = [
    "acos",
    "atanh",
    "cast",
    "ceil",
    "cos",
    "erf",
    "exp",
    "floor",
    "is_inf",
    "is_nan",
    "log",
    "log1p",
    "round",
    "rsqrt",
    "sin",
    "sqrt",
    "tanh",
    "trunc",
]

E = Kind.ELEMENTWISE


@op(E, elementwise(is_float), scalar="mm_exp({0})")
def exp(xp: ArrayModule, x: Tensor) -> Tensor:
    """Exponential, e ** x, elementwise; infinity where the dtype cannot hold it.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is not a float: cast first, there is no automatic conversion.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.exp(Tensor([1.0, -1e9, 100.0]))
        Tensor([2.718     0   inf], shape=[3], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    return xp.exp(x)


@op(E, elementwise(is_float), scalar="mm_log({0})", domain=(1e-3, 1e3))
def log(xp: ArrayModule, x: Tensor) -> Tensor:
    """Natural logarithm, elementwise; -inf at 0, NaN below.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.log(Tensor([10.0, 0.0, -1.0]))
        Tensor([2.303  -inf   nan], shape=[3], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    return xp.log(x)


@op(E, elementwise(is_float), scalar="mm_log1p({0})", domain=(-0.9, 1e3))
def log1p(xp: ArrayModule, x: Tensor) -> Tensor:
    """log(1 + x), elementwise, exact near 0; -inf at -1, NaN below.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([1e-9])
        >>> F.log1p(x).item() > 0, F.log(1 + x).item()
        (True, 0.0)
    """
    return xp.log1p(x)


@op(E, elementwise(is_float), scalar="mm_sqrt({0})", domain=(0.0, 1e3))
def sqrt(xp: ArrayModule, x: Tensor) -> Tensor:
    """Square root, elementwise; NaN below 0.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.sqrt(Tensor([4.0, 0.0, -1.0])).to_numpy().tolist()
        [2.0, 0.0, nan]
    """
    return xp.sqrt(x)


@op(E, elementwise(is_float), scalar="mm_rsqrt({0})", domain=(1e-3, 1e3))
def rsqrt(xp: ArrayModule, x: Tensor) -> Tensor:
    """Reciprocal square root, 1 / sqrt(x), elementwise; infinity at 0, NaN below.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.rsqrt(Tensor([4.0, 0.0])).to_numpy().tolist()
        [0.5, inf]
    """
    return xp.divide(1, xp.sqrt(x))


@op(E, elementwise(is_float), scalar="mm_sin({0})")
def sin(xp: ArrayModule, x: Tensor) -> Tensor:
    """Sine, elementwise.

    Args:
        x: Tensor of a float dtype, in radians.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> import math
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.sin(Tensor([0.0, 0.5, math.pi / 2]))
        Tensor([     0 0.4794      1], shape=[3], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    return xp.sin(x)


@op(E, elementwise(is_float), scalar="mm_cos({0})")
def cos(xp: ArrayModule, x: Tensor) -> Tensor:
    """Cosine, elementwise.

    Args:
        x: Tensor of a float dtype, in radians.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> import math
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.cos(Tensor([0.0, 0.5, math.pi]))
        Tensor([     1 0.8776     -1], shape=[3], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    return xp.cos(x)


@op(E, elementwise(is_float), scalar="mm_tanh({0})")
def tanh(xp: ArrayModule, x: Tensor) -> Tensor:
    """Hyperbolic tangent, elementwise.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x, between -1 and 1.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.tanh(Tensor([0.0, 0.5, -100.0]))
        Tensor([     0 0.4621     -1], shape=[3], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    return xp.tanh(x)


@op(E, elementwise(is_float), scalar="mm_atanh({0})", domain=(-0.99, 0.99))
def atanh(xp: ArrayModule, x: Tensor) -> Tensor:
    """Inverse hyperbolic tangent, elementwise; an infinity at -1 and 1, NaN beyond.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.atanh(Tensor([0.5, -1.0, 2.0]))
        Tensor([0.5493   -inf    nan], shape=[3], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    return xp.arctanh(x)


@op(E, elementwise(is_float), scalar="mm_acos({0})", domain=(-0.99, 0.99))
def acos(xp: ArrayModule, x: Tensor) -> Tensor:
    """Arc cosine in radians, elementwise.

    Args:
        x: Tensor of a float dtype. Values of narrower types than float64 are clamped to [-1, 1], so
            that a cosine that rounding put outside does not become NaN (as in MAX).

    Returns:
        The type of x, between 0 and pi.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.acos(Tensor([1.0, 0.0, -1.1]))
        Tensor([    0 1.571 3.142], shape=[3], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    return xp.arccos(x if x.dtype.itemsize == 8 else xp.clip(x, -1, 1))


@op(E, elementwise(is_float), scalar="mm_erf({0})")
def erf(xp: ArrayModule, x: Tensor) -> Tensor:
    """Error function, 2 / sqrt(pi) * integral of exp(-t^2) from 0 to x, elementwise.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x, between -1 and 1.

    Raises:
        ValueError: If the dtype is not a float.

    Source: W. J. Cody, Rational Chebyshev approximations for the error function, Math. Comp. 23
    (1969) 631-637.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.erf(Tensor([0.0, 0.5, -10.0]))
        Tensor([     0 0.5205     -1], shape=[3], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    return erf_of(xp, x)


@op(E, elementwise(is_float), scalar="mm_floor({0})")
def floor(xp: ArrayModule, x: Tensor) -> Tensor:
    """Largest whole number not above x, elementwise.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x: still a float.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.floor(Tensor([1.7, -1.2])).to_numpy().tolist()
        [1.0, -2.0]
    """
    return xp.floor(x)


@op(E, elementwise(is_float), scalar="mm_ceil({0})")
def ceil(xp: ArrayModule, x: Tensor) -> Tensor:
    """Smallest whole number not below x, elementwise.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x: still a float.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.ceil(Tensor([1.2, -1.7])).to_numpy().tolist()
        [2.0, -1.0]
    """
    return xp.ceil(x)


@op(E, elementwise(is_float), scalar="mm_trunc({0})")
def trunc(xp: ArrayModule, x: Tensor) -> Tensor:
    """Whole part of x, rounded toward zero, elementwise.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x: still a float.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.trunc(Tensor([1.7, -1.7])).to_numpy().tolist()
        [1.0, -1.0]
    """
    return xp.trunc(x)


@op(E, elementwise(is_float), scalar="mm_round({0})")
def round(xp: ArrayModule, x: Tensor) -> Tensor:
    """Nearest whole number, ties to the even one, elementwise.

    Args:
        x: Tensor of a float dtype.

    Returns:
        The type of x: still a float.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.round(Tensor([0.5, 1.5, 2.5, -1.7])).to_numpy().tolist()
        [0.0, 2.0, 2.0, -2.0]
    """
    return xp.rint(x)


@op(E, predicate(is_numeric), scalar="mm_is_nan({0})")
def is_nan(xp: ArrayModule, x: Tensor) -> Tensor:
    """True where x is NaN, elementwise.

    Args:
        x: Tensor, numeric dtype.

    Returns:
        bool, the shape of x; always False for integers.

    Raises:
        ValueError: If the dtype is bool.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.is_nan(Tensor([float("nan"), 1.0, float("inf")])).to_numpy().tolist()
        [True, False, False]
    """
    return xp.isnan(x)


@op(E, predicate(is_numeric), scalar="mm_is_inf({0})")
def is_inf(xp: ArrayModule, x: Tensor) -> Tensor:
    """True where x is an infinity of either sign, elementwise.

    Args:
        x: Tensor, numeric dtype.

    Returns:
        bool, the shape of x; always False for integers.

    Raises:
        ValueError: If the dtype is bool.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.is_inf(Tensor([float("-inf"), 1.0, float("nan")])).to_numpy().tolist()
        [True, False, False]
    """
    return xp.isinf(x)


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


# Of erfc above 4, in powers of 1 / x^2; from the same tables.
_FAR_P: tuple[float, ...] = (3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1)
_FAR_P += (1.60837851487422766e-2, 6.58749161529837803e-4, 1.63153871373020978e-2)
_FAR_Q: tuple[float, ...] = (2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1)
_FAR_Q += (6.05183413124413191e-2, 2.33520497626869185e-3)


def _ratio(z: Array, top_numbers: tuple[float, ...], bottom_numbers: tuple[float, ...]) -> Array:
    """A quotient of polynomials; the last number of the first belongs to the highest power."""
    *rest, last, highest = top_numbers
    top, bottom = highest * z, z
    for p, q in zip(rest, bottom_numbers[:-1], strict=True):
        top = (top + p) * z
        bottom = (bottom + q) * z
    return (top + last) / (bottom + bottom_numbers[-1])


def _erf_near(y: Array) -> Array:
    """erf(y) / y for |y| up to 0.46875."""
    return _ratio(y * y, _ERF_P, _ERF_Q)


def erf_of(xp: ArrayModule, x: Array) -> Array:
    """The error function, for arrays."""
    y = xp.abs(x)
    # erf(4) differs from 1 by 2e-8 and erf(6) by 2e-17: beyond 6 the sign is the answer.
    z = xp.minimum(y, 6)
    tail = xp.exp(-z * z) * _ratio(z, _ERFC_P, _ERFC_Q)
    return xp.where(y <= 0.46875, x * _erf_near(y), xp.copysign(1 - tail, x))


def erfc_of(xp: ArrayModule, y: Array) -> Array:
    """1 - erf(y), for arrays of numbers from 0 on, without cancellation."""
    z = xp.maximum(y, 4)
    inverse = 1 / (z * z)
    far = (1 / math.sqrt(math.pi) - inverse * _ratio(inverse, _FAR_P, _FAR_Q)) / z
    scale = xp.exp(-y * y)
    large = scale * xp.where(y > 4, far, _ratio(xp.minimum(y, 4), _ERFC_P, _ERFC_Q))
    return xp.where(y <= 0.46875, 1 - y * _erf_near(y), large)


def _cast_type(op: Op, x: TensorType, *, dtype: DType) -> TensorType:
    if not isinstance(dtype, DType):
        raise OperandError(f"cast: dtype: expected a DType, got {dtype!r}.")
    return x.cast(dtype)


@op(E, _cast_type, scalar="mm_cast_{dtype}({0})", upcasts=False, name="cast")
def cast_elements(xp: ArrayModule, x: Tensor, dtype: DType) -> Tensor:
    """Conversion to another dtype, elementwise."""
    source = DType.from_numpy(x.dtype)
    if compute_dtype(source) is not source and not dtype.is_float():
        x = x.astype(storage_dtype(compute_dtype(source)))
    if dtype is DType.bool:
        return xp.not_equal(x, xp.zeros((), dtype=x.dtype))
    return narrowed(x, storage_dtype(dtype))


def cast(x: Tensor, dtype: DType) -> Tensor:
    """Conversion to another dtype, elementwise; no number is an error.

    Floats become integers by truncation toward zero (out of range is unspecified), integers wrap,
    anything becomes bool by `!= 0`, floats are rounded to the nearest, ties to even.

    Args:
        x: Tensor of any dtype.
        dtype: The dtype of the result.

    Returns:
        The shape of x; x itself if it has the dtype already.

    Raises:
        TypeError: If x is not a tensor, or `dtype` is not a DType.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.cast(Tensor([1.9, -1.9]), DType.int32).to_numpy().tolist()
        [1, -1]
        >>> F.cast(Tensor([300, -1], dtype=DType.int32), DType.uint8).to_numpy().tolist()
        [44, 255]
        >>> F.cast(Tensor([1.0, 1.01]), DType.bfloat16)
        Tensor([    1 1.008], shape=[2], dtype=DType.bfloat16, device=Device(type=cpu,id=0))
    """
    x = strong("cast", x)
    return x if dtype is x.dtype else cast_elements(x, dtype=dtype)
