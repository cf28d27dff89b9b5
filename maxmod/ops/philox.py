"""Random words from a counter: element i depends on the seed and i alone, on every device.

Source: J. K. Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011: Philox 4x64 with
10 rounds, key (seed, 0), counter 1, 2, ...: the words of `numpy.random.Philox(key=seed)`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from maxmod.values.array import Array, ArrayModule

_ROUNDS = 10
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_MASK = 2**64 - 1

# Words made at a time: on the host they and their results stay in the L2 cache
# (10 M normals take 0.07 s on one core of a Xeon of 2023); elsewhere few launches count more.
_HOST_CHUNK = 1 << 14
_CHUNK = 1 << 22


def chunks(xp: ArrayModule, seed: int, count: int) -> Iterator[tuple[int, Array]]:
    """Yields (first element, words) until there are `count` words; an even number at a time."""
    total = count + count % 2
    size = _HOST_CHUNK if xp is np else _CHUNK
    generator = np.random.Philox(key=seed) if xp is np else None
    for start in range(0, total, size):
        length = min(size, total - start)
        if generator is not None:
            yield start, generator.random_raw(length)
        else:
            yield start, words(xp, seed, start // 4, -(-length // 4))[:length]


def words(xp: ArrayModule, seed: int, first_block: int, blocks: int) -> Array:
    """Returns 4 words for each block of the stream of a seed, as uint64, in order."""
    zero = xp.zeros(blocks, dtype=np.uint64)
    counter = xp.arange(first_block + 1, first_block + 1 + blocks, dtype=np.uint64)
    state = [counter, zero, zero, zero]
    key = [seed & _MASK, (seed >> 64) & _MASK]
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(state[0], _MULTIPLIERS[0])
        high1, low1 = _multiply(state[2], _MULTIPLIERS[1])
        state = [
            high1 ^ state[1] ^ np.uint64(key[0]),
            low1,
            high0 ^ state[3] ^ np.uint64(key[1]),
            low0,
        ]
        key = [(k + step) & _MASK for k, step in zip(key, _WEYL, strict=True)]
    return xp.stack(state, axis=1).reshape(-1)


def _multiply(x: Array, factor: int) -> tuple[Array, Array]:
    """Returns the high and low 64 bits of x * factor, by 32-bit halves."""
    half = np.uint64(32)
    mask = np.uint64(0xFFFFFFFF)
    f_high, f_low = np.uint64(factor >> 32), np.uint64(factor & 0xFFFFFFFF)
    x_high, x_low = x >> half, x & mask
    low = x_low * f_low
    middle = x_high * f_low + (low >> half)
    other = x_low * f_high + (middle & mask)
    high = x_high * f_high + (middle >> half) + (other >> half)
    return high, x * np.uint64(factor)
