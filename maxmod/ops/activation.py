"""Elementwise activation functions of neural networks."""

from __future__ import annotations

import math

from maxmod.errors import ArgumentError
from maxmod.op import Kind, Op, op
from maxmod.op.rules import elementwise, is_float, is_numeric
from maxmod.ops.elementwise import erf_of
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
    return _sigmoid(xp, x)


@op(E, elementwise(is_float), scalar="({0} * mm_sigmoid({0}))")
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
    return xp.multiply(x, _sigmoid(xp, x))


def _sigmoid(xp: ArrayModule, x: Array) -> Array:
    # exp of a negative number only, so that nothing overflows.
    small = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1 / (1 + small), small / (1 + small))


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
        return 0.5 * x * (1 + erf_of(xp, x * math.sqrt(0.5)))
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + xp.tanh(inner))
    return x * _sigmoid(xp, 1.702 * x)
