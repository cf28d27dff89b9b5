"""From a GPU to the host without waiting for work that is queued later."""

from __future__ import annotations

import math

import numpy as np

from maxmod.values.array import Array, ArrayModule, HostArray

_DEVICE_TO_HOST = 2  # cudaMemcpyDeviceToHost


class LateCopy:
    """What a contiguous array has in it now, as far as work is queued; a call waits for it.

    Args:
        cupy: The module.
        array: The array, which later work may overwrite.
    """

    def __init__(self, cupy: ArrayModule, array: Array) -> None:
        stream = cupy.cuda.get_current_stream()
        self._memory = cupy.cuda.alloc_pinned_memory(max(array.nbytes, 1))
        count = math.prod(array.shape)
        self._host: HostArray = np.frombuffer(self._memory, array.dtype, count)
        self._host = self._host.reshape(array.shape)
        cupy.cuda.runtime.memcpyAsync(
            self._host.ctypes.data, array.data.ptr, array.nbytes, _DEVICE_TO_HOST, stream.ptr
        )
        self._event = stream.record()

    def __call__(self) -> HostArray:
        """Waits for the copy and returns it."""
        self._event.synchronize()
        return self._host.copy()

    def __del__(self) -> None:
        """Keeps the memory until the copy is done: others may get it then."""
        event = getattr(self, "_event", None)
        if event is not None:
            event.synchronize()
