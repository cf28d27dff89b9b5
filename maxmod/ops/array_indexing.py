"""`x[...]` with lists, integer arrays and masks: from index items to gathers, as in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import NamedTuple, TypeGuard

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import ArgumentTypeError, OperandError, SliceError, TraceError, class_name
from maxmod.ops.gather import gather, gather_nd
from maxmod.ops.shape import broadcast_to, permute, reshape, unsqueeze
from maxmod.ops.split_concat import concat
from maxmod.tensor import Tensor
from maxmod.tensor.exchange import DLPackArray
from maxmod.values.array import Subscript
from maxmod.values.device import DeviceRef
from maxmod.values.dim import Dim, Size, as_size
from maxmod.values.shape import Sizes, broadcast, format_sizes

# Index items that hold no positions.
_SINGLE = (int, slice, type(None), EllipsisType, Dim, np.generic)


def is_array(item: object) -> TypeGuard[Subscript]:
    """True for an index item that holds positions or a mask: a list, an array, a tensor with axes.

    A tensor without axes counts as an int, and a pair `(slice, size)` as a slice.
    """
    if isinstance(item, _SINGLE):  # asked first, as a protocol takes 10 us to look for
        return False
    if isinstance(item, Tensor):
        return item.rank > 0 or item.dtype is DType.bool
    if isinstance(item, (list, tuple)):
        return not any(isinstance(part, slice) for part in item)
    return isinstance(item, DLPackArray)


def axes_of(item: object) -> int:
    """Returns the number of axes of the operand that an index item names: those of a mask, or 1."""
    if item is None or item is Ellipsis:
        return 0
    if isinstance(item, _SINGLE) or not is_array(item):
        return 1
    found = item if isinstance(item, Tensor) else _array(item)
    is_mask = found.dtype is DType.bool or found.dtype == np.bool_
    return len(found.shape) if is_mask else 1


class Selection(NamedTuple):
    """An index with arrays, in which masks are replaced by positions.

    Attributes:
        items: None, slices, sizes, and int64 tensors of positions on the device of the operand.
        sizes: The common shape of the tensors.
        at: Where the axes of that shape go among the other axes of the result. They go first if a
            slice or None stands between two of the arrays and ints, as in NumPy.
    """

    items: list[Subscript]
    sizes: Sizes
    at: int

    @property
    def plain(self) -> list[Subscript]:
        """The items that need no data: whole axes in place of tensors, and no None."""
        whole = [slice(None) if isinstance(item, Tensor) else item for item in self.items]
        return [item for item in whole if item is not None]

    @property
    def positions(self) -> dict[int, Tensor]:
        """The tensors, by the axes that they have once `plain` is taken."""
        kept = [item for item in self.items if isinstance(item, (slice, Tensor))]
        return {axis: item for axis, item in enumerate(kept) if isinstance(item, Tensor)}


def selection(x: Tensor, items: Sequence[object]) -> Selection:
    """Returns the selection of index items, of which at least one is an array.

    Raises:
        ValueError: If positions are not integers, or masks or arrays do not fit in shape.
        TypeError: For items that cannot be combined with an array, and for masks in a trace.
    """
    found: list[Subscript] = []
    axis = 0
    for item in items:
        found += _resolved(x, item, axis)
        axis += axes_of(item)
    tensors = [item for item in found if isinstance(item, Tensor)]
    sizes = broadcast(*[tensor.sizes for tensor in tensors], what="index")
    chosen = [at for at, item in enumerate(found) if isinstance(item, (int, Dim, Tensor))]
    together = chosen[-1] - chosen[0] + 1 == len(chosen)
    return Selection(found, sizes, chosen[0] if together else 0)


def _resolved(x: Tensor, item: object, axis: int) -> list[Subscript]:
    """Returns one item for each axis: positions in place of an array, several for a mask."""
    if isinstance(item, (bool, np.bool_)):
        raise refused_bool()
    if isinstance(item, (int, np.integer, Dim)):
        return [_expect_inside(x, axis, as_size(item))]
    if item is None or (isinstance(item, slice) and not _has_tensor(item)):
        return [item]
    if not is_array(item) and not isinstance(item, Tensor):
        raise OperandError(
            f"index: expected ints, slices, None or ... next to an array, got {class_name(item)}. "
            "Hint: two steps, x[a][b]."
        )
    array = item if isinstance(item, Tensor) else Tensor(_array(item), device=x.device)
    if array.dtype is DType.bool:
        return _positions_of_mask(x, array, axis)
    if not array.dtype.is_integral():
        raise ArgumentTypeError(
            f"index: positions must be integers, got {array.type.short()}. Hint: x[[0, 2]], or "
            "Tensor([0, 2], dtype=DType.int64); Tensor([0, 2]) holds floats."
        )
    array = array.cast(DType.int64)
    return [array if array.rank else array.to(x.type.device)]


def _has_tensor(item: slice) -> bool:
    return isinstance(item.start, Tensor) or isinstance(item.stop, Tensor)


def _expect_inside(x: Tensor, axis: int, index: Size) -> Size:
    size = x.sizes[axis]
    if isinstance(size, int) and isinstance(index, int) and not -size <= index < size:
        raise SliceError(f"index: index {index} out of range for dimension size {size}.")
    return index


def refused_bool() -> OperandError:
    """Returns the error for True and False between brackets."""
    return OperandError(
        "index: a bool is not a position. Hint: x[None] adds an axis, as x[True] does in NumPy, "
        "and x[int(flag)] takes the first or the second element."
    )


def _array(item: Subscript) -> Subscript:
    """Returns the array of a list or a foreign array; an empty list holds no positions."""
    if isinstance(item, (list, tuple)):
        if any(isinstance(part, Tensor) for part in item):
            raise OperandError(
                "index: a list holds numbers, not tensors. Hint: x[i, j] takes one element, "
                "x[F.stack([i, j])] two rows."
            )
        try:
            array = np.asarray(item)
        except ValueError:
            raise SliceError("index: the rows of a list of positions differ in length.") from None
        return array.astype(np.int64) if array.size == 0 else _expect_numbers(array)
    return np.ascontiguousarray(item) if isinstance(item, np.ndarray) else Tensor(item)


def _expect_numbers(array: Subscript) -> Subscript:
    if array.dtype.kind not in "biuf":
        raise OperandError(
            "index: expected ints, slices, None, ..., lists of ints or masks; the list holds "
            f"something else ({array.dtype})."
        )
    return array


def _positions_of_mask(x: Tensor, mask: Tensor, axis: int) -> list[Tensor]:
    """Returns the positions of the true elements on each axis of a mask."""
    expect_fitting_mask(x, mask, axis)
    if mask._value is not None:
        raise TraceError(
            "index: how many elements a mask selects is not known while tracing. Hint: "
            "F.where(mask, x, 0) keeps the shape, and positions can have a size of their own: "
            'x[F.nonzero(mask, "k")[:, 0]].'
        )
    device: DeviceRef = x.type.device
    found = map(np.ascontiguousarray, np.nonzero(mask._host()))
    return [Tensor(axis_positions, device=device) for axis_positions in found]


def expect_fitting_mask(x: Tensor, mask: Tensor, axis: int) -> None:
    """Raises `SliceError` unless a mask has the sizes of the axes that it stands for."""
    if mask.rank == 0:
        raise refused_bool()
    if mask.sizes != x.sizes[axis : axis + mask.rank]:
        raise SliceError(
            f"index: a mask must have the sizes of the axes that it selects from: expected "
            f"{format_sizes(x.sizes[axis : axis + mask.rank])}, got {mask.type.short()}."
        )


def taken(x: Tensor, chosen: Selection) -> Tensor:
    """Returns the selected elements of x, of which `chosen.plain` was taken already."""
    positions = chosen.positions
    if len(positions) == 1:
        ((axis, indices),) = positions.items()
        result, at = gather(x, indices, axis=axis), axis
    else:
        result, at = gather_nd(to_front(x, list(positions)), rows_of(chosen)), 0
    count = len(chosen.sizes)
    others = [*range(at), *range(at + count, result.rank)]
    before = sum(1 for item in chosen.items[: chosen.at] if isinstance(item, slice))
    order = [*others[:before], *range(at, at + count), *others[before:]]
    if order != list(range(result.rank)):
        result = permute(result, order)
    if any(item is None for item in chosen.items):
        result = reshape(result, result_sizes(result.sizes, chosen))
    return result


def result_sizes(sizes: Sizes, chosen: Selection) -> Sizes:
    """Inserts an axis of size 1 for each None into the sizes of a result."""
    found: list[Size] = []
    rest = list(sizes)
    for item in [*chosen.items[: chosen.at], ..., *chosen.items[chosen.at :]]:
        if item is None:
            found.append(1)
        elif item is Ellipsis:
            found += [rest.pop(0) for _ in chosen.sizes]
        elif isinstance(item, slice):
            found.append(rest.pop(0))
    return (*found, *rest)


def rows_of(chosen: Selection) -> Tensor:
    """Returns the positions as rows [..., k], which `gather_nd` and `scatter_nd` take."""
    columns = [
        unsqueeze(broadcast_to(tensor, chosen.sizes), -1) for tensor in chosen.positions.values()
    ]
    return concat(columns, axis=-1)


def to_front(x: Tensor, axes: list[int]) -> Tensor:
    """Moves axes to the front."""
    order = [*axes, *(axis for axis in range(x.rank) if axis not in axes)]
    return x if order == list(range(x.rank)) else permute(x, order)
