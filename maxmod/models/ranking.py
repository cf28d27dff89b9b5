"""The order of texts for a query, by whatever scores them."""

from __future__ import annotations

import numpy as np

from maxmod.errors import ArgumentError
from maxmod.values.array import HostArray


def check_ranking(query: object, top: int | None) -> None:
    """Refuses a query that is not a text, and a number of results below 1."""
    if top is not None and top < 1:
        raise ArgumentError(f"rank: top: expected 1 or more, got {top}.")
    if not isinstance(query, str):
        raise ArgumentError(f"rank: query: expected a str, got {type(query).__name__}.")


def ranked(scores: HostArray, top: int | None) -> list[tuple[int, float]]:
    """Returns the places of the largest scores with the scores, the largest first."""
    best = np.argsort(-scores, kind="stable")[:top]
    return [(int(place), float(scores[place])) for place in best]
