"""Windows that slide over spatial axes: what convolution, pooling and fold have in common.

Spatial axes follow the batch axis; the last axis holds channels (NHWC, NDHWC).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from maxmod.errors import ArgumentError, OperandError, ShapeError
from maxmod.op.rules import expect_int
from maxmod.values.array import Array, ArrayModule
from maxmod.values.dim import Size, as_size

# ---- static arguments --------------------------------------------------------------------------


def numbers(
    op_name: str, what: str, value: object, count: int, least: int = 0, single: bool = False
) -> tuple[int, ...]:
    """Returns an argument with one int for each spatial axis (or two, for paddings).

    Args:
        op_name: Name of the op, for messages.
        what: Name of the argument, for messages.
        value: A sequence; an int too if `single`, which then applies to all axes.
        count: How many ints there must be.
        least: The smallest legal value.
        single: Whether an int is accepted.

    Raises:
        TypeError: If the value is not a sequence of ints.
        ValueError: If the number of ints is wrong or one is too small.
    """
    if single and not isinstance(value, Sequence):
        value = (value,) * count
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise OperandError(f"{op_name}: {what}: expected a tuple of {count} ints, got {value!r}.")
    found = tuple(expect_int(op_name, item, what) for item in value)
    if len(found) != count:
        raise ArgumentError(f"{op_name}: {what}: expected {count} ints, got {list(found)}.")
    if any(item < least for item in found):
        raise ArgumentError(f"{op_name}: {what}: expected at least {least}, got {list(found)}.")
    return found


def window_count(
    op_name: str,
    size: Size,
    padding: int,
    kernel: Size,
    stride: int,
    dilation: int,
    ceil_mode: bool = False,
) -> Size:
    """Returns how many windows there are along an axis.

    ``(size + padding - dilation * (kernel - 1) - 1) // stride + 1``, or rounded up.

    Args:
        op_name: Name of the op, for messages.
        size: Size of the axis.
        padding: Elements added before and after, together.
        kernel: Size of the window.
        stride: Distance between windows.
        dilation: Distance between the elements of a window.
        ceil_mode: Count a last window that is not whole.

    Raises:
        ShapeError: If no window fits.
    """
    rest = as_size(size + padding - dilation * (kernel - 1) - 1)
    if isinstance(rest, int) and rest < 0:
        raise ShapeError(
            f"{op_name}: a window of {kernel} elements with dilation {dilation} does not fit: the "
            f"axis has {size} elements and a padding of {padding}."
        )
    if stride == 1:
        return as_size(rest + 1)
    return as_size((rest + (stride - 1 if ceil_mode else 0)) // stride + 1)


# ---- arrays ------------------------------------------------------------------------------------


def pad_spatial(
    xp: ArrayModule, x: Array, before: Sequence[int], after: Sequence[int], value: float
) -> Array:
    """Returns x with elements added to its spatial axes; x itself if there are none to add."""
    if not any(before) and not any(after):
        return x
    spatial = x.shape[1:-1]
    sizes = [b + size + a for b, size, a in zip(before, spatial, after, strict=True)]
    result = xp.full((x.shape[0], *sizes, x.shape[-1]), value, dtype=x.dtype)
    inner = tuple(slice(b, b + size) for b, size in zip(before, spatial, strict=True))
    result[(slice(None), *inner)] = x
    return result


def taps(
    kernel: Sequence[int], counts: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Yields each position in a window, and where all windows have it in an NHWC array."""
    for tap in itertools.product(*(range(k) for k in kernel)):
        places = (
            slice(t * d, t * d + (count - 1) * s + 1, s) if count else slice(0, 0)
            for t, count, s, d in zip(tap, counts, stride, dilation, strict=True)
        )
        yield tap, (slice(None), *places)


def windows(
    xp: ArrayModule,
    x: Array,
    kernel: Sequence[int],
    counts: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Array:
    """Returns [N, *counts, *kernel, C]: every window of [N, *spatial, C], without copying."""
    inner = x.strides[1:-1]
    outer = tuple(step * s for step, s in zip(inner, stride, strict=True))
    within = tuple(step * d for step, d in zip(inner, dilation, strict=True))
    return xp.lib.stride_tricks.as_strided(
        x,
        (x.shape[0], *counts, *kernel, x.shape[-1]),
        (x.strides[0], *outer, *within, x.strides[-1]),
    )
