"""Host memory for results: aligned blocks that are kept and used again.

The first touch of fresh pages costs more than most kernels (measured: 10 to 30 ms for 67 MB), so a
block goes back to the pool when the last array that uses it is gone.

That can happen between any two instructions of a thread. So nothing of Python runs then: a signal
handler would run with it, and what it raises, such as KeyboardInterrupt, would be lost, as errors
of such callbacks are. The end of a block only appends to a queue, which the next call empties.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np

from maxmod.locks import fork_safe_lock
from maxmod.values.array import HostArray

ALIGNMENT = 64  # bytes
POOLED_NBYTES = 1 << 16  # smaller blocks come from malloc, which keeps them itself
KEPT_NBYTES = 1 << 30  # free memory that the pool keeps at most, and of one size in the queue


class _Block:
    """What an array made by the pool names as its owner; its end returns the memory."""

    __slots__ = ("__array_interface__", "__weakref__", "end")

    end: _End  # alive as long as the block, so that it is told


class _End(weakref.ref[_Block]):
    """A reference to a block that has its memory; alone once the block is gone."""

    __slots__ = ("raw",)

    raw: HostArray


class HostPool:
    """Gives out uninitialised arrays of bytes."""

    def __init__(self) -> None:
        self._free: dict[int, list[HostArray]] = {}
        self._ended: dict[int, deque[_End]] = {}
        self._kept_nbytes = 0
        self._lock = fork_safe_lock()

    def empty(self, nbytes: int) -> HostArray:
        """Returns `nbytes` uninitialised bytes, aligned to 64 if they come from the pool."""
        if nbytes < POOLED_NBYTES:
            return np.empty(nbytes, dtype=np.uint8)
        size = _rounded(nbytes)
        with self._lock:
            raw = self._taken(size)
            ended = self._ended.setdefault(size, deque(maxlen=KEPT_NBYTES // size))
        if raw is None:
            raw = self._fresh(size + ALIGNMENT)
        block = _Block()
        start = -(-raw.ctypes.data // ALIGNMENT) * ALIGNMENT
        block.__array_interface__ = {
            "data": (start, False),
            "shape": (nbytes,),
            "typestr": "|u1",
            "version": 3,
        }
        block.end = _End(block, ended.append)
        block.end.raw = raw
        return np.asarray(block)

    def _fresh(self, nbytes: int) -> HostArray:
        try:
            return np.empty(nbytes, dtype=np.uint8)
        except MemoryError:
            with self._lock:
                self._free.clear()
                self._kept_nbytes = 0
            return np.empty(nbytes, dtype=np.uint8)

    def _taken(self, size: int) -> HostArray | None:
        """Takes back what ended, and returns free memory of a size, if there is any."""
        for ended in self._ended.values():
            while ended:
                self._keep(ended.popleft().raw)
        free = self._free.get(size)
        if not free:
            return None
        self._kept_nbytes -= size
        return free.pop()

    def _keep(self, raw: HostArray) -> None:
        size = raw.nbytes - ALIGNMENT
        if self._kept_nbytes + size <= KEPT_NBYTES:
            self._kept_nbytes += size
            self._free.setdefault(size, []).append(raw)


def _rounded(nbytes: int) -> int:
    """Rounds up to one of eight sizes for each power of two, so that blocks fit again."""
    step = 1 << max(nbytes.bit_length() - 4, 12)
    return -(-nbytes // step) * step
