"""Resizing by interpolation, and roi_align.

Every kind of interpolation along an axis is a table: for each element of the result the positions
of a few elements of the input, and their weights. Tables are made on the host in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from maxmod.errors import ArgumentError, ShapeError
from maxmod.interpreters.operands import strong
from maxmod.op import Kind, Op, TypeRule, function, op
from maxmod.op.rules import Accepts, expect_dtype, expect_int, is_any, is_float
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule, HostArray
from maxmod.values.dim import DimLike, Size, as_size
from maxmod.values.layouts import InterpolationMode
from maxmod.values.plain import Attrs
from maxmod.values.shape import ShapeLike, Sizes, as_sizes, format_sizes
from maxmod.values.tensor_type import TensorType

__all__ = ["resize", "resize_bicubic", "resize_linear", "resize_nearest", "roi_align"]

# ---- static arguments and types ----------------------------------------------------------------


def _resize_arguments(op: Op, input: TensorType, *, size: object, **attrs: object) -> Attrs:
    found: Attrs = {"size": as_sizes(size, f"{op.name}: size")}
    for name, count in (("coordinate_transform_mode", 4), ("round_mode", 4)):
        if name in attrs:
            found[name] = expect_int(op.name, attrs[name], name)
            if not 0 <= found[name] < count:
                raise ArgumentError(
                    f"{op.name}: {name}: expected 0 to {count - 1}, got {found[name]}."
                )
    if "antialias" in attrs:
        found["antialias"] = bool(attrs["antialias"])
    return found


def _resized(accepts: Accepts, rank: int | None = None) -> TypeRule:
    """The input's type with the sizes that are asked for."""

    def type_of_size(op: Op, input: TensorType, *, size: Sizes, **attrs: object) -> TensorType:
        expect_dtype(op, accepts, input)
        if rank is not None and input.rank != rank:
            raise ShapeError(f"{op.name}: expected rank {rank}, got {input.short()}.")
        if len(size) != input.rank:
            raise ShapeError(
                f"{op.name}: size: expected {input.rank} sizes for {input.short()}, got "
                f"{format_sizes(size)}."
            )
        for have, want in zip(input.sizes, size, strict=True):
            _expect_source(op.name, have, want)
        return input.with_sizes(size)

    return type_of_size


def _expect_source(name: str, have: Size, want: Size) -> None:
    if isinstance(want, int) and want < 0:
        raise ShapeError(f"{name}: sizes must not be negative, got {want}.")
    if have == 0 and want != 0:
        raise ShapeError(f"{name}: an axis without elements cannot be resized to {want}.")


# ---- tables ------------------------------------------------------------------------------------

Table = tuple[HostArray, HostArray]  # positions [count, taps] and weights [count, taps]


def _coordinates(size: int, count: int, mode: int) -> HostArray:
    """Where each of `count` elements lies on an axis of `size` elements."""
    at = np.arange(count, dtype=np.float64)
    if count == 0:
        return at
    if mode == 1:  # first on first, last on last
        return at * ((size - 1) / (count - 1)) if count > 1 else at * 0
    if mode == 2:
        return at * (size / count)
    if mode == 3 and count == 1:
        return at * 0
    return (at + 0.5) * (size / count) - 0.5


def _linear_table(size: int, count: int, mode: int, antialias: bool) -> Table:
    at = np.clip(_coordinates(size, count, mode), 0, size - 1)
    if antialias and count < size:
        return _triangle_table(_coordinates(size, count, mode), size, size / count)
    low = np.floor(at).astype(np.int64)
    positions = np.stack([low, np.minimum(low + 1, size - 1)], axis=1)
    share = at - low
    return positions, np.stack([1 - share, share], axis=1)


def _triangle_table(at: HostArray, size: int, reach: float) -> Table:
    """Weights that fall to 0 at a distance of `reach`, over the elements that exist."""
    first = np.floor(at - reach).astype(np.int64)
    places = first[:, None] + np.arange(2 * math.ceil(reach) + 2)
    weights = np.maximum(1 - np.abs(places - at[:, None]) / reach, 0)
    weights = np.where((places >= 0) & (places < size), weights, 0)
    return np.clip(places, 0, size - 1), weights / weights.sum(axis=1, keepdims=True)


_KEYS = -0.75


