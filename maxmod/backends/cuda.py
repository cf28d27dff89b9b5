"""NVIDIA accelerators: CuPy arrays. CuPy is imported when a device is first asked for."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from maxmod.backends.base import Backend
from maxmod.device import DeviceKind
from maxmod.errors import OutOfMemoryError
from maxmod.op import Op

_INSTALL = (
    "Hint: pip install 'maxmod[cuda12]' or 'maxmod[cuda13]', whichever matches the driver "
    "(nvidia-smi shows its CUDA version)."
)


_VISIBLE = "Hint: look at nvidia-smi and at CUDA_VISIBLE_DEVICES."
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@functools.cache
def _has_driver() -> bool:
    """Looks for the driver without importing CuPy: 0.2 ms instead of 200."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return False
    return True


@functools.cache
def _probe() -> tuple[Any, int, str]:
    """Returns (cupy or None, number of devices, reason why there is none)."""
    try:
        import cupy
    except ImportError as error:
        return None, 0, f"CuPy is not installed ({error}). {_INSTALL}"
    except OSError as error:  # CuPy makes its cache folder on import
        return None, 0, f"CuPy cannot be imported: {error}. Hint: set CUPY_CACHE_DIR to a folder."
    if not _has_driver():
        return (
            cupy,
            0,
            (
                f"CuPy is installed, but the NVIDIA driver is not ({_DRIVER} is missing). "
                "Hint: install the driver, or give the container access to it."
            ),
        )
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if error.status != 100:  # cudaErrorNoDevice
            return (
                cupy,
                0,
                (
                    f"The NVIDIA driver does not work with this CuPy: {error}. "
                    "Hint: update the driver, or install the other CuPy extra."
                ),
            )
        count = 0
    if count == 0:
        return cupy, 0, f"CuPy and a driver are installed, but no device is visible. {_VISIBLE}"
    return cupy, count, ""


class CudaBackend(Backend):
    """Runs ops with CuPy."""

    kind = DeviceKind.GPU
    api = "cuda"

    @property
    def xp(self) -> Any:
        return _probe()[0]

    def device_count(self) -> int:
        return _probe()[1] if _has_driver() else 0

    def unavailable_reason(self) -> str:
        return _probe()[2]

    def from_host(self, array: np.ndarray[Any, Any], index: int) -> Any:
        self.require(index)
        with self.xp.cuda.Device(index), _memory_errors(self, index):
            return self.xp.asarray(array)

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        return self.xp.asnumpy(array)

    def synchronize(self, index: int) -> None:
        self.xp.cuda.Device(index).synchronize()

    def architecture(self, index: int) -> str:
        return f"sm_{self.xp.cuda.Device(index).compute_capability}"

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], index: int) -> Any:
        self.require(index)
        with self.xp.cuda.Device(index), _memory_errors(self, index):
            return self.xp.empty(shape, dtype)

    def empty_pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        if self.device_count() == 0:
            return None
        memory = self.xp.cuda.alloc_pinned_memory(max(math.prod(shape) * dtype.itemsize, 1))
        return np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)

    def stream(self, index: int, new: bool) -> Any:
        with self.xp.cuda.Device(index):
            return self.xp.cuda.Stream(non_blocking=True) if new else self.xp.cuda.Stream.null

    @contextlib.contextmanager
    def using(self, stream: Any, index: int) -> Iterator[None]:
        with self.xp.cuda.Device(index):
            default = self.xp.cuda.get_current_stream()
            self.wait(stream, default)
            with stream:
                yield
            self.wait(default, stream)

    def wait(self, stream: Any, other: Any) -> None:
        stream.wait_event(other.record())

    def stats(self, index: int) -> dict[str, int]:
        with self.xp.cuda.Device(index):
            free, total = self.xp.cuda.runtime.memGetInfo()
            pool = self.xp.get_default_memory_pool()
            return {
                "free_memory": free,
                "total_memory": total,
                "pool_used": pool.used_bytes(),
                "pool_cached": pool.free_bytes(),
            }

    def run(self, op: Op, arrays: Any, attrs: dict[str, Any], types: Any) -> list[Any]:
        index = types[0].device.id
        self.require(index)
        with self.xp.cuda.Device(index), _memory_errors(self, index):
            return super().run(op, arrays, attrs, types)


class _memory_errors:  # noqa: N801  (a context manager, used like a function)
    """Turns CuPy's out-of-memory error into one with the numbers of the device."""

    def __init__(self, backend: CudaBackend, index: int) -> None:
        self.backend = backend
        self.index = index

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if error is None or kind.__name__ != "OutOfMemoryError" or kind is OutOfMemoryError:
            return
        stats = self.backend.stats(self.index)
        listed = ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in stats.items())
        raise OutOfMemoryError(f"gpu:{self.index}: {error} ({listed}).") from error
