"""Arrays next to memory that nobody may touch: a kernel that reads too far crashes at once."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any

import numpy as np

_NO_ACCESS = 0  # PROT_NONE of <sys/mman.h>


def guarded(array: np.ndarray[Any, Any], *, at_end: bool) -> np.ndarray[Any, Any]:
    """Returns a copy whose last byte, or else whose first, is next to an inaccessible page."""
    page = mmap.PAGESIZE
    room = -(-max(array.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    first = page + (room - array.nbytes if at_end else 0)
    count = array.nbytes
    copy = np.frombuffer(memory, np.uint8, count, first).view(array.dtype).reshape(array.shape)
    copy[...] = array
    start = copy.ctypes.data - first
    for address in (start, start + page + room):
        _forbid(address, page)
    return copy


def _forbid(address: int, nbytes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), _NO_ACCESS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
