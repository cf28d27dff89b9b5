"""Ops that surround or repeat elements: pad, tile, repeat_interleave."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, PaddingError, ShapeError
from maxmod.interpreters.operands import strong
from maxmod.op import Kind, Op, function, op
from maxmod.op.rules import expect_int, normalize_axis
from maxmod.ops.arithmetic import abs, maximum, minimum, mod, sub
from maxmod.ops.control_flow.late_sizes import declare_size
from maxmod.ops.create import iota
from maxmod.ops.gather import gather
from maxmod.ops.shape import broadcast_to, flatten, reshape
from maxmod.tensor import Tensor
from maxmod.tensor.literal import is_scalar, weak_scalar
from maxmod.values.array import ArrayModule
from maxmod.values.dim import Dim, DimLike, Size, as_size
from maxmod.values.plain import Scalar
from maxmod.values.shape import Sizes, format_sizes, product
from maxmod.values.tensor_type import TensorType

__all__ = ["pad", "repeat_interleave", "tile"]

_MODES = ("constant", "reflect", "edge")


def _padded(op: Op, x: TensorType, *, before: Sizes, after: Sizes, value: object) -> TensorType:
    sizes = zip(before, x.sizes, after, strict=True)
    return x.with_sizes(tuple(as_size(a + size + b) for a, size, b in sizes))


@op(Kind.VIEW, _padded, name="pad_constant", fills="value")
def _pad_constant(xp: ArrayModule, x: Tensor, before: Sizes, after: Sizes, value: Scalar) -> Tensor:
    """The tensor with a border filled with one number."""
    sizes = tuple(a + size + b for a, size, b in zip(before, x.shape, after, strict=True))
    result = xp.full(sizes, value, dtype=x.dtype)
    result[tuple(slice(a, a + size) for a, size in zip(before, x.shape, strict=True))] = x
    return result


@function
def pad(
    input: Tensor, paddings: Iterable[int], mode: str = "constant", value: Scalar = 0
) -> Tensor:
    """Adds a border to a tensor.

    Args:
        input: Tensor of any dtype.
        paddings: `[before_0, after_0, before_1, after_1, ...]`: numbers of elements, from the first
            axis on, two for each axis.
        mode: `"constant"`: filled with `value`; `"reflect"`: mirrored, without repeating the edge;
            `"edge"`: the edge is repeated.
        value: A number that the dtype of `input` holds.

    Returns:
        The dtype of `input`; each size grows by its two numbers.

    Raises:
        ValueError: If a number is negative, the mode is unknown, the value does not fit, there is
            not one pair for each axis (also an AssertionError), or an empty axis is to be mirrored.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.pad(Tensor([1.0, 2.0, 3.0]), [2, 1], mode="reflect").to_numpy().tolist()
        [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
    """
    input = strong("pad", input)
    numbers = [expect_int("pad", number, "paddings") for number in paddings]
    if len(numbers) != 2 * input.rank:
        raise PaddingError(
            f"pad: paddings: expected {2 * input.rank} numbers for {input.type.short()}, got "
            f"{len(numbers)}."
        )
    if any(number < 0 for number in numbers):
        raise ArgumentError(f"pad: paddings must not be negative, got {numbers}.")
    if mode not in _MODES:
        raise ArgumentError(f"pad: mode: expected one of {', '.join(_MODES)}, got {mode!r}.")
    if not any(numbers):
        return input
    before, after = tuple(numbers[::2]), tuple(numbers[1::2])
    if mode == "constant":
        return _pad_constant(input, before=before, after=after, value=_fill(value, input.dtype))
    for axis, (first, last) in enumerate(zip(before, after, strict=True)):
        if first or last:
            input = gather(input, _mirrored(input, axis, first, last, mode), axis=axis)
    return input


def _fill(value: Scalar, dtype: DType) -> float:
    if not is_scalar(value):
        raise ArgumentError(f"pad: value: expected a number, got {type(value).__name__}.")
    number = weak_scalar(value, dtype)
    if dtype is DType.bool:
        return bool(number)
    return float(number) if dtype.is_float() else number


def _mirrored(x: Tensor, axis: int, first: int, last: int, mode: str) -> Tensor:
    """The positions on an axis that the elements of the result come from."""
    size = x.sizes[axis]
    if size == 0:
        raise ShapeError(f"pad: axis {axis} of {x.type.short()} is empty: mode {mode} has no edge.")
    device = x.type.device
    count = as_size(first + size + last)
    place = sub(iota(count=count, dtype=DType.int64, device=device), first)
    end = Tensor.full((), as_size(size - 1), dtype=DType.int64, device=device)
    if mode == "edge":
        return minimum(maximum(place, 0), end)
    # A zigzag 0, 1, ... end, ... 1 with the period 2 end; for one element x % 0 is 0.
    return sub(end, abs(sub(end, mod(place, end + end))))


@function
def tile(x: Tensor, repeats: Iterable[DimLike]) -> Tensor:
    """Repeats a whole tensor along each axis.

    Args:
        x: Tensor of any dtype.
        repeats: One number, at least 1, for each axis; a Dim, which may be symbolic while tracing.

    Returns:
        Each size times its number.

    Raises:
        ValueError: If there is not one number for each axis, or one is below 1.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.tile(Tensor([[1.0, 2.0]]), [2, 1]).to_numpy().tolist()
        [[1.0, 2.0], [1.0, 2.0]]
    """
    x = strong("tile", x)
    counts = [_repeat_count(count) for count in repeats]
    if len(counts) != x.rank or any(isinstance(count, int) and count < 1 for count in counts):
        raise ArgumentError(
            f"tile: repeats: expected {x.rank} numbers above 0 for {x.type.short()}, got {counts}."
        )
    pairs = list(zip(counts, x.sizes, strict=True))
    apart = reshape(x, [size for pair in pairs for size in (1, pair[1])])
    spread = broadcast_to(apart, [size for pair in pairs for size in pair])
    return reshape(spread, [product(pair) for pair in pairs])


def _repeat_count(count: DimLike) -> Size:
    is_size = isinstance(count, (Dim, str))
    return as_size(count) if is_size else expect_int("tile", count, "repeats")


@function
def repeat_interleave(
    x: Tensor, repeats: int | Tensor, axis: int | None = None, out_dim: DimLike | None = None
) -> Tensor:
    """Repeats each element of an axis, the copies next to each other.

    Args:
        x: Tensor of any dtype.
        repeats: A number, or an int64 tensor with one number for each element of the axis.
        axis: The axis; None flattens first.
        out_dim: The size of the result on the axis; needed if `repeats` is a tensor.

    Returns:
        The dtype of x; the size of the axis times `repeats`, or `out_dim`.

    Raises:
        ValueError: If a number is below 0, the axis is out of range, `out_dim` is missing, or
            it is not the sum of `repeats`.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.repeat_interleave(Tensor([1.0, 2.0]), 2).to_numpy().tolist()
        [1.0, 1.0, 2.0, 2.0]
        >>> counts = Tensor([1, 3], dtype=DType.int64)
        >>> F.repeat_interleave(Tensor([1.0, 2.0]), counts, axis=0, out_dim=4).to_numpy().tolist()
        [1.0, 2.0, 2.0, 2.0]
    """
    x = strong("repeat_interleave", x)
    x, axis = (flatten(x), 0) if axis is None else (x, axis)
    axis = normalize_axis("repeat_interleave", axis, x.rank)
    if isinstance(repeats, Tensor):
        return gather(x, _repeated_positions(x, repeats, axis, out_dim), axis=axis)
    count = expect_int("repeat_interleave", repeats, "repeats")
    if count < 0:
        raise ArgumentError(
            f"repeat_interleave: repeats: expected an int that is not negative, got {count}."
        )
    size = x.sizes[axis]
    rest = x.sizes[axis + 1 :]
    apart = reshape(x, (*x.sizes[: axis + 1], 1, *rest))
    spread = broadcast_to(apart, (*x.sizes[: axis + 1], count, *rest))
    return reshape(spread, (*x.sizes[:axis], product((size, count)), *rest))


def _repeated_positions(x: Tensor, repeats: Tensor, axis: int, out_dim: DimLike | None) -> Tensor:
    if repeats.sizes != (x.sizes[axis],) or repeats.dtype is not DType.int64:
        raise ShapeError(
            f"repeat_interleave: repeats: expected int64{format_sizes((x.sizes[axis],))}, got "
            f"{repeats.type.short()}."
        )
    if out_dim is None:
        raise ArgumentError("repeat_interleave: a tensor as repeats needs out_dim.")
    size = as_size(out_dim)
    if not isinstance(size, int) and repeats._value is None:
        size = int(repeats.to_numpy().sum())
    declare_size(size, repeats.sum(axis=None), "repeat_interleave: out_dim")
    return _positions_of_repeats(repeats, out_dim=size)


def _repeated(op: Op, repeats: TensorType, *, out_dim: Size) -> TensorType:
    return repeats.with_sizes((out_dim,))


@op(Kind.OPAQUE, _repeated, name="repeated_positions")
def _positions_of_repeats(xp: ArrayModule, repeats: Tensor, out_dim: Size) -> Tensor:
    """Position i, repeats[i] times, for all i in order."""
    ends = xp.cumsum(repeats, dtype=np.int64)
    total = int(ends[-1]) if ends.size else 0
    if total != out_dim or (repeats.size and int(repeats.min()) < 0):
        raise ShapeError(f"repeat_interleave: repeats add up to {total}, out_dim is {out_dim}.")
    return xp.searchsorted(ends, xp.arange(out_dim, dtype=np.int64), side="right")
