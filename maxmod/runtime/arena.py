"""The memory that the calls of one compiled model share for what they compute on the way."""

from __future__ import annotations

import threading
from typing import Any

from maxmod.backends.base import Backend

LEAST_NBYTES = 1 << 16  # below this, growing is not worth binding programs anew


class Arena:
    """One block of memory, used by one call at a time.

        with arena.lock:
            arena.follow()
            ...  # whatever works in `block`

    A call waits for the one before it: on the host by the lock; on an accelerator, where work is
    only queued, by queueing it behind the work of the last call if that is on another stream.

    Args:
        backend: Where it is.
        index: The device.

    Attributes:
        lock: Held by the call that uses the block.
        is_queued: Whether work on the device is queued, so that a call has to `follow`.
        block: The memory; a larger one takes its place when it is needed. Programs that are bound
            to a smaller one keep it alive, and must be forgotten soon.
    """

    def __init__(self, backend: Backend, index: int) -> None:
        self._backend = backend
        self._index = index
        self._stream: Any = None
        self._inner: Arena | None = None
        self.lock = threading.Lock()
        self.is_queued = backend.records
        self.block: Any = backend.empty_bytes(0, index)

    @property
    def inner(self) -> Arena:
        """Memory for what runs inside of a step of a call; it has the same lock."""
        if self._inner is None:
            self._inner = Arena(self._backend, self._index)
            self._inner.lock = self.lock
        return self._inner

    def reserve(self, nbytes: int) -> Any:
        """Returns a block of at least so many bytes."""
        if nbytes > self.block.nbytes:
            self._backend.synchronize(self._index)  # the old block may be freed soon
            self.block = self._backend.empty_bytes(max(nbytes, LEAST_NBYTES), self._index)
        return self.block

    def follow(self) -> None:
        """Puts what this thread queues next behind the work of the last call."""
        self._stream = self._backend.follow(self._stream, self._index)
