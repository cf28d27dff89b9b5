"""Updates: the functional form of stores into a buffer, which compiled graphs run in place."""

from __future__ import annotations

from typing import Any

from maxmod.dtype import DType
from maxmod.errors import DTypeError, ShapeError, SliceError
from maxmod.op.affine import Index
from maxmod.op.op import Kind, Op, op
from maxmod.op.rules import normalize_axis
from maxmod.ops.shape import basic_slice
from maxmod.tensor import Tensor
from maxmod.values.dim import Sizes, as_dim, as_size, format_sizes
from maxmod.values.tensor_type import TensorType


def _updated(op: Op, x: TensorType, source: TensorType, **bounds: Sizes) -> TensorType:
    wanted = basic_slice.op.infer(op, x, **bounds)  # type: ignore[attr-defined]
    if source.dtype is not x.dtype:
        raise DTypeError(f"{op.name}: expected {x.dtype!r}, got {source.short()}.")
    if source.sizes != wanted.sizes:
        raise ShapeError(
            f"{op.name}: the source must have the shape of the slice: expected "
            f"{format_sizes(wanted.sizes)}, got {source.short()}."
        )
    return x


def _slice_position(
    places: list[Index],
    read: Any,
    x: TensorType,
    source: TensorType,
    *,
    starts: Sizes,
    stops: Sizes,
    steps: Sizes,
) -> list[Index]:
    return [at.scaled(step) + Index((), start) for at, start, step in zip(places, starts, steps)]


def _assign(x: Any, source: Any, starts: Sizes, stops: Sizes, steps: Sizes) -> None:
    for size, start, stop in zip(x.shape, starts, stops, strict=True):
        if not 0 <= start <= stop <= size:
            raise ShapeError(f"update_slice: {start}:{stop} is out of range for size {size}.")
    x[tuple(slice(*bounds) for bounds in zip(starts, stops, steps, strict=True))] = source


@op(Kind.INDEX, _updated, assign=_assign, position=_slice_position)
def update_slice(
    xp: Any, x: Tensor, source: Tensor, starts: Sizes, stops: Sizes, steps: Sizes
) -> Tensor:
    """A copy of x in which one slice is replaced; bounds are counted from 0 on every axis.

    Args:
        x: Tensor of any dtype.
        source: Tensor of the same dtype and of the shape of the slice.
        starts: First position on each axis.
        stops: End on each axis, not included.
        steps: Distance on each axis, above 0.

    Returns:
        The type of x.
    """
    result = x.copy()
    _assign(result, source, starts, stops, steps)
    return result


def _row_axis(
    op: Op, x: TensorType, source: TensorType, position: TensorType, *, axis: Any
) -> dict[str, Any]:
    return {"axis": normalize_axis(op.name, axis, x.rank)}


def _updated_rows(
    op: Op, x: TensorType, source: TensorType, position: TensorType, *, axis: int
) -> TensorType:
    if source.dtype is not x.dtype:
        raise DTypeError(f"{op.name}: expected {x.dtype!r}, got {source.short()}.")
    if position.dtype is not DType.int64 or position.sizes:
        raise DTypeError(f"{op.name}: position: expected int64[], got {position.short()}.")
    count = source.sizes[axis] if source.rank == x.rank else None
    if count is None or source.sizes != (*x.sizes[:axis], count, *x.sizes[axis + 1 :]):
        raise ShapeError(
            f"{op.name}: the source may differ from x on axis {axis} only: x is {x.short()}, "
            f"source is {source.short()}."
        )
    size = x.sizes[axis]
    if isinstance(size, int) and isinstance(count, int) and count > size:
        raise ShapeError(f"{op.name}: {count} rows do not fit into axis {axis} of {x.short()}.")
    return x


def _row_position(
    places: list[Index],
    read: Any,
    x: TensorType,
    source: TensorType,
    position: TensorType,
    *,
    axis: int,
) -> list[Index]:
    room = as_size(as_dim(x.sizes[axis]) - source.sizes[axis] + 1)
    places[axis] = places[axis] + read(2, (), room)
    return places


def _assign_rows(x: Any, source: Any, position: Any, axis: int) -> None:
    start = int(position)  # waits for a GPU, if the position is there
    stop, size = start + source.shape[axis], x.shape[axis]
    if not 0 <= start <= stop <= size:
        raise SliceError(f"update_rows: {start}:{stop} is out of range for an axis of size {size}.")
    x[(slice(None),) * axis + (slice(start, stop),)] = source


@op(Kind.INDEX, _updated_rows, prepare=_row_axis, assign=_assign_rows, position=_row_position)
def update_rows(xp: Any, x: Tensor, source: Tensor, position: Tensor, axis: int = 0) -> Tensor:
    """A copy of x in which neighbouring rows are replaced, at a position that is data.

    Args:
        x: Tensor of any dtype.
        source: Tensor of the same dtype and shape, but for its size on `axis`.
        position: int64 scalar: where the first of the rows goes, counted from 0.
        axis: The axis along which the rows lie.

    Returns:
        The type of x.

    Raises:
        ValueError: If dtypes or shapes do not fit.
        IndexError: If the rows are out of range. A compiled function on a GPU that stores them into
            a buffer leaves it as it is instead, since checking would mean waiting.
    """
    result = x.copy()
    _assign_rows(result, source, position, axis)
    return result
