"""`x[...]`: from index items to slice and reshape. Nothing is clipped; see `slice_tensor`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from maxmod.dim import Dim, Size, as_size
from maxmod.errors import OperandError, SliceError
from maxmod.op import function
from maxmod.ops.shape import basic_slice, reshape
from maxmod.tensor import Tensor

_INTEGERS = (int, np.integer, Dim)


@function
def slice_tensor(x: Tensor, indices: Any) -> Tensor:
    """Elements of a tensor by ints, slices, None and `...`, one item for each axis.

    Unlike NumPy, bounds must lie in `-size .. size`, starts before stops, and steps above 0; a list
    is a tuple of items, not a list of positions (`F.gather` takes those).

    Args:
        x: Tensor of any dtype.
        indices: One item, or a sequence of them. An int drops its axis, a slice keeps it, None adds
            an axis of size 1, `...` stands for the axes that are not named.

    Raises:
        ValueError: If a bound is out of range (also an IndexError), or there are too many items.
        TypeError: For items of other types.
    """
    items = list(indices) if isinstance(indices, Iterable) else [indices]
    items = _without_ellipsis(x, items)
    starts: list[Size] = []
    stops: list[Size] = []
    steps: list[int] = []
    shape: list[Any] = []  # per result axis: an axis of the slice, or None for a new one
    for item in items:
        if item is None:
            shape.append(None)
            continue
        axis = len(starts)
        start, stop, step, keep = _bounds(x.sizes[axis], item)
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        if keep:
            shape.append(axis)
    rest = list(range(len(starts), x.rank))
    shape += rest
    starts += [0] * len(rest)
    stops += [x.sizes[axis] for axis in rest]
    steps += [1] * len(rest)
    whole = all(s == 0 for s in starts) and tuple(stops) == x.sizes and set(steps) <= {1}
    if not whole:
        x = basic_slice(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))
    target = tuple(1 if axis is None else x.sizes[axis] for axis in shape)
    return x if shape == list(range(x.rank)) and whole is False else reshape(x, target)


def _without_ellipsis(x: Tensor, items: list[Any]) -> list[Any]:
    named = sum(1 for item in items if item is not None and item is not Ellipsis)
    if sum(1 for item in items if item is Ellipsis) > 1:
        raise SliceError("index: at most one ... is allowed.")
    if named > x.rank:
        raise SliceError(f"index: too many items for {x.type.short()}: {named} > {x.rank}.")
    if Ellipsis not in [item if item is Ellipsis else None for item in items]:
        return items
    at = next(i for i, item in enumerate(items) if item is Ellipsis)
    return items[:at] + [slice(None)] * (x.rank - named) + items[at + 1 :]


def _bounds(size: Size, item: Any) -> tuple[Size, Size, int, bool]:
    """Returns (start, stop, step, whether the axis stays) for one axis."""
    if isinstance(item, _INTEGERS):
        index = _from_front(size, as_size(item), "index", upper=-1)
        return index, as_size(index + 1), 1, False
    if not isinstance(item, slice):
        raise OperandError(
            f"index: expected an int, a slice, None or ..., got {type(item).__name__}. Hint: "
            "F.gather takes positions in a tensor, F.where and F.nonzero take masks."
        )
    step = 1 if item.step is None else item.step
    if not isinstance(step, (int, np.integer)) or step <= 0:
        raise SliceError(f"index: expected positive integer step but got {step!r}.")
    start = 0 if item.start is None else _from_front(size, _bound(item.start), "start index")
    stop = size if item.stop is None else _from_front(size, _bound(item.stop), "stop index")
    if isinstance(start, int) and isinstance(stop, int) and start > stop:
        raise SliceError(f"index: start and stop must be increasing, got {start}:{stop}.")
    return start, stop, int(step), True


def _bound(value: Any) -> Size:
    if not isinstance(value, _INTEGERS):
        raise OperandError(f"index: slice bounds must be ints or Dims, got {type(value).__name__}.")
    return as_size(value)


def _from_front(size: Size, bound: Size, what: str, upper: int = 0) -> Size:
    """Counts a bound from the front; checks it where both are known."""
    if isinstance(bound, int) and isinstance(size, int):
        if not -size <= bound <= size + upper:
            raise SliceError(
                f"index: {what} {bound} out of range for dimension size {size}. Hint: bounds are "
                "not clipped."
            )
        return bound + size if bound < 0 else bound
    if isinstance(bound, int) and bound < 0:
        return as_size(size + bound)
    return bound
