"""Calls for several devices, on one: sums and concatenations of lists of tensors."""

from __future__ import annotations

from collections.abc import Sequence

from maxmod.errors import ArgumentError
from maxmod.interpreters.operands import strong
from maxmod.op import function
from maxmod.op.rules import normalize_axis
from maxmod.ops.arithmetic import add
from maxmod.ops.split_concat import concat
from maxmod.tensor import Tensor

__all__ = [
    "allgather",
    "allreduce_sum",
    "dequantize",
    "distributed_broadcast",
    "qmatmul",
    "reduce_scatter",
]


def _listed(
    name: str, inputs: Sequence[Tensor] | Tensor, signal_buffers: Sequence[object] | None
) -> list[Tensor]:
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
    inputs: Tensor | Sequence[Tensor],
    signal_buffers: Sequence[object] | None = None,
    **options: object,
) -> Tensor | list[Tensor]:
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

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> parts = [Tensor([1.0, 2.0]), Tensor([10.0, 20.0])]
        >>> [total.to_numpy().tolist() for total in F.allreduce_sum(parts)]
        [[11.0, 22.0], [11.0, 22.0]]
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
    inputs: Tensor | Sequence[Tensor],
    signal_buffers: Sequence[object] | None = None,
    axis: int = 0,
    **options: object,
) -> Tensor | list[Tensor]:
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

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> parts = [Tensor([1.0, 2.0]), Tensor([3.0])]
        >>> [whole.to_numpy().tolist() for whole in F.allgather(parts)]
        [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
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
def reduce_scatter(x: Tensor, *args: object, **options: object) -> Tensor:
    """The sum over devices, of which each keeps its piece; on one device, the tensor itself.

    Args:
        x: Tensor of any dtype.
        *args: Accepted for compatibility.
        **options: Accepted for compatibility.

    Returns:
        x.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([1.0])
        >>> F.reduce_scatter(x) is x
        True
    """
    return strong("reduce_scatter", x)


@function
def distributed_broadcast(x: Tensor, *args: object, **options: object) -> Tensor:
    """The tensor on every device; on one device, the tensor itself.

    Args:
        x: Tensor of any dtype.
        *args: Accepted for compatibility.
        **options: Accepted for compatibility.

    Returns:
        x.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([1.0])
        >>> F.distributed_broadcast(x) is x
        True
    """
    return strong("distributed_broadcast", x)


# ---- left out ----------------------------------------------------------------------------------

_QUANTIZED = (
    "maxmod stores weights in the types of DType and does not read block formats such as GGUF's "
    "Q4_0. Hint: convert the checkpoint to bfloat16 or float16 first; F.quantize_weight makes "
    "int8 or int4 of that."
)


@function
def dequantize(encoding: object, quantized: Tensor) -> Tensor:
    """Stands for the weights in block formats of GGUF, which are not read.

    Args:
        encoding: The block format.
        quantized: Bytes.

    Returns:
        Nothing: it always raises.

    Raises:
        NotImplementedError: Always. `quantize_weight` and `dequantize_weight` are what there is.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.dequantize("Q4_0", Tensor([0.0]))
        Traceback (most recent call last):
            ...
        NotImplementedError: dequantize: maxmod stores weights in the types of DType ...
    """
    raise NotImplementedError(f"dequantize: {_QUANTIZED}")


@function
def qmatmul(encoding: object, config: object, lhs: Tensor, *rhs: Tensor) -> Tensor:
    """Stands for the product with weights in block formats of GGUF, which are not read.

    Args:
        encoding: The block format.
        config: Its parameters.
        lhs: Tensor.
        *rhs: Bytes.

    Returns:
        Nothing: it always raises.

    Raises:
        NotImplementedError: Always. `quantized_linear` is what there is.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.qmatmul("Q4_0", None, Tensor([0.0]), Tensor([0.0]))
        Traceback (most recent call last):
            ...
        NotImplementedError: qmatmul: maxmod stores weights in the types of DType ...
    """
    raise NotImplementedError(f"qmatmul: {_QUANTIZED}")
