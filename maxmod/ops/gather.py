"""Ops that read positions from a tensor, or find them: gather, nonzero and their relatives."""

from __future__ import annotations

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import AxisError, DTypeError, ShapeError, SliceError
from maxmod.interpreters.operands import is_strong, strong, weak
from maxmod.op import Kind, Op, function, op
from maxmod.op.affine import Index, Read
from maxmod.op.rules import expect_int, normalize_axis
from maxmod.ops.arithmetic import maximum, minimum, sub
from maxmod.ops.comparison import where
from maxmod.ops.context import active_trace
from maxmod.ops.control_flow.late_sizes import declare_size
from maxmod.ops.elementwise import cast
from maxmod.ops.reduce import cumsum, sum
from maxmod.ops.shape import broadcast_to, flatten, rebind, reshape
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import Array, ArrayModule
from maxmod.values.dim import DimLike, Size, as_size
from maxmod.values.plain import Attrs
from maxmod.values.shape import format_sizes, product
from maxmod.values.tensor_type import TensorType

__all__ = ["gather", "gather_nd", "masked_scatter", "nonzero"]


def _gather_axis(op: Op, input: TensorType, indices: TensorType, *, axis: object) -> Attrs:
    return {"axis": normalize_axis(op.name, axis, input.rank)}


def _expect_indices(op: Op, indices: TensorType) -> None:
    if not indices.dtype.is_integral():
        raise DTypeError(
            f"{op.name}: indices have an unsupported dtype: expected integers, got "
            f"{indices.short()}. Hint: Tensor([1, 2], dtype=DType.int64) holds integers, "
            "Tensor([1, 2]) floats; x.cast(DType.int64) makes integers of floats."
        )


def _gathered(op: Op, input: TensorType, indices: TensorType, *, axis: int) -> TensorType:
    _expect_indices(op, indices)
    return input.with_sizes((*input.sizes[:axis], *indices.sizes, *input.sizes[axis + 1 :]))


def _gather_position(
    places: list[Index], read: Read, input: TensorType, indices: TensorType, *, axis: int
) -> list[Index]:
    end = axis + indices.rank
    at = read(1, places[axis:end], input.sizes[axis])
    return [*places[:axis], at, *places[end:]]


