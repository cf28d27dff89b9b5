"""Which items of a plan depend on which others, directly or indirectly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter


class Dependencies:
    """Which items depend on which others, directly or indirectly.

    A set of items is an integer with a bit for each, so that a union of hundreds is one operation.

    Args:
        waits_for: The set of each item.
    """

    def __init__(self, waits_for: list[int]) -> None:
        self._waits_for = waits_for

    @staticmethod
    def of(before: Sequence[Iterable[int]]) -> Dependencies | None:
        """Returns those of items that wait for some directly; None if there is a cycle."""
        found = [0] * len(before)
        try:
            for item in TopologicalSorter(dict(enumerate(before))).static_order():
                for other in before[item]:
                    found[item] |= found[other] | _set_of(other)
        except CycleError:
            return None
        return Dependencies(found)

    def waits(self, one: int, other: int) -> bool:
        """True if the first of two items waits for the second."""
        return bool(self._waits_for[one] & _set_of(other))

    def tie(self, one: int, other: int) -> bool:
        """True if one of two items waits for the other."""
        return self.waits(one, other) or self.waits(other, one)

    def add(self, one: int, other: int) -> None:
        """Makes one item, and what waits for it, wait for another and what that waits for."""
        new = self._waits_for[other] | _set_of(other)
        self._waits_for[one] |= new
        waiting = _set_of(one)
        self._waits_for = [
            others | new if others & waiting else others for others in self._waits_for
        ]

    def join(self, one: int, other: int) -> None:
        """Makes one item of two: it waits for what either waits for, and what waits for either
        waits for all of that.
        """
        both = _set_of(one) | _set_of(other)
        before = self._waits_for[one] | self._waits_for[other]
        self._waits_for[one] = self._waits_for[other] = before
        self._waits_for = [
            others | both | before if others & both else others for others in self._waits_for
        ]


def _set_of(item: int) -> int:
    return 1 << item
