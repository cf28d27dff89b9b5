"""Launches of host kernels: argument tables of addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from maxmod.backends.host import compiler as host_compiler
from maxmod.backends.host import limits as host_limits
from maxmod.values.array import Array, HostArray


class LoadedKernel:
    """A loaded kernel."""

    def __init__(self, kernel: host_compiler.HostKernel) -> None:
        self._kernel = kernel
        self.cached = kernel.cached

    def bind(self, buffers: int, scalars: Sequence[int]) -> HostLaunch:
        return HostLaunch(self._kernel, buffers, scalars)


class HostLaunch:
    """A kernel with its argument tables.

    In front of the table of buffers is a word in which the kernel says how many bytes it could not
    get for its own use.
    """

    def __init__(
        self, kernel: host_compiler.HostKernel, buffers: int, scalars: Sequence[int]
    ) -> None:
        self._kernel = kernel  # keeps the library loaded
        self._call = kernel.call
        self._words = (ctypes.c_void_p * (1 + buffers))()
        self._buffers = ctypes.addressof(self._words) + ctypes.sizeof(ctypes.c_void_p)
        self._table = (ctypes.c_void_p * buffers).from_address(self._buffers)
        self._scalars = (ctypes.c_int64 * max(1, len(scalars)))(*scalars)
        self._integers = ctypes.addressof(self._scalars)
        self._kept: dict[int, Array] = {}

    def keep(self, position: int, array: HostArray) -> None:
        self._kept[position] = array
        self._table[position] = address(array)

    def fill(self, position: int, array: HostArray) -> HostArray:
        try:  # as `address` does; an array that is not contiguous is refused
            self._table[position] = _addressof(_from_buffer(array))
        except (TypeError, ValueError, BufferError):
            if not array.flags.c_contiguous:
                array = self._kept[position] = np.ascontiguousarray(array)
            self._table[position] = address(array)
        return array

    def __call__(self) -> None:
        self._call(self._buffers, self._integers)
        if self._words[0] is not None:
            self.expect_memory()

    def link(self, flag: HostArray | None) -> tuple[int, int, int, int]:
        """Returns the words of an `mm_link` of `kernels/host/chain.c`, for a kernel with a flag."""
        pointer = 0 if flag is None else address(flag)
        return self._kernel.entry_pointer, self._buffers, self._integers, pointer

    def place(self, position: int) -> int:
        """Returns where the address of a buffer belongs."""
        return self._buffers + position * ctypes.sizeof(ctypes.c_void_p)

    def expect_memory(self) -> None:
        """Raises if the kernel could not get memory for its own use.

        Raises:
            MemoryError: With what is there and what was wanted.
        """
        nbytes, self._words[0] = self._words[0], None
        if nbytes is None:
            return
        what = f"the kernel {self._kernel.name}, which needs {nbytes} bytes for its own use"
        raise host_limits.out_of_memory(what)


_addressof: Callable[[Any], int] = ctypes.addressof
_from_buffer: Callable[[Any], Any] = ctypes.c_char.from_buffer


def address(array: HostArray) -> int:
    """Returns where the elements of an array start."""
    try:  # four times as fast as the general way
        return _addressof(_from_buffer(array))
    except (TypeError, ValueError, BufferError):  # read-only, empty, or a dtype of ml_dtypes
        return array.ctypes.data