@op(Kind.INDEX, _gathered, prepare=_gather_axis, position=_gather_position)
def gather(xp: ArrayModule, input: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Elements of an axis at given positions (NumPy's `take`).

    Args:
        input: Tensor of any dtype.
        indices: Integer tensor; negative positions count from the end.
        axis: The axis of `input` that they point into.

    Returns:
        `input.shape[:axis] + indices.shape + input.shape[axis + 1:]`, the dtype of `input`.

    Raises:
        ValueError: If the indices are floats.
        IndexError: If the axis, or on the host a position, is out of range. A compiled function on
            a GPU reads the nearest element instead, since checking would mean waiting.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> F.gather(x, Tensor([1, 0], dtype=DType.int64), axis=0).to_numpy().tolist()
        [[3.0, 4.0], [1.0, 2.0]]
    """
    _check_range(xp, indices, input.shape[axis], "gather")
    return xp.take(input, indices.astype(np.int64, copy=False), axis=axis)


def _check_range(xp: ArrayModule, indices: Array, size: int, name: str) -> None:
    """On the host, rejects positions outside the axis; a GPU would have to synchronize for that."""
    if xp is not np or indices.size == 0:
        return
    low, high = int(indices.min()), int(indices.max())
    if low < -size or high >= size:
        wrong = low if low < -size else high
        raise SliceError(f"{name}: position {wrong} out of range for an axis of size {size}.")


def _gather_nd_arguments(
    op: Op, input: TensorType, indices: TensorType, *, batch_dims: object
) -> Attrs:
    batch_dims = expect_int(op.name, batch_dims, "batch_dims")
    shown = f"input is {input.short()}, indices is {indices.short()}, batch_dims={batch_dims}"
    if indices.rank == 0 or not isinstance(indices.sizes[-1], int):
        raise ShapeError(f"{op.name}: the last axis of indices must have a known size: {shown}.")
    if not 0 <= batch_dims < indices.rank:
        raise ShapeError(f"{op.name}: batch_dims must lie in 0..{indices.rank - 1}: {shown}.")
    if batch_dims + indices.sizes[-1] > input.rank:
        raise ShapeError(f"{op.name}: indices name more axes than input has: {shown}.")
    if input.sizes[:batch_dims] != indices.sizes[:batch_dims]:
        raise ShapeError(f"{op.name}: the batch axes differ: {shown}.")
    return {"batch_dims": batch_dims}


def _gathered_nd(op: Op, input: TensorType, indices: TensorType, *, batch_dims: int) -> TensorType:
    _expect_indices(op, indices)
    named = batch_dims + indices.sizes[-1]  # type: ignore[operator]
    return input.with_sizes((*indices.sizes[:-1], *input.sizes[named:]))


def _gather_nd_position(
    places: list[Index],
    read: Read,
    input: TensorType,
    indices: TensorType,
    *,
    batch_dims: int,
) -> list[Index]:
    end = indices.rank - 1
    row = places[:end]
    count: int = indices.sizes[-1]  # type: ignore[assignment]  # known, by the check of arguments
    named = [
        read(1, [*row, Index((), column)], input.sizes[batch_dims + column])
        for column in range(count)
    ]
    return [*places[:batch_dims], *named, *places[end:]]


def _size(size: Size, like: Tensor) -> Tensor:
    return Tensor.full((), size, dtype=like.dtype, device=like.type.device)


@op(Kind.INDEX, _gathered_nd, prepare=_gather_nd_arguments, position=_gather_nd_position)
def gather_nd(xp: ArrayModule, input: Tensor, indices: Tensor, batch_dims: int = 0) -> Tensor:
    """Slices of a tensor at positions that name several axes at once.

    Args:
        input: Tensor of any dtype.
        indices: Integer tensor [..., k]; each row names a position on the k axes of `input` that
            follow the batch axes. Negative positions count from the end.
        batch_dims: Number of leading axes that input and indices have in common.

    Returns:
        `input.shape[:b] + indices.shape[b:-1] + input.shape[b + k:]` with b = batch_dims.

    Raises:
        ValueError: If indices are floats, name more axes than there are, or have an unknown last
            size; if batch_dims is out of range or the batch axes differ.
        IndexError: On the host, if a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> F.gather_nd(x, Tensor([[0, 1], [1, 0]], dtype=DType.int64)).to_numpy().tolist()
        [2.0, 3.0]
    """
    rank = indices.ndim - 1
    picks = []
    for axis in range(batch_dims):
        shape = [1] * rank
        shape[axis] = input.shape[axis]
        picks.append(xp.arange(input.shape[axis]).reshape(shape))
    for column in range(indices.shape[-1]):
        wanted = indices[..., column].astype(np.int64, copy=False)
        size = input.shape[batch_dims + column]
        _check_range(xp, wanted, size, "gather_nd")
        picks.append(xp.where(wanted < 0, wanted + size, wanted))
    if not picks:
        return xp.broadcast_to(input, (*indices.shape[:-1], *input.shape))
    return input[tuple(xp.broadcast_arrays(*picks))]


# ---- positions that depend on the data ---------------------------------------------------------


def _found(op: Op, x: TensorType, *, out_dim: Size) -> TensorType:
    return TensorType.of(DType.int64, (out_dim, x.rank), x.device)


@op(Kind.OPAQUE, _found, name="argwhere", upcasts=True)
def _argwhere(xp: ArrayModule, x: Tensor, out_dim: Size) -> Tensor:
    """Positions of the elements that are not 0, one row each, in row-major order."""
    found = xp.stack(xp.nonzero(x), axis=1)
    if found.shape[0] != out_dim:
        raise ShapeError(f"nonzero: out_dim is {out_dim}, but {found.shape[0]} elements are not 0.")
    return found


@function
def nonzero(x: Tensor, out_dim: DimLike) -> Tensor:
    """Positions of the elements that are not 0, in row-major order (NumPy's `argwhere`).

    Args:
        x: Tensor of any dtype, at least one axis.
        out_dim: Their number, or a symbolic dimension; outside a trace, it matches any number.

    Returns:
        int64 [out_dim, rank].

    Raises:
        ValueError: If x is a scalar, or a given number is wrong.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.nonzero(Tensor([[0.0, 2.0], [3.0, 0.0]]), "found").to_numpy().tolist()
        [[0, 1], [1, 0]]
    """
    x = strong("nonzero", x)
    if x.rank == 0:
        raise AxisError("nonzero: expected at least one axis, got a scalar.")
    size = as_size(out_dim)
    if not isinstance(size, int) and active_trace() is None:
        size = _true_count(cast(x, DType.bool))
    declare_size(size, _count_true(cast(x, DType.bool)), "nonzero: out_dim")
    return _argwhere(x, out_dim=size)


def _count_true(mask: Tensor) -> Tensor:
    return sum(cast(flatten(mask), DType.int64))


def _true_count(mask: Tensor) -> int:
    return int(_count_true(mask).item())


@function
def masked_scatter(input: Tensor, mask: TensorLike, updates: Tensor, out_dim: DimLike) -> Tensor:
    """Replaces the elements where a mask is true by the elements of `updates`, in order.

    Args:
        input: Tensor of any dtype.
        mask: bool tensor or array, broadcast to `input`.
        updates: Tensor with the dtype of `input` and one element for each true one.
        out_dim: The number of true elements, or a symbolic dimension.

    Returns:
        The type of `input`.

    Raises:
        ValueError: If dtypes differ, the mask is not bool or does not fit, or (outside a trace)
            numbers of elements disagree.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([1.0, 2.0, 3.0])
        >>> F.masked_scatter(x, x > 1, Tensor([8.0, 9.0]), "n").to_numpy().tolist()
        [1.0, 8.0, 9.0]
    """
    input, updates = strong("masked_scatter", input), strong("masked_scatter", updates)
    if not is_strong(mask):
        like = TensorType.of(DType.bool, (), input.type.device)
        mask = weak("masked_scatter", mask, Tensor.wrap(None, like))
    if mask.dtype is not DType.bool:
        raise DTypeError(f"masked_scatter: mask: expected bool, got {mask.type.short()}.")
    if input.dtype is not updates.dtype:
        raise DTypeError(
            f"masked_scatter: input and updates must have the same dtype: {input.type.short()}, "
            f"{updates.type.short()}."
        )
    mask = broadcast_to(mask, input.sizes)
    size = as_size(out_dim)
    given = product(updates.sizes)
    if active_trace() is None:
        count = _true_count(mask)
        if given != count or (isinstance(size, int) and size != count):
            raise ShapeError(
                f"masked_scatter: {count} elements of the mask are true, out_dim is {size}, and "
                f"updates {format_sizes(updates.sizes)} has {given} elements."
            )
    if given == 0 or 0 in input.sizes:
        return input
    chosen = cast(flatten(mask), DType.int64)
    if active_trace() is not None:
        declare_size(size, sum(chosen), "masked_scatter: out_dim")
        message = "masked_scatter: updates must have one element for each true one."
        updates = rebind(flatten(updates), (size,), message=message)
    # Positions of elements that are not chosen are not used, but must be in range.
    last = sub(_size(given, chosen), 1)
    positions = maximum(minimum(sub(cumsum(chosen), 1), last), 0)
    picked = gather(flatten(updates), positions, axis=0)
    return where(mask, reshape(picked, input.sizes), input)
