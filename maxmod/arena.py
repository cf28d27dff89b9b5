"""The memory that the calls of one compiled model share for what they compute on the way."""

from __future__ import annotations

import threading
from typing import Any

from maxmod.backends.base import Backend

LEAST_NBYTES = 1 << 16  # below this, growing is not worth binding programs anew


class Arena:
    """One block of memory, used by one call at a time.

        with arena:
            ...  # whatever works in `block`

    A call waits for the one before it: on the host by a lock; on an accelerator, where work is only
    queued, by queueing it behind the work of the last call if that is on another stream.

    Args:
        backend: Where it is.
        index: The device.

    Attributes:
        block: The memory; a larger one takes its place when it is needed. Programs that are bound
            to a smaller one keep it alive, and must be forgotten soon.
    """

    def __init__(self, backend: Backend, index: int) -> None:
        self._backend = backend
        self._index = index
        self._lock = threading.Lock()
        self._stream: Any = None
        self.block: Any = backend.empty_bytes(0, index)

    def reserve(self, nbytes: int) -> Any:
        """Returns a block of at least so many bytes."""
        if nbytes > self.block.nbytes:
            self._backend.synchronize(self._index)  # the old block may be freed soon
            self.block = self._backend.empty_bytes(max(nbytes, LEAST_NBYTES), self._index)
        return self.block

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._stream = self._backend.follow(self._stream, self._index)
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *error: object) -> None:
        self._lock.release()
