"""Samples of convolution, pooling and fold; the oracles are loops over windows."""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers import FLOATS, NUMERIC, numbers
from ops.samples import Sample, of_shapes


def _padded(x: Any, before: Any, after: Any, value: float) -> Any:
    widths = [(0, 0), *zip(before, after), (0, 0)]
    return np.pad(x, widths, constant_values=value)


def convolution(x: Any, w: Any, stride: Any, dilation: Any, padding: Any, groups: int) -> Any:
    """Channels last, any number of spatial axes, one product for each window, tap and group."""
    x = _padded(x, padding[::2], padding[1::2], 0)
    kernel, spatial = w.shape[:-2], x.shape[1:-1]
    counts = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(spatial, kernel, stride, dilation)
    ]
    channels, filters = w.shape[-2], w.shape[-1] // groups
    result = np.zeros((x.shape[0], *counts, w.shape[-1]), x.dtype)
    for place in np.ndindex(*counts):
        for tap in np.ndindex(*kernel):
            at = tuple(p * s + t * d for p, s, t, d in zip(place, stride, tap, dilation))
            for group in range(groups):
                inputs = x[(slice(None), *at)][:, group * channels : (group + 1) * channels]
                outputs = slice(group * filters, (group + 1) * filters)
                result[(slice(None), *place, outputs)] += inputs @ w[tap][:, outputs]
    return result


def transposed_convolution(
    x: Any, w: Any, stride: Any, dilation: Any, padding: Any, output_paddings: Any
) -> Any:
    """Every element of x adds a filter, which is [*kernel, F, C], to a larger image."""
    kernel, spatial = w.shape[:-2], x.shape[1:-1]
    whole = [
        (size - 1) * s + d * (k - 1) + 1 + extra
        for size, s, d, k, extra in zip(spatial, stride, dilation, kernel, output_paddings)
    ]
    result = np.zeros((x.shape[0], *whole, w.shape[-2]), x.dtype)
    for place in np.ndindex(*spatial):
        for tap in np.ndindex(*kernel):
            at = tuple(p * s + t * d for p, s, t, d in zip(place, stride, tap, dilation))
            result[(slice(None), *at)] += x[(slice(None), *place)] @ w[tap].T
    inner = tuple(
        slice(before, size - after)
        for before, after, size in zip(padding[::2], padding[1::2], whole)
    )
    return result[(slice(None), *inner)]


def _windows(x: Any, attrs: dict[str, Any]) -> Any:
    """Yields (place, coordinates of the elements of the window, with those outside)."""
    rounded = np.ceil if attrs.get("ceil_mode") else np.floor
    counts = [
        int(rounded((size + 2 * p - d * (k - 1) - 1) / s)) + 1
        for size, k, s, d, p in zip(
            x.shape[1:3],
            attrs["kernel_size"],
            attrs["stride"],
            attrs["dilation"],
            attrs["padding"],
        )
    ]
    for place in np.ndindex(*counts):
        elements = [
            tuple(
                q * s + t * d - p
                for q, s, t, d, p in zip(
                    place, attrs["stride"], tap, attrs["dilation"], attrs["padding"]
                )
            )
            for tap in np.ndindex(*attrs["kernel_size"])
        ]
        yield counts, place, elements


def _both(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


def _all_pairs(attrs: dict[str, Any]) -> dict[str, Any]:
    names = ("kernel_size", "stride", "dilation", "padding")
    return {**attrs, **{name: _both(attrs[name]) for name in names}}


def average_pooling(x: Any, **attrs: Any) -> Any:
    attrs = _all_pairs(attrs)
    result = None
    for counts, place, elements in _windows(x, attrs):
        if result is None:
            result = np.zeros((x.shape[0], *counts, x.shape[3]), x.dtype)
        inside = [e for e in elements if all(0 <= i < n for i, n in zip(e, x.shape[1:3]))]
        padded = [
            e
            for e in elements
            if all(-p <= i < n + p for i, n, p in zip(e, x.shape[1:3], attrs["padding"]))
        ]
        total = sum((x[:, i, j] for i, j in inside), np.zeros((x.shape[0], x.shape[3])))
        result[:, place[0], place[1]] = total / len(padded if attrs["count_boundary"] else inside)
    return result


def max_pooling(x: Any, **attrs: Any) -> Any:
    attrs = _all_pairs(attrs)
    result = None
    for counts, place, elements in _windows(x, attrs):
        if result is None:
            result = np.zeros((x.shape[0], *counts, x.shape[3]), x.dtype)
        inside = [e for e in elements if all(0 <= i < n for i, n in zip(e, x.shape[1:3]))]
        result[:, place[0], place[1]] = np.max([x[:, i, j] for i, j in inside], axis=0)
    return result


def folding(x: Any, output_size: Any, kernel_size: Any, stride: Any, **attrs: Any) -> Any:
    height, width = output_size
    (kh, kw), (sh, sw) = _both(kernel_size), _both(stride)
    (dh, dw), (ph, pw) = _both(attrs["dilation"]), _both(attrs["padding"])
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    channels = x.shape[1] // (kh * kw)
    result = np.zeros((x.shape[0], channels, height, width), x.dtype)
    for c, i, j, r, s in np.ndindex(channels, kh, kw, rows, columns):
        y, z = r * sh + i * dh - ph, s * sw + j * dw - pw
        if 0 <= y < height and 0 <= z < width:
            result[:, c, y, z] += x[:, c * kh * kw + i * kw + j, r * columns + s]
    return result


def _conv(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: Any = (1, 1),
    dilation: Any = (1, 1),
    padding: Any = (0, 0, 0, 0),
    groups: int = 1,
) -> Sample:
    attrs = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups}
    length = int(np.prod(w[:-1]))
    return Sample(of_shapes(x, w), convolution, attrs, NUMERIC, 9 * length, special=False)