def _cubic_table(size: int, count: int) -> Table:
    """Four neighbours with the weights of Keys' kernel; beyond an edge its element is repeated.

    Source: R. Keys, Cubic convolution interpolation for digital image processing, 1981.
    """
    at = _coordinates(size, count, 0)
    low = np.floor(at).astype(np.int64)
    share = at - low
    near = [share, 1 - share]  # distances of the two neighbours in the middle
    inner = [((_KEYS + 2) * t - (_KEYS + 3)) * t * t + 1 for t in near]
    outer = [(((t + 1) - 5) * (t + 1) + 8) * (t + 1) * _KEYS - 4 * _KEYS for t in near]
    positions = low[:, None] + np.arange(-1, 3)
    weights = np.stack([outer[0], inner[0], inner[1], outer[1]], axis=1)
    return np.clip(positions, 0, size - 1), weights


_ROUNDINGS: tuple[Callable[[HostArray], HostArray], ...] = (
    lambda at: np.ceil(at - 0.5),
    lambda at: np.floor(at + 0.5),
    np.floor,
    np.ceil,
)


def _apply(xp: ArrayModule, x: Array, axis: int, table: Table) -> Array:
    """The weighted sum of elements along an axis that a table says."""
    positions, weights = table
    shape = [1] * x.ndim
    shape[axis] = len(positions)
    sizes = list(x.shape)
    sizes[axis] = len(positions)
    result = xp.zeros(sizes, dtype=x.dtype)
    for tap in range(positions.shape[1]):
        weight = weights[:, tap].astype(x.dtype).reshape(shape)
        part = xp.take(x, xp.asarray(positions[:, tap]), axis=axis) * xp.asarray(weight)
        if not weight.all():  # an element without weight must not spoil the sum if it is infinite
            part = xp.where(xp.asarray(weight != 0), part, x.dtype.type(0))
        result += part
    return result


def _resample(
    xp: ArrayModule, name: str, x: Array, size: Sequence[int], table: Callable[..., Table]
) -> Array:
    result = x
    for axis, (have, want) in enumerate(zip(x.shape, size, strict=True)):
        _expect_source(name, have, want)
        if have != want:
            result = _apply(xp, result, axis, table(have, want))
    return result.copy() if result is x else result


# ---- the ops -----------------------------------------------------------------------------------


