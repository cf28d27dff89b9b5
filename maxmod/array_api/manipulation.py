"""Functions that rearrange elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from maxmod import functional as F
from maxmod.array_api.array import Array, tensor_of
from maxmod.array_api.creation import copied
from maxmod.array_api.dtypes import common_dtype_of
from maxmod.array_api.operators import function
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, AxisError, ShapeError
from maxmod.op.rules import expect_int, normalize_axis
from maxmod.ops.shape import slice_axis
from maxmod.tensor import Tensor

Axes: TypeAlias = int | tuple[int, ...] | None


def normalized_axes(name: str, axes: Axes, rank: int) -> tuple[int, ...]:
    """Returns axes counted from the front; None names all.

    Raises:
        IndexError: If one lies outside the rank.
        ValueError: If one occurs twice.
    """
    if axes is None:
        return tuple(range(rank))
    listed = (axes,) if isinstance(axes, int) else tuple(axes)
    found = tuple(normalize_axis(name, axis, rank) for axis in listed)
    if len(set(found)) != len(found):
        raise AxisError(f"{name}: an axis occurs twice in {listed}.")
    return found


def joined(name: str, arrays: Sequence[Array]) -> list[Tensor]:
    """Returns the tensors of arrays in their common dtype."""
    tensors = [tensor_of(name, array) for array in arrays]
    if not tensors:
        raise ArgumentError(f"{name}: expected at least one array.")
    dtype = common_dtype_of(name, [tensor.dtype for tensor in tensors])
    return [tensor.cast(dtype) for tensor in tensors]


@function
def concat(arrays: Sequence[Array], /, *, axis: int | None = 0) -> Array:
    """Joins arrays along an axis; None flattens them first."""
    tensors = joined("concat", arrays)
    if axis is None:
        return Array(F.concat([F.flatten(tensor) for tensor in tensors], 0))
    return Array(F.concat(tensors, axis))


@function
def stack(arrays: Sequence[Array], /, *, axis: int = 0) -> Array:
    """Joins arrays of one shape along a new axis."""
    return Array(F.stack(joined("stack", arrays), axis))


@function
def unstack(x: Array, /, *, axis: int = 0) -> tuple[Array, ...]:
    """The slices of an array along an axis, which they lose."""
    tensor = tensor_of("unstack", x)
    axis = normalize_axis("unstack", axis, tensor.rank)
    slices = [slice_axis(tensor, axis, i, i + 1) for i in range(int(tensor.sizes[axis]))]
    return tuple(Array(F.squeeze(part, axis)) for part in slices)


@function
def expand_dims(x: Array, /, axis: int) -> Array:
    """Adds an axis of size 1."""
    return Array(F.unsqueeze(tensor_of("expand_dims", x), axis))


@function
def squeeze(x: Array, /, axis: int | tuple[int, ...]) -> Array:
    """Drops axes of size 1."""
    tensor = tensor_of("squeeze", x)
    axes = normalized_axes("squeeze", axis, tensor.rank)
    if any(tensor.sizes[one] != 1 for one in axes):
        raise ShapeError(f"squeeze: axes {axes} of {tensor.type.short()} are not all of size 1.")
    return Array(tensor.reshape([s for a, s in enumerate(tensor.sizes) if a not in axes]))


@function
def reshape(x: Array, /, shape: tuple[int, ...], *, copy: bool | None = None) -> Array:
    """The same elements in row-major order in another shape; one size may be -1.

    `copy=False` is accepted where the shape stays: an array shares no memory that could be seen.
    """
    tensor = tensor_of("reshape", x)
    made = tensor.reshape(shape)
    return Array(copied(made) if copy else made)


@function
def permute_dims(x: Array, /, axes: tuple[int, ...]) -> Array:
    """The axes in another order."""
    return Array(tensor_of("permute_dims", x).permute(axes))


@function
def moveaxis(x: Array, source: Axes, destination: Axes, /) -> Array:
    """Moves axes to other places; the others keep their order."""
    tensor = tensor_of("moveaxis", x)
    taken = normalized_axes("moveaxis", source, tensor.rank)
    places = normalized_axes("moveaxis", destination, tensor.rank)
    if len(taken) != len(places):
        raise AxisError(f"moveaxis: {len(taken)} axes cannot move to {len(places)} places.")
    order = [axis for axis in range(tensor.rank) if axis not in taken]
    for place, axis in sorted(zip(places, taken, strict=True)):
        order.insert(place, axis)
    return Array(tensor.permute(order))


@function
def flip(x: Array, /, *, axis: Axes = None) -> Array:
    """The elements in reverse order along axes, by default all."""
    tensor = tensor_of("flip", x)
    return Array(F.flip(tensor, normalized_axes("flip", axis, tensor.rank)))


@function
def roll(x: Array, /, shift: int | tuple[int, ...], *, axis: Axes = None) -> Array:
    """Shifts elements along axes; those that leave at the end come in at the start.

    Without an axis, the array is shifted as if it were flat.
    """
    tensor = tensor_of("roll", x)
    if axis is None:
        return Array(
            _rolled(F.flatten(tensor), 0, expect_int("roll", shift, "shift")).reshape(tensor.sizes)
        )
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    shifts = (shift,) * len(axes) if isinstance(shift, int) else tuple(shift)
    if len(axes) != len(shifts):
        raise ArgumentError(f"roll: {len(shifts)} shifts do not fit {len(axes)} axes.")
    for one, by in zip(axes, shifts, strict=True):
        tensor = _rolled(tensor, normalize_axis("roll", one, tensor.rank), by)
    return Array(tensor)


def _rolled(tensor: Tensor, axis: int, shift: int) -> Tensor:
    size = int(tensor.sizes[axis])
    cut = -shift % size if size else 0
    if cut == 0:
        return tensor
    parts = [slice_axis(tensor, axis, cut, size), slice_axis(tensor, axis, 0, cut)]
    return F.concat(parts, axis)


@function
def tile(x: Array, repetitions: tuple[int, ...], /) -> Array:
    """Repeats a whole array along each axis; missing counts and axes default to 1."""
    tensor = tensor_of("tile", x)
    rank = max(tensor.rank, len(repetitions))
    counts = [1] * (rank - len(repetitions)) + [int(count) for count in repetitions]
    tensor = tensor.reshape([1] * (rank - tensor.rank) + list(tensor.sizes))
    for axis, count in enumerate(counts):
        if count == 0:
            tensor = slice_axis(tensor, axis, 0, 0)
    return Array(F.tile(tensor, [max(count, 1) for count in counts]) if rank else tensor)


@function
def repeat(x: Array, repeats: int | Array, /, *, axis: int | None = None) -> Array:
    """Repeats each element of an axis, the copies next to each other; without an axis, flattened.

    A number for each element, as an array, needs data and cannot be traced.
    """
    tensor = tensor_of("repeat", x)
    if axis is None:
        tensor, axis = F.flatten(tensor), 0
    axis = normalize_axis("repeat", axis, tensor.rank)
    if isinstance(repeats, Array):
        counts = repeats.tensor.cast(DType.int64)
        counts = counts.broadcast_to((tensor.sizes[axis],))
        total = int(F.sum(counts, axis=0).item())
        return Array(F.repeat_interleave(tensor, counts, axis=axis, out_dim=total))
    if repeats == 0:
        return Array(slice_axis(tensor, axis, 0, 0))
    return Array(F.repeat_interleave(tensor, repeats, axis=axis))
