"""Built CUDA kernels: loads machine code, and launches it with little overhead.

A launch is one call of the driver with a table of argument addresses that is filled in once; a call
only writes the addresses of its own arrays (measured against a driver that returns at once: 0.2 us,
where `cupy.RawKernel` rebuilds its arguments, which takes several microseconds).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from maxmod.backends.cuda import nvrtc
from maxmod.errors import CompileError
from maxmod.kernel.source import KernelSource
from maxmod.values.array import Array, ArrayModule

ALIGNMENT = 16  # bytes: kernels read vectors of this size
BUILDERS = 8  # threads: the compiler works without Python's lock


def build_all(
    cupy: ArrayModule, sources: Sequence[KernelSource], index: int
) -> list[CudaKernel | CompileError]:
    """Compiles kernels in parallel, or takes them from the cache, and loads them.

    Args:
        cupy: The module.
        sources: The kernels.
        index: The device.

    Returns:
        For each source its kernel, or the error of one that the compiler or the driver rejects.

    Raises:
        CompileError: If NVRTC cannot be used.
    """
    device = cupy.cuda.Device(index)
    arch = f"sm_{device.compute_capability}"
    cached = [nvrtc.cached_cubin(source, arch) for source in sources]
    with ThreadPoolExecutor(min(BUILDERS, max(len(sources), 1))) as pool:
        cubins = list(pool.map(lambda s, c: c or _compiled(s, arch), sources, cached))
    attributes = device.attributes
    resident = attributes["MultiProcessorCount"] * attributes["MaxThreadsPerMultiProcessor"]
    with device:
        return [
            made
            if isinstance(made, CompileError)
            else _loaded(cupy, source, made, index, resident, cached=known is not None)
            for source, made, known in zip(sources, cubins, cached, strict=True)
        ]


def _compiled(source: KernelSource, arch: str) -> bytes | CompileError:
    try:
        return nvrtc.compile_cubin(source, arch)
    except CompileError as error:
        return error


def _loaded(
    cupy: ArrayModule,
    source: KernelSource,
    cubin: bytes,
    index: int,
    resident: int,
    *,
    cached: bool,
) -> CudaKernel | CompileError:
    try:
        return CudaKernel(cupy, source, cubin, index, resident, cached=cached)
    except CompileError as error:
        return error


class CudaKernel:
    """A kernel that is loaded on a device.

    Args:
        cupy: The module.
        source: The source that was compiled.
        cubin: The machine code.
        index: The device, which is current.
        resident_threads: Threads that the device holds at once.
        cached: Whether the machine code came from the cache.
    """

    def __init__(
        self,
        cupy: ArrayModule,
        source: KernelSource,
        cubin: bytes,
        index: int,
        resident_threads: int,
        *,
        cached: bool,
    ) -> None:
        self.cupy = cupy
        self.source = source
        self.index = index
        self.resident_threads = resident_threads
        self.cached = cached
        self._module: Any = cupy.cuda.Module()
        try:
            self._module.load(cubin)
            self._function: Any = self._module.get_function(source.entry)
        except cupy.cuda.driver.CUDADriverError as error:
            raise CompileError(
                f"cuda: {source.name}: the device gpu:{index} cannot load it: {error}."
            ) from error

    def __del__(self) -> None:
        """Unloads the code, which the driver does in the context of its device only."""
        with contextlib.suppress(Exception), self.cupy.cuda.Device(self.index):
            self._function = self._module = None  # the function holds the module, too

    @property
    def address(self) -> int:
        """The handle of the function."""
        return self._function.ptr

    def bind(self, buffers: int, scalars: Sequence[int]) -> CudaLaunch:
        """Prepares launches with the given integer arguments."""
        return CudaLaunch(self, buffers, scalars)


class CudaLaunch:
    """A kernel with its arguments; buffers are filled in for each call."""

    def __init__(self, kernel: CudaKernel, buffers: int, scalars: Sequence[int]) -> None:
        self._kernel = kernel
        dims = dict(zip(kernel.source.symbols, scalars, strict=True))
        self.grid = kernel.source.launch.grid(dims, kernel.resident_threads)
        self._values = (ctypes.c_uint64 * max(buffers + len(scalars), 1))()
        for position, scalar in enumerate(scalars, buffers):
            self._values[position] = scalar
        first = ctypes.addressof(self._values)
        count = len(self._values)
        self._table = (ctypes.c_void_p * count)(*[first + 8 * n for n in range(count)])
        self._table_address = ctypes.addressof(self._table)
        cuda = kernel.cupy.cuda
        self._function = kernel.address
        self._index = kernel.index
        self._launch = cuda.driver.launchKernel
        self._current_context = cuda.driver.ctxGetCurrent
        self._current_device = cuda.runtime.getDevice
        self._current_stream = cuda.get_current_stream
        self._kept: dict[int, Array] = {}
        self._copied: list[tuple[Array, Array]] = []  # (copy, array) of kept buffers

    def keep(self, position: int, array: Array) -> None:
        """Sets a buffer that is the same in every call, and keeps it alive."""
        self._kept[position] = array
        self.fill(position, array)
        if self._kept[position] is not array:  # its contents may change between calls
            self._copied.append((self._kept[position], array))

    def fill(self, position: int, array: Array) -> Array:
        """Sets a buffer for the next call; one that is not contiguous or not aligned is copied.

        Returns:
            The array itself, or the copy.
        """
        if not array.flags.c_contiguous or array.data.ptr % ALIGNMENT:
            # The copy may be freed once the launch is queued: the pool reuses its memory only for
            # later work of the same stream.
            array = self._kept[position] = self._kernel.cupy.array(array, order="C", copy=True)
        self._values[position] = array.data.ptr
        return array

    def __call__(self) -> None:
        """Launches on the current stream."""
        blocks, threads, shared_nbytes = self.grid
        if blocks == 0:  # a size is 0
            return
        for copy, array in self._copied:
            copy[...] = array
        if self._current_device() == self._index and self._current_context():
            self._start(blocks, threads, shared_nbytes)
            return
        with self._kernel.cupy.cuda.Device(self._index) as device:
            device.use()  # a new thread has no context yet
            self._start(blocks, threads, shared_nbytes)

    def _start(self, blocks: int, threads: int, shared_nbytes: int) -> None:
        stream = self._current_stream().ptr
        self._launch(
            self._function,
            blocks,
            1,
            1,
            threads,
            1,
            1,
            shared_nbytes,
            stream,
            self._table_address,
            0,
        )
