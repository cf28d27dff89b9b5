"""From the host to a GPU through page-locked buffers: reading and copying at the same time.

A copy out of ordinary memory makes the driver stage it piece by piece, and one out of a mapped file
waits for every page. Here a few threads read pieces into a ring of page-locked buffers, and a
separate stream copies each as soon as it is full; a buffer is reused when its copy is done.

Source: the design of fast loaders of safetensors files, such as that of pull request 822 of the
safetensors library.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from maxmod.values.array import Array, ArrayModule, HostArray

BUFFER_NBYTES = 4 << 20  # so that tensors of some 10 MB are read by several threads
BUFFERS = 16
_THREADS = 4
_HOST_TO_DEVICE = 1  # cudaMemcpyHostToDevice

# Fills memory with the bytes that start at a position.
Fill = Callable[[memoryview, int], None]


@dataclass(slots=True)
class _Buffer:
    memory: memoryview
    address: int
    event: Any = None  # of the copy that reads it


def bytes_of(array: HostArray) -> Fill:
    """Returns what fills memory with the bytes of a contiguous array."""
    source = array.reshape(-1).view(np.uint8)

    def fill(memory: memoryview, start: int) -> None:
        # NumPy copies without Python's lock, so several threads do.
        np.frombuffer(memory, np.uint8)[...] = source[start : start + len(memory)]

    return fill


class Uploader:
    """Fills arrays of one device; for one thread at a time.

    Args:
        xp: CuPy.
        index: The device.
        pinned: Gives page-locked memory of a number of bytes as a NumPy array.
    """

    def __init__(self, xp: ArrayModule, index: int, pinned: Callable[[int], HostArray]) -> None:
        self._xp = xp
        self._device = xp.cuda.Device(index)
        with self._device:
            self._stream = xp.cuda.Stream(non_blocking=True)
            blocks = [pinned(BUFFER_NBYTES) for _ in range(BUFFERS)]
        self._ring = deque(_Buffer(b.data, b.ctypes.data) for b in blocks)
        self._blocks = blocks  # keeps them alive
        self._threads = ThreadPoolExecutor(
            min(_THREADS, os.cpu_count() or 1), thread_name_prefix="maxmod-upload"
        )

    def send(self, target: Array, fill: Fill) -> None:
        """Fills a contiguous array; work that is queued on the current stream later sees it.

        Args:
            target: An array of the device.
            fill: Fills a piece of host memory with the bytes that start at a position; called by
                several threads at once. When the call returns, it will not be called again.

        Raises:
            Exception: The first error of `fill`; the array is of no use then.
        """
        with self._device:
            current = self._xp.cuda.get_current_stream()
            # The memory may be that of an array which queued work still reads.
            self._stream.wait_event(current.record())
            total = int(target.nbytes)
            starts = iter(range(0, total, BUFFER_NBYTES))
            waiting: deque[tuple[Future[None], _Buffer, int, int]] = deque()
            try:
                while True:
                    while len(waiting) < BUFFERS and (start := next(starts, None)) is not None:
                        count = min(BUFFER_NBYTES, total - start)
                        waiting.append(self._filled(fill, start, count))
                    if not waiting:
                        break
                    future, buffer, start, count = waiting.popleft()
                    future.result()
                    self._copy(target.data.ptr + start, buffer, count)
            finally:
                for future, *_ in waiting:  # no thread may write into a buffer after an error
                    future.exception()
            current.wait_event(self._stream.record())

    def _filled(self, fill: Fill, start: int, count: int) -> tuple[Future[None], _Buffer, int, int]:
        """Has a buffer filled, once the copy out of it is done."""
        buffer = self._ring.popleft()
        self._ring.append(buffer)
        if buffer.event is not None:
            buffer.event.synchronize()
        return self._threads.submit(fill, buffer.memory[:count], start), buffer, start, count

    def _copy(self, address: int, buffer: _Buffer, count: int) -> None:
        self._xp.cuda.runtime.memcpyAsync(
            address, buffer.address, count, _HOST_TO_DEVICE, self._stream.ptr
        )
        buffer.event = self._stream.record()

    def close(self) -> None:
        """Waits for all copies and ends the threads."""
        self._stream.synchronize()
        self._threads.shutdown()
