"""Calls for several devices, on one: sums and concatenations of lists of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maxmod.errors import ArgumentError
from maxmod.op import function
from maxmod.operands import strong
from maxmod.ops.arithmetic import add
from maxmod.ops.pieces import concat
from maxmod.rules import normalize_axis
from maxmod.tensor import Tensor


def _listed(name: str, inputs: Any, signal_buffers: Any) -> list[Tensor]:
    tensors = [strong(name, item) for item in inputs]
    if not tensors:
        raise ArgumentError(f"{name}: expected at least one tensor, got none.")
    if signal_buffers is not None and len(list(signal_buffers)) != len(tensors):
        raise ArgumentError(
            f"{name}: inputs and signal_buffers must have the same length: {len(tensors)} and "
            f"{len(list(signal_buffers))}."
        )
    return tensors


@function
def allreduce_sum(
    inputs: Tensor | Sequence[Tensor], signal_buffers: Any = None, **options: Any
) -> Any:
    """Gives each device the elementwise sum of the tensors of all devices.

    Args:
        inputs: One tensor for each device, of one shape and dtype. A tensor alone is returned
            unchanged.
        signal_buffers: Accepted for compatibility; must be as many.
        **options: Accepted for compatibility.

    Returns:
        A list of sums, one on the device of each input.

    Raises:
        ValueError: If the lengths differ, or shapes or dtypes do not fit.
    """
    if isinstance(inputs, Tensor):
        return inputs
    tensors = _listed("allreduce_sum", inputs, signal_buffers)
    if any(t.dtype is not tensors[0].dtype or t.sizes != tensors[0].sizes for t in tensors):
        raise ArgumentError(
            "allreduce_sum: tensors must have one shape and dtype: "
            f"{', '.join(t.type.short() for t in tensors)}."
        )
    total = tensors[0]
    for tensor in tensors[1:]:
        total = add(total, tensor.to(total.type.device))
    return [total.to(tensor.type.device) for tensor in tensors]


@function
def allgather(
    inputs: Tensor | Sequence[Tensor], signal_buffers: Any = None, axis: int = 0, **options: Any
) -> Any:
    """Gives each device the tensors of all devices, joined along an axis.

    Args:
        inputs: One tensor for each device, of equal sizes on the other axes. A tensor alone is
            returned unchanged.
        signal_buffers: Accepted for compatibility; must be as many.
        axis: The axis.
        **options: Accepted for compatibility.

    Returns:
        A list of concatenations, one on the device of each input.

    Raises:
        ValueError: If the lengths differ, sizes do not fit, or the axis lies outside the rank.
    """
    if isinstance(inputs, Tensor):
        return inputs
    tensors = _listed("allgather", inputs, signal_buffers)
    axis = normalize_axis("allgather", axis, tensors[0].rank)
    if len(tensors) == 1:
        return tensors
    device = tensors[0].type.device
    joined = concat([tensor.to(device) for tensor in tensors], axis)
    return [joined.to(tensor.type.device) for tensor in tensors]


@function
def reduce_scatter(x: Tensor, *args: Any, **options: Any) -> Tensor:
    """Returns the tensor: on one device the sum over devices, cut into one piece, is itself."""
    return strong("reduce_scatter", x)


@function
def distributed_broadcast(x: Tensor, *args: Any, **options: Any) -> Tensor:
    """Returns the tensor: on one device every device has it already."""
    return strong("distributed_broadcast", x)


# ---- left out ----------------------------------------------------------------------------------

_QUANTIZED = (
    "maxmod stores weights in the types of DType and does not read block formats such as GGUF's "
    "Q4_0. Hint: convert the checkpoint to bfloat16 or float16 first; F.quantize_weight makes "
    "int8 or int4 of that."
)


@function
def dequantize(encoding: Any, quantized: Tensor) -> Tensor:
    """Raises NotImplementedError: block formats are not read; see the message."""
    raise NotImplementedError(f"dequantize: {_QUANTIZED}")


@function
def qmatmul(encoding: Any, config: Any, lhs: Tensor, *rhs: Tensor) -> Tensor:
    """Raises NotImplementedError: block formats are not read; see the message."""
    raise NotImplementedError(f"qmatmul: {_QUANTIZED}")
