"""Races: two accesses to the same memory, at least one of which writes, with nothing between them.

Between threads of a block there must be a barrier (of the warp, for threads of one), between blocks
a fence and an atomic of the one that wrote, and an atomic of the other one after it. For each unit
of memory the last writer is known, and of its readers since the last barrier the first and the
last: if there were several, one of these two is another thread than one that writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
NEVER = -1
Found = tuple[int, int]  # the thread that was there before, and the number of the place


class Clock:
    """Who is ordered before whom: barriers passed by each thread, releases of each block.

    A stamp is (barriers that the block of a thread has passed, number of the thread).

    Args:
        blocks: All blocks of the launch.
        threads: Of one block, with those that fill the last warp.
    """

    def __init__(self, blocks: int, threads: int) -> None:
        self.threads = threads
        self.time = 0
        self.barriers = np.zeros(blocks, np.int64)
        self.fenced = np.full(blocks, NEVER, np.int64)  # when each block last executed a fence
        self.released = np.full(blocks, NEVER, np.int64)  # what came before is for all to see
        self.release_time = np.full(blocks, NEVER, np.int64)
        self.acquired = np.full(blocks, NEVER, np.int64)  # when each block last asked
        self.synced = np.full(blocks * (threads // 32), NEVER, np.int64)  # by each warp

    def tick(self) -> int:
        """Returns a new time."""
        self.time += 1
        return self.time

    def fence(self, blocks: Numbers) -> None:
        """Blocks executed a fence."""
        self.fenced[blocks] = self.tick()

    def atomic(self, block: int) -> None:
        """A thread executed an atomic: it publishes what was fenced, and sees what others did."""
        self.released[block] = self.fenced[block]
        self.release_time[block] = self.acquired[block] = self.tick()

    def bases(self, blocks: Numbers) -> Numbers:
        """Returns the stamps that are now the smallest of each block."""
        return self.barriers[blocks] << 32


class Tracker:
    """The last accesses to a memory.

    Args:
        nbytes: Its size.
        unit: Bytes that are watched together; the narrowest access.
        clock: Who is ordered before whom.
        is_shared: True if each unit belongs to one block, whose threads alone can reach it.
    """

    def __init__(self, nbytes: int, unit: int, clock: Clock, *, is_shared: bool) -> None:
        count = nbytes // unit + 1
        count += -count % 16
        self.unit = unit
        self.clock = clock
        self.is_shared = is_shared
        self.writer = np.full(count, NEVER, np.int64)
        self.written = np.full(count, NEVER, np.int64)  # when
        self.seen = np.full(count, NEVER, np.int64)  # when it was last read
        self.first = np.full(count, NEVER, np.int64)
        self.last = np.full(count, NEVER, np.int64)

    def _parts(self, places: Numbers, nbytes: int) -> tuple[Any, int]:
        """Returns an index of units, and how many of them an access has."""
        count = max(nbytes // self.unit, 1)
        if count == 1:
            return places // self.unit, 1
        return (places // self.unit)[:, None] + np.arange(count), count

    def read(self, places: Numbers, nbytes: int, threads: Numbers) -> Found | None:
        """Remembers that threads read; returns the writer where it may be too early."""
        at, count = self._parts(places, nbytes)
        base, own = self._stamps(threads, count)
        wrong = self._unordered(self.writer[at], self.written[at], base, own)
        firsts = self.first[at]
        stamps = np.broadcast_to(own, at.shape)
        self.last[at] = stamps
        self.seen[at] = self.clock.tick()
        # The one that comes first in this instruction, unless somebody was earlier still.
        is_new = self._before(firsts, base, own)
        self.first[at[is_new][::-1]] = stamps[is_new][::-1]
        return wrong

    def write(
        self,
        places: Numbers,
        nbytes: int,
        threads: Numbers,
        is_equal: Callable[[], npt.NDArray[np.bool_]],
    ) -> Found | None:
        """Remembers that threads write; returns who read or wrote where it may be too early.

        Args:
            places: Where.
            nbytes: How many bytes each.
            threads: Their numbers.
            is_equal: Gives the places that have these contents already: there it makes no
                difference who wrote them.
        """
        found = self.check(places, nbytes, threads, is_equal)
        at, count = self._parts(places, nbytes)
        self.writer[at] = np.broadcast_to(self._stamps(threads, count)[1], at.shape)
        self.written[at] = self.clock.tick()
        return found

    def check(
        self,
        places: Numbers,
        nbytes: int,
        threads: Numbers,
        is_equal: Callable[[], npt.NDArray[np.bool_]],
    ) -> Found | None:
        """Returns what `write` does, and remembers nothing."""
        at, count = self._parts(places, nbytes)
        base, own = self._stamps(threads, count)
        seen = self.seen[at]
        for readers in (self.first, self.last):
            found = self._unordered(readers[at], seen, base, own)
            if found is not None:
                return found
        stamps = self.writer[at]
        if self._unordered(stamps, self.written[at], base, own) is None:
            return None
        equal = is_equal()
        stamps = np.where(equal if count == 1 else equal[:, None], own, stamps)
        return self._unordered(stamps, self.written[at], base, own)

    def _stamps(self, threads: Numbers, count: int) -> tuple[Numbers, Numbers]:
        base = self.clock.bases(threads // self.clock.threads)
        own = base | threads
        return (base, own) if count == 1 else (base[:, None], own[:, None])

    def _before(self, stamps: Numbers, base: Numbers, own: Numbers) -> npt.NDArray[np.bool_]:
        """True where an access was before the last barrier of the same block, or in another one."""
        if self.is_shared:
            return stamps < base
        threads = self.clock.threads
        others = (stamps & 0xFFFFFFFF) // threads != (own & 0xFFFFFFFF) // threads
        return (stamps < base) | others

    def _unordered(
        self, stamps: Numbers, times: Numbers, base: Numbers, own: Numbers
    ) -> Found | None:
        """Returns a thread whose access is not ordered before this one, and the number of the
        place; None if all are.
        """
        if self.is_shared:
            wrong = (stamps >= base) & (stamps != own)
        else:
            wrong = (stamps != own) & (stamps != NEVER)
        if not wrong.any():
            return None
        clock, theirs, mine = self.clock, stamps & 0xFFFFFFFF, own & 0xFFFFFFFF
        block, own_block = theirs // clock.threads, mine // clock.threads
        is_same = block == own_block
        known = clock.released[block] >= times
        known &= clock.acquired[own_block] >= clock.release_time[block]
        wrong &= np.where(is_same, (stamps >= base) & (theirs != mine), ~known)
        wrong &= (theirs // 32 != mine // 32) | (clock.synced[mine // 32] < times)
        if not wrong.any():
            return None
        index = np.flatnonzero(wrong.reshape(len(wrong), -1).any(1))[0]
        return int(theirs[wrong][0]), int(index)
