"""`x[key]` and `x[key] = value` with the standard's keys, on tensors.

Ints, slices (clipped, with steps of either sign), `...` and None; integer tensors; or one bool
tensor alone. A store gives a new tensor: `Array` then refers to that one.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

from maxmod.dtype import DType
from maxmod.errors import OperandError, SliceError, TraceError
from maxmod.ops.comparison import where
from maxmod.ops.context import active_trace
from maxmod.ops.elementwise import cast
from maxmod.ops.gather import gather, gather_nd, masked_scatter, nonzero
from maxmod.ops.reverse import flip
from maxmod.ops.scatter import scatter_nd
from maxmod.ops.shape import basic_slice, broadcast_to, reshape, unsqueeze
from maxmod.ops.split_concat import concat
from maxmod.ops.stores import update_slice
from maxmod.tensor import Tensor
from maxmod.values.array import Subscript
from maxmod.values.dim import Size
from maxmod.values.plain import Attrs
from maxmod.values.shape import Sizes, product


def expect_data(name: str) -> None:
    """Raises `TypeError` while tracing: the size of the result depends on the data."""
    if active_trace() is not None:
        raise TraceError(
            f"{name}: the shape of the result depends on the data, which is not known while "
            "tracing. Hint: where selects by data and keeps the shape."
        )


def get(x: Tensor, key: Subscript) -> Tensor:
    """Returns `x[key]`."""
    items = _items(x, key)
    if isinstance(items, Tensor):
        return _masked(x, items)
    if not any(isinstance(item, Tensor) for item in items):
        return _sliced(x, _selection(x, items))
    if all(isinstance(item, (int, Tensor)) for item in items):
        return gather_nd(x, _positions(x, items))
    axes = [axis for axis, item in enumerate(items) if isinstance(item, Tensor)]
    if len(axes) > 1 or any(isinstance(item, int) for item in items):
        raise SliceError(
            "index: integer arrays can only be combined with ints and each other; a single one "
            "can be combined with slices."
        )
    (at,) = axes
    positions: Tensor = items[at]
    items[at] = slice(None)
    return gather(_sliced(x, _selection(x, items)), cast(positions, DType.int64), axis=at)


def put(x: Tensor, key: Subscript, value: Tensor) -> Tensor:
    """Returns a copy of x in which `x[key]` is replaced by a value that broadcasts to it."""
    items = _items(x, key)
    if isinstance(items, Tensor):
        return _put_masked(x, items, value)
    if any(isinstance(item, Tensor) for item in items):
        if not all(isinstance(item, (int, Tensor)) for item in items):
            raise SliceError("index: a store can only combine integer arrays with ints.")
        positions = _positions(x, items)
        rest = x.sizes[len(items) :]
        return scatter_nd(x, broadcast_to(value, (*positions.sizes[:-1], *rest)), positions)
    chosen = _selection(x, items)
    source = broadcast_to(value, chosen.shape)
    source = reshape(source, chosen.counts)
    source = flip(source, chosen.backward)
    return update_slice(x, source, **chosen.bounds)


# ---- keys --------------------------------------------------------------------------------------


def _items(x: Tensor, key: Subscript) -> Subscript:
    """Returns the mask, or one item for each of the first axes without `...`."""
    if isinstance(key, Tensor) and key.dtype is DType.bool:
        return key
    items = [_checked(item) for item in (key if isinstance(key, tuple) else (key,))]
    dots = [at for at, item in enumerate(items) if item is Ellipsis]
    named = sum(1 for item in items if item is not None and item is not Ellipsis)
    if len(dots) > 1 or named > x.rank:
        raise SliceError(f"index: expected at most {x.rank} items and one ..., got {key!r}.")
    if dots:
        items[dots[0] : dots[0] + 1] = [slice(None)] * (x.rank - named)
    return items


def _checked(item: Subscript) -> Subscript:
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, Tensor):
        if item.dtype is DType.bool:
            raise SliceError("index: a bool array must be the only item.")
        if not item.dtype.is_integral():
            raise SliceError(f"index: expected an integer array, got {item.type.short()}.")
        return item
    if isinstance(item, bool):
        raise SliceError("index: a bool is not an index. Hint: an array of bools is a mask.")
    try:
        return operator.index(item)
    except TypeError:
        raise SliceError(
            f"index: expected ints, slices, ..., None or arrays, got {type(item).__name__}."
        ) from None


class Selection(NamedTuple):
    """A slice of a tensor.

    Attributes:
        bounds: Starts, stops and steps on every axis, all forward: what `basic_slice` takes.
        counts: The number of elements taken from each axis.
        backward: The axes that are read from the end.
        shape: The shape of the result: axes of ints are dropped, those of None have size 1.
    """

    bounds: Attrs
    counts: list[Size]
    backward: list[int]
    shape: tuple[Size, ...]


def _selection(x: Tensor, items: list[Subscript]) -> Selection:
    taken: list[tuple[Size, Size, int, Size]] = []  # start, stop, step, number
    backward: list[int] = []
    shape: list[Size] = []
    items = [*items, *[slice(None)] * (x.rank - sum(item is not None for item in items))]
    for item in items:
        if item is None:
            shape.append(1)
            continue
        axis = len(taken)
        size = x.sizes[axis]
        if item == slice(None):
            taken.append((0, size, 1, size))
        elif not isinstance(size, int):
            raise OperandError(f"index: axis {axis} of {x.type.short()} has no known size.")
        elif isinstance(item, int):
            at = _counted(item, size)
            taken.append((at, at + 1, 1, 1))
        else:
            chosen = range(size)[item]
            if chosen.step < 0:
                backward.append(axis)
                chosen = chosen[::-1]
            first, last = (chosen[0], chosen[-1]) if chosen else (0, -1)
            taken.append((first, last + 1, chosen.step, len(chosen)))
        if not isinstance(item, int):
            shape.append(taken[-1][3])
    starts, stops, steps, counts = ([*column] for column in zip(*taken)) if taken else ([],) * 4
    bounds = {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}
    return Selection(bounds, counts, backward, tuple(shape))


def _counted(item: int, size: int) -> int:
    """Counts a position from the front."""
    if not -size <= item < size:
        raise SliceError(f"index: {item} is out of range for an axis of size {size}.")
    return item + size if item < 0 else item


def _sliced(x: Tensor, chosen: Selection) -> Tensor:
    if tuple(chosen.counts) != x.sizes:
        x = basic_slice(x, **chosen.bounds)
    x = flip(x, chosen.backward) if chosen.backward else x
    return x if x.sizes == chosen.shape else reshape(x, chosen.shape)


# ---- positions and masks -----------------------------------------------------------------------


def _positions(x: Tensor, items: list[Subscript]) -> Tensor:
    """The positions that ints and integer tensors name together, one row each."""
    tensors = []
    for axis, item in enumerate(items):
        size = x.sizes[axis]
        if isinstance(item, int):
            item = _counted(item, size) if isinstance(size, int) else item
            item = Tensor.full((), item, dtype=DType.int64, device=x.type.device)
        tensors.append(cast(item, DType.int64))
    shape = broadcast_sizes([tensor.sizes for tensor in tensors])
    return concat([unsqueeze(broadcast_to(t, shape), -1) for t in tensors], axis=-1)


def broadcast_sizes(shapes: list[Sizes]) -> Sizes:
    """Returns the shape that shapes broadcast to; `ValueError` if there is none."""
    from_end = []
    for axis in range(1, max(map(len, shapes), default=0) + 1):
        sizes = [shape[-axis] for shape in shapes if len(shape) >= axis]
        others = [size for size in sizes if size != 1]
        if any(size != others[0] for size in others):
            raise SliceError(f"shapes {', '.join(map(str, shapes))} do not broadcast.")
        from_end.append(others[0] if others else 1)
    return tuple(reversed(from_end))


def _expect_mask(x: Tensor, mask: Tensor) -> None:
    """A mask has the sizes of the first axes, or is empty (as in NumPy)."""
    pairs = zip(mask.sizes, x.sizes)
    if mask.rank > x.rank or any(size not in (wanted, 0) for size, wanted in pairs):
        raise SliceError(f"index: the mask {mask.type.short()} does not fit {x.type.short()}.")


def _masked(x: Tensor, mask: Tensor) -> Tensor:
    expect_data("x[mask]")
    _expect_mask(x, mask)
    count = product(mask.sizes)
    if count == 0:
        empty = (0, *x.sizes[mask.rank :])
        return Tensor.full(empty, 0, dtype=x.dtype, device=x.type.device)
    places = nonzero(reshape(mask, (count,)), out_dim="found")
    rows = reshape(x, (count, *x.sizes[mask.rank :]))
    return gather(rows, reshape(places, places.sizes[:1]), axis=0)


def _put_masked(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    _expect_mask(x, mask)
    if 0 in mask.sizes:
        return x
    rest = x.sizes[mask.rank :]
    spread = broadcast_to(reshape(mask, (*mask.sizes, *[1] * len(rest))), x.sizes)
    if value.rank <= len(rest):
        return where(spread, value, x)
    expect_data("x[mask] = array")
    count = int(nonzero(reshape(mask, (product(mask.sizes),)), out_dim="found").sizes[0])
    updates = broadcast_to(value, (count, *rest))
    return masked_scatter(x, spread, updates, out_dim=product(updates.sizes))
