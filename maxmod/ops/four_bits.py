"""4-bit codes with a scale and a minimum for each group: how they are made and read.

`weight_quantization` documents the format. The unit of a row is the least power of two with which
all its scales and minimums are at most 255. Of each group the range from its least weight, or 0, to
its largest, or 0, is tried in full and with each end moved towards 0 by up to 3/16; the pair of
bytes is taken whose codes have the least sum of squared errors, the first of equal ones. Rounding
a whole range exactly matters for weights that were on such a grid before, as those of GGUF files;
shorter ranges cut off single large weights where all others gain by it.

`kernels/host/quantize.c` does the same, bit for bit: no step here depends on the order of terms.
"""

from __future__ import annotations

import itertools

import numpy as np

from maxmod.errors import ArgumentError
from maxmod.values.array import Array, ArrayModule, StorageDType

BLOCK = 32  # codes that are packed together
SHORTENED = (1.0, 15 / 16, 7 / 8, 13 / 16)  # of the ends of a range, where they are tried
_MOST = np.float32(255)


def codes_and_scales(xp: ArrayModule, groups: Array) -> tuple[Array, Array]:
    """Rounds weights.

    Args:
        xp: The array module.
        groups: float32 [rows, groups, group].

    Returns:
        uint8 [rows, in / 2] and uint8 [rows, 2 * groups + 1].

    Raises:
        ArgumentError: If a weight is NaN or infinite.
    """
    if not bool(xp.isfinite(groups).all()):
        raise ArgumentError("quantize_weight: weight: expected finite values, got NaN or infinity.")
    zero = np.float32(0)
    low = xp.maximum(-groups.min(axis=-1), zero)
    high = xp.maximum(groups.max(axis=-1), zero)
    exponent = _exponents(xp, low, high)
    inverse = xp.ldexp(np.float32(1), -exponent).astype(np.float32)[:, None]
    units = groups * inverse[..., None]
    scale, minimum = _best(xp, units, low * inverse, high * inverse)
    codes = _rounded(xp, units, scale, minimum)
    kept = xp.concatenate([scale, minimum, (exponent + 127)[:, None]], axis=1)
    return packed(xp, codes), kept.astype(np.uint8)


def _exponents(xp: ArrayModule, low: Array, high: Array) -> Array:
    """The exponent of the unit of each row: int32 [rows]."""
    of_15 = low / np.float32(15) + high / np.float32(15)  # the sum of both may be no float32
    steps = xp.maximum(of_15, low / np.float32(8))
    largest = steps.max(axis=1) / _MOST
    _, exponent = xp.frexp(largest)
    return xp.clip(xp.where(largest == 0, 0, exponent), -126, 127).astype(np.int32)


def _best(xp: ArrayModule, units: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Scales and minimums of the least error: float32 [rows, groups] of whole numbers."""
    least = xp.full(low.shape, np.inf, np.float32)
    best_scale, best_minimum = xp.ones_like(low), xp.zeros_like(low)
    for below, above in itertools.product(SHORTENED, repeat=2):
        bottom, top = low * np.float32(below), high * np.float32(above)
        scale = xp.clip(xp.rint((bottom + top) / np.float32(15)), np.float32(1), _MOST)
        minimum = xp.clip(xp.rint(bottom / np.float32(8)), np.float32(0), _MOST)
        codes = _rounded(xp, units, scale, minimum)
        error = _squared(units - (codes * scale[..., None] - minimum[..., None] * np.float32(8)))
        is_less = error < least
        least = xp.where(is_less, error, least)
        best_scale = xp.where(is_less, scale, best_scale)
        best_minimum = xp.where(is_less, minimum, best_minimum)
    return best_scale, best_minimum


def _rounded(xp: ArrayModule, units: Array, scale: Array, minimum: Array) -> Array:
    above = units + minimum[..., None] * np.float32(8)
    return xp.clip(xp.rint(above / scale[..., None]), np.float32(0), np.float32(15))


def _squared(differences: Array) -> Array:
    """Sums of squares over the last axis: blocks of 32 are added, then halves."""
    squares = differences * differences
    squares = squares.reshape(*squares.shape[:-1], -1, BLOCK)
    total = squares[..., 0, :]
    for block in range(1, squares.shape[-2]):
        total = total + squares[..., block, :]
    half = BLOCK // 2
    while half:
        total = total[..., :half] + total[..., half:]
        half //= 2
    return total[..., 0]


def packed(xp: ArrayModule, codes: Array) -> Array:
    """Packs codes of 0 to 15 by two: [rows, groups, group] -> uint8 [rows, in / 2]."""
    halves = codes.astype(np.uint8).reshape(codes.shape[0], -1, 2, BLOCK // 2)
    return (halves[:, :, 0] | (halves[:, :, 1] << 4)).reshape(codes.shape[0], -1)


def unpacked(xp: ArrayModule, codes: Array) -> Array:
    """Returns codes of 0 to 15, block by block: uint8 [rows, in / 32, 2, 16]."""
    pairs = codes.reshape(codes.shape[0], -1, 1, BLOCK // 2)
    return xp.concatenate([pairs & 15, pairs >> 4], axis=2)


def weights(xp: ArrayModule, codes: Array, scales: Array, dtype: StorageDType) -> Array:
    """Returns weights [rows, in] of a wide dtype from codes and bytes of scales."""
    rows, kept = scales.shape
    groups = unpacked(xp, codes).reshape(rows, kept // 2, -1).astype(dtype)
    parts = scales.astype(dtype)[..., None]
    scale, minimum = parts[:, : kept // 2], parts[:, kept // 2 : -1]
    unit = xp.ldexp(dtype.type(1), scales[:, -1].astype(np.int32) - 127).astype(dtype)
    found = (groups * scale - minimum * dtype.type(8)) * unit[:, None, None]
    return found.reshape(rows, -1)
