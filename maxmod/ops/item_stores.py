"""`x[...] = value`: stores that broadcast, by slices, lists, integer arrays and masks."""

from __future__ import annotations

from maxmod.dtype import DType
from maxmod.errors import DTypeError, ShapeError, TraceError
from maxmod.interpreters.operands import is_strong, same_device, strong, weak
from maxmod.interpreters.trace import current_tracer
from maxmod.op import function
from maxmod.ops.array_indexing import (
    Selection,
    expect_fitting_mask,
    is_array,
    result_sizes,
    rows_of,
    selection,
    to_front,
)
from maxmod.ops.comparison import where
from maxmod.ops.indexing import index_items, is_dynamic, slice_tensor
from maxmod.ops.scatter import scatter_nd
from maxmod.ops.shape import broadcast_to, permute, reshape, unsqueeze
from maxmod.ops.stores import buffer_store_slice, place_of, store_at
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import Subscript
from maxmod.values.dim import Size
from maxmod.values.shape import Sizes, format_sizes


@function
def set_item(destination: Tensor, index: Subscript, value: TensorLike) -> None:
    """Stores into a tensor: `destination[index] = value`.

    Args:
        destination: The tensor to change, in its own memory.
        index: Items as in `x[index]`: ints, slices, None, `...`, lists, integer arrays and masks.
        value: A number or an array that fits the dtype, or a tensor of the same dtype and device;
            broadcast to what the index selects. Of two values for one position, the last stays.

    Raises:
        ValueError: If the value does not broadcast, or its dtype or device differs.
        IndexError: If a position is out of range.
        TypeError: In a trace, if the destination is an argument that is not a buffer, or the store
            needs the number of true elements of a mask.
    """
    source = _source(destination, value)
    items = index_items(destination, index)
    if any(map(is_array, items)):
        _store_arrays(destination, source, items)
    elif any(map(is_dynamic, items)):
        _store_dynamic(destination, source, items)
    else:
        place = place_of(destination, items)
        store_at(destination, _spread(source, place.wanted), place)


def _source(destination: Tensor, value: TensorLike) -> Tensor:
    """Returns the tensor of a value that is to be stored; nothing is cast silently."""
    if not is_strong(value):
        return weak("store", value, destination)
    source = strong("store", value)
    same_device("store", [destination, source])
    if source.dtype is not destination.dtype:
        raise DTypeError(
            f"store: the dtypes differ: destination is {destination.type.short()}, value is "
            f"{source.type.short()}. Hint: x[i] = value.cast(x.dtype)."
        )
    return source


def _spread(source: Tensor, wanted: Sizes) -> Tensor:
    """Broadcasts a value to what an index selects; axes of size 1 in front may be too many."""
    extra = source.rank - len(wanted)
    if extra > 0 and all(size == 1 for size in source.sizes[:extra]):
        source = reshape(source, source.sizes[extra:])
    if source.sizes == wanted:
        return source
    try:
        return broadcast_to(source, wanted)
    except ShapeError:
        raise ShapeError(
            f"store: the value does not broadcast to what the index selects: expected "
            f"{format_sizes(wanted)}, got {source.type.short()}."
        ) from None


def _store_dynamic(destination: Tensor, source: Tensor, items: list[Subscript]) -> None:
    """Stores at a position that is a tensor without axes, or at a slice of a declared size."""
    scalars = [at for at, item in enumerate(items) if isinstance(item, Tensor)]
    if len(scalars) == 1 and items[scalars[0]]._value is not None:
        (at,) = scalars
        items = [*items[:at], (slice(items[at], None), 1), *items[at + 1 :]]
        wanted = (*destination.sizes[:at], *destination.sizes[at + 1 :])
        buffer_store_slice(destination, unsqueeze(_spread(source, wanted), at), items)
        return
    if scalars:
        set_item(destination, tuple(_known(item) for item in items), source)
        return
    wanted = slice_tensor(destination, tuple(items)).sizes
    buffer_store_slice(destination, _spread(source, wanted), items)


def _known(item: Subscript) -> Subscript:
    return item.item() if isinstance(item, Tensor) else item


def _store_arrays(destination: Tensor, source: Tensor, items: list[Subscript]) -> None:
    """Stores at lists, integer arrays and masks."""
    tracer = current_tracer()
    masks = [item for item in items if isinstance(item, Tensor) and item._value is not None]
    if tracer is not None and any(mask.dtype is DType.bool for mask in masks):
        _store_where(destination, source, items)
        return
    chosen = selection(destination, items)
    part = slice_tensor(destination, tuple(chosen.plain))
    wanted = _selected_sizes(part, chosen)
    source = _spread(source, result_sizes(wanted, chosen))
    changed = _scattered(part, reshape(source, wanted), chosen)
    store_at(destination, changed, place_of(destination, chosen.plain))


def _selected_sizes(part: Tensor, chosen: Selection) -> Sizes:
    """Returns the sizes of what is selected, without axes for None."""
    rest = [size for axis, size in enumerate(part.sizes) if axis not in chosen.positions]
    before = sum(1 for item in chosen.items[: chosen.at] if isinstance(item, slice))
    return (*rest[:before], *chosen.sizes, *rest[before:])


def _scattered(part: Tensor, source: Tensor, chosen: Selection) -> Tensor:
    """Returns a slice of the destination in which the selected elements are replaced."""
    axes = list(chosen.positions)
    before = sum(1 for item in chosen.items[: chosen.at] if isinstance(item, slice))
    source = to_front(source, list(range(before, before + len(chosen.sizes))))
    result = scatter_nd(to_front(part, axes), source, rows_of(chosen))
    order = [*axes, *(axis for axis in range(part.rank) if axis not in axes)]
    return permute(result, [order.index(axis) for axis in range(part.rank)])


def _store_where(destination: Tensor, source: Tensor, items: list[Subscript]) -> None:
    """Stores by a mask whose elements are not known while tracing: selects by it."""
    others = [item for item in items if not isinstance(item, Tensor)]
    at = next(at for at, item in enumerate(items) if isinstance(item, Tensor))
    if len(others) != len(items) - 1 or any(item != slice(None) for item in others):
        raise TraceError(
            "store: a mask that is not known while tracing can only be combined with whole axes. "
            "Hint: part = x[a]; part[mask] = value; x[a] = part."
        )
    mask = items[at]
    expect_fitting_mask(destination, mask, at)
    rest = destination.rank - at - mask.rank
    sizes: list[Size] = list(source.sizes)
    if source.rank > rest:
        if sizes[-rest - 1] != 1:
            raise TraceError(
                "store: how many elements a mask selects is not known while tracing, so that "
                f"the value cannot have one for each: got {source.type.short()}. Hint: "
                'x[...] = F.masked_scatter(x, mask, values, "k").'
            )
        sizes[len(sizes) - rest - 1 : len(sizes) - rest] = [1] * mask.rank
    spread = reshape(mask, (*mask.sizes, *[1] * rest))
    value = _spread(reshape(source, sizes), destination.sizes)
    store_at(destination, where(spread, value, destination), place_of(destination, []))
