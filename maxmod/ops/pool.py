"""Pooling over windows, and fold, which puts windows back together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from maxmod.errors import ArgumentError, ShapeError
from maxmod.op import Kind, Op, TypeRule, op
from maxmod.op.rules import Accepts, expect_dtype, is_float, is_numeric
from maxmod.ops.window import numbers, pad_spatial, taps, window_count
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule, HostArray
from maxmod.values.dim import Size, as_size
from maxmod.values.plain import Attrs
from maxmod.values.shape import as_sizes, product
from maxmod.values.tensor_type import TensorType

__all__ = ["avg_pool2d", "fold", "max_pool2d"]

Pair = int | tuple[int, int]


# ---- pooling -----------------------------------------------------------------------------------


def _pooling_arguments(op: Op, input: TensorType, **attrs: object) -> Attrs:
    found: Attrs = {
        "kernel_size": numbers(op.name, "kernel_size", attrs["kernel_size"], 2, 1, single=True),
        "stride": numbers(op.name, "stride", attrs["stride"], 2, 1, single=True),
        "dilation": numbers(op.name, "dilation", attrs["dilation"], 2, 1, single=True),
        "padding": numbers(op.name, "padding", attrs["padding"], 2, single=True),
        "ceil_mode": bool(attrs["ceil_mode"]),
    }
    if "count_boundary" in attrs:
        found["count_boundary"] = bool(attrs["count_boundary"])
    return found


def _counts(name: str, spatial: Sequence[Size], attrs: Attrs) -> list[Size]:
    return [
        window_count(name, size, 2 * pad, k, s, d, attrs["ceil_mode"])
        for size, pad, k, s, d in zip(
            spatial,
            attrs["padding"],
            attrs["kernel_size"],
            attrs["stride"],
            attrs["dilation"],
            strict=True,
        )
    ]


def _pooled(accepts: Accepts) -> TypeRule:
    """[N, H', W', C] for an input [N, H, W, C]."""

    def windows_of_input(op: Op, input: TensorType, **attrs: object) -> TensorType:
        expect_dtype(op, accepts, input)
        if input.rank != 4:
            raise ShapeError(f"{op.name}: expected [N, H, W, C], got {input.short()}.")
        counts = _counts(op.name, input.sizes[1:3], attrs)
        return input.with_sizes((input.sizes[0], *counts, input.sizes[3]))

    return windows_of_input


def _padded(
    xp: ArrayModule, name: str, x: Array, attrs: Attrs, value: float
) -> tuple[Array, list[Size]]:
    """Pads so that every window is whole, and returns how many windows there are."""
    counts = _counts(name, x.shape[1:3], attrs)
    after = []
    for axis, count in enumerate(counts):
        reach = (count - 1) * attrs["stride"][axis] + 1
        reach += attrs["dilation"][axis] * (attrs["kernel_size"][axis] - 1)
        pad = attrs["padding"][axis]
        after.append(max(reach - x.shape[1 + axis] - pad, pad))
    return pad_spatial(xp, x, attrs["padding"], after, value), counts


def _divisor(sizes: Sequence[int], counts: Sequence[int], attrs: Attrs) -> int | HostArray:
    """[H', W', 1]: the number of elements that count in each window."""
    found = []
    for axis, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        kernel = np.arange(attrs["kernel_size"][axis]) * attrs["dilation"][axis]
        start = np.arange(count) * attrs["stride"][axis] - attrs["padding"][axis]
        places = start[:, None] + kernel
        edge = attrs["padding"][axis] if attrs["count_boundary"] else 0
        found.append(((places >= -edge) & (places < size + edge)).sum(axis=1))
    return np.multiply.outer(found[0], found[1])[..., None]


@op(Kind.OPAQUE, _pooled(is_float), prepare=_pooling_arguments, upcasts=True)
def avg_pool2d(
    xp: ArrayModule,
    input: Tensor,
    kernel_size: Pair,
    stride: Pair = 1,
    dilation: Pair = 1,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_boundary: bool = True,
) -> Tensor:
    """Mean of each window of an image.

    Args:
        input: Tensor [N, H, W, C] of a float dtype.
        kernel_size: Size of the window: an int, or one for H and one for W, as all that follow.
        stride: Distance between windows; 1, not the size of the window.
        dilation: Distance between the elements of a window.
        padding: Zeros added before and after.
        ceil_mode: Count a last window that reaches beyond the padding; elements there never
            count in the divisor.
        count_boundary: Whether padded zeros count in the divisor. Without them a window that
            holds nothing else gives NaN.

    Returns:
        Tensor [N, H', W', C] in the dtype of `input`.

    Raises:
        ValueError: If the rank is not 4, the dtype is not a float, a number is out of range, or no
            window fits.
        TypeError: If a number is not an int.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = F.reshape(Tensor.arange(16), [1, 4, 4, 1])
        >>> F.flatten(F.avg_pool2d(x, 2, stride=2)).to_numpy().tolist()
        [2.5, 4.5, 10.5, 12.5]
        >>> row = F.reshape(Tensor([6.0, 6.0, 6.0]), [1, 1, 3, 1])
        >>> F.flatten(F.avg_pool2d(row, (1, 3), padding=(0, 1))).to_numpy().tolist()
        [4.0, 6.0, 4.0]
        >>> y = F.avg_pool2d(row, (1, 3), padding=(0, 1), count_boundary=False)
        >>> F.flatten(y).to_numpy().tolist()
        [6.0, 6.0, 6.0]
    """
    attrs: Attrs = {
        "kernel_size": kernel_size,
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
        "ceil_mode": ceil_mode,
        "count_boundary": count_boundary,
    }
    padded, counts = _padded(xp, "avg_pool2d", input, attrs, 0)
    total = xp.zeros((input.shape[0], *counts, input.shape[3]), dtype=input.dtype)
    for _, places in taps(kernel_size, counts, stride, dilation):
        total += padded[places]
    return total / xp.asarray(_divisor(input.shape[1:3], counts, attrs).astype(input.dtype))


@op(Kind.OPAQUE, _pooled(is_numeric), prepare=_pooling_arguments, upcasts=True)
def max_pool2d(
    xp: ArrayModule,
    input: Tensor,
    kernel_size: Pair,
    stride: Pair = 1,
    dilation: Pair = 1,
    padding: Pair = 0,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest element of each window of an image; padding never wins, NaN does.

    Args:
        input: Tensor [N, H, W, C], numeric dtype.
        kernel_size: Size of the window: an int, or one for H and one for W, as all that follow.
        stride: Distance between windows; 1, not the size of the window.
        dilation: Distance between the elements of a window.
        padding: Elements added before and after.
        ceil_mode: Count a last window that reaches beyond the padding.

    Returns:
        Tensor [N, H', W', C] in the dtype of `input`. A window of nothing but padding gives -inf,
        or the smallest integer.

    Raises:
        ValueError: If the rank is not 4, the dtype is bool, a number is out of range, or no window
            fits.
        TypeError: If a number is not an int.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = F.reshape(Tensor.arange(16), [1, 4, 4, 1])
        >>> F.flatten(F.max_pool2d(x, (2, 2), stride=2)).to_numpy().tolist()
        [5.0, 7.0, 13.0, 15.0]
    """
    attrs: Attrs = {
        "kernel_size": kernel_size,
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
        "ceil_mode": ceil_mode,
    }
    lowest = -math.inf if input.dtype.kind == "f" else np.iinfo(input.dtype).min
    padded, counts = _padded(xp, "max_pool2d", input, attrs, lowest)
    result = xp.full((input.shape[0], *counts, input.shape[3]), lowest, dtype=input.dtype)
    for _, places in taps(kernel_size, counts, stride, dilation):
        result = xp.maximum(result, padded[places])
    return result


