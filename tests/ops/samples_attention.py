"""Samples of attention; see `samples.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers import FLOATS
from ops.samples import Sample, of_shapes

from maxmod.dtype import DType


def attention(
    query: Any, key: Any, value: Any, mask: Any = None, scale: Any = None, is_causal: bool = False
) -> Any:
    """The oracle; heads of keys and values are repeated for the query heads that share them."""
    if query.ndim > 2 and key.ndim > 2:
        key, value = (np.repeat(x, query.shape[-3] // x.shape[-3], axis=-3) for x in (key, value))
    scores = query @ np.swapaxes(key, -1, -2)
    scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    return weights / weights.sum(-1, keepdims=True) @ value


def _with_mask(shape: tuple[int, ...], *operands: tuple[int, ...]) -> Any:
    def make(rng: np.random.Generator, dtype: DType) -> list[Any]:
        mask = rng.integers(0, 2, shape).astype(bool)
        mask[..., 0] = True  # a query that may look at no key gives NaN
        return [*of_shapes(*operands)(rng, dtype), mask]

    return make


_HEADS = [
    ((3, 5, 8), (3, 5, 8), (3, 5, 8)),
    ((2, 4, 3, 8), (2, 2, 7, 8), (2, 2, 7, 5)),  # two query heads for each key head
    ((4, 8), (6, 8), (6, 3)),
]
_PLAIN = {"scale": None, "is_causal": False}
SAMPLES: dict[str, list[Sample]] = {
    "attention": [
        *(Sample(of_shapes(*shapes), attention, _PLAIN, FLOATS, 16, ulps=2) for shapes in _HEADS),
        Sample(of_shapes(*_HEADS[0]), attention, {**_PLAIN, "is_causal": True}, FLOATS, 16, ulps=2),
        Sample(of_shapes(*_HEADS[1]), attention, {**_PLAIN, "scale": 0.5}, FLOATS, 16, ulps=2),
    ],
    "masked_attention": [
        Sample(_with_mask((3, 7), *_HEADS[1]), attention, _PLAIN, FLOATS, 16, ulps=2),
        Sample(_with_mask((2, 4, 3, 7), *_HEADS[1]), attention, _PLAIN, FLOATS, 16, ulps=2),
        Sample(_with_mask((2, 1, 1, 7), *_HEADS[1]), attention, _PLAIN, FLOATS, 16, ulps=2),
        Sample(of_shapes(*_HEADS[0], (5, 5)), attention, _PLAIN, FLOATS, 16, ulps=2),
    ],
}
