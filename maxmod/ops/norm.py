"""Normalisations and softmax: ops with a definition in other ops, fused into one kernel each."""

from __future__ import annotations

from typing import Any

from maxmod.dtype import compute_dtype
from maxmod.errors import ArgumentError, ShapeError
from maxmod.op import Kind, Op, Operands, op
from maxmod.ops.elementwise import add, cast, exp, log, mul, rsqrt, sub
from maxmod.ops.reduce import max, mean, sum
from maxmod.rules import axis_in_rank, expect_dtype, expect_same_dtype, is_float, same_for_axis
from maxmod.tensor import Tensor
from maxmod.tensor_type import TensorType

C = Kind.COMPOSITE


def _expand_softmax(x: Tensor, *, axis: int) -> Tensor:
    wide = cast(x, compute_dtype(x.dtype))
    e = exp(wide - max(wide, axis=axis))
    return cast(e / sum(e, axis), x.dtype)


@op(C, same_for_axis(is_float), prepare=axis_in_rank, expand=_expand_softmax)
def softmax(xp: Any, value: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, computed from x - max(x).

    Args:
        value: Tensor of a float dtype.
        axis: The axis.

    Returns:
        The type of `value`. A row with an infinity, a NaN or nothing but -inf is NaN.

    Raises:
        ValueError: If the dtype is no float or the axis lies outside the rank.
    """
    if value.size == 0:
        return value
    e = xp.exp(value - xp.max(value, axis=axis, keepdims=True))
    return e / xp.sum(e, axis=axis, keepdims=True)


def _expand_logsoftmax(x: Tensor, *, axis: int) -> Tensor:
    wide = cast(x, compute_dtype(x.dtype))
    shifted = wide - max(wide, axis=axis)
    return cast(shifted - log(sum(exp(shifted), axis)), x.dtype)


@op(C, same_for_axis(is_float), prepare=axis_in_rank, expand=_expand_logsoftmax)
def logsoftmax(xp: Any, value: Tensor, axis: int = -1) -> Tensor:
    """log(softmax(x)) along an axis, without the rounding of the quotient; see `softmax`."""
    if value.size == 0:
        return value
    shifted = value - xp.max(value, axis=axis, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


def _positive_epsilon(op: Op, *types: TensorType, epsilon: Any, **attrs: Any) -> dict[str, Any]:
    if not epsilon > 0:
        raise ArgumentError(f"{op.name}: epsilon: expected a positive number, got {epsilon}.")
    return {"epsilon": float(epsilon), **attrs}


def _normalized(op: Op, x: TensorType, *scales: TensorType, **attrs: Any) -> TensorType:
    expect_dtype(op, is_float, x, *scales)
    expect_same_dtype(op, x, *scales)
    for name, scale in zip(op.tensor_names[1:], scales, strict=True):
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
def layer_norm(xp: Any, input: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
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
    """
    centered = input - xp.mean(input, axis=-1, keepdims=True)
    variance = xp.mean(centered * centered, axis=-1, keepdims=True)
    return centered / xp.sqrt(variance + epsilon) * gamma + beta


def _expand_rms_norm(x: Tensor, weight: Tensor, *, epsilon: float, **attrs: Any) -> Tensor:
    wide = cast(x, compute_dtype(x.dtype))
    scaled = mul(wide, rsqrt(add(mean(wide * wide), epsilon)))
    weight = add(cast(weight, wide.dtype), attrs["weight_offset"])
    if not attrs["multiply_before_cast"]:
        scaled = cast(cast(scaled, x.dtype), wide.dtype)
    return cast(scaled * weight, x.dtype)


@op(C, _normalized, prepare=_positive_epsilon, expand=_expand_rms_norm)
def rms_norm(
    xp: Any,
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
    """
    mean_square = xp.mean(input * input, axis=-1, keepdims=True)
    return input / xp.sqrt(mean_square + epsilon) * (weight + weight_offset)