# ---- fold --------------------------------------------------------------------------------------


def _fold_arguments(op: Op, input: TensorType, **attrs: object) -> Attrs:
    size = attrs["output_size"]
    sizes = as_sizes((size, size) if isinstance(size, int) else size, "fold: output_size")
    if len(sizes) != 2:
        raise ArgumentError(f"fold: output_size: expected 2 sizes, got {list(sizes)}.")
    return {
        "output_size": sizes,
        "kernel_size": numbers(op.name, "kernel_size", attrs["kernel_size"], 2, 1, single=True),
        "stride": numbers(op.name, "stride", attrs["stride"], 2, 1, single=True),
        "dilation": numbers(op.name, "dilation", attrs["dilation"], 2, 1, single=True),
        "padding": numbers(op.name, "padding", attrs["padding"], 2, single=True),
    }


def _fold_counts(attrs: Attrs) -> list[Size]:
    return [
        window_count("fold", size, 2 * pad, k, s, d)
        for size, pad, k, s, d in zip(
            attrs["output_size"],
            attrs["padding"],
            attrs["kernel_size"],
            attrs["stride"],
            attrs["dilation"],
            strict=True,
        )
    ]


def _folded(op: Op, input: TensorType, **attrs: Any) -> TensorType:
    expect_dtype(op, is_numeric, input)
    if input.rank != 3:
        raise ShapeError(f"fold: expected [N, C * KH * KW, L], got {input.short()}.")
    batch, rows, length = input.sizes
    area = math.prod(attrs["kernel_size"])
    if isinstance(rows, int) and rows % area:
        raise ShapeError(
            f"fold: axis 1 of {input.short()} cannot be divided by the {area} elements of a window."
        )
    expected = product(_fold_counts(attrs))
    if isinstance(length, int) and isinstance(expected, int) and length != expected:
        raise ShapeError(
            f"fold: the last axis of {input.short()} must have one element for each window: "
            f"expected {expected}, got {length}."
        )
    return input.with_sizes((batch, as_size(rows // area), *attrs["output_size"]))


@op(Kind.OPAQUE, _folded, prepare=_fold_arguments, upcasts=True)
def fold(
    xp: ArrayModule,
    input: Tensor,
    output_size: Pair,
    kernel_size: Pair,
    stride: Pair = 1,
    dilation: Pair = 1,
    padding: Pair = 0,
) -> Tensor:
    """Puts windows back into an image; where they overlap, they are summed (`fold` of PyTorch).

    Args:
        input: Numeric tensor [N, C * KH * KW, L]: the windows in row-major order on the last
            axis, their elements on axis 1, channels slowest.
        output_size: H and W.
        kernel_size: KH and KW: an int, or one for each axis, as all that follow.
        stride: Distance between windows.
        dilation: Distance between the elements of a window.
        padding: What the windows reach beyond the image, before and after.

    Returns:
        Tensor [N, C, H, W] in the dtype of `input`.

    Raises:
        ValueError: If the rank is not 3, axis 1 cannot be divided by KH * KW, or L is not the
            number of windows.
        TypeError: If a number is not an int.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> windows = Tensor.ones([1, 4, 4])  # 2 x 2 windows of 2 x 2 elements, one channel
        >>> F.fold(windows, (3, 3), (2, 2)).to_numpy()[0, 0].tolist()
        [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    """
    attrs: Attrs = {
        "output_size": output_size,
        "kernel_size": kernel_size,
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
    }
    counts = _fold_counts(attrs)
    channels = input.shape[1] // math.prod(kernel_size)
    if input.shape[2] != math.prod(counts) or input.shape[1] % math.prod(kernel_size):
        raise ShapeError(
            f"fold: expected [N, C * {math.prod(kernel_size)}, {math.prod(counts)}], got "
            f"{list(input.shape)}."
        )
    patches = input.reshape(input.shape[0], channels, *attrs["kernel_size"], *counts)
    # With the channels last the windows are those of pooling.
    patches = xp.moveaxis(patches, 1, -1)
    top, left = attrs["padding"]
    height, width = attrs["output_size"][0] + 2 * top, attrs["output_size"][1] + 2 * left
    result = xp.zeros((input.shape[0], height, width, channels), dtype=input.dtype)
    for tap, places in taps(kernel_size, counts, stride, dilation):
        result[places] += patches[(slice(None), *tap)]
    result = result[:, top : height - top, left : width - left]
    return xp.moveaxis(result, -1, 1)