@op(Kind.OPAQUE, _resized(is_float), prepare=_resize_arguments, upcasts=True)
def resize_linear(
    xp: ArrayModule,
    input: Tensor,
    size: ShapeLike,
    coordinate_transform_mode: int = 0,
    antialias: bool = False,
) -> Tensor:
    """Resizes by linear interpolation along each axis.

    Args:
        input: Tensor of a float dtype.
        size: The shape of the result, all axes.
        coordinate_transform_mode: What the positions mean. 0: elements are areas, their middles
            are matched; 1: first and last elements are matched; 2: first elements are matched;
            3: as 0, but a single element is the first one.
        antialias: Where an axis shrinks, weigh all elements that a new one covers.

    Returns:
        Tensor of the shape `size` and the dtype of `input`. Beyond an edge its element is repeated.

    Raises:
        ValueError: If the rank, the mode or the dtype is wrong, or an axis without elements is
            to have some.

    Source: Resize of ONNX, whose names for the modes are half_pixel, align_corners, asymmetric and
    pytorch_half_pixel.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([0.0, 4.0])
        >>> F.resize_linear(x, [4]).to_numpy().tolist()
        [0.0, 1.0, 3.0, 4.0]
        >>> F.resize_linear(x, [5], coordinate_transform_mode=1).to_numpy().tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    return _resample(
        xp,
        "resize_linear",
        input,
        size,
        lambda have, want: _linear_table(have, want, coordinate_transform_mode, antialias),
    )


@op(Kind.OPAQUE, _resized(is_any), prepare=_resize_arguments)
def resize_nearest(
    xp: ArrayModule,
    input: Tensor,
    size: ShapeLike,
    coordinate_transform_mode: int = 0,
    round_mode: int = 0,
) -> Tensor:
    """Resizes by repeating or leaving out elements.

    Args:
        input: Tensor of any dtype.
        size: The shape of the result, all axes.
        coordinate_transform_mode: See `resize_linear`.
        round_mode: How a position becomes that of an element. 0: nearest, halves down; 1: nearest,
            halves up; 2: down; 3: up.

    Returns:
        Tensor of the shape `size` and the dtype of `input`.

    Raises:
        ValueError: If the rank or a mode is wrong, or an axis without elements is to have some.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.resize_nearest(Tensor([[1.0, 2.0]]), [2, 4]).to_numpy().tolist()
        [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]
    """
    result = input
    for axis, (have, want) in enumerate(zip(input.shape, size, strict=True)):
        _expect_source("resize_nearest", have, want)
        if have != want:
            at = _ROUNDINGS[round_mode](_coordinates(have, want, coordinate_transform_mode))
            positions = np.clip(at, 0, max(have - 1, 0)).astype(np.int64)
            result = xp.take(result, xp.asarray(positions), axis=axis)
    return result.copy() if result is input else result


@op(Kind.OPAQUE, _resized(is_float, rank=4), prepare=_resize_arguments, upcasts=True)
def resize_bicubic(xp: ArrayModule, input: Tensor, size: ShapeLike) -> Tensor:
    """Resizes by cubic interpolation along each axis (a = -0.75, middles of elements matched).

    Args:
        input: Tensor of rank 4 and a float dtype.
        size: The shape of the result, all axes.

    Returns:
        Tensor of the shape `size` and the dtype of `input`. Beyond an edge its element is repeated;
        near steps values overshoot.

    Raises:
        ValueError: If the rank or the dtype is wrong, or an axis without elements is to have some.

    Source: R. G. Keys, Cubic convolution interpolation for digital image processing, IEEE Trans.
    Acoustics, Speech, and Signal Processing 29 (1981).

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> step = F.reshape(Tensor([0.0, 0.0, 1.0, 1.0]), [1, 1, 1, 4])
        >>> F.flatten(F.resize_bicubic(step, [1, 1, 1, 8]))
        Tensor([       0 -0.03516  -0.1055   0.2266   0.7734    1.105    1.035        1],
        shape=[8], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    return _resample(xp, "resize_bicubic", input, size, _cubic_table)


@function
def resize(
    input: Tensor,
    shape: Sequence[DimLike],
    interpolation: InterpolationMode = InterpolationMode.BILINEAR,
) -> Tensor:
    """Resizes images [N, C, H, W].

    Args:
        input: Tensor [N, C, H, W] of a float dtype (any dtype for NEAREST).
        shape: The shape of the result, all four sizes.
        interpolation: How values between elements are found.

    Returns:
        Tensor of the shape `shape` and the dtype of `input`.

    Raises:
        ValueError: If the rank is not 4, `shape` does not have 4 sizes, or the mode is unknown.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> from maxmod.graph import InterpolationMode
        >>> image = Tensor.ones([1, 3, 480, 640])
        >>> F.resize(image, [1, 3, 224, 224], InterpolationMode.BICUBIC).shape
        [Dim(1), Dim(3), Dim(224), Dim(224)]
    """
    input = strong("resize", input)
    sizes = as_sizes(shape, "resize: shape")
    if input.rank != 4 or len(sizes) != 4:
        raise ShapeError(
            f"resize: expected rank 4 and 4 sizes, got {input.type.short()} and "
            f"{format_sizes(sizes)}."
        )
    if interpolation == InterpolationMode.BILINEAR:
        return resize_linear(input, sizes)
    if interpolation == InterpolationMode.NEAREST:
        return resize_nearest(input, sizes)
    if interpolation == InterpolationMode.BICUBIC:
        return resize_bicubic(input, sizes)
    listed = ", ".join(f"InterpolationMode.{mode.name}" for mode in InterpolationMode)
    raise ArgumentError(f"resize: interpolation: expected {listed}, got {interpolation!r}.")


# ---- regions -----------------------------------------------------------------------------------


def _roi_arguments(op: Op, input: TensorType, rois: TensorType, **attrs: object) -> Attrs:
    mode = attrs["mode"]
    if mode not in ("AVG", "MAX"):
        raise ArgumentError(f"roi_align: mode: expected 'AVG' or 'MAX', got {mode!r}.")
    return {
        "output_height": as_size(attrs["output_height"]),
        "output_width": as_size(attrs["output_width"]),
        "spatial_scale": float(attrs["spatial_scale"]),
        "sampling_ratio": float(attrs["sampling_ratio"]),
        "aligned": bool(attrs["aligned"]),
        "mode": mode,
    }


def _aligned(op: Op, input: TensorType, rois: TensorType, **attrs: object) -> TensorType:
    expect_dtype(op, is_float, input, rois)
    if input.rank != 4:
        raise ShapeError(f"roi_align: input: expected [N, H, W, C], got {input.short()}.")
    if rois.rank != 2 or rois.sizes[1] != 5:
        raise ShapeError(f"roi_align: rois: expected [M, 5], got {rois.short()}.")
    sizes = (attrs["output_height"], attrs["output_width"])
    if any(isinstance(size, int) and size < 0 for size in sizes):
        raise ShapeError(f"roi_align: sizes must not be negative, got {format_sizes(sizes)}.")
    return input.with_sizes((rois.sizes[0], *sizes, input.sizes[3]))


@op(Kind.OPAQUE, _aligned, prepare=_roi_arguments, upcasts=True)
def roi_align(
    xp: ArrayModule,
    input: Tensor,
    rois: Tensor,
    output_height: int,
    output_width: int,
    spatial_scale: float = 1.0,
    sampling_ratio: float = 0.0,
    aligned: bool = False,
    mode: str = "AVG",
) -> Tensor:
    """Samples regions of images on a grid of bins, by bilinear interpolation.

    Args:
        input: Tensor [N, H, W, C] of a float dtype.
        rois: Tensor [M, 5] of a float dtype with rows (number of the image, x1, y1, x2, y2).
        output_height: Number of bins on H.
        output_width: Number of bins on W.
        spatial_scale: What coordinates are multiplied by.
        sampling_ratio: Samples on each axis of a bin; 0 for the size of the bin, rounded up.
        aligned: Move coordinates by half an element, and allow regions smaller than 1.
        mode: "AVG" for the mean of the samples of a bin. "MAX" for the largest of the four terms
            of every sample (an element times its weight), as in MAX and ONNX Runtime: not for the
            largest sample, which the paper has.

    Returns:
        Tensor [M, output_height, output_width, C]. Samples more than one element outside count
        as 0.

    Raises:
        ValueError: If ranks, dtypes or the mode are wrong.

    Source: K. He, G. Gkioxari, P. Dollár and R. Girshick, Mask R-CNN, arXiv 1703.06870.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> image = F.reshape(Tensor.arange(16), [1, 4, 4, 1])
        >>> region = Tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])  # all of image 0
        >>> F.flatten(F.roi_align(image, region, 2, 2, aligned=True)).to_numpy().tolist()
        [2.5, 4.5, 10.5, 12.5]
    """
    counts = (output_height, output_width)
    result = xp.zeros((rois.shape[0], *counts, input.shape[3]), dtype=input.dtype)
    rows = rois if xp is np else xp.asnumpy(rois)
    for number, row in enumerate(rows.astype(np.float64)):
        image = input[int(row[0])]
        corner = row[1:] * spatial_scale - (0.5 if aligned else 0.0)
        tables = []
        for axis, (low, high) in enumerate(((corner[1], corner[3]), (corner[0], corner[2]))):
            extent = high - low if aligned else max(high - low, 1.0)
            tables.append(_samples(image.shape[axis], low, extent, counts[axis], sampling_ratio))
        if image.size and all(count for _, count in tables):  # else there are no samples
            result[number] = _bins(xp, image, tables, mode)
    return result


def _samples(size: int, low: float, extent: float, bins: int, ratio: float) -> tuple[Table, int]:
    """The table of all samples along one axis of a region, and their number in each bin."""
    width = extent / max(bins, 1)
    count = max(int(ratio) if ratio > 0 else math.ceil(width), 0)
    at = low + (np.arange(bins * count) + 0.5) * (width / max(count, 1))
    inside = (at >= -1) & (at <= size)
    at = np.clip(at, 0, max(size - 1, 0))
    first = np.floor(at).astype(np.int64)
    share = at - first
    positions = np.stack([first, np.minimum(first + 1, size - 1)], axis=1)
    weights = np.stack([1 - share, share], axis=1) * inside[:, None]
    return (positions, weights), count


def _bins(xp: ArrayModule, image: Array, tables: Sequence[Table], mode: str) -> Array:
    (rows, high), (columns, wide) = tables
    shape = (len(rows[0]) // high, high, len(columns[0]) // wide, wide, image.shape[-1])
    if mode == "MAX":
        return _largest_terms(xp, image, rows, columns).reshape(shape).max(axis=(1, 3))
    samples = _apply(xp, _apply(xp, image, 0, rows), 1, columns)
    return samples.reshape(shape).mean(axis=(1, 3))


def _largest_terms(xp: ArrayModule, image: Array, rows: Table, columns: Table) -> Array:
    """The largest of the four weighted neighbours of each sample."""
    largest: Any = None
    for row, column in np.ndindex(2, 2):
        positions = (xp.asarray(rows[0][:, row, None]), xp.asarray(columns[0][:, column]))
        weights = xp.asarray((rows[1][:, row, None] * columns[1][:, column])[..., None])
        terms = image[positions] * weights.astype(image.dtype)
        terms = xp.where(weights != 0, terms, image.dtype.type(0))  # also of an infinity
        largest = terms if largest is None else xp.maximum(largest, terms)
    return largest
