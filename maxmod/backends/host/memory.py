"""Host memory for results: aligned blocks that are kept and used again.

The first touch of fresh pages costs more than most kernels (measured: 10 to 30 ms for 67 MB), so a
block goes back to the pool when the last array that uses it is gone.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np

from maxmod.values.array import HostArray

ALIGNMENT = 64  # bytes
POOLED_NBYTES = 1 << 16  # smaller blocks come from malloc, which keeps them itself
KEPT_NBYTES = 1 << 30  # free memory that the pool keeps at most


class _Block:
    """What an array made by the pool names as its owner; its end returns the memory."""

    __slots__ = ("__array_interface__", "__weakref__")


class HostPool:
    """Gives out uninitialised arrays of bytes."""

    def __init__(self) -> None:
        self._free: dict[int, list[HostArray]] = {}
        self._used: dict[weakref.ref[_Block], HostArray] = {}
        self._kept_nbytes = 0
        # A block may end inside any call of this thread, also while it holds the lock.
        self._lock = threading.RLock()

    def empty(self, nbytes: int) -> HostArray:
        """Returns `nbytes` uninitialised bytes, aligned to 64 if they come from the pool."""
        if nbytes < POOLED_NBYTES:
            return np.empty(nbytes, dtype=np.uint8)
        size = _rounded(nbytes)
        with self._lock:
            free = self._free.get(size)
            raw = free.pop() if free else None
            if raw is not None:
                self._kept_nbytes -= size
        if raw is None:
            raw = np.empty(size + ALIGNMENT, dtype=np.uint8)
        block = _Block()
        start = -(-raw.ctypes.data // ALIGNMENT) * ALIGNMENT
        block.__array_interface__ = {
            "data": (start, False),
            "shape": (nbytes,),
            "typestr": "|u1",
            "version": 3,
        }
        self._used[weakref.ref(block, self._release)] = raw
        return np.asarray(block)

    def _release(self, reference: weakref.ref[_Block]) -> None:
        raw = self._used.pop(reference)
        size = raw.nbytes - ALIGNMENT
        with self._lock:
            if self._kept_nbytes + size <= KEPT_NBYTES:
                self._kept_nbytes += size
                self._free.setdefault(size, []).append(raw)

    def trim(self) -> None:
        """Gives all free memory back to the system."""
        with self._lock:
            self._free.clear()
            self._kept_nbytes = 0


def _rounded(nbytes: int) -> int:
    """Rounds up to one of eight sizes for each power of two, so that blocks fit again."""
    step = 1 << max(nbytes.bit_length() - 4, 12)
    return -(-nbytes // step) * step
