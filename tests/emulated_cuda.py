"""CuPy without a GPU: the CUDA backend runs on it unchanged, kernels included.

Arrays are NumPy arrays of a class of their own; `Module.load` takes kernel text where CuPy takes
machine code, and `launchKernel` runs it on the host (see `cuda_shim`) with the packed arguments
that the backend made. cuBLAS is replaced by loops over the raw memory (see `emulated_cublas`). What
real CuPy refuses, 8-bit floats and NumPy arrays as operands, is refused here too.

Work is done at once, but for streams that capture: launches, products, copies and stores are kept
there with the arguments that they have at that moment, and done by each launch of the graph. Other
functions of arrays are refused while a stream captures, which CuPy is more generous with.

    with emulated_cuda() as device:
        model.to(device).compile(...)
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import cuda_shim
import ml_dtypes
import numpy as np
import pytest
from emulated_cublas import HANDLE, FakeCublasLt, modules

from maxmod import backends
from maxmod.backends.cuda import cublaslt, nvrtc
from maxmod.backends.cuda.backend import CudaBackend
from maxmod.backends.devices import Accelerator, Device
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.values.device import DeviceKind

ALIGNMENT = 256  # bytes, of what cudaMalloc returns
PROCESSORS = 2  # few, so that grids are capped and loops stride
THREADS = 1024


class FakeArray(np.ndarray):
    """An array of the emulated device."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        """Like `cupy.ndarray.data`: has the address."""
        return FakePointer(self.ctypes.data, self)

    @property
    def device(self) -> Any:  # type: ignore[override]
        """Like `cupy.ndarray.device`."""
        return SimpleNamespace(id=0)

    def __setitem__(self, key: Any, value: Any) -> None:
        _do(lambda: np.ndarray.__setitem__(self, key, value))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        _refuse_capture(ufunc.__name__)
        plain = [x.view(np.ndarray) if isinstance(x, FakeArray) else x for x in inputs]
        if "out" in kwargs:
            kwargs["out"] = tuple(x.view(np.ndarray) for x in kwargs["out"])
        return _fake(getattr(ufunc, method)(*plain, **kwargs))

    def __bool__(self) -> bool:
        _refuse_capture("bool")
        return super().__bool__()

    def __int__(self) -> int:
        _refuse_capture("int")
        return super().__int__()

    def item(self, *args: Any) -> Any:
        """Reads an element, which waits for the device."""
        _refuse_capture("item")
        return super().item(*args)

    def copy(self, order: Any = "C") -> Any:
        """Copies into an array that is of no subclass, as CuPy does."""
        _refuse_capture("copy")
        return super().copy(order).view(FakeArray)


class FakePointer:
    """Like `cupy.cuda.MemoryPointer`."""

    def __init__(self, ptr: int, kept: Any) -> None:
        self.ptr = ptr
        self._kept = kept

    def copy_from_device_async(self, source: FakePointer, nbytes: int) -> None:
        """Copies on the current stream."""
        _do(lambda: ctypes.memmove(self.ptr, source.ptr, nbytes) and None)


class FakePool:
    """Like `cupy.cuda.MemoryPool`: memory that ends is kept, and given back only if the pool is
    emptied; what is kept when the pool ends is lost.

    Attributes:
        held: Bytes of all pools that were not given back, lost ones included.
    """

    held = 0

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        self.free: list[int] = []

    def malloc(self, nbytes: int) -> FakePointer:
        """Allocates."""
        block = np.full(nbytes + ALIGNMENT, 0xA5, np.uint8)
        address = block.ctypes.data
        self.blocks[address] = block
        FakePool.held += block.nbytes
        pointer = FakePointer(address + -address % ALIGNMENT, block)
        weakref.finalize(pointer, self.free.append, address)
        return pointer

    def free_all_blocks(self) -> None:
        """Gives back what nobody uses."""
        while self.free:
            FakePool.held -= self.blocks.pop(self.free.pop()).nbytes


class FakeStream:
    """Like `cupy.cuda.Stream`."""

    def __init__(self, non_blocking: bool = False, ptr: int = 0) -> None:
        self.ptr = ptr or id(self)
        self.recorded: list[Callable[[], None]] | None = None
        self.waits: list[FakeStream] = []
        _STREAMS[self.ptr] = self

    def __enter__(self) -> FakeStream:
        _THREAD.streams = [*getattr(_THREAD, "streams", ()), self]
        return self

    def __exit__(self, *args: object) -> None:
        _THREAD.streams.pop()

    def begin_capture(self) -> None:
        """Keeps work from now on."""
        assert self is not _NULL
        assert self.recorded is None
        self.recorded = []

    def is_capturing(self) -> bool:
        """True between the start and the end of a capture."""
        return self.recorded is not None

    def end_capture(self) -> FakeGraph:
        """Gives the work that was kept."""
        assert self.recorded is not None
        graph, self.recorded = FakeGraph(self.recorded), None
        return graph

    def record(self) -> FakeStream:
        """Stands for an event."""
        assert self.recorded is None
        return self

    def wait_event(self, event: FakeStream) -> None:
        """Remembers whom it waited for."""
        assert self.recorded is None
        self.waits.append(event)

    def synchronize(self) -> None:
        """Waits; as an event, too."""
        assert self.recorded is None, "a stream that captures cannot be waited for"


class FakeGraph:
    """Like `cupy.cuda.Graph`."""

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = work
        self.launched = 0

    def launch(self, stream: FakeStream | None = None) -> None:
        """Does the work."""
        assert _current_stream().recorded is None
        self.launched += 1
        for piece in self.work:
            piece()


_STREAMS: dict[int, FakeStream] = {}
_THREAD = threading.local()
_NULL = FakeStream(ptr=1)


def _current_stream() -> FakeStream:
    return (getattr(_THREAD, "streams", None) or [_NULL])[-1]


def _do_on(stream: int, work: Callable[[], None]) -> None:
    """Does a piece of work on a stream, or keeps it there."""
    found = _STREAMS[stream]
    if found.recorded is None:
        work()
    else:
        found.recorded.append(work)


def _do(work: Callable[[], None]) -> None:
    _do_on(_current_stream().ptr, work)


def _copy_with_host(to: int, source: int, nbytes: int, kind: int, stream: int) -> None:
    assert kind in (1, 2)
    assert _STREAMS[stream].recorded is None, "a copy with the host while a stream captures"
    ctypes.memmove(to, source, nbytes)


def _refuse_capture(name: str) -> None:
    if _current_stream().recorded is not None:
        raise RuntimeError(f"{name}: not while a stream captures")


def _is_unknown(dtype: np.dtype[Any]) -> bool:
    known = (np.dtype(ml_dtypes.bfloat16),)
    return (dtype.kind == "V" and dtype not in known) or "float8" in dtype.name


def _fake(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value) if isinstance(value, np.generic) else value
        if _is_unknown(array.dtype):
            raise ValueError(f"Unsupported dtype {array.dtype}")
        return array if isinstance(array, FakeArray) else array.view(FakeArray)
    if isinstance(value, (tuple, list)):
        return type(value)(_fake(v) for v in value)
    return value


def _aligned(shape: Any, dtype: Any) -> FakeArray:
    """Returns memory that starts where that of a GPU does: plans of products depend on it."""
    wanted = np.empty(shape, dtype)
    block = np.empty(wanted.nbytes + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    made = block[start : start + wanted.nbytes].view(wanted.dtype).reshape(wanted.shape)
    return _fake(made)


class FakeCupy:
    """The module `cupy`, as far as the backend uses it."""

    ndarray = FakeArray

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def get_default_memory_pool(self) -> Any:
        """Like a pool that is empty."""
        return SimpleNamespace(used_bytes=lambda: 0, free_bytes=lambda: 0)

    def asnumpy(self, array: FakeArray) -> np.ndarray[Any, Any]:
        """Copies to the host."""
        assert isinstance(array, FakeArray)
        _refuse_capture("asnumpy")
        return np.array(array, copy=True).view(np.ndarray)

    def asarray(self, array: Any, dtype: Any = None) -> FakeArray:
        """Copies host arrays to the device."""
        _refuse_capture("asarray")
        if isinstance(array, FakeArray):
            return _fake(np.asanyarray(array, dtype))
        source = np.asarray(array, dtype)
        made = _aligned(source.shape, source.dtype)
        made[...] = source
        # What is not page-locked goes through a buffer of the next power of 2, which is kept.
        self.cuda.alloc_pinned_memory(1 << max(made.nbytes - 1, 0).bit_length())
        return made

    def __getattr__(self, name: str) -> Any:
        value = getattr(np, name)
        if isinstance(value, type) or not callable(value):
            return value

        def function(*args: Any, **kwargs: Any) -> Any:
            for arg in (*args, *kwargs.values()):
                if type(arg) is np.ndarray:
                    raise TypeError(f"Unsupported type {type(arg)}")
            result = value(*args, **kwargs)
            if name == "may_share_memory" or _current_stream().recorded is None:
                return _fake(result)
            if name not in _VIEWS:
                _refuse_capture(name)
            if np.may_share_memory(result, args[0]):
                return _fake(result)
            copy = self.empty(result.shape, result.dtype)
            _do(lambda: np.copyto(copy, value(*args, **kwargs)))
            return copy

        return function

    def empty(self, shape: Any, dtype: Any = np.float64) -> FakeArray:
        """Allocates from the pool in force."""
        allocator = getattr(_THREAD, "allocator", None)
        if allocator is None:
            return _aligned(shape, dtype)
        array = _fake(np.empty(shape, dtype))
        pointer = allocator(array.nbytes)
        block = (ctypes.c_uint8 * array.nbytes).from_address(pointer.ptr)
        block.pointer = pointer  # lives as long as the array and its views
        return _fake(np.frombuffer(block, array.dtype).reshape(array.shape))


# Functions that may be called while a stream captures; most need no copy.
_VIEWS = ("broadcast_to", "expand_dims", "flip", "reshape", "squeeze", "swapaxes", "transpose")


class FakeModule:
    """Like `cupy.cuda.Module`, but of text."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self._text = ""

    def load(self, cubin: bytes) -> None:
        """Takes kernel text."""
        self._text = cubin.decode()

    def get_function(self, entry: str) -> Any:
        """Returns something with the handle of the kernel."""
        return SimpleNamespace(ptr=self._cuda.handle(cuda_shim.Code(self._text, entry)))


