"""Stores: the only ops that change a tensor in place, and their functional form.

A compiled graph runs the functional form (an update) in place in the buffer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from maxmod.dtype import DType
from maxmod.errors import DTypeError, OperandError, ShapeError, SliceError, class_name
from maxmod.interpreters.lazy import LazyInterpreter, before_change
from maxmod.interpreters.operands import is_strong, same_device, strong
from maxmod.interpreters.trace import current_tracer
from maxmod.op import Kind, Op, function, innermost, op
from maxmod.op.affine import Index, Read
from maxmod.op.rules import normalize_axis
from maxmod.ops.indexing import bounds_of, declared_rows, index_items, is_dynamic
from maxmod.ops.reverse import flip
from maxmod.ops.shape import basic_slice, reshape
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule
from maxmod.values.dim import as_dim, as_size
from maxmod.values.plain import Attrs
from maxmod.values.shape import Sizes, format_sizes
from maxmod.values.tensor_type import TensorType

__all__ = ["buffer_store", "buffer_store_slice"]


def _updated(op: Op, x: TensorType, source: TensorType, **bounds: Sizes) -> TensorType:
    wanted = basic_slice.op.result_types(x, **bounds)[0]
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
    read: Read,
    x: TensorType,
    source: TensorType,
    *,
    starts: Sizes,
    stops: Sizes,
    steps: Sizes,
) -> list[Index]:
    return [at.scaled(step) + Index((), start) for at, start, step in zip(places, starts, steps)]


def _assign(x: Array, source: Array, starts: Sizes, stops: Sizes, steps: Sizes) -> None:
    for size, start, stop in zip(x.shape, starts, stops, strict=True):
        if not 0 <= start <= stop <= size:
            raise ShapeError(f"update_slice: {start}:{stop} is out of range for size {size}.")
    x[tuple(slice(*bounds) for bounds in zip(starts, stops, steps, strict=True))] = source


@op(Kind.INDEX, _updated, assign=_assign, position=_slice_position)
def update_slice(
    xp: ArrayModule, x: Tensor, source: Tensor, starts: Sizes, stops: Sizes, steps: Sizes
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
    op: Op, x: TensorType, source: TensorType, position: TensorType, *, axis: object
) -> Attrs:
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
    read: Read,
    x: TensorType,
    source: TensorType,
    position: TensorType,
    *,
    axis: int,
) -> list[Index]:
    room = as_size(as_dim(x.sizes[axis]) - source.sizes[axis] + 1)
    places[axis] = places[axis] + read(2, (), room)
    return places


def _assign_rows(x: Array, source: Array, position: Array, axis: int) -> None:
    start = int(position)  # waits for a GPU, if the position is there
    stop, size = start + source.shape[axis], x.shape[axis]
    if not 0 <= start <= stop <= size:
        raise SliceError(f"update_rows: {start}:{stop} is out of range for an axis of size {size}.")
    x[(slice(None),) * axis + (slice(start, stop),)] = source


@op(Kind.INDEX, _updated_rows, prepare=_row_axis, assign=_assign_rows, position=_row_position)
def update_rows(
    xp: ArrayModule, x: Tensor, source: Tensor, position: Tensor, axis: int = 0
) -> Tensor:
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


@function
def buffer_store(destination: Tensor, source: Tensor) -> None:
    """Overwrites all elements of a tensor, in its own memory.

    In a compiled function only arguments of a `BufferType` can be changed; reads after
    the store see the new elements, reads before it do not.

    Args:
        destination: The tensor to change.
        source: Tensor of the same shape, dtype and device.

    Returns:
        None.

    Raises:
        ValueError: If the types differ.
        TypeError: If an argument is not a tensor, or cannot be changed.

    Example:
        >>> from maxmod import CPU, BufferType, DType, Module, Tensor
        >>> from maxmod import functional as F
        >>> class Counter(Module):
        ...     def forward(self, count):
        ...         F.buffer_store(count, count + 1)
        ...         return count * 10
        >>> count = Tensor([0.0])
        >>> step = Counter().compile(BufferType(DType.float32, [1], CPU()))
        >>> step(count).item(), step(count).item(), count.item()
        (10.0, 20.0, 2.0)
    """
    buffer_store_slice(destination, source, (...,))


@function
def buffer_store_slice(destination: Tensor, source: Tensor, indices: object) -> None:
    """Overwrites a slice of a tensor, in its own memory: `destination[indices] = source`.

    Args:
        destination: The tensor to change; see `buffer_store`.
        source: Tensor of the same dtype and device, of exactly the shape of the slice.
        indices: Ints, slices and `...`, as in `x[...]`; nothing is clipped. One item may be a pair
            `(slice(position, None), size)` whose position is an int64 scalar tensor, on the host or
            on the device of the destination; the others are whole axes then. A compiled function
            stores at another position in each call that way.

    Returns:
        None.

    Raises:
        ValueError: If the shape, dtype or device differs.
        IndexError: If a bound is out of range.
        TypeError: If an argument is not a tensor or not writable, or an item is None or a tensor.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> F.buffer_store_slice(x, Tensor([7.0, 8.0]), [0])
        >>> x.to_numpy().tolist()
        [[7.0, 8.0], [3.0, 4.0]]
        >>> row = Tensor(1, dtype=DType.int64)
        >>> F.buffer_store_slice(x, Tensor([[5.0, 6.0]]), [(slice(row, None), 1)])
        >>> x.to_numpy().tolist()
        [[7.0, 8.0], [5.0, 6.0]]
    """
    if not isinstance(destination, Tensor):
        raise OperandError(
            f"buffer_store: destination: expected a Tensor, got {class_name(destination)}."
        )
    if not is_strong(source):
        raise OperandError(
            f"buffer_store: source: expected a Tensor, got {class_name(source)}. Hint: "
            "x[i] = value broadcasts numbers and arrays; Tensor.full_like(x[i], 1.0) has the shape."
        )
    source = strong("buffer_store", source)
    same_device("buffer_store", [destination, source])
    if source.dtype is not destination.dtype:
        raise DTypeError(
            f"buffer_store: the dtypes differ: destination is {destination.type.short()}, source "
            f"is {source.type.short()}. Hint: cast the source first."
        )
    items = index_items(destination, indices)
    if any(map(is_dynamic, items)):
        _store_rows(destination, source, items)
        return
    if any(item is None for item in items):
        raise OperandError("buffer_store: items must be ints, slices or ..., not None.")
    place = place_of(destination, items)
    if source.sizes != place.wanted:
        raise ShapeError(
            "buffer_store: the source must have exactly the shape of the slice: expected "
            f"{format_sizes(place.wanted)}, got {source.type.short()}. Hint: x[i] = value "
            "broadcasts."
        )
    store_at(destination, source, place)


class Place(NamedTuple):
    """Where a store by ints, slices and None goes.

    Attributes:
        bounds: Starts, stops and steps on every axis, all forward: what `basic_slice` takes.
        sliced: The shape of that slice.
        wanted: The shape of what is stored: without axes of ints, with those of None.
        backward: The axes on which the source is stored from its end.
    """

    bounds: dict[str, Sizes]
    sliced: Sizes
    wanted: Sizes
    backward: tuple[int, ...]


def place_of(destination: Tensor, items: list[object]) -> Place:
    """Returns the place that index items name; none of them is `...` or a tensor.

    Raises:
        ValueError: If a bound is out of range (also an IndexError), or a backward slice of a named
            size skips elements.
    """
    named = bounds_of(destination, items)
    forward = named.forward(destination.sizes)
    if forward is None:
        raise SliceError(
            f"buffer_store: a store with a step below -1 needs a known size, got "
            f"{destination.type.short()}. Hint: store F.flip(source) with a step above 0."
        )
    sliced = basic_slice.op.result_types(destination.type, **forward.of_slice)[0].sizes
    wanted = tuple(1 if axis is None else sliced[axis] for axis in named.kept)
    return Place(forward.of_slice, sliced, wanted, named.backward)


def store_at(destination: Tensor, source: Tensor, place: Place) -> None:
    """Stores a source of the shape `place.wanted`, or records that in a trace."""
    source = reshape(source, place.sliced)
    if place.backward:
        source = flip(source, place.backward)
    tracer = current_tracer()
    if tracer is None:
        _change(destination, [source], functools.partial(_assign, **place.bounds))
    elif place.sliced == destination.sizes:
        tracer.store(destination, source)
    else:
        tracer.store(destination, update_slice(destination, source, **place.bounds))


def _store_rows(destination: Tensor, source: Tensor, items: list[object]) -> None:
    """Stores rows at a position that is a tensor."""
    axis, position, count = declared_rows(destination, items)
    position = position.to(destination.type.device)
    sizes = destination.sizes
    wanted = (*sizes[:axis], count, *sizes[axis + 1 :])
    if source.sizes != wanted:
        raise ShapeError(
            "buffer_store: the source must have exactly the shape of the slice: expected "
            f"{format_sizes(wanted)}, got {source.type.short()}. Nothing is broadcast."
        )
    tracer = current_tracer()
    if tracer is not None:
        tracer.store(destination, update_rows(destination, source, position, axis))
        return
    update_rows.op.result_types(destination.type, source.type, position.type, axis=axis)
    _change(destination, [source, position], functools.partial(_assign_rows, axis=axis))


def _change(destination: Tensor, sources: Sequence[Tensor], assign: Callable[..., None]) -> None:
    """Assigns to the memory of a tensor, now or after a lazy block."""
    inner = innermost()
    if isinstance(inner, LazyInterpreter):
        inner.store(
            destination,
            sources,
            lambda memory, *arrays: assign(_expect_writable(memory), *arrays),
        )
        return
    arrays = [source.data for source in sources]
    before_change(destination)
    destination.own()
    assign(_expect_writable(destination.data), *arrays)


def _expect_writable(data: Array) -> Array:
    if not getattr(data.flags, "writeable", True):
        raise OperandError(
            "buffer_store: the destination is read-only memory (a mapped file?). Hint: make a copy."
        )
    return data
