"""Host memory for results: aligned blocks that are kept and used again.

The first touch of fresh pages costs more than most kernels (measured: 10 to 30 ms for 67 MB), so a
block goes back to the pool when the last array that uses it is gone.

That can happen between any two instructions of a thread. So nothing of Python runs then: a signal
handler would run with it, and what it raises, such as KeyboardInterrupt, would be lost, as errors
of such callbacks are. The end of a block only appends to a queue, which the next call empties.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from maxmod.system.locks import fork_safe_lock
from maxmod.values.array import HostArray

ALIGNMENT = 64  # bytes
_BYTES = np.dtype(np.uint8)
POOLED_NBYTES = 1 << 16  # smaller blocks come from malloc, which keeps them itself
KEPT_NBYTES = 1 << 30  # free memory that the pool keeps at most, and of one size in the queue


# What an array made by the pool names as its owner; its end returns the memory. An owner of the
# buffer protocol makes an array in 1 us, one with an `__array_interface__` in 6.
_Block = ctypes.Array[ctypes.c_char]


class _End(weakref.ref[_Block]):
    """A reference to a block that has its memory; alone once the block is gone.

    The block has it as its `end`: it is alive as long as the block, so that it is told.
    """

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
        return self.array((nbytes,), _BYTES, nbytes)

    def array(self, sizes: Sequence[int], dtype: np.dtype[Any], nbytes: int) -> HostArray:
        """Returns an uninitialised array of `nbytes` bytes, at least `POOLED_NBYTES`."""
        size = _rounded(nbytes)
        with self._lock:
            raw = self._taken(size)
            ended = self._ended.get(size)
            if ended is None:
                ended = self._ended[size] = deque(maxlen=KEPT_NBYTES // size)
        if raw is None:
            raw = self._fresh(size)
        memory: Any = raw  # for type checkers, arrays are buffers only from Python 3.12 on
        block: Any = (ctypes.c_char * size).from_buffer(memory)
        end = block.end = _End(block, ended.append)
        end.raw = raw
        return np.ndarray(sizes, dtype, block)

    def _fresh(self, nbytes: int) -> HostArray:
        wanted = nbytes + ALIGNMENT
        try:
            raw = np.empty(wanted, dtype=np.uint8)
        except MemoryError:
            with self._lock:
                self._free.clear()
                self._kept_nbytes = 0
            raw = np.empty(wanted, dtype=np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        return raw[start : start + nbytes]

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
        size = raw.nbytes
        if self._kept_nbytes + size <= KEPT_NBYTES:
            self._kept_nbytes += size
            self._free.setdefault(size, []).append(raw)


def _rounded(nbytes: int) -> int:
    """Rounds up to one of eight sizes for each power of two, so that blocks fit again."""
    step = 1 << max(nbytes.bit_length() - 4, 12)
    return -(-nbytes // step) * step