class FakeDevice:
    """Like `cupy.cuda.Device`."""

    compute_capability = "90"
    cublas_handle = HANDLE

    def __init__(self, index: int = 0) -> None:
        assert index == 0
        self.id = index
        self.attributes = {
            "MultiProcessorCount": PROCESSORS,
            "MaxThreadsPerMultiProcessor": THREADS,
        }

    def use(self) -> None:
        """Makes it current."""

    def synchronize(self) -> None:
        """Waits."""

    def __enter__(self) -> FakeDevice:
        return self

    def __exit__(self, *args: object) -> None:
        return None


class FakeCuda:
    """The module `cupy.cuda`: remembers every launch in `launches`."""

    Device = FakeDevice
    Stream = FakeStream
    MemoryPool = FakePool

    def __init__(self) -> None:
        self._codes: dict[int, cuda_shim.Code] = {}
        self._built: dict[int, cuda_shim.Kernel] = {}
        self._known: dict[cuda_shim.Code, int] = {}
        self._pool = FakePool()
        self.order = 0
        self.runs_long = False
        self.launches: list[tuple[int, int, int]] = []
        self.pinned: list[int] = []  # bytes of each allocation
        self.products = FakeCublasLt(_do_on)
        self.driver = SimpleNamespace(
            launchKernel=self._launch, ctxGetCurrent=lambda: 1, CUDADriverError=RuntimeError
        )
        self.runtime = SimpleNamespace(
            getDevice=lambda: 0,
            runtimeGetVersion=lambda: 13050,
            memcpyAsync=_copy_with_host,
            memGetInfo=lambda: (1 << 30, 1 << 31),
        )
        self.get_current_stream = _current_stream

    def Module(self) -> FakeModule:  # noqa: N802  (the name of CuPy)
        """Makes an empty module."""
        return FakeModule(self)

    def alloc(self, nbytes: int) -> FakePointer:
        """Allocates from the pool in force."""
        return (getattr(_THREAD, "allocator", None) or self._pool.malloc)(nbytes)

    def alloc_pinned_memory(self, nbytes: int) -> Any:
        """Allocates host memory."""
        self.pinned.append(nbytes)
        return (ctypes.c_uint8 * nbytes)()

    @contextlib.contextmanager
    def using_allocator(self, allocator: Any) -> Iterator[None]:
        """Sets the pool for a block."""
        _THREAD.allocator = allocator
        try:
            yield
        finally:
            _THREAD.allocator = None

    def streams(self) -> list[FakeStream]:
        """Returns all streams."""
        return [*_STREAMS.values()]

    def handle(self, code: cuda_shim.Code) -> int:
        """Returns the number of a kernel; equal text has one number."""
        number = self._known.setdefault(code, len(self._known) + 1)
        self._codes[number] = code
        return number

    def _launch(self, function: int, *numbers: int) -> None:
        if function not in self._built:
            waiting = [n for n in self._codes if n not in self._built]
            prelude = kernel_text.prelude(Dialect.CUDA)
            codes = [self._codes[n] for n in waiting]
            module = cuda_shim.Module(codes, prelude, runs_long=self.runs_long)
            self._built.update(zip(waiting, module.kernels, strict=True))
        *dims, shared_nbytes, stream, table, extra = numbers
        assert extra == 0
        kernel = self._built[function]
        count = len(kernel.sizes)
        addresses = (ctypes.c_void_p * count).from_address(table)
        # The driver takes the arguments when it is called.
        values = (ctypes.c_uint64 * count)(
            *[ctypes.c_uint64.from_address(address).value for address in addresses]
        )

        def work() -> None:
            first = ctypes.addressof(values)
            own = (ctypes.c_void_p * count)(*[first + 8 * number for number in range(count)])
            self.launches.append((dims[0], dims[3], shared_nbytes))
            address = ctypes.addressof(own)
            kernel.launch(dims[:3], dims[3:], address, shared_nbytes, self.order)

        _do_on(stream, work)


