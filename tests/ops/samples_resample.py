"""Samples of resizing, regions, transforms and custom kernels; the oracles are scalar formulas."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from helpers import ALL, FLOATS, narrow, numbers
from ops.samples import Sample, of_shapes

from maxmod.custom import register
from maxmod.dtype import DType
from maxmod.values.device import CPU_REF


def _place(o: int, size: int, count: int, mode: int) -> Fraction:
    if mode == 1:
        return Fraction(o * (size - 1), count - 1) if count > 1 else Fraction(0)
    if mode == 2:
        return Fraction(o * size, count)
    if mode == 3 and count == 1:
        return Fraction(0)
    return (o + Fraction(1, 2)) * Fraction(size, count) - Fraction(1, 2)


Weights = Callable[[int, int, int], dict[int, float]]


def _resized(x: Any, size: Any, weights: Weights) -> Any:
    """Replaces one axis after the other; `weights(o, size, count)` maps positions to weights."""
    for axis, count in enumerate(size):
        have = x.shape[axis]
        if have == count:
            continue
        moved = np.moveaxis(x, axis, 0)
        rows = np.zeros((count, *moved.shape[1:]), x.dtype)
        for o in range(count):
            for position, weight in weights(o, have, count).items():
                if weight:
                    rows[o] += weight * moved[position]
        x = np.moveaxis(rows, 0, axis)
    return x


def linear(x: Any, size: Any, coordinate_transform_mode: int, antialias: bool) -> Any:
    def weights(o: int, have: int, count: int) -> dict[int, float]:
        at = _place(o, have, count, coordinate_transform_mode)
        reach = Fraction(have, count) if antialias and have > count else Fraction(1)
        if reach == 1:
            at = min(max(at, Fraction(0)), Fraction(have - 1))
        found = {i: max(0, 1 - abs(i - at) / reach) for i in range(have)}
        total = sum(found.values())
        return {i: float(weight / total) for i, weight in found.items()}

    return _resized(x, size, weights)


def nearest(x: Any, size: Any, coordinate_transform_mode: int, round_mode: int) -> Any:
    half = Fraction(1, 2)
    rounded = [
        lambda at: math.ceil(at - half),
        lambda at: math.floor(at + half),
        math.floor,
        math.ceil,
    ][round_mode]
    for axis, count in enumerate(size):
        have = x.shape[axis]
        places = [_place(o, have, count, coordinate_transform_mode) for o in range(count)]
        x = np.take(x, [min(max(rounded(at), 0), have - 1) for at in places], axis=axis)
    return x


def cubic(x: Any, size: Any) -> Any:
    a = Fraction(-3, 4)

    def kernel(t: Fraction) -> Fraction:
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else Fraction(0)

    def weights(o: int, have: int, count: int) -> dict[int, float]:
        at = _place(o, have, count, 0)
        found: dict[int, Fraction] = {}
        for i in range(math.floor(at) - 1, math.floor(at) + 3):
            inside = min(max(i, 0), have - 1)
            found[inside] = found.get(inside, Fraction(0)) + kernel(i - at)
        return {i: float(weight) for i, weight in found.items()}

    return _resized(x, size, weights)


def _corners(image: Any, y: float, x: float) -> list[Any]:
    """The four elements around a point, each times its weight; zeros for a point outside."""
    height, width = image.shape[:2]
    if y < -1 or y > height or x < -1 or x > width:
        return [np.zeros(image.shape[2])] * 4
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    return [
        row_weight * column_weight * image[row, column]
        for row, row_weight in ((y0, 1 - (y - y0)), (y1, y - y0))
        for column, column_weight in ((x0, 1 - (x - x0)), (x1, x - x0))
    ]


def regions(x: Any, rois: Any, output_height: int, output_width: int, **attrs: Any) -> Any:
    result = np.zeros((len(rois), output_height, output_width, x.shape[3]))
    for number, (image, *corners) in enumerate(rois):
        shift = 0.5 if attrs["aligned"] else 0.0
        x1, y1, x2, y2 = (value * attrs["spatial_scale"] - shift for value in corners)
        height, width = y2 - y1, x2 - x1
        if not attrs["aligned"]:
            height, width = max(height, 1), max(width, 1)
        tall, wide = height / output_height, width / output_width
        ratio = int(attrs["sampling_ratio"])
        rows, columns = ratio or math.ceil(tall), ratio or math.ceil(wide)
        for p, q in np.ndindex(output_height, output_width):
            samples = [
                _corners(
                    x[int(image)],
                    y1 + p * tall + (i + 0.5) * tall / rows,
                    x1 + q * wide + (j + 0.5) * wide / columns,
                )
                for i in range(rows)
                for j in range(columns)
            ]
            is_largest = attrs["mode"] == "MAX"
            result[number, p, q] = (
                np.max(samples, axis=(0, 1)) if is_largest else np.sum(samples, axis=1).mean(0)
            )
    return result


def inverse_transform(
    x: Any, n: int, axis: int, normalization: str, input_is_complex: bool, buffer_size_mb: int
) -> Any:
    """The sum that defines it, over the whole spectrum with its mirrored half."""
    spectrum = x[..., 0] + 1j * x[..., 1] if input_is_complex else x.astype(complex)
    rows = np.moveaxis(spectrum, axis, -1)
    n = 2 * (rows.shape[-1] - 1) if n is None else n
    bins = np.zeros((*rows.shape[:-1], n // 2 + 1), complex)
    count = min(rows.shape[-1], n // 2 + 1)
    bins[..., :count] = rows[..., :count]
    whole = np.zeros((*rows.shape[:-1], n), complex)
    for k in range(n):
        whole[..., k] = bins[..., k] if k <= n // 2 else np.conj(bins[..., n - k])
    whole[..., 0] = whole[..., 0].real
    if n % 2 == 0:
        whole[..., n // 2] = whole[..., n // 2].real
    result = np.zeros((*rows.shape[:-1], n))
    for t in range(n):
        turns = np.array([cmath.exp(2j * cmath.pi * k * t / n) for k in range(n)])
        result[..., t] = (whole * turns).sum(axis=-1).real
    scale = {"backward": n, "ortho": math.sqrt(n), "forward": 1}[normalization]
    return np.moveaxis(result / scale, -1, axis)


def _rois(rng: np.random.Generator, dtype: DType) -> list[Any]:
    rows = [[0, 0, 0, 3, 2], [1, 1, 0.5, 4, 4.5], [0, 2, 2, 2.25, 2.25], [1, -3, -2.5, 1, 8]]
    return [numbers(rng, dtype, (2, 6, 5, 2)), narrow(rows, dtype)]


def _region(height: int, width: int, **attrs: Any) -> dict[str, Any]:
    defaults = {"spatial_scale": 1.0, "sampling_ratio": 0.0, "aligned": False, "mode": "AVG"}
    return {"output_height": height, "output_width": width, **defaults, **attrs}


def _transform(shape: Any, **attrs: Any) -> Sample:
    defaults = {
        "n": None,
        "axis": -1,
        "normalization": "backward",
        "input_is_complex": False,
        "buffer_size_mb": 512,
    }
    dtypes = (DType.float32,)
    return Sample(
        of_shapes(shape), inverse_transform, {**defaults, **attrs}, dtypes, 16, special=False
    )


_SCALE = register("samples.scale", numpy=lambda x, by: x * by, cuda=lambda x, by: x * by)


def _scaled(dtype: DType) -> dict[str, Any]:
    return {
        "kernel": _SCALE,
        "parameters": (("by", "2", 2),),
        "shapes": ((2, 3),),
        "dtypes": (dtype,),
        "device": CPU_REF,
    }


# 4 -> 7 and 7 -> 3 reach every case of a table; nothing happens to the first axis.
SAMPLES = {
    "resize_linear": [
        Sample(
            of_shapes((2, 4, 7)),
            linear,
            {"size": (2, 7, 3), "coordinate_transform_mode": mode, "antialias": antialias},
            FLOATS,
            8,
            special=False,
        )
        for mode in range(4)
        for antialias in (False, True)
    ]
    + [
        Sample(
            of_shapes((5,)),
            linear,
            {"size": (1,), "coordinate_transform_mode": mode, "antialias": False},
            FLOATS,
            2,
        )
        for mode in range(4)
    ],
    "resize_nearest": [
        Sample(
            of_shapes((2, 4, 7)),
            nearest,
            {"size": (2, 6, 3), "coordinate_transform_mode": mode, "round_mode": rounding},
            ALL,
        )
        for mode in range(4)
        for rounding in range(4)
    ],
    "resize_bicubic": [
        Sample(of_shapes((1, 2, 4, 7)), cubic, {"size": (1, 2, 9, 3)}, FLOATS, 32, special=False),
        Sample(of_shapes((1, 1, 1, 2)), cubic, {"size": (1, 1, 3, 5)}, FLOATS, 32, special=False),
    ],
    "roi_align": [
        Sample(_rois, regions, attrs, FLOATS, 32, special=False)
        for attrs in (
            _region(2, 3),
            _region(3, 2, aligned=True, sampling_ratio=2.0, spatial_scale=0.5),
            _region(2, 2, mode="MAX", sampling_ratio=3.0),
        )
    ],
    "irfft": [
        _transform((5,)),
        _transform((2, 4), n=7),
        _transform((2, 4), n=4, normalization="ortho"),
        _transform((5, 3), n=12, axis=0, normalization="forward"),
        _transform((3, 5, 2), axis=1, input_is_complex=True),
        _transform((3, 5, 2), axis=-2, n=5, input_is_complex=True),
        _transform((0, 5)),
    ],
    "custom_kernel": [
        Sample(of_shapes((2, 3)), lambda x, **attrs: x * 2, _scaled, ALL[:-1], refuses=False)
    ],
}
