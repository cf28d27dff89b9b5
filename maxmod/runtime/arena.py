"""The memory for intermediates that the calls of one compiled model share."""

from __future__ import annotations

from maxmod.backends.base import Backend, Stream
from maxmod.system.locks import fork_safe_lock
from maxmod.values.array import Array

LEAST_NBYTES = 1 << 16  # below this, growing is not worth rebinding programs


class Arena:
    """One block of memory, used by one call at a time.

        with arena.lock:
            arena.follow()
            ...  # use `block`

    Calls are ordered: on the host by the lock; on an accelerator, where work is only queued, by
    making the stream wait for the last call if that used another stream.

    Args:
        backend: The backend that allocates it.
        index: The device.

    Attributes:
        lock: Held by the call that uses the block.
        is_queued: Whether work on the device is queued, so that a call has to `follow`.
        block: The memory; replaced by a larger block when needed. Programs bound to the old block
            keep it alive, so they must be dropped soon.
    """

    def __init__(self, backend: Backend, index: int) -> None:
        self._backend = backend
        self._index = index
        self._stream: Stream | None = None
        self._inner: Arena | None = None
        self.lock = fork_safe_lock()
        self.is_queued = backend.records
        self.block: Array = backend.empty_bytes(0, index)

    @property
    def inner(self) -> Arena:
        """Memory for programs that run inside a step of a call; shares the lock."""
        if self._inner is None:
            self._inner = Arena(self._backend, self._index)
            self._inner.lock = self.lock
        return self._inner

    def reserve(self, nbytes: int) -> Array:
        """Returns a block of at least `nbytes` bytes."""
        if nbytes > self.block.nbytes:
            self._backend.synchronize(self._index)  # the old block may be freed soon
            self.block = self._backend.empty_bytes(max(nbytes, LEAST_NBYTES), self._index)
        return self.block

    def follow(self) -> None:
        """Orders what this thread queues next after the work of the last call."""
        self._stream = self._backend.follow(self._stream, self._index)
