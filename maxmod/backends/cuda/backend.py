"""NVIDIA accelerators: CuPy arrays, generated kernels, cuBLASLt.

CuPy is imported when a device is first asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from maxmod import log
from maxmod.backends.base import Backend, Kernel, NotRecorded, Stream, widened
from maxmod.backends.cuda import bits as cuda_bits
from maxmod.backends.cuda import download as cuda_download
from maxmod.backends.cuda import graph as cuda_graph
from maxmod.backends.cuda import launch as cuda_launch
from maxmod.backends.cuda import matmul as cuda_matmul
from maxmod.backends.cuda import nvrtc
from maxmod.backends.cuda import upload as cuda_upload
from maxmod.backends.cuda.matmul import Done
from maxmod.dtype import DType, storage_dtype
from maxmod.errors import CompileError, OutOfMemoryError
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.op import Op
from maxmod.system.locks import fork_safe_lock
from maxmod.values.array import Array, ArrayModule, HostArray, StorageDType
from maxmod.values.device import DeviceKind
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

_INSTALL = (
    "Hint: pip install cupy-cuda13x 'cuda-toolkit[cublas,cudart,nvrtc]==13.*', or cupy-cuda12x and "
    "==12.*, whichever matches the driver (nvidia-smi shows its CUDA version)."
)


_THROUGH_CUPY = "a product went through CuPy: cuBLASLt is missing or has no algorithm for it"
_VISIBLE = "Hint: look at nvidia-smi and at CUDA_VISIBLE_DEVICES."
# Larger arrays go through the ring of an uploader: CuPy would page-lock memory of the next power of
# 2 for each, and keep it.
_MOST_STAGED_NBYTES = 1 << 20
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@functools.cache
def _has_driver() -> bool:
    """Looks for the driver without importing CuPy: 0.2 ms instead of 200 ms."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return False
    return True


@functools.cache
def _probe() -> tuple[ArrayModule | None, int, str]:
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


@functools.cache
def _compiler_found() -> bool:
    """Looks for NVRTC once; warns once if it is missing."""
    reason = nvrtc.unavailable_reason()
    if reason:
        log.logger.warning("Compiled models run op by op on GPUs: %s", reason)
    return not reason


