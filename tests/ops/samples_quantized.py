"""Samples of quantised weights; the oracle packs and rounds with plain loops over numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers import FLOATS, numbers
from ops.samples import Sample

from maxmod.dtype import DType


def unpacked(codes: Any) -> Any:
    """Codes of int4 from -8 to 7: byte i of 16 holds code i of 32 below and code i + 16 above."""
    codes = codes.astype(np.int64)
    rows, nbytes = codes.shape
    found = np.zeros((rows, 2 * nbytes), np.int64)
    for byte in range(nbytes):
        block, i = divmod(byte, 16)
        found[:, 32 * block + i] = codes[:, byte] % 16 - 8
        found[:, 32 * block + i + 16] = codes[:, byte] // 16 - 8
    return found


def dequantized(codes: Any, scales: Any, dtype: Any = None, packed: bool = False) -> Any:
    """codes * scales in float64."""
    values = unpacked(codes) if packed else codes
    return values * np.repeat(scales, values.shape[1] // scales.shape[1], axis=1)


def int4(codes: Any, scales: Any, dtype: Any = None) -> Any:
    return dequantized(codes, scales, packed=True)


def linear8(x: Any, codes: Any, scales: Any) -> Any:
    return x @ dequantized(codes, scales).T


def linear4(x: Any, codes: Any, scales: Any) -> Any:
    return x @ int4(codes, scales).T


def _codes(rng: np.random.Generator, rows: int, depth: int, group: int | None) -> list[Any]:
    if group is None:
        codes = rng.integers(-127, 128, (rows, depth)).astype(np.int8)
        return [codes, rng.uniform(0.01, 0.02, (rows, 1)).astype(np.float32)]
    codes = rng.integers(0, 256, (rows, depth // 2)).astype(np.uint8)
    return [codes, rng.uniform(0.1, 0.2, (rows, depth // group)).astype(np.float16)]


def _linear_sample(x: tuple[int, ...], rows: int, group: int | None) -> Sample:
    return Sample(
        lambda rng, dtype: [numbers(rng, dtype, x), *_codes(rng, rows, x[-1], group)],
        linear4 if group else linear8,
        dtypes=FLOATS,
        length=2 * x[-1],
    )


def _rounded(weight: Any, scheme: str = "int8", group_size: int | None = None) -> list[Any]:
    """Rounds number by number, with scales as they are defined."""
    rows, depth = weight.shape
    group = group_size or depth
    top, kind = (7.5, np.float16) if group_size else (127.0, np.float32)
    codes = np.zeros((rows, depth), np.int64)
    scales = np.zeros((rows, depth // group), kind)
    for row in range(rows):
        for start in range(0, depth, group):
            part = weight[row, start : start + group].astype(np.float32)
            largest = np.abs(part).max()
            scale = kind(largest / np.float32(top))
            if np.float32(scale) * np.float32(top) < largest:
                scale = np.nextafter(scale, kind(np.inf))
            scales[row, start // group] = scale
            if scale:
                exact = np.rint(part / np.float32(scale))
                codes[row, start : start + group] = np.clip(exact, -8 if group_size else -127, 127)
    if not group_size:
        return [codes, scales]
    codes = np.minimum(codes, 7) + 8
    packed = [[row[32 * (i // 16) + i % 16] for i in range(depth // 2)] for row in codes]
    above = [[row[32 * (i // 16) + i % 16 + 16] for i in range(depth // 2)] for row in codes]
    return [np.array(packed) + 16 * np.array(above), scales]


def _weight(rng: np.random.Generator, dtype: DType) -> list[Any]:
    weight = numbers(rng, dtype, (5, 192))
    weight[3] = 0
    return [weight]


SAMPLES = {
    "quantize_weight": [
        Sample(_weight, _rounded, {"scheme": "int8", "group_size": None}, FLOATS, special=False),
        Sample(_weight, _rounded, {"scheme": "int4", "group_size": 32}, FLOATS, special=False),
        Sample(_weight, _rounded, {"scheme": "int4", "group_size": 64}, FLOATS, special=False),
    ],
    "dequantize_weight": [
        Sample(
            lambda rng, dtype: _codes(rng, 5, 7, None),
            dequantized,
            {"dtype": DType.float32},
            (DType.int8,),
            refuses=False,
        ),
        Sample(
            lambda rng, dtype: _codes(rng, 3, 192, 64),
            int4,
            {"dtype": DType.bfloat16},
            (DType.uint8,),
            refuses=False,
        ),
    ],
    "quantized_linear": [
        _linear_sample((3, 7), 5, None),
        _linear_sample((2, 3, 64), 5, 32),
        _linear_sample((128,), 3, 64),
    ],
}
