"""Normalisations and softmax: ops with a definition in other ops, fused into one kernel each."""

from __future__ import annotations

import numpy as np

from maxmod.dtype import compute_dtype
from maxmod.errors import ArgumentError, DTypeError, ShapeError
from maxmod.interpreters.operands import strong
from maxmod.op import Kind, Op, Operands, function, op
from maxmod.op.rules import (
    axis_in_rank,
    expect_dtype,
    expect_int,
    expect_same_dtype,
    is_float,
    same_for_axis,
)
from maxmod.ops.arithmetic import add, mul, sub
from maxmod.ops.elementwise import cast, exp, log, rsqrt
from maxmod.ops.reduce import max, mean, sum
from maxmod.ops.shape import reshape
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule
from maxmod.values.plain import Attrs
from maxmod.values.shape import product
from maxmod.values.tensor_type import TensorType

__all__ = ["group_norm", "layer_norm", "logsoftmax", "rms_norm", "softmax"]

C = Kind.COMPOSITE


def _expand_softmax(x: Tensor, *, axis: int) -> Tensor:
    if x.sizes[axis] == 0:
        return x
    wide = cast(x, compute_dtype(x.dtype))
    e = exp(wide - max(wide, axis=axis))
    return cast(e / sum(e, axis), x.dtype)


