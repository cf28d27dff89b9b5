"""CuPy without a GPU: the CUDA backend runs on it unchanged, kernels included.

Arrays are NumPy arrays of a class of their own; `Module.load` takes kernel text where CuPy takes
machine code, and `launchKernel` runs it on the host (see `cuda_shim`) with the packed arguments
that the backend made. cuBLAS is replaced by loops over the raw memory. What real CuPy refuses,
8-bit floats and NumPy arrays as operands, is refused here too.

    with emulated_cuda() as device:
        model.to(device).compile(...)
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import cuda_shim
import ml_dtypes
import numpy as np
import pytest

from maxmod import backends, kernel_text
from maxmod.backends import nvrtc
from maxmod.backends.cuda import CudaBackend
from maxmod.backends.devices import Accelerator, Device
from maxmod.device import DeviceKind
from maxmod.kernel import Dialect, KernelSource

PROCESSORS = 2  # few, so that grids are capped and loops stride
THREADS = 1024


class FakeArray(np.ndarray):
    """An array of the emulated device."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        """Like `cupy.ndarray.data`: has the address."""
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def device(self) -> Any:  # type: ignore[override]
        """Like `cupy.ndarray.device`."""
        return SimpleNamespace(id=0)


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


class FakeCupy:
    """The module `cupy`, as far as the backend uses it."""

    ndarray = FakeArray

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def asnumpy(self, array: FakeArray) -> np.ndarray[Any, Any]:
        """Copies to the host."""
        assert isinstance(array, FakeArray)
        return np.array(array, copy=True).view(np.ndarray)

    def asarray(self, array: Any, dtype: Any = None) -> FakeArray:
        """Copies host arrays to the device."""
        if isinstance(array, FakeArray):
            return _fake(np.asanyarray(array, dtype))
        return _fake(np.array(array, dtype, copy=True, order="C"))

    def __getattr__(self, name: str) -> Any:
        value = getattr(np, name)
        if isinstance(value, type) or not callable(value):
            return value

        def function(*args: Any, **kwargs: Any) -> Any:
            for arg in (*args, *kwargs.values()):
                if type(arg) is np.ndarray:
                    raise TypeError(f"Unsupported type {type(arg)}")
            return _fake(value(*args, **kwargs))

        return function


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
    cublas_handle = 77

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

    def __init__(self) -> None:
        self._codes: dict[int, cuda_shim.Code] = {}
        self._built: dict[int, cuda_shim.Kernel] = {}
        self._known: dict[cuda_shim.Code, int] = {}
        self.order = 0
        self.launches: list[tuple[int, int, int]] = []
        self.driver = SimpleNamespace(
            launchKernel=self._launch, ctxGetCurrent=lambda: 1, CUDADriverError=RuntimeError
        )
        self.runtime = SimpleNamespace(getDevice=lambda: 0)

    def Module(self) -> FakeModule:  # noqa: N802  (the name of CuPy)
        """Makes an empty module."""
        return FakeModule(self)

    def get_current_stream(self) -> Any:
        """Returns something with a handle."""
        return SimpleNamespace(ptr=0)

    def handle(self, code: cuda_shim.Code) -> int:
        """Returns the number of a kernel; equal text has one number."""
        number = self._known.setdefault(code, len(self._known) + 1)
        self._codes[number] = code
        return number

    def _launch(self, function: int, *numbers: int) -> None:
        if function not in self._built:
            waiting = [n for n in self._codes if n not in self._built]
            prelude = kernel_text.prelude(Dialect.CUDA)
            module = cuda_shim.Module([self._codes[n] for n in waiting], prelude)
            self._built.update(zip(waiting, module.kernels, strict=True))
        *dims, shared_nbytes, stream, table, extra = numbers
        assert (stream, extra) == (0, 0)
        self.launches.append((dims[0], dims[3], shared_nbytes))
        kernel = self._built[function]
        kernel.launch(dims[:3], dims[3:], table, shared_nbytes, self.order)


# ---- cuBLAS --------------------------------------------------------------------------------------

_DTYPES = {0: np.float32, 1: np.float64, 2: np.float16, 14: ml_dtypes.bfloat16}


def _columns(address: int, kind: int, rows: int, columns: int, leading: int) -> Any:
    """Returns the matrix whose columns start `leading` elements apart."""
    dtype = np.dtype(_DTYPES[kind])
    assert leading >= max(rows, 1), "the columns overlap"
    count = leading * (columns - 1) + rows
    block = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
    flat = np.frombuffer(block, dtype)
    step = dtype.itemsize
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (step, leading * step))


def _gemm(
    handle: int,
    transpose_a: int,
    transpose_b: int,
    m: int,
    n: int,
    k: int,
    alpha: int,
    a: int,
    a_kind: int,
    lda: int,
    b: int,
    b_kind: int,
    ldb: int,
    beta: int,
    c: int,
    c_kind: int,
    ldc: int,
    compute: int,
    algorithm: int,
) -> None:
    number = ctypes.c_double if compute == 70 else ctypes.c_float
    assert handle == FakeDevice.cublas_handle
    assert compute == (70 if c_kind == 1 else 68)
    assert algorithm == -1
    assert number.from_address(alpha).value == 1.0
    assert number.from_address(beta).value == 0.0
    left = _columns(a, a_kind, *((k, m) if transpose_a else (m, k)), lda)
    right = _columns(b, b_kind, *((n, k) if transpose_b else (k, n)), ldb)
    wide = np.float64 if compute == 70 else np.float32
    left = (left.T if transpose_a else left).astype(wide)
    right = (right.T if transpose_b else right).astype(wide)
    result = _columns(c, c_kind, m, n, ldc)
    result[...] = (left @ right).astype(result.dtype)


def _gemm_batched(*args: int) -> None:
    head, (a, a_kind, lda, a_step) = args[:7], args[7:11]
    (b, b_kind, ldb, b_step), beta = args[11:15], args[15]
    (c, c_kind, ldc, c_step), count, end = args[16:20], args[20], args[21:]
    sizes = [np.dtype(_DTYPES[kind]).itemsize for kind in (a_kind, b_kind, c_kind)]
    for i in range(count):
        first = a + i * a_step * sizes[0]
        second = b + i * b_step * sizes[1]
        third = c + i * c_step * sizes[2]
        _gemm(*head, first, a_kind, lda, second, b_kind, ldb, beta, third, c_kind, ldc, *end)


def _modules() -> dict[str, ModuleType]:
    """Returns the modules that the backend imports."""
    names = ["cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.libs"]
    found = {name: ModuleType(name) for name in [*names, f"{names[-1]}.cublas"]}
    cublas: Any = found[f"{names[-1]}.cublas"]
    cublas.gemmEx = _gemm
    cublas.gemmStridedBatchedEx = _gemm_batched
    parent: Any = found[names[-1]]
    parent.cublas = cublas
    return found


# ---- installing it -------------------------------------------------------------------------------


class EmulatedCudaBackend(CudaBackend):
    """The CUDA backend on the emulated CuPy."""

    def __init__(self) -> None:
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
    return source.code.encode()


_BACKENDS: list[EmulatedCudaBackend] = []  # one, so that kernels are built once for all tests


@contextlib.contextmanager
def emulated_cuda() -> Iterator[tuple[Device, EmulatedCudaBackend]]:
    """Installs the emulated CuPy; gives the device and its backend."""
    if not _BACKENDS:
        _BACKENDS.append(EmulatedCudaBackend())
    backend = _BACKENDS[0]
    backend.cuda.launches.clear()
    backend.cuda.order = 0
    previous = backends.replace(DeviceKind.GPU, backend)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc, "compile_cubin", _as_text)
        for name, module in _modules().items():
            patch.setitem(sys.modules, name, module)
        try:
            yield Accelerator(), backend
        finally:
            backends.replace(DeviceKind.GPU, previous)