def _transposed(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: Any = (1, 1),
    dilation: Any = (1, 1),
    padding: Any = (0, 0, 0, 0),
    output_paddings: Any = (0, 0),
) -> Sample:
    attrs = {
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
        "output_paddings": output_paddings,
    }
    length = 9 * int(np.prod(w))
    return Sample(of_shapes(x, w), transposed_convolution, attrs, NUMERIC, length, special=False)


def _pool(shape: tuple[int, ...], **attrs: Any) -> dict[str, Any]:
    defaults = {"stride": 1, "dilation": 1, "padding": 0, "ceil_mode": False}
    return {**defaults, **attrs}


_POOLS = [
    _pool((1, 5, 4, 2), kernel_size=(2, 3)),
    _pool((2, 7, 6, 3), kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
    _pool((1, 7, 7, 1), kernel_size=2, stride=2, dilation=2, padding=1),
    _pool((1, 6, 7, 2), kernel_size=(3, 3), stride=2, ceil_mode=True),
    _pool((1, 6, 6, 2), kernel_size=(3, 3), stride=2, padding=1, ceil_mode=True),
]
_POOL_SHAPES = [(1, 5, 4, 2), (2, 7, 6, 3), (1, 7, 7, 1), (1, 6, 7, 2), (1, 6, 6, 2)]


def _fold(shape: tuple[int, ...], **attrs: Any) -> Sample:
    defaults = {"stride": 1, "dilation": 1, "padding": 0}
    return Sample(of_shapes(shape), folding, {**defaults, **attrs}, NUMERIC, 9)


def _with_an_infinity(rng: np.random.Generator, dtype: Any) -> Any:
    x = numbers(rng, dtype, (1, 3, 3, 1))
    if dtype.is_float():
        x[0, 1, 1, 0] = np.nan
    return [x]


SAMPLES = {
    "conv": [
        _conv((1, 5, 4, 2), (3, 2, 2, 3)),
        _conv((2, 7, 6, 4), (3, 2, 2, 6), (2, 1), (1, 2), (1, 0, 2, 1), 2),
        _conv((1, 5, 5, 3), (3, 3, 1, 6), (1, 2), (1, 1), (1, 1, 1, 1), 3),  # two for each channel
        _conv((1, 1, 1, 5), (1, 1, 5, 1)),
        _conv((0, 5, 4, 2), (3, 2, 2, 3)),
        _conv((1, 5, 4, 0), (3, 2, 0, 3)),
        _conv((2, 7, 3), (3, 3, 2), (2,), (1,), (1, 0)),
        _conv((1, 4, 5, 3, 2), (2, 3, 1, 2, 3), (1, 2, 1), (2, 1, 1), (1, 0, 0, 1, 0, 0)),
    ],
    "conv_transpose": [
        _transposed((1, 3, 4, 2), (3, 2, 3, 2)),
        _transposed((2, 3, 2, 3), (3, 2, 1, 3), (2, 3), (1, 2), (1, 0, 0, 1), (1, 2)),
        _transposed((0, 3, 4, 2), (3, 2, 3, 2)),
        _transposed((2, 5, 3), (2, 2, 3), (3,), (1,), (0, 0), (0,)),
    ],
    "avg_pool2d": [
        Sample(of_shapes(shape), average_pooling, {**attrs, "count_boundary": count}, FLOATS, 9)
        for shape, attrs in zip(_POOL_SHAPES, _POOLS)
        for count in (True, False)
    ],
    "max_pool2d": [
        Sample(of_shapes(shape), max_pooling, attrs, NUMERIC)
        for shape, attrs in zip(_POOL_SHAPES, _POOLS)
    ]
    + [Sample(_with_an_infinity, max_pooling, _pool((), kernel_size=2), NUMERIC, special=False)],
    "fold": [
        _fold((1, 4, 6), output_size=(3, 4), kernel_size=(2, 2)),
        _fold((2, 12, 9), output_size=(5, 4), kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
        _fold((1, 8, 4), output_size=(5, 5), kernel_size=2, dilation=2, stride=2, padding=0),
        _fold((0, 4, 6), output_size=(3, 4), kernel_size=(2, 2)),
    ],
}