class CudaBackend(Backend):
    """Runs ops with CuPy, kernels through the driver, matrix products with cuBLASLt."""

    kind = DeviceKind.GPU
    api = "cuda"
    records = True

    def __init__(self) -> None:
        self._multipliers: dict[int, cuda_matmul.Multiplier] = {}
        self._uploaders: dict[int, cuda_upload.Uploader] = {}
        self._uploading = fork_safe_lock()  # an uploader is for one thread at a time

    @property
    def xp(self) -> ArrayModule:
        return _probe()[0]  # type: ignore[return-value]  # asked for only where there is CuPy

    def device_count(self) -> int:
        return _probe()[1] if _has_driver() else 0

    def unavailable_reason(self) -> str:
        return _probe()[2]

    def from_host(self, array: HostArray, index: int) -> Array:
        self.require(index)
        dtype = DType.from_numpy(array.dtype)
        if cuda_bits.is_narrow(dtype):
            array = array.view(np.uint8)
        with self.xp.cuda.Device(index), _memory_errors(self, index):
            if array.nbytes > _MOST_STAGED_NBYTES:
                return cuda_bits.marked(self.xp, self._uploaded(array, index), dtype)
            return cuda_bits.marked(self.xp, self.xp.asarray(array), dtype)

    def _uploaded(self, array: HostArray, index: int) -> Array:
        """Copies to a device in pieces, each through a page-locked buffer."""
        source = np.ascontiguousarray(array)
        target = self.xp.empty(source.shape, source.dtype)
        with self._uploading:
            if index not in self._uploaders:
                self._uploaders[index] = self.uploader(index)
            self._uploaders[index].send(target, cuda_upload.bytes_of(source))
        return target

    def to_host(self, array: Array) -> HostArray:
        host = self.xp.asnumpy(array)
        narrow = cuda_bits.narrow_dtype(array)
        return host if narrow is None else host.view(storage_dtype(narrow))

    def later(self, array: Array) -> Callable[[], HostArray]:
        if cuda_bits.narrow_dtype(array) is not None or not array.flags.c_contiguous:
            return super().later(array)
        with self.xp.cuda.Device(array.device.id):
            return cuda_download.LateCopy(self.xp, array)

    def synchronize(self, index: int) -> None:
        self.xp.cuda.Device(index).synchronize()

    def architecture(self, index: int) -> str:
        return f"sm_{self.xp.cuda.Device(index).compute_capability}"

    def empty(self, type: TensorType) -> Array:
        index = type.device.id
        self.require(index)
        with self.xp.cuda.Device(index), _memory_errors(self, index):
            array = self.xp.empty(type.sizes, cuda_bits.device_dtype(type.dtype))
        return cuda_bits.marked(self.xp, array, type.dtype)

    def allocator(self, type: TensorType) -> Callable[[], Array]:
        xp, index = self.xp, type.device.id
        self.require(index)
        sizes, dtype = type.sizes, cuda_bits.device_dtype(type.dtype)
        device = xp.cuda.Device(index)

        def allocate() -> Array:
            with device, _memory_errors(self, index):
                return cuda_bits.marked(xp, xp.empty(sizes, dtype), type.dtype)

        return allocate

    def empty_bytes(self, nbytes: int, index: int) -> Array:
        with self.xp.cuda.Device(index), _memory_errors(self, index):
            return super().empty_bytes(nbytes, index)

    def view_bytes(self, block: Array, offset: int, type: TensorType) -> Array:
        count = type.num_elements() * type.dtype.size_in_bytes
        piece = block[offset : offset + count].view(cuda_bits.device_dtype(type.dtype))
        return cuda_bits.marked(self.xp, piece.reshape(type.sizes), type.dtype)

    def empty_pinned(self, shape: tuple[int, ...], dtype: StorageDType) -> HostArray | None:
        if self.device_count() == 0:
            return None
        memory = self.xp.cuda.alloc_pinned_memory(max(math.prod(shape) * dtype.itemsize, 1))
        return np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)

    def uploader(self, index: int) -> cuda_upload.Uploader:
        self.require(index)
        with self.xp.cuda.Device(index):
            return cuda_upload.Uploader(self.xp, index, self._pinned_bytes)

    def _pinned_bytes(self, nbytes: int) -> HostArray:
        block = self.empty_pinned((nbytes,), np.dtype(np.uint8))
        assert block is not None, "required before"
        return block

    def copy(self, array: Array) -> Array:
        return self._marked_like(array, super().copy(array))

    def contiguous(self, array: Array) -> Array:
        return self._marked_like(array, super().contiguous(array))

    def stream(self, index: int, new: bool) -> Stream:
        with self.xp.cuda.Device(index):
            return self.xp.cuda.Stream(non_blocking=True) if new else self.xp.cuda.Stream.null

    @contextlib.contextmanager
    def using(self, stream: Stream, index: int) -> Iterator[None]:
        with self.xp.cuda.Device(index):
            default = self.xp.cuda.get_current_stream()
            self.wait(stream, default)
            with stream:
                yield
            self.wait(default, stream)

    def wait(self, stream: Stream, other: Stream) -> None:
        stream.wait_event(other.record())

    def follow(self, last: Stream | None, index: int) -> Stream:
        with self.xp.cuda.Device(index):
            current = self.xp.cuda.get_current_stream()
            if last is not None and last.ptr != current.ptr:
                self.wait(current, last)
        return current

    def record(self, work: Callable[[], None], index: int) -> Callable[[], None] | NotRecorded:
        found = cuda_graph.record(self.xp, work, index)
        if isinstance(found, NotRecorded) and index in self._multipliers:
            with self.xp.cuda.Device(index):
                self._multipliers[index].ask_again()
        return found

    def address(self, array: Array) -> int:
        return array.data.ptr

    def addresses(self, arrays: Sequence[Array]) -> tuple[int, ...] | None:
        found = tuple([array.data.ptr for array in arrays])
        if any(address % cuda_launch.ALIGNMENT for address in found):
            return None
        return found if all(array.flags.c_contiguous for array in arrays) else None

    def copy_into(self, target: Array, source: Array) -> None:
        if source.flags.c_contiguous:
            target.data.copy_from_device_async(source.data, target.nbytes)
        else:
            target[...] = source

    def empty_like(self, array: Array) -> Array:
        return self._marked_like(array, super().empty_like(array))

    def _marked_like(self, array: Array, made: Array) -> Array:
        """Returns a result of CuPy, in the class of 8-bit floats if the source had it."""
        narrow = cuda_bits.narrow_dtype(array)
        return made if narrow is None else cuda_bits.marked(self.xp, made, narrow)

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

    # ---- kernels and products ------------------------------------------------------------------

    def dialect(self) -> Dialect | None:
        return Dialect.CUDA if _compiler_found() else None

    def build(self, sources: Sequence[KernelSource], index: int) -> list[Kernel | CompileError]:
        return [*cuda_launch.build_all(self.xp, sources, index)]

    def contract(
        self,
        lhs: Array,
        rhs: Array,
        out: Array,
        bias: Array | None = None,
        addend: Array | None = None,
        activation: str = "",
    ) -> str:
        if rhs.ndim == 1:
            rhs, out = rhs[:, None], out[..., None]
        if lhs.ndim == 1:
            lhs, out = lhs[None], out[..., None, :]
        with self.xp.cuda.Device(out.device.id), _memory_errors(self, out.device.id):
            if cuda_bits.narrow_dtype(out) is not None:
                wide = [self.to_host(array).astype(np.float32) for array in (lhs, rhs)]
                product = np.matmul(*wide).astype(self.to_host(out).dtype)
                out[...] = self.from_host(product, out.device.id)
                return f"a product of {DType.from_numpy(product.dtype).name} ran on the host"
            if not cuda_matmul.can_multiply(lhs, rhs, out):  # no library has it
                return super().contract(lhs, rhs, out, bias, addend, activation)
            if not out.flags.c_contiguous:
                super().contract(lhs, rhs, out, bias, addend, activation)
                return "a product went through CuPy: its result is not contiguous"
            multiply = self._multiplier(out.device.id)
            done = multiply(lhs, rhs, out, bias, addend, activation)
            if done is Done.NOT:
                multiply(lhs, rhs, out)
                out[...] = self._finished(widened(out), bias, addend, activation)
                return "the end of a product ran op by op: cuBLASLt does not have it"
            return "" if done is Done.BY_LIBRARY else _THROUGH_CUPY

    def _multiplier(self, index: int) -> cuda_matmul.Multiplier:
        found = self._multipliers.get(index)
        if found is None:
            made = cuda_matmul.Multiplier(self.xp, index)
            found = self._multipliers.setdefault(index, made)
        return found

    # ---- ops -----------------------------------------------------------------------------------

    def run(
        self, op: Op, arrays: Sequence[Array], attrs: Attrs, types: Sequence[TensorType]
    ) -> list[Array]:
        index = types[0].device.id
        self.require(index)
        with self.xp.cuda.Device(index), _memory_errors(self, index):
            narrow = any(cuda_bits.narrow_dtype(array) is not None for array in arrays)
            narrow = narrow or any(cuda_bits.is_narrow(type.dtype) for type in types)
            if narrow and not op.signature.mixed_devices and not cuda_bits.moves_bytes(op):
                return self._run_on_host(op, arrays, attrs, types)
            if op.meaning.is_product and all(array.ndim > 1 for array in arrays):
                lhs, rhs = arrays
                out = self.empty(types[0])
                self.contract(lhs, rhs, out)
                return [out]
            return super().run(op, arrays, attrs, types)

    def _run_on_host(
        self, op: Op, arrays: Sequence[Array], attrs: Attrs, types: Sequence[TensorType]
    ) -> list[Array]:
        """Runs an op on types that CuPy has no dtype for."""
        hosts: list[Any] = [
            self.to_host(a) if isinstance(a, self.xp.ndarray) else a for a in arrays
        ]
        if op.meaning.upcasts:
            hosts = [widened(array) for array in hosts]
        with np.errstate(all="ignore"):
            results = op.run(np, hosts, **attrs)
        found = []
        for array, type in zip(results, types, strict=True):
            if not isinstance(array, self.xp.ndarray):  # a transfer has moved it already
                rounded = np.asarray(array, storage_dtype(type.dtype))
                array = self.from_host(rounded, type.device.id)
            found.append(array)
        return found

    def _fit(self, op: Op, array: Array, type: TensorType) -> Array:
        if cuda_bits.is_narrow(type.dtype):  # bytes that an op moved
            return cuda_bits.marked(self.xp, array, type.dtype)
        return super()._fit(op, array, type)


class _memory_errors:  # noqa: N801  (a context manager, used like a function)
    """Turns CuPy's out-of-memory error into one with the numbers of the device."""

    def __init__(self, backend: CudaBackend, index: int) -> None:
        self.backend = backend
        self.index = index

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if (
            error is None
            or kind is None
            or kind.__name__ != "OutOfMemoryError"
            or kind is OutOfMemoryError
        ):
            return
        stats = self.backend.stats(self.index)
        listed = ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in stats.items())
        raise OutOfMemoryError(f"gpu:{self.index}: {error} ({listed}).") from error