@op(C, same_for_axis(is_float), prepare=axis_in_rank, expand=_expand_softmax)
def softmax(xp: ArrayModule, value: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, computed from x - max(x).

    Args:
        value: Tensor of a float dtype.
        axis: The axis.

    Returns:
        The type of `value`. A row with an infinity, a NaN or nothing but -inf is NaN.

    Raises:
        ValueError: If the dtype is not a float or the axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.softmax(Tensor([0.0, 0.0])).to_numpy().tolist()
        [0.5, 0.5]
    """
    if value.size == 0:
        return value
    e = xp.exp(value - xp.max(value, axis=axis, keepdims=True))
    return e / xp.sum(e, axis=axis, keepdims=True)


def _expand_logsoftmax(x: Tensor, *, axis: int) -> Tensor:
    if x.sizes[axis] == 0:
        return x
    wide = cast(x, compute_dtype(x.dtype))
    shifted = wide - max(wide, axis=axis)
    return cast(shifted - log(sum(exp(shifted), axis)), x.dtype)


@op(C, same_for_axis(is_float), prepare=axis_in_rank, expand=_expand_logsoftmax)
def logsoftmax(xp: ArrayModule, value: Tensor, axis: int = -1) -> Tensor:
    """log(softmax(x)) along an axis, without the rounding of the quotient.

    Args:
        value: Tensor of a float dtype.
        axis: The axis.

    Returns:
        The type of `value`; small probabilities do not become -inf, as `log(softmax(x))` would.

    Raises:
        ValueError: If the dtype is not a float or the axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.logsoftmax(Tensor([[0.0, 0.0], [0.0, 1000.0]]))
        Tensor([[-0.6931 -0.6931]
                [  -1000       0]], shape=[2, 2], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    if value.size == 0:
        return value
    shifted = value - xp.max(value, axis=axis, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


def _positive_epsilon(op: Op, *types: TensorType, epsilon: object, **attrs: object) -> Attrs:
    if not epsilon > 0:
        raise ArgumentError(f"{op.name}: epsilon: expected a positive number, got {epsilon}.")
    return {"epsilon": float(epsilon), **attrs}


def _normalized(op: Op, x: TensorType, *scales: TensorType, **attrs: object) -> TensorType:
    expect_dtype(op, is_float, x, *scales)
    expect_same_dtype(op, x, *scales)
    for name, scale in zip(op.signature.tensor_names[1:], scales, strict=True):
        if x.rank == 0 or scale.sizes != x.sizes[-1:]:
            raise ShapeError(
                f"{op.name}: Could not apply {name} {scale.short()} to input {x.short()}: expected "
                "one value for each element of the last axis."
            )
    return x


def _expand_layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, *, epsilon: float) -> Tensor:
    wide = cast(x, compute_dtype(x.dtype))
    centered = sub(wide, mean(wide))
    scaled = mul(centered, rsqrt(add(mean(centered * centered), epsilon)))
    result = scaled * cast(gamma, wide.dtype) + cast(beta, wide.dtype)
    return cast(result, x.dtype)


@op(
    C,
    _normalized,
    operands=Operands.STRONG_PROMOTED,
    prepare=_positive_epsilon,
    expand=_expand_layer_norm,
)
def layer_norm(
    xp: ArrayModule, input: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> Tensor:
    """(x - mean) / sqrt(var + epsilon) * gamma + beta over the last axis.

    Args:
        input: Tensor [..., n] of a float dtype.
        gamma: Tensor [n].
        beta: Tensor [n].
        epsilon: Added to the population variance; above 0.

    Returns:
        The shape of `input`, the promoted dtype.

    Raises:
        ValueError: If gamma or beta do not fit, or epsilon is not positive.

    Source: J. L. Ba, J. R. Kiros and G. E. Hinton, Layer Normalization, arXiv 1607.06450.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x, one, zero = Tensor([[1.0, 3.0]]), Tensor.ones([2]), Tensor.zeros([2])
        >>> F.round(F.layer_norm(x, one, zero, epsilon=1e-5)).to_numpy().tolist()
        [[-1.0, 1.0]]
    """
    centered = input - _mean(xp, input)
    scaled = centered * (1 / xp.sqrt(_mean(xp, centered * centered) + epsilon))
    return scaled * gamma + beta


def _mean(xp: ArrayModule, x: Array) -> Array:
    return xp.sum(x, axis=-1, keepdims=True) / x.dtype.type(x.shape[-1])


def _expand_rms_norm(x: Tensor, weight: Tensor, *, epsilon: float, **attrs: object) -> Tensor:
    wide = cast(x, compute_dtype(x.dtype))
    scaled = mul(wide, rsqrt(add(mean(wide * wide), epsilon)))
    weight = add(cast(weight, wide.dtype), attrs["weight_offset"])
    if not attrs["multiply_before_cast"]:
        scaled = cast(cast(scaled, x.dtype), wide.dtype)
    return cast(scaled * weight, x.dtype)


def _rms_arguments(op: Op, *types: TensorType, epsilon: object, **attrs: object) -> Attrs:
    attrs["weight_offset"] = float(attrs["weight_offset"])
    attrs["multiply_before_cast"] = bool(attrs["multiply_before_cast"])
    return _positive_epsilon(op, *types, epsilon=epsilon, **attrs)


@op(C, _normalized, prepare=_rms_arguments, expand=_expand_rms_norm, upcasts=False)
def rms_norm(
    xp: ArrayModule,
    input: Tensor,
    weight: Tensor,
    epsilon: float,
    weight_offset: float = 0.0,
    multiply_before_cast: bool = False,
) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * (weight + weight_offset) over the last axis.

    Args:
        input: Tensor [..., n] of a float dtype.
        weight: Tensor [n] of the same dtype.
        epsilon: Added to the mean square; above 0.
        weight_offset: Added to the weight (1 in Gemma).
        multiply_before_cast: Multiply in float32 (Gemma) instead of after rounding (Llama).

    Returns:
        The type of `input`.

    Source: B. Zhang and R. Sennrich, Root Mean Square Layer Normalization, arXiv 1910.07467.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x, one = Tensor([[3.0, 4.0, 0.0, 0.0]]), Tensor.ones([4])
        >>> F.rms_norm(x, one, 1e-12).to_numpy().round(3).tolist()
        [[1.2000000476837158, 1.600000023841858, 0.0, 0.0]]
    """
    wide = _widened(input)
    scaled = wide * (1 / xp.sqrt(_mean(xp, wide * wide) + epsilon))
    if not multiply_before_cast:
        scaled = _widened(scaled.astype(input.dtype))
    return (scaled * (_widened(weight) + wide.dtype.type(weight_offset))).astype(input.dtype)


def _widened(x: Array) -> Array:
    return x if x.dtype.itemsize >= 4 else x.astype(np.float32)


@function
def group_norm(
    input: Tensor, gamma: Tensor, beta: Tensor, num_groups: int, epsilon: float
) -> Tensor:
    """(x - mean) / sqrt(var + epsilon) * gamma + beta over groups of channels and all positions.

    Args:
        input: Tensor [batch, channels, ...] of a float dtype.
        gamma: Tensor [channels].
        beta: Tensor [channels].
        num_groups: Number of groups; divides the channels.
        epsilon: Added to the population variance; above 0.

    Returns:
        The type of `input`; narrow floats are computed in float32 and rounded once.

    Raises:
        ValueError: If the rank is below 2, the channels cannot be divided, gamma or beta do not
            fit, the dtype is not a float or epsilon is not positive.

    Source: Y. Wu and K. He, Group Normalization, arXiv 1803.08494.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, 3.0, 10.0, 30.0]])  # 4 channels, no further axes
        >>> y = F.group_norm(x, Tensor.ones([4]), Tensor.zeros([4]), num_groups=2, epsilon=1e-5)
        >>> F.round(y).to_numpy().tolist()
        [[-1.0, 1.0, -1.0, 1.0]]
    """
    input = strong("group_norm", input)
    scales = [strong("group_norm", gamma), strong("group_norm", beta)]
    groups = expect_int("group_norm", num_groups, "num_groups")
    shown = input.type.short()
    if not input.dtype.is_float():
        raise DTypeError(
            f"group_norm: input has an unsupported dtype: expected floats, got {shown}."
        )
    if input.rank < 2:
        raise ShapeError(f"group_norm: expected input [batch, channels, ...], got {shown}.")
    batch, channels, *positions = input.sizes
    if not isinstance(channels, int) or groups <= 0 or channels % groups:
        raise ShapeError(
            f"group_norm: the channels on axis 1 of {shown} cannot be divided into {groups} groups."
        )
    for name, scale in zip(("gamma", "beta"), scales, strict=True):
        if scale.sizes != (channels,):
            raise ShapeError(
                f"group_norm: {name}: expected [{channels}], got {scale.type.short()}."
            )
    if not epsilon > 0:
        raise ArgumentError(f"group_norm: epsilon: expected a positive number, got {epsilon}.")
    wide = cast(input, compute_dtype(input.dtype))
    rows = reshape(wide, (batch, groups, product((channels // groups, *positions))))
    centered = sub(rows, mean(rows))
    scaled = mul(centered, rsqrt(add(mean(centered * centered), float(epsilon))))
    per_channel = (channels, *(1 for _ in positions))
    weight, bias = (reshape(cast(scale, wide.dtype), per_channel) for scale in scales)
    return cast(reshape(scaled, input.sizes) * weight + bias, input.dtype)
