"""Samples of `choose_tokens`, and an oracle that sorts and adds in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ops.samples import Sample

from maxmod.dtype import DType, storage_dtype

# Temperature, top-k, top-p, min-p: each alone, all together, and the ends of their ranges.
OPTIONS = [
    (0.0, 0, 1.0, 0.0),
    (0.0, 3, 0.5, 0.5),
    (1e-300, 0, 1.0, 0.0),
    (1.0, 0, 1.0, 0.0),
    (0.7, 1, 1.0, 0.0),
    (2.0, 5, 1.0, 0.0),
    (1.5, 10**9, 1.0, 0.0),
    (1.0, 0, 0.9, 0.0),
    (3.0, 0, 0.25, 0.0),
    (1.0, 0, 1e-300, 0.0),
    (1.3, 0, 1.0, 0.05),
    (1.0, 0, 1.0, 1.0),
    (0.9, 20, 0.8, 0.02),
    (1000.0, 7, 0.6, 0.5),
]


def probabilities(logits: Any, options: Sequence[float]) -> Any:
    """What `choose_tokens` documents: the probability of each token, for a temperature above 0."""
    temperature, top_k, top_p, min_p = options
    logits = np.asarray(logits, np.float64)
    largest = logits.max()
    with np.errstate(all="ignore"):
        weights = np.exp((logits - largest) / temperature)
    weights[logits == largest] = 1
    if 0 < top_k < len(logits):
        weights[logits < np.sort(logits)[::-1][int(top_k) - 1]] = 0
    if top_p < 1:
        order = np.argsort(-weights, kind="stable")
        wanted, reached = top_p * weights.sum(), 0.0
        for place, token in enumerate(order):
            reached += weights[token]
            if reached >= wanted * (1 - 1e-9):
                weights[order[place + 1 :]] = 0
                break
    weights[weights < min_p * weights.max() * (1 - 1e-9)] = 0
    return weights / weights.sum()


def choose(logits: Any, options: Any, seed: Any, counters: Any) -> Any:
    """The token of each row, by the definition."""
    tokens = []
    for row, counter in zip(logits, counters):
        if np.isnan(row).any():
            tokens.append(-1)
        elif np.float32(options[0]) == 0:
            tokens.append(max(range(len(row)), key=lambda token, row=row: row[token]))
        else:
            words = np.random.Philox(key=int(seed)).random_raw(int(counter) + 1)
            u = math.ldexp(int(words[-1]) >> 11, -53)
            reached = np.cumsum(probabilities(row, options))
            tokens.append(int(np.argmax(reached > u * reached[-1])))
    return np.array(tokens, np.int64)


def operands(
    rng: np.random.Generator, shape: tuple[int, int], options: Sequence[float], seed: int = 3
) -> list[Any]:
    """Operands of `choose_tokens`; some logits are equal, some far below the others."""
    logits = rng.normal(scale=2, size=shape).astype(np.float32)
    logits[:, :: max(shape[1] // 5, 1)] = np.float32(1.5)
    logits[:, 3::7] -= np.float32(100)
    counters = rng.integers(0, 50, shape[0]).astype(np.uint64)
    return [logits, np.array(options, np.float64), np.array(seed, np.uint64), counters]


def _sample(shape: tuple[int, int], options: Sequence[float]) -> Sample:
    def make(rng: np.random.Generator, dtype: DType) -> list[Any]:
        logits, *others = operands(rng, shape, options)
        return [np.abs(logits).astype(storage_dtype(dtype)), *others]

    return Sample(make, choose, dtypes=(DType.float32,))


SAMPLES = {
    "choose_tokens": [
        *[_sample((2, 50), options) for options in OPTIONS],
        _sample((3, 1), (1.0, 0, 0.5, 0.0)),
        _sample((0, 4), (1.0, 0, 0.5, 0.0)),
    ]
}
