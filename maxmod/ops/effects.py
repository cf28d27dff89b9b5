"""Stores: the only ops that change a tensor in place."""

from __future__ import annotations

from typing import Any

from maxmod.errors import DTypeError, OperandError, ShapeError
from maxmod.op.op import function
from maxmod.operands import is_strong, same_device, strong
from maxmod.ops.indexing import bounds_of, declared_rows, index_items, is_dynamic
from maxmod.ops.shape import basic_slice, reshape
from maxmod.ops.update import update_rows, update_slice
from maxmod.tensor import Tensor
from maxmod.trace import current_tracer
from maxmod.values.dim import format_sizes


@function
def buffer_store(destination: Tensor, source: Tensor) -> None:
    """Overwrites all elements of a tensor, in its own memory.

    In a compiled function only arguments of a `BufferType` can be changed; what is read after the
    store sees the new elements, what was read before does not.

    Args:
        destination: The tensor to change.
        source: Tensor of the same shape, dtype and device.

    Returns:
        None.

    Raises:
        ValueError: If the types differ.
        TypeError: If an argument is no tensor, or cannot be changed.

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
def buffer_store_slice(destination: Tensor, source: Tensor, indices: Any) -> None:
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
        TypeError: If an argument is no tensor, cannot be changed, or an item is None or a tensor.

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
            f"buffer_store: destination: expected a Tensor, got {type(destination).__name__}."
        )
    if not is_strong(source):
        raise OperandError(
            f"buffer_store: source: expected a Tensor, got {type(source).__name__}. Hint: nothing "
            "is broadcast; Tensor.full_like(x[index], number) has the shape of the slice."
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
    starts, stops, steps, kept = bounds_of(destination, items)
    bounds = {"starts": starts, "stops": stops, "steps": steps}
    sliced = basic_slice.op.infer(  # type: ignore[attr-defined]
        basic_slice.op,  # type: ignore[attr-defined]
        destination.type,
        **bounds,
    ).sizes
    wanted = tuple(sliced[axis] for axis in kept if axis is not None)
    if source.sizes != wanted:
        raise ShapeError(
            "buffer_store: the source must have exactly the shape of the slice: expected "
            f"{format_sizes(wanted)}, got {source.type.short()}. Nothing is broadcast."
        )
    source = reshape(source, sliced)
    tracer = current_tracer()
    if tracer is None:
        update_slice.op.assign(_writable(destination), source.data, **bounds)  # type: ignore[attr-defined]
    elif sliced == destination.sizes:
        tracer.store(destination, source)
    else:
        tracer.store(destination, update_slice(destination, source, **bounds))


def _store_rows(destination: Tensor, source: Tensor, items: list[Any]) -> None:
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
    op = update_rows.op  # type: ignore[attr-defined]
    op.infer(op, destination.type, source.type, position.type, axis=axis)
    op.assign(_writable(destination), source.data, position.data, axis=axis)


def _writable(destination: Tensor) -> Any:
    """Returns the memory of a tensor, which nothing else sees as another value afterwards."""
    destination.own()
    data = destination.data
    if not getattr(data.flags, "writeable", True):
        raise OperandError(
            "buffer_store: the destination is read-only memory (a mapped file?). Hint: make a copy."
        )
    return data