# ---- installing it -------------------------------------------------------------------------------


class EmulatedCudaBackend(CudaBackend):
    """The CUDA backend on the emulated CuPy."""

    def __init__(self) -> None:
        super().__init__()
        self.cuda = FakeCuda()
        self._xp = FakeCupy(self.cuda)

    @property
    def xp(self) -> Any:
        return self._xp

    def device_count(self) -> int:
        return 1

    def unavailable_reason(self) -> str:
        return ""

    def dialect(self) -> Dialect | None:
        return Dialect.CUDA


def _as_text(source: KernelSource, arch: str) -> bytes:
    assert arch == "sm_90"
    return source.plain.encode()


@functools.lru_cache(1)
def _backend(file: str) -> EmulatedCudaBackend:
    """Returns the backend of a test file: its kernels are built once for all tests of the file.

    Earlier builds decide which kernels are built together, so that the build cache would
    find little if the order of files did, too.
    """
    return EmulatedCudaBackend()


@contextlib.contextmanager
def emulated_cuda(*, runs_long: bool = False) -> Iterator[tuple[Device, EmulatedCudaBackend]]:
    """Installs the emulated CuPy; gives the device and its backend.

    Args:
        runs_long: Whether running the kernels takes longer than compiling them; see `cuda_shim`.
    """
    backend = _backend(os.environ["PYTEST_CURRENT_TEST"].partition("::")[0])
    backend.cuda.launches.clear()
    backend.cuda.order = 0
    backend.cuda.runs_long = runs_long
    previous = backends.replace(DeviceKind.GPU, backend)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc, "compile_cubin", _as_text)
        patch.setattr(nvrtc, "cached_cubin", lambda source, arch: None)
        patch.setattr(cublaslt, "load", lambda major: backend.cuda.products)
        for name, module in modules(lambda: _current_stream().recorded is not None).items():
            patch.setitem(sys.modules, name, module)
        try:
            yield Accelerator(), backend
        finally:
            backends.replace(DeviceKind.GPU, previous)
