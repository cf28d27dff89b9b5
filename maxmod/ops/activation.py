"""Elementwise activation functions of neural networks."""

from __future__ import annotations

import math

from maxmod.errors import ArgumentError
from maxmod.op import Kind, Op, op
from maxmod.op.rules import elementwise, is_float, is_numeric
from maxmod.ops.elementwise import erfc_of
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

__all__ = ["gelu", "relu", "sigmoid", "silu"]

E = Kind.ELEMENTWISE


@op(E, elementwise(is_numeric), scalar="mm_relu({0})")
def relu(xp: ArrayModule, x: Tensor) -> Tensor:
    """max(x, 0), elementwise; NaN stays NaN.

    Args:
        x: Tensor, numeric dtype.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is bool.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.relu(Tensor([-1.5, 0.0, 2.0])).to_numpy().tolist()
        [0.0, 0.0, 2.0]
    """
    return xp.maximum(x, xp.zeros((), dtype=x.dtype))


@op(E, elementwise(is_float), scalar="mm_sigmoid({0})")
def sigmoid(xp: ArrayModule, x: Tensor) -> Tensor:
    """Logistic function, 1 / (1 + exp(-x)), elementwise, without overflow.

    Args:
        x: Tensor of a float dtype; narrow floats are computed in float32 and rounded once.

    Returns:
        The type of x, between 0 and 1.

    Raises:
        ValueError: If the dtype is not a float.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.sigmoid(Tensor([0.0, 2.0, -1000.0]))
        Tensor([   0.5 0.8808      0], shape=[3], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    return _gated(xp, x.dtype.type(1), x)


@op(E, elementwise(is_float), scalar="mm_silu({0})")
def silu(xp: ArrayModule, x: Tensor) -> Tensor:
    """x * sigmoid(x), elementwise (also called swish).

    Args:
        x: Tensor of a float dtype; narrow floats are computed in float32 and rounded once.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is not a float.

    Source: S. Elfwing, E. Uchibe and K. Doya, Sigmoid-weighted linear units for neural network
    function approximation in reinforcement learning, arXiv 1702.03118.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.silu(Tensor([0.0, 2.0, -1000.0]))
        Tensor([    0 1.762    -0], shape=[3], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    return _gated(xp, x, x)


def _gated(xp: ArrayModule, x: Array | int, v: Array) -> Array:
    """x sigmoid(v): exp of a negative number only, so that nothing overflows."""
    # The square of `half` is e^-|v|, which may be denormal where x e^-|v| is not.
    half = xp.exp(v.dtype.type(-0.5) * xp.abs(v))
    return xp.where(v < 0, x * half * half, x) / (1 + half * half)


def _gelu_none(xp: ArrayModule, x: Array) -> Array:
    """x minus |x| times the tail of the normal distribution above |x|: nothing cancels."""
    end = x.dtype.type(15 if x.dtype.itemsize == 4 else 40)  # the product is 0 from there on
    a = xp.minimum(xp.abs(x), end)
    is_float = x.dtype.itemsize == 4
    lost = _with_tail(xp, a) if is_float else 0.5 * a * erfc_of(xp, a * math.sqrt(0.5))
    near = xp.maximum(x, 0) - lost
    return xp.where(xp.abs(x) > end, xp.where(x > 0, x, x * 0), near)


# As in kernels/prelude/host.h, where the method is explained; relative error 1.3e-8.
_TAIL = (0.0208288245, -0.133632198, 0.344005018, -0.422954738, 0.214735389)
_TAIL += (-0.0557423756, 0.107976474, 0.125309214, 0.149881184, 0.149593204)


def _with_tail(xp: ArrayModule, a: Array) -> Array:
    """a times the probability above a standard deviations, for float32 from 0 to 15."""
    u = 1 / (1 + a.dtype.type(0.375) * a)
    p = a.dtype.type(_TAIL[0]) * u
    for factor in _TAIL[1:]:
        p = (p + a.dtype.type(factor)) * u
    coarse = xp.floor(16 * a) / 16  # its square is exact
    half = xp.exp(a.dtype.type(-0.25) * coarse * coarse)
    fine = xp.exp(a.dtype.type(-0.5) * (a - coarse) * (a + coarse))
    return a * p * fine * half * half


# sqrt(8/pi) and its product with 0.044715: twice the argument of tanh is x (c1 + c3 x^2).
_TANH_1 = math.sqrt(8 / math.pi)
_TANH_3 = 0.044715 * _TANH_1

_APPROXIMATIONS = ("none", "tanh", "quick")


def _known_approximation(op: Op, x: TensorType, *, approximate: object) -> Attrs:
    if approximate not in _APPROXIMATIONS:
        raise ArgumentError(
            f"gelu: Invalid approximation method: {approximate!r}: expected one of "
            f"{', '.join(_APPROXIMATIONS)}."
        )
    return {"approximate": approximate}


@op(E, elementwise(is_float), prepare=_known_approximation, scalar="mm_gelu_{approximate}({0})")
def gelu(xp: ArrayModule, x: Tensor, approximate: str = "none") -> Tensor:
    """Gaussian error linear unit, elementwise.

    Args:
        x: Tensor of a float dtype; narrow floats are computed in float32 and rounded once.
        approximate: `"none"`: x/2 (1 + erf(x/sqrt 2)); `"tanh"`: x/2 (1 + tanh(sqrt(2/pi) (x +
            0.044715 x^3))); `"quick"`: x sigmoid(1.702 x).

    Returns:
        The type of x.

    Raises:
        ValueError: For another approximation or a dtype that is not a float.

    Source: D. Hendrycks and K. Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([2.0, -1.0])
        >>> F.gelu(x)
        Tensor([  1.954 -0.1587], shape=[2], dtype=DType.float32, device=Device(type=cpu,id=0))
        >>> F.gelu(x, approximate="quick")
        Tensor([  1.936 -0.1542], shape=[2], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    if approximate == "none":
        return _gelu_none(xp, x)
    if approximate == "tanh":  # x/2 (1 + tanh u) is x sigmoid(2u)
        return _gated(xp, x, x * (_TANH_1 + _TANH_3 * (x * x)))
    return _gated(xp, x, 1.702 * x)
