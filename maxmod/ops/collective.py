"""Collectives: sums and concatenations over the processes of a group, or over lists of tensors.

A tensor alone is this process' part of a value of the group that was entered, by
`maxmod.distributed.world()`. With lists, one process has the tensors of several devices.
"""

from __future__ import annotations

from collections.abc import Sequence

from maxmod.distributed import group_for, joined
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, ShapeError
from maxmod.interpreters.operands import strong
from maxmod.op import Kind, Op, function, op
from maxmod.op.rules import expect_dtype, normalize_axis
from maxmod.ops.arithmetic import add
from maxmod.ops.shape import permute, reshape
from maxmod.ops.split_concat import concat
from maxmod.tensor import Tensor
from maxmod.values.array import ArrayModule
from maxmod.values.tensor_type import TensorType

__all__ = [
    "allgather",
    "allreduce_sum",
    "dequantize",
    "distributed_broadcast",
    "qmatmul",
    "reduce_scatter",
]

_SUMMED = frozenset(
    (DType.bfloat16, DType.float16, DType.float32, DType.float64, DType.int32, DType.int64)
)

# ---- ops ---------------------------------------------------------------------------------------


def _is_summed(dtype: DType) -> bool:
    """Floats of 16 bits or more, int32 or int64."""
    return dtype in _SUMMED


def _whole(op: Op, x: TensorType, *, size: int) -> TensorType:
    expect_dtype(op, _is_summed, x)
    return x


def _same(op: Op, x: TensorType, *, size: int) -> TensorType:
    return x


def _of_each(op: Op, x: TensorType, *, size: int) -> TensorType:
    return x.with_sizes((size, *x.sizes))


def _piece(op: Op, x: TensorType, *, size: int) -> TensorType:
    expect_dtype(op, _is_summed, x)
    rows = x.sizes[0]
    if not isinstance(rows, int) or rows % size:
        raise ShapeError(
            f"{op.label}: expected a size that {size} processes divide on the axis, got "
            f"{x.short()}."
        )
    return x.with_sizes((rows // size, *x.sizes[1:]))


@op(Kind.OPAQUE, _whole, name="all_reduce", label="allreduce_sum", collective="all_reduce")
def _all_reduce(xp: ArrayModule, x: Tensor, size: int) -> Tensor:
    out = xp.empty(x.shape, x.dtype)
    group_for(size, xp).all_reduce(xp.ascontiguousarray(x), out)
    return out


@op(Kind.OPAQUE, _of_each, name="all_gather", label="allgather", collective="all_gather")
def _all_gather(xp: ArrayModule, x: Tensor, size: int) -> Tensor:
    out = xp.empty((size, *x.shape), x.dtype)
    group_for(size, xp).all_gather(xp.ascontiguousarray(x), out)
    return out


@op(
    Kind.OPAQUE,
    _piece,
    name="reduce_scatter_rows",
    label="reduce_scatter",
    collective="reduce_scatter",
)
def _reduce_scatter(xp: ArrayModule, x: Tensor, size: int) -> Tensor:
    out = xp.empty((x.shape[0] // size, *x.shape[1:]), x.dtype)
    group_for(size, xp).reduce_scatter(xp.ascontiguousarray(x), out)
    return out


@op(
    Kind.OPAQUE,
    _same,
    name="broadcast_of_first",
    label="distributed_broadcast",
    collective="broadcast",
)
def _broadcast(xp: ArrayModule, x: Tensor, size: int) -> Tensor:
    out = xp.empty(x.shape, x.dtype)
    group_for(size, xp).broadcast(xp.ascontiguousarray(x), out)
    return out


# ---- functions ---------------------------------------------------------------------------------


def summed(x: Tensor, size: int) -> Tensor:
    """Returns the sum over a group of so many processes; in a group of one, x itself."""
    return x if size == 1 else _all_reduce(x, size=size)


def gathered(x: Tensor, size: int, axis: int) -> Tensor:
    """Returns the parts of all processes of a group, joined along an axis that is not negative."""
    if size == 1:
        return x
    parts = _all_gather(x, size=size)  # [size, ...]
    sizes = (*x.sizes[:axis], size * x.sizes[axis], *x.sizes[axis + 1 :])
    return reshape(_from_front(parts, axis), sizes)


def of_first(x: Tensor, size: int) -> Tensor:
    """Returns the tensor of rank 0 in each process of a group; in a group of one, x itself."""
    return x if size == 1 else _broadcast(x, size=size)


def _to_front(x: Tensor, axis: int) -> Tensor:
    return x if axis == 0 else permute(x, [axis, *(n for n in range(x.rank) if n != axis)])


def _from_front(x: Tensor, axis: int) -> Tensor:
    return x if axis == 0 else permute(x, [*range(1, axis + 1), 0, *range(axis + 1, x.rank)])


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
        inputs: One tensor for each device, of one shape and dtype; or a tensor alone, which is
            what this process adds to the sum over its group (see `maxmod.distributed.world`). In
            a group of one it is returned unchanged.
        signal_buffers: Accepted for compatibility; must be as many.
        **options: Accepted for compatibility.

    Returns:
        A list of sums, one on the device of each input; of a tensor alone, the sum over the
        group, which every process gets. Half types are summed in float32 on the host.

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
        return summed(inputs, joined().size)
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
        inputs: One tensor for each device, of equal sizes on the other axes; or a tensor alone,
            the part of this process, of the same type in each process of its group. In a group
            of one it is returned unchanged.
        signal_buffers: Accepted for compatibility; must be as many.
        axis: The axis.
        **options: Accepted for compatibility.

    Returns:
        A list of concatenations, one on the device of each input; of a tensor alone, the
        concatenation over the group, in the order of ranks.

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
        return gathered(inputs, joined().size, normalize_axis("allgather", axis, inputs.rank))
    tensors = _listed("allgather", inputs, signal_buffers)
    axis = normalize_axis("allgather", axis, tensors[0].rank)
    if len(tensors) == 1:
        return tensors
    device = tensors[0].type.device
    whole = concat([tensor.to(device) for tensor in tensors], axis)
    return [whole.to(tensor.type.device) for tensor in tensors]


@function
def reduce_scatter(x: Tensor, axis: int = 0, **options: object) -> Tensor:
    """The sum over the processes of the group, of which each keeps its piece.

    Args:
        x: What this process adds to the sum, of the same type in each process.
        axis: The axis that is cut into as many equal pieces as there are processes.
        **options: Accepted for compatibility.

    Returns:
        The piece of this process; in a group of one, x itself.

    Raises:
        ValueError: If the axis lies outside the rank, or its size is no multiple of the number of
            processes.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([1.0])
        >>> F.reduce_scatter(x) is x
        True
    """
    x = strong("reduce_scatter", x)
    axis, size = normalize_axis("reduce_scatter", axis, x.rank), joined().size
    if size == 1:
        return x
    return _from_front(_reduce_scatter(_to_front(x, axis), size=size), axis)


@function
def distributed_broadcast(x: Tensor, *args: object, **options: object) -> Tensor:
    """The tensor of the first process, in every process of the group.

    Args:
        x: Tensor of any dtype, of the same type in each process.
        *args: Accepted for compatibility.
        **options: Accepted for compatibility.

    Returns:
        The tensor of rank 0; in a group of one, x itself.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([1.0])
        >>> F.distributed_broadcast(x) is x
        True
    """
    x = strong("distributed_broadcast", x)
    return of_first(x, joined().size)


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
