"""Positions of elements, order, and sets."""

from __future__ import annotations

from typing import NamedTuple

from maxmod import functional as F
from maxmod.array_api.array import Array, operand, tensor_of
from maxmod.array_api.dtypes import (
    common_dtype,
    is_integral,
    is_number,
    is_numeric,
    number,
    weak_dtype,
)
from maxmod.array_api.indexing import broadcast_sizes, expect_data
from maxmod.array_api.manipulation import Axes
from maxmod.array_api.operators import function
from maxmod.array_api.statistics import along, counted
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, ShapeError
from maxmod.op.rules import normalize_axis
from maxmod.ops import sort as sort_ops
from maxmod.ops.shape import slice_axis
from maxmod.tensor import Tensor

# ---- positions ---------------------------------------------------------------------------------


@function
def argmax(x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Position of the largest element along an axis, or in the flat array; the first of equals."""
    return Array(along("argmax", F.argmax, operand("argmax", x, is_numeric), axis, keepdims))


@function
def argmin(x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Position of the smallest element along an axis, or in the flat array; the first of equals."""
    return Array(along("argmin", F.argmin, operand("argmin", x, is_numeric), axis, keepdims))


@function
def nonzero(x: Array, /) -> tuple[Array, ...]:
    """Positions of the elements that are not 0, one int64 vector for each axis; not traced."""
    expect_data("nonzero")
    tensor = tensor_of("nonzero", x)
    found = F.nonzero(tensor, out_dim="found")
    columns = [slice_axis(found, 1, axis, axis + 1) for axis in range(tensor.rank)]
    return tuple(Array(column.reshape(found.sizes[:1])) for column in columns)


@function
def count_nonzero(x: Array, /, *, axis: Axes = None, keepdims: bool = False) -> Array:
    """How many elements along axes are not 0, int64."""
    return Array(counted("count_nonzero", tensor_of("count_nonzero", x), axis, keepdims))


@function
def searchsorted(
    x1: Array,
    x2: Array,
    /,
    *,
    side: str = "left",
    sorter: Array | None = None,
) -> Array:
    """Positions at which x2 can be put into the sorted vector x1, so that it stays sorted.

    Args:
        x1: Sorted vector.
        x2: Array of any shape, or a Python number.
        side: `"left"` takes the first position that fits, `"right"` the last one.
        sorter: Integer vector of positions that sort x1, if it is not sorted.

    Returns:
        int64, the shape of x2.
    """
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted: side: expected 'left' or 'right', got {side!r}.")
    line = operand("searchsorted", x1, is_numeric)
    if sorter is not None:
        line = F.gather(line, operand("searchsorted", sorter, is_integral), axis=0)
    if is_number(x2):
        values = number(x2, weak_dtype("searchsorted", x2, line.dtype), line.type.device)
    else:
        values = operand("searchsorted", x2, is_numeric)
    dtype = common_dtype("searchsorted", line.dtype, values.dtype)
    pair = (line.cast(dtype), values.cast(dtype))
    return Array(sort_ops.searchsorted(*pair, right=side == "right"))


@function
def take(x: Array, indices: Array, /, *, axis: int | None = None) -> Array:
    """Elements of an axis at given positions; vectors need not name it."""
    tensor = tensor_of("take", x)
    if axis is None:
        if tensor.rank != 1:
            raise ArgumentError(f"take: an array with {tensor.rank} axes needs an axis.")
        axis = 0
    return Array(F.gather(tensor, operand("take", indices, is_integral), axis=axis))


@function
def take_along_axis(x: Array, indices: Array, /, *, axis: int = -1) -> Array:
    """Elements of an axis at positions given for each place on the other axes."""
    tensor = tensor_of("take_along_axis", x)
    places = operand("take_along_axis", indices, is_integral)
    if tensor.rank != places.rank:
        raise ShapeError(
            f"take_along_axis: {tensor.type.short()} and {places.type.short()} differ in rank."
        )
    axis = normalize_axis("take_along_axis", axis, tensor.rank)
    last = [*[a for a in range(tensor.rank) if a != axis], axis]
    rows, places = tensor.permute(last), places.permute(last)
    batch = broadcast_sizes([rows.sizes[:-1], places.sizes[:-1]])
    rows = rows.broadcast_to((*batch, rows.sizes[-1]))
    places = places.broadcast_to((*batch, places.sizes[-1]))
    found = F.gather_nd(rows, F.unsqueeze(places, -1), batch_dims=rows.rank - 1)
    back = sorted(range(tensor.rank), key=last.__getitem__)
    return Array(found.permute(back))


# ---- order -------------------------------------------------------------------------------------


def _ordered(name: str, x: Array, axis: int, descending: bool) -> list[Tensor]:
    """Sorted elements and their positions; equal ones keep their order, NaN is the largest."""
    tensor = operand(name, x, is_numeric)
    axis = normalize_axis(name, axis, tensor.rank)
    op = F.top_k if descending else F.bottom_k
    return op(tensor, tensor.sizes[axis], axis)


@function
def sort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """The elements in order along an axis; NaN counts as the largest."""
    return Array(_ordered("sort", x, axis, descending)[0])


@function
def argsort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Positions that sort an axis; equal elements keep their order, NaN counts as the largest."""
    return Array(_ordered("argsort", x, axis, descending)[1])


# ---- sets --------------------------------------------------------------------------------------


class UniqueAll(NamedTuple):
    """What `unique_all` returns."""

    values: Array
    indices: Array
    inverse_indices: Array
    counts: Array


class UniqueCounts(NamedTuple):
    """What `unique_counts` returns."""

    values: Array
    counts: Array


class UniqueInverse(NamedTuple):
    """What `unique_inverse` returns."""

    values: Array
    inverse_indices: Array


@function
def unique_all(x: Array, /) -> UniqueAll:
    """The different elements in order; where each stands first, which one each element is, and
    how often each occurs. NaN differs from NaN. Not traced.
    """
    expect_data("unique")
    tensor = tensor_of("unique", x)
    flat = F.flatten(tensor)
    count = tensor.num_elements()
    order = F.argsort(flat)
    line = F.gather(flat, order, axis=0)
    device = tensor.type.device
    first = Tensor.full((min(count, 1),), True, dtype=DType.bool, device=device)
    rest = F.not_equal(
        slice_axis(line, 0, min(count, 1), count),
        slice_axis(line, 0, 0, max(count - 1, 0)),
    )
    is_new = F.concat([first, rest], 0)
    starts = F.nonzero(is_new, out_dim="found")
    starts = starts.reshape(starts.sizes[:1])
    end = Tensor.full((1,), count, dtype=DType.int64, device=device)
    ends = slice_axis(F.concat([starts, end], 0), 0, 1, int(starts.sizes[0]) + 1)
    place = F.sub(F.cumsum(is_new.cast(DType.int64), 0), 1)
    inverse = F.scatter_nd(place, place, F.unsqueeze(order, 1))
    return UniqueAll(
        Array(F.gather(line, starts, axis=0)),
        Array(F.gather(order, starts, axis=0)),
        Array(inverse.reshape(tensor.sizes)),
        Array(F.sub(ends, starts)),
    )


@function
def unique_counts(x: Array, /) -> UniqueCounts:
    """The different elements in order, and how often each occurs; see `unique_all`."""
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


@function
def unique_inverse(x: Array, /) -> UniqueInverse:
    """The different elements in order, and which one each element is; see `unique_all`."""
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


@function
def unique_values(x: Array, /) -> Array:
    """The different elements in order; see `unique_all`."""
    return unique_all(x).values
