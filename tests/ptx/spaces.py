"""Memory that knows its limits and what was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]

GLOBAL = 1 << 32  # the address of the first byte of global memory
SHARED = 1 << 44  # of shared memory, in generic addresses
LOCAL = 1 << 45
ALIGN = 256  # of an array, as cudaMalloc does

# What is known of a byte.
READABLE = 1  # it was written, or given
WRITABLE = 2
WRITTEN = 4  # by this launch


class Fault(Exception):
    """A kernel did something that a GPU would not forgive, or that gives chance results."""


@dataclass(eq=False)
class Buffer:
    """An array that a kernel gets, and what the kernel may do with it.

    Attributes:
        array: The array; holds the results after a launch.
        is_given: True if it has contents that may be read.
        is_changed: True if it may be written.
    """

    array: npt.NDArray[Any]
    is_given: bool = True
    is_changed: bool = True

    @classmethod
    def made(cls, shape: Sequence[int], dtype: Any) -> Buffer:
        """A result: reading an element before it is written is a fault."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        empty = np.full(nbytes, 255, np.uint8)  # NaN, or -1
        return cls(empty.view(dtype).reshape(tuple(shape)), is_given=False)


def _flags(state: Bytes, nbytes: int) -> npt.NDArray[Any]:
    """A view of flags by accesses of so many bytes."""
    if nbytes <= 8:
        return state.view(f"u{nbytes}")
    return state.view(np.uint64).reshape(-1, nbytes // 8)


def _every(flag: int, nbytes: int) -> Any:
    """A flag in each byte."""
    width = min(nbytes, 8)
    return np.dtype(f"u{width}").type(int.from_bytes(bytes([flag]) * width, "little"))


class Space:
    """Some memory.

    Attributes:
        data: Its bytes.
        state: What is known of each.
        unwritten: The places of an access at which `load` found something that nobody wrote.
    """

    def __init__(self, nbytes: int) -> None:
        size = -(-nbytes // 64) * 64 + 64
        self.data: Bytes = np.full(size, 255, np.uint8)
        self.state: Bytes = np.zeros(size, np.uint8)

    def wrong(self, places: Places, nbytes: int, flag: int) -> npt.NDArray[np.bool_] | None:
        """Returns which places lack a flag in any of their bytes; None if none does.

        Args:
            places: Offsets, multiples of `nbytes` below the size of the space.
            nbytes: How many bytes from each of them on, a power of 2.
            flag: The flag.
        """
        mask = _every(flag, nbytes)
        found = _flags(self.state, nbytes)[places // nbytes] & mask == mask
        if found.all():
            return None
        return ~(found if found.ndim == 1 else found.all(1))

    def load(self, places: Places, width: int, count: int) -> npt.NDArray[Any]:
        """Returns `count` numbers of `width` bytes from each place on: [place, number]."""
        return self.data.view(f"u{width}").reshape(-1, count)[places // (width * count)]

    def store(self, places: Places, numbers: npt.NDArray[Any]) -> None:
        """Writes numbers, [place, number]."""
        width, count = numbers.dtype.itemsize, numbers.shape[1]
        self.data.view(f"u{width}").reshape(-1, count)[places // (width * count)] = numbers
        self.mark(places, width * count, READABLE | WRITTEN)

    def mark(self, places: Places, nbytes: int, flag: int) -> None:
        """Adds a flag."""
        flags = _flags(self.state, nbytes)
        flags[places // nbytes] |= _every(flag, nbytes)

    def unmark(self, places: Places, nbytes: int, flag: int) -> None:
        """Takes a flag away."""
        flags = _flags(self.state, nbytes)
        flags[places // nbytes] &= ~_every(flag, nbytes)


class Heap(Space):
    """Global memory: the arrays of a launch, those that may be written last.

    Args:
        buffers: The arrays; one that comes twice has one place.
    """

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        unique = {buffer.array.ctypes.data: buffer for buffer in buffers}
        self.buffers = sorted(unique.values(), key=lambda buffer: buffer.is_changed)
        self.starts: list[int] = []
        top = ALIGN
        for buffer in self.buffers:
            self.starts.append(top)
            top += -(-buffer.array.nbytes // ALIGN) * ALIGN + ALIGN
        super().__init__(top)
        changed = [s for s, b in zip(self.starts, self.buffers, strict=True) if b.is_changed]
        self.first_changed = min(changed, default=top)
        self.top = top
        for start, buffer in zip(self.starts, self.buffers, strict=True):
            end = start + buffer.array.nbytes
            self.data[start:end] = np.ascontiguousarray(buffer.array).reshape(-1).view(np.uint8)
            self.state[start:end] = READABLE * buffer.is_given | WRITABLE * buffer.is_changed

    def address(self, buffer: Buffer) -> int:
        """Returns where a buffer begins."""
        for start, known in zip(self.starts, self.buffers, strict=True):
            if known.array.ctypes.data == buffer.array.ctypes.data:
                return GLOBAL + start
        raise KeyError("a buffer that is not in this memory")

    def copy_back(self) -> None:
        """Copies what the kernel wrote to the arrays."""
        for start, buffer in zip(self.starts, self.buffers, strict=True):
            if buffer.is_changed:
                data = self.data[start : start + buffer.array.nbytes]
                buffer.array[...] = data.view(buffer.array.dtype).reshape(buffer.array.shape)

    def place(self, offset: int) -> str:
        """Names the array next to which a byte is."""
        if not self.buffers:
            return "no array"

        def distance(number: int) -> int:
            start = self.starts[number]
            return max(start - offset, offset - start - self.buffers[number].array.nbytes, 0)

        nearest = min(range(len(self.buffers)), key=distance)
        array = self.buffers[nearest].array
        kind = f"{array.dtype}{list(array.shape)}"
        return f"byte {offset - self.starts[nearest]} of {kind}, which has {array.nbytes}"
