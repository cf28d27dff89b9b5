"""Shows equal layers once: finds repeated runs of keys, and names them by their weights."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from maxmod.values.array import HostArray

_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Fold:
    """A run of entries that repeats immediately; only its first occurrence is shown.

    Attributes:
        start: Position of its first entry.
        period: Number of its entries.
        repeats: Number of further occurrences.
    """

    start: int
    period: int
    repeats: int

    @property
    def hidden(self) -> range:
        """The positions that are not shown."""
        first = self.start + self.period
        return range(first, first + self.period * self.repeats)


def find_folds(keys: Sequence[Hashable], least: int) -> list[Fold]:
    """Returns repeated runs, in order: the longest, and others outside of it.

    Repetition inside a kept run is a fold, too: a block may consist of equal layers.

    Args:
        keys: Equal for corresponding entries of equal layers.
        least: How many entries a fold hides at least.
    """
    numbers: dict[Hashable, int] = {}
    ids = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    return sorted(_folds(ids, 0, len(ids), least), key=lambda fold: fold.hidden.start)


def visible(keys: Sequence[Hashable], least: int) -> Iterator[int | Fold]:
    """Yields the positions that are shown, and a fold instead of those that it hides.

    Args:
        keys: Equal for corresponding entries of equal layers.
        least: How many entries a fold hides at least.
    """
    hidden: dict[int, Fold] = {}
    for found in find_folds(keys, least):
        hidden.update(dict.fromkeys(found.hidden, found))
    for position in range(len(keys)):
        fold = hidden.get(position)
        if fold is None:
            yield position
        elif position == fold.hidden.start:
            yield fold


def _folds(ids: HostArray, begin: int, end: int, least: int) -> Iterator[Fold]:
    best = _best(ids[begin:end], least)
    if best is None:
        return
    found = Fold(best.start + begin, best.period, best.repeats)
    yield from _folds(ids, begin, found.start, least)
    yield from _folds(ids, found.start, found.hidden.start, least)
    yield found
    yield from _folds(ids, found.hidden.stop, end, least)


def _best(ids: HostArray, least: int) -> Fold | None:
    """Returns the fold that hides most; of equal ones that with the shortest run."""
    best = None
    for period in range(1, len(ids) // 2 + 1):
        start, length = _longest_run(ids[period:] == ids[:-period])
        hidden = length // period * period
        if hidden >= least and (best is None or hidden > best.period * best.repeats):
            best = Fold(start, period, length // period)
    return best


def _longest_run(flags: HostArray) -> tuple[int, int]:
    """Returns where the longest run of true flags starts, and its length."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    if len(edges) == 0:
        return 0, 0
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    longest = int(np.argmax(lengths))
    return int(starts[longest]), int(lengths[longest])


def layers(kept: Sequence[str], first: Sequence[str], last: Sequence[str]) -> str:
    """Returns which layers a fold hides, from the first weight name that has their numbers.

    Args:
        kept: The names that the kept run reads.
        first: Those of its first repetition, in the same order.
        last: Those of its last repetition.

    Returns:
        `blocks.1 to blocks.29`, `blocks.1` for one, or nothing.
    """
    for names in zip(kept, first, last):
        paths = [_NUMBER.split(name.removeprefix("@")) for name in names if name.startswith("@")]
        if len(paths) == 3 and len(set(map(len, paths))) == 1:
            zero, one, end = paths
            for position in range(1, len(zero), 2):  # every other part is a number
                if zero[position] != one[position]:
                    shown = ["".join(path[: position + 1]) for path in (one, end)]
                    return " to ".join(dict.fromkeys(shown))
    return ""
