"""Samples of quantised weights; the oracle packs and rounds with plain loops over numbers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
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


def integers(codes: Any, scales: Any) -> Any:
    """What products multiply: codes around 0, or from 0 to 15 where groups have minimums."""
    if codes.dtype == np.int8:
        return codes
    return unpacked(codes) + 8 * (scales.dtype == np.uint8)


def dequantized(codes: Any, scales: Any, dtype: Any = None, packed: bool = False) -> Any:
    """codes * scales in float64."""
    values = unpacked(codes) if packed else codes
    return values * np.repeat(scales.astype(np.float64), values.shape[1] // scales.shape[1], axis=1)


def int4(codes: Any, scales: Any, dtype: Any = None) -> Any:
    return dequantized(codes, scales, packed=True)


def with_minimums(codes: Any, scales: Any, dtype: Any = None) -> Any:
    """(code * scale - 8 * minimum) * 2^(exponent - 127) in float64, for bytes of scales."""
    groups = scales.shape[1] // 2
    values = unpacked(codes) + 8
    repeats = values.shape[1] // groups
    scale, minimum = (
        np.repeat(scales[:, first : first + groups].astype(np.float64), repeats, axis=1)
        for first in (0, groups)
    )
    return (values * scale - 8 * minimum) * np.exp2(scales[:, -1:].astype(np.float64) - 127)


def linear_with_minimums(x: Any, codes: Any, scales: Any) -> Any:
    return x @ with_minimums(codes, scales).T


def linear8(x: Any, codes: Any, scales: Any) -> Any:
    return x @ dequantized(codes, scales).T


def linear4(x: Any, codes: Any, scales: Any) -> Any:
    return x @ int4(codes, scales).T


def _bytes(rng: np.random.Generator, rows: int, depth: int, group: int) -> list[Any]:
    codes = rng.integers(0, 256, (rows, depth // 2)).astype(np.uint8)
    scales = rng.integers(1, 256, (rows, 2 * (depth // group) + 1)).astype(np.uint8)
    scales[:, -1] = rng.integers(115, 120, rows)
    return [codes, scales]


def _codes8(rng: np.random.Generator, rows: int, depth: int, group: int) -> list[Any]:
    """8-bit codes with a scale for each group."""
    codes = rng.integers(-127, 128, (rows, depth)).astype(np.int8)
    return [codes, rng.uniform(0.01, 0.02, (rows, depth // group)).astype(ml_dtypes.bfloat16)]


def _codes(rng: np.random.Generator, rows: int, depth: int, group: int | None) -> list[Any]:
    if group is None:
        codes = rng.integers(-127, 128, (rows, depth)).astype(np.int8)
        return [codes, rng.uniform(0.01, 0.02, (rows, 1)).astype(np.float32)]
    codes = rng.integers(0, 256, (rows, depth // 2)).astype(np.uint8)
    return [codes, rng.uniform(0.1, 0.2, (rows, depth // group)).astype(np.float16)]


def _sample_with_minimums(x: tuple[int, ...], rows: int, group: int) -> Sample:
    return Sample(
        lambda rng, dtype: [numbers(rng, dtype, x), *_bytes(rng, rows, x[-1], group)],
        linear_with_minimums,
        dtypes=FLOATS,
        length=4 * x[-1],
    )


def _grouped_sample(x: tuple[int, ...], rows: int, group: int) -> Sample:
    return Sample(
        lambda rng, dtype: [numbers(rng, dtype, x), *_codes8(rng, rows, x[-1], group)],
        linear8,
        dtypes=FLOATS,
        length=2 * x[-1],
    )


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
    group = depth if group_size in (None, -1) else group_size
    is_wide = scheme == "int8"
    top, kind = (127.0, ml_dtypes.bfloat16) if is_wide else (7.5, np.float16)
    kind = np.float32 if group == depth and is_wide else kind
    codes = np.zeros((rows, depth), np.int64)
    scales = np.zeros((rows, depth // group), kind)
    for row in range(rows):
        for start in range(0, depth, group):
            part = weight[row, start : start + group].astype(np.float32)
            largest = np.abs(part).max()
            scale = kind(largest / np.float32(top))
            if np.float32(scale) * np.float32(top) < largest:
                scale = np.nextafter(np.array(scale), np.array(np.inf, kind))
            scales[row, start // group] = scale
            if scale:
                exact = np.rint(part / np.float32(scale))
                codes[row, start : start + group] = np.clip(exact, -127 if is_wide else -8, 127)
    if is_wide:
        return [codes, scales]
    codes = np.minimum(codes, 7) + 8
    packed = [[row[32 * (i // 16) + i % 16] for i in range(depth // 2)] for row in codes]
    above = [[row[32 * (i // 16) + i % 16 + 16] for i in range(depth // 2)] for row in codes]
    return [np.array(packed) + 16 * np.array(above), scales]


def _rounded_with_minimums(weight: Any, scheme: str = "int4", group_size: int = 32) -> list[Any]:
    """Tries the pairs of shortened ranges of each group in turn, with loops over numbers."""
    rows, depth = weight.shape
    f = np.float32
    codes = np.zeros((rows, depth), np.int64)
    kept = np.zeros((rows, 2 * (depth // group_size) + 1), np.uint8)
    for row in range(rows):
        parts = weight[row].astype(f).reshape(-1, group_size)
        low = np.maximum(-parts.min(axis=1), f(0))
        high = np.maximum(parts.max(axis=1), f(0))
        largest = max((low / f(15) + high / f(15)).max(), (low / f(8)).max()) / f(255)
        exponent = 0 if largest == 0 else int(np.clip(np.frexp(largest)[1], -126, 127))
        kept[row, -1] = exponent + 127
        inverse = f(2.0**-exponent)
        for number, part in enumerate(parts * inverse):
            least = np.inf
            for below, above in [(b, a) for b in (16, 15, 14, 13) for a in (16, 15, 14, 13)]:
                bottom = low[number] * inverse * f(below / 16)
                top = high[number] * inverse * f(above / 16)
                scale = np.clip(np.rint((bottom + top) / f(15)), 1, 255)
                minimum = np.clip(np.rint(bottom / f(8)), 0, 255)
                q = np.clip(np.rint((part + f(8 * minimum)) / scale), 0, 15)
                squares = (part - f(q * scale - 8 * minimum)) ** 2
                total = squares.reshape(-1, 32)[0]
                for more in squares.reshape(-1, 32)[1:]:
                    total = total + more
                while len(total) > 1:
                    total = total[: len(total) // 2] + total[len(total) // 2 :]
                if total[0] < least:
                    least = total[0]
                    codes[row, number * group_size : (number + 1) * group_size] = q
                    kept[row, [number, number + len(parts)]] = scale, minimum
    packed = [[row[32 * (i // 16) + i % 16] for i in range(depth // 2)] for row in codes]
    above = [[row[32 * (i // 16) + i % 16 + 16] for i in range(depth // 2)] for row in codes]
    return [np.array(packed) + 16 * np.array(above), kept]


def _weight(rng: np.random.Generator, dtype: DType) -> list[Any]:
    weight = numbers(rng, dtype, (5, 192))
    weight[3] = 0
    return [weight]


SAMPLES = {
    "quantize_weight": [
        Sample(_weight, _rounded, {"scheme": "int8", "group_size": -1}, FLOATS, special=False),
        Sample(_weight, _rounded, {"scheme": "int8", "group_size": 64}, FLOATS, special=False),
        *(
            Sample(_weight, oracle, {"scheme": scheme, "group_size": group}, FLOATS, special=False)
            for scheme, oracle in (
                ("int4", _rounded_with_minimums),
                ("int4_symmetric", _rounded),
            )
            for group in (32, 64)
        ),
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
            lambda rng, dtype: _codes8(rng, 3, 192, 64),
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
        Sample(
            lambda rng, dtype: _bytes(rng, 3, 192, 64),
            with_minimums,
            {"dtype": DType.float32},
            (DType.uint8,),
            refuses=False,
        ),
    ],
    "quantized_linear": [
        _linear_sample((3, 7), 5, None),
        _grouped_sample((2, 3, 192), 5, 64),
        _linear_sample((2, 3, 64), 5, 32),
        _linear_sample((128,), 3, 64),
        _sample_with_minimums((2, 3, 64), 5, 32),
        _sample_with_minimums((128,), 3, 64),
    ],
}
