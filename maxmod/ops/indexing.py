"""`x[...]`: from index items to slices, gathers and reshapes. Nothing is clipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import OperandError, SliceError, TraceError, class_name
from maxmod.interpreters.operands import strong
from maxmod.op import function
from maxmod.ops.arithmetic import add, floor_div, maximum, mul, sub
from maxmod.ops.array_indexing import axes_of, is_array, refused_bool, selection, taken
from maxmod.ops.comparison import greater, logical_and, logical_or, where
from maxmod.ops.control_flow.late_sizes import declare_size
from maxmod.ops.create import iota
from maxmod.ops.gather import gather
from maxmod.ops.reverse import flip
from maxmod.ops.shape import basic_slice, rebind, reshape
from maxmod.tensor import Tensor, era
from maxmod.values.array import Subscript
from maxmod.values.device import CPU_REF
from maxmod.values.dim import Dim, DimLike, Size, as_size
from maxmod.values.shape import Sizes

__all__ = ["slice_tensor"]

_INTEGERS = (int, np.integer, Dim)


@function
def slice_tensor(x: Tensor, indices: Subscript) -> Tensor:
    """Elements of a tensor by ints, slices, None, `...`, lists and arrays: `x[indices]`.

    Unlike NumPy, bounds must lie in `-size .. size`, and starts before stops, or after them where
    the step is below 0. Lists, integer arrays and masks select as in NumPy; alone between brackets
    a list holds positions (`x[[0, 2]]`), while this function takes it for the sequence of items.

    Args:
        x: Tensor of any dtype.
        indices: One item, or a sequence of them. An int or an int64 scalar on the host drops its
            axis, a slice keeps it, None adds an axis of size 1, `...` covers the axes that are not
            named. Lists, integer arrays and tensors hold positions, and bool ones are masks, whose
            elements must be known: not in a trace. A pair `(slice, size)` declares the size of a
            slice whose bounds may be tensors.

    Returns:
        The dtype of x; one axis for each slice and None, the common axes of arrays, and the axes
        that are not named.

    Raises:
        ValueError: If a bound is out of range (also an IndexError), there are too many items, or a
            tensor is not an int64 scalar on the host.
        TypeError: For items of other types.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1, 2, 3], [4, 5, 6]])
        >>> x[1, :-1].to_numpy().tolist()
        [4.0, 5.0]
        >>> x[:, [2, 0]].to_numpy().tolist(), x[x > 4].to_numpy().tolist()
        ([[3.0, 1.0], [6.0, 4.0]], [5.0, 6.0])
        >>> F.slice_tensor(x, [slice(None), None, 0]).to_numpy().tolist()
        [[1.0], [4.0]]
        >>> x[0, ::-1].to_numpy().tolist()
        [3.0, 2.0, 1.0]
        >>> start = Tensor(1, dtype=DType.int64)
        >>> x[..., (slice(start, None), 2)].to_numpy().tolist()
        [[2.0, 3.0], [5.0, 6.0]]
    """
    x = strong("index", x)
    items = index_items(x, indices)
    if any(map(is_array, items)):
        chosen = selection(x, items)
        return taken(_static(x, chosen.plain), chosen)
    if any(is_dynamic(item) for item in items):
        return _dynamic(x, items)
    result = _static(x, items)
    # A tensor of its own, which a store into x does not change; values of graphs never change.
    return reshape(x, x.sizes) if result is x and x._value is None else result


@function
def rows(x: Tensor) -> Iterator[Tensor]:
    """Iterates over the first axis.

    Raises:
        ValueError: If x is a scalar.
        TypeError: In a trace, if the number of rows is a name.
    """
    if x.rank == 0:
        raise SliceError("iter: a scalar has no rows to go through.")
    return (slice_tensor(x, index) for index in range(_known_rows("iter", x)))


@function
def count_rows(x: Tensor) -> int:
    """Returns the size of the first axis: `len(x)`.

    Raises:
        TypeError: If x is a scalar, or in a trace, if the number of rows is a name.
    """
    if x.rank == 0:
        raise OperandError("len: a scalar has no rows. Hint: x.num_elements() is 1.")
    return _known_rows("len", x)


def _known_rows(name: str, x: Tensor) -> int:
    count = x.sizes[0]
    if isinstance(count, int):
        return count
    raise TraceError(
        f"{name}: {x.type.short()} has a number of rows that is not known while tracing. Hint: "
        "ops work on whole tensors, x.shape[0] is the size as a name; a loop needs a type with a "
        "known size."
    )


class Bounds(NamedTuple):
    """A slice without tensors: first position, end and distance on each axis of the operand.

    Attributes:
        starts: First positions, counted from 0, from the end of axes in `backward`.
        stops: Ends, not included, counted like the starts.
        steps: Distances, above 0.
        kept: For each axis of the result an axis of the slice, or None for a new one.
        backward: The axes that are counted from their end.
    """

    starts: Sizes
    stops: Sizes
    steps: tuple[int, ...]
    kept: tuple[int | None, ...]
    backward: tuple[int, ...] = ()

    @property
    def of_slice(self) -> dict[str, Sizes]:
        """The static arguments of `basic_slice`."""
        return {"starts": self.starts, "stops": self.stops, "steps": self.steps}

    def forward(self, sizes: Sizes) -> Bounds | None:
        """Returns bounds of the same elements from the front, None if they depend on a name.

        The slice has the axes in `backward` in the other order then.

        Args:
            sizes: The shape of the operand.
        """
        starts, stops = list(self.starts), list(self.stops)
        for axis in self.backward:
            start, stop, step = self.starts[axis], self.stops[axis], self.steps[axis]
            if isinstance(start, int) and isinstance(stop, int):
                stop -= (stop - start - 1) % step if stop > start else 0  # just after the last
            elif step != 1:
                return None
            starts[axis], stops[axis] = as_size(sizes[axis] - stop), as_size(sizes[axis] - start)
        return self._replace(starts=tuple(starts), stops=tuple(stops))


def bounds_of(x: Tensor, items: list[object]) -> Bounds:
    """Returns the bounds of a slice; `items` name the first axes, without `...` and tensors."""
    chosen: list[tuple[Size, Size, int]] = []
    kept: list[int | None] = []
    backward: list[int] = []
    for item in [*items, *[slice(None)] * (x.rank - sum(item is not None for item in items))]:
        if item is None:
            kept.append(None)
            continue
        axis = len(chosen)
        start, stop, step = _bounds(x.sizes[axis], item)
        chosen.append((start, stop, abs(step)))
        if isinstance(item, slice):
            kept.append(axis)
        if step < 0:
            backward.append(axis)
    starts, stops, steps = zip(*chosen) if chosen else ((), (), ())
    return Bounds(starts, stops, steps, tuple(kept), tuple(backward))


def _static(x: Tensor, items: list[object]) -> Tensor:
    bounds = bounds_of(x, items)
    from_front = bounds.forward(x.sizes)
    if from_front is None:
        x = _sliced(flip(x, bounds.backward), bounds)
    else:
        x = _sliced(x, from_front)
        x = flip(x, bounds.backward) if bounds.backward else x
    if bounds.kept == tuple(range(x.rank)):
        return x
    sizes = x.sizes
    return reshape(x, tuple([1 if axis is None else sizes[axis] for axis in bounds.kept]))


def _sliced(x: Tensor, bounds: Bounds) -> Tensor:
    whole = bounds.stops == x.sizes and not any(bounds.starts) and set(bounds.steps) <= {1}
    return x if whole else basic_slice(x, **bounds.of_slice)


def index_items(x: Tensor, indices: Subscript) -> list[object]:
    """Returns one item for each of the first axes; `...` is replaced by whole slices."""
    items = list(indices) if isinstance(indices, (list, tuple)) else [indices]
    if era.current() is not None:
        items = [_as_scalar(item) for item in items]
    return _without_ellipsis(x, items)


def _as_scalar(item: object) -> object:
    """Takes a tensor of one position for an int, as MAX does."""
    is_one = isinstance(item, Tensor) and item.rank and item.dtype is DType.int64
    return reshape(item, ()) if is_one and all(size == 1 for size in item.sizes) else item


def _without_ellipsis(x: Tensor, items: list[object]) -> list[object]:
    dots = [position for position, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise SliceError("index: at most one ... is allowed.")
    named = sum(map(axes_of, items))
    if named > x.rank:
        raise SliceError(f"index: too many items for {x.type.short()}: {named} > {x.rank}.")
    if not dots:
        return items
    return items[: dots[0]] + [slice(None)] * (x.rank - named) + items[dots[0] + 1 :]


def _bounds(size: Size, item: object) -> tuple[Size, Size, int]:
    """Returns start, stop and step for one axis; where the step is below 0, the start and the stop
    are counted from the end.
    """
    if type(item) is int and type(size) is int and 0 <= item < size:  # the common case
        return item, item + 1, 1
    if isinstance(item, (bool, np.bool_)):
        raise refused_bool()
    if isinstance(item, _INTEGERS):
        index = _from_front(size, as_size(item), "index", upper=-1)
        return index, as_size(index + 1), 1
    if not isinstance(item, slice):
        raise OperandError(
            "index: expected ints, slices, None, ..., lists of ints, integer arrays or masks, got "
            f"{class_name(item)}."
        )
    if item.start is None and item.stop is None and item.step is None:
        return 0, size, 1
    step = _step(item)
    upper = 0 if step > 0 else -1
    first, last = (0, size) if step > 0 else (as_size(size - 1), -1)
    start = (
        first if item.start is None else _from_front(size, _bound(item.start), "start index", upper)
    )
    stop = last if item.stop is None else _from_front(size, _bound(item.stop), "stop index", upper)
    if step < 0:
        start, stop = as_size(size - 1 - start), as_size(size - 1 - stop)
    if isinstance(start, int) and isinstance(stop, int) and start > stop:
        order = "increasing" if step > 0 else "decreasing"
        raise SliceError(
            f"index: start and stop must be {order} for the step {step}, got "
            f"{item.start}:{item.stop} for a size of {size}."
        )
    return start, stop, step


def _step(item: slice) -> int:
    step = 1 if item.step is None else item.step
    if not isinstance(step, (int, np.integer)) or step == 0:
        raise SliceError(f"index: expected an integer step other than 0 but got {step!r}.")
    return int(step)


def _bound(value: object) -> Size:
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


# ---- bounds that are tensors -------------------------------------------------------------------


def is_dynamic(item: object) -> bool:
    """True for an index item with a tensor, or with a declared size."""
    if isinstance(item, slice):
        return isinstance(item.start, Tensor) or isinstance(item.stop, Tensor)
    return isinstance(item, Tensor) or _is_pair(item)


def _is_pair(item: object) -> TypeGuard[tuple[slice, DimLike]]:
    return isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], slice)


def declared_rows(x: Tensor, items: list[object]) -> tuple[int, Tensor, Size]:
    """Returns axis, position and number of the rows that one pair `(slice(position, None), size)`
    names; the other items must be whole axes.

    Raises:
        TypeError: If there is anything else, or the position is not an int64 scalar on the host or
            the device of x.
    """
    axes = [axis for axis, item in enumerate(items) if is_dynamic(item)]
    others = [item for item in items if not is_dynamic(item)]
    pair: Any = items[axes[0]]
    if (
        len(axes) != 1
        or any(item != slice(None) for item in others)
        or not _is_pair(pair)
        or not isinstance(pair[0].start, Tensor)
        or pair[0].stop is not None
        or _step(pair[0]) != 1
    ):
        raise OperandError(
            "index: a position that is a tensor is stored to as (slice(position, None), size), one "
            "such pair with whole axes."
        )
    position = pair[0].start
    if (
        position.dtype is not DType.int64
        or any(size != 1 for size in position.sizes)
        or position.type.device not in (CPU_REF, x.type.device)
    ):
        raise OperandError(
            f"index: a position must be int64[] on the host or the tensor's device, got "
            f"{position.type.short()} on {position.type.device}."
        )
    return axes[0], reshape(position, ()), as_size(pair[1])


def _dynamic(x: Tensor, items: list[object]) -> Tensor:
    """Slices axes with declared sizes and drops axes at positions known by the data only."""
    if any(item is None for item in items):
        raise SliceError("index: None cannot be combined with a tensor or a declared size.")
    declared: list[Size | None] = [None] * len(items)
    plain: list[object] = list(items)
    for axis, item in enumerate(items):
        if _is_pair(item):
            plain[axis], declared[axis] = item[0], as_size(item[1])
        elif isinstance(item, slice) and is_dynamic(item):
            raise SliceError("index: a slice with a tensor needs its size: (slice(a, b), size).")
        plain[axis] = _with_known_bounds(plain[axis])
    later = [axis for axis, item in enumerate(plain) if is_dynamic(item)]
    first = [slice(None) if axis in later else item for axis, item in enumerate(plain)]
    lost = [axis for axis, item in enumerate(first) if not isinstance(item, slice)]
    result = _static(x, first)
    # From the back, so that the positions of axes before stay as they are.
    for axis in reversed(range(len(items))):
        if axis in lost:
            continue
        at = axis - sum(1 for other in lost if other < axis)
        if axis in later:
            result = gather(result, _positions(x, axis, plain[axis], declared[axis]), axis=at)
        if declared[axis] is not None:
            shape = [*result.sizes[:at], declared[axis], *result.sizes[at + 1 :]]
            result = rebind(result, shape, message="index: the declared size is wrong.")
    return result


def _with_known_bounds(item: object) -> object:
    """Replaces tensors that have a value by ints."""
    if isinstance(item, Tensor):
        return _known(item)
    if isinstance(item, slice):
        return slice(_known(item.start), _known(item.stop), item.step)
    return item


def _known(value: object) -> object:
    if not isinstance(value, Tensor):
        return value
    if value.dtype is not DType.int64 or value.type.device != CPU_REF:
        raise SliceError(
            f"index: a tensor as index must be int64 on the host, got {value.type.short()}."
        )
    if any(size != 1 for size in value.sizes):
        raise SliceError(f"index: expected one element, got {value.type.short()}.")
    return value if value._value is not None else value.item()


def _positions(x: Tensor, axis: int, item: object, size: Size | None) -> Tensor:
    """The positions that a traced tensor names: a scalar, or a row of the declared size."""
    start = item.start if isinstance(item, slice) else item
    if not isinstance(item, slice):
        return reshape(item, ()).to(x.type.device)
    step = _step(item)
    if step < 0:
        raise SliceError(f"index: a slice with a tensor needs a step above 0, got {step}.")
    first = _place(x, axis, 0 if start is None else start, "start index")
    last = _place(x, axis, x.sizes[axis] if item.stop is None else item.stop, "stop index")
    if size is not None:
        count = maximum(floor_div(add(sub(last, first), step - 1), step), 0)
        # Positions are checked where they are read; of an empty slice none is.
        outside = logical_or(greater(first, Tensor.from_dim(x.sizes[axis])), greater(0, last))
        declare_size(size, where(outside, -1, count), "index: the declared size")
    row = mul(iota(count=size, dtype=DType.int64, device=CPU_REF), step)
    return add(row, first).to(x.type.device)


def _place(x: Tensor, axis: int, bound: object, what: str) -> Tensor:
    """A bound counted from the front, as an int64 scalar on the host; one below 0 is too small."""
    if not isinstance(bound, Tensor):
        return Tensor.from_dim(_from_front(x.sizes[axis], _bound(bound), what))
    bound = reshape(bound, ())
    placed = add(bound, Tensor.from_dim(x.sizes[axis]))
    return where(logical_and(bound < 0, placed >= 0), placed, bound)
