"""What the CUDA backend calls exists in CuPy under these names; no GPU is needed to look."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from cuda_function import sources_of

from maxmod import TensorType
from maxmod import functional as F
from maxmod.backends.cuda.bits import marked
from maxmod.dtype import DType
from maxmod.values.device import CPU_REF

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("cupy") is None, reason="needs CuPy, not a GPU: pip install cupy"
)


@pytest.fixture
def cupy() -> Any:
    return pytest.importorskip("cupy")


def test_launching(cupy: Any) -> None:
    cuda = cupy.cuda
    text = cuda.driver.launchKernel.__doc__
    assert text.count(",") == 10
    assert [part.split()[-1] for part in text.strip(" )").split(",")][:4] == [
        "f",
        "grid_dim_x",
        "grid_dim_y",
        "grid_dim_z",
    ]
    assert text.strip(" )").split(",")[7].endswith("shared_mem_bytes")
    assert text.strip(" )").split(",")[9].endswith("kernel_params")
    for name in ("ctxGetCurrent", "CUDADriverError"):
        assert hasattr(cuda.driver, name)
    assert hasattr(cuda.runtime, "getDevice")
    assert callable(cuda.get_current_stream)


def test_modules_and_devices(cupy: Any) -> None:
    module = cupy.cuda.Module()
    assert callable(module.load)
    assert callable(module.get_function)
    assert hasattr(cupy.cuda.Function, "ptr")
    for name in ("attributes", "compute_capability", "cublas_handle", "use", "synchronize"):
        assert hasattr(cupy.cuda.Device, name)


def test_arrays_have_classes(cupy: Any) -> None:
    class Pretended:
        """Stands for an array, which cannot be made without a GPU."""

        def view(self, dtype: Any = None, type: Any = None) -> Any:
            return type

    found = marked(cupy, Pretended(), DType.float8_e5m2)
    assert issubclass(found, cupy.ndarray)
    assert found.narrow_dtype is DType.float8_e5m2
    text = cupy.ndarray.view.__doc__
    assert "type" in text
    assert cupy.dtype(np.uint8) == np.uint8


def test_graphs_and_streams(cupy: Any) -> None:
    cuda = cupy.cuda
    for name in ("begin_capture", "end_capture", "wait_event", "record", "synchronize"):
        assert callable(getattr(cuda.Stream, name))
    assert cuda.Stream(null=True).ptr == 0  # the null stream; others need a device
    assert "stream" in cuda.Graph.launch.__doc__
    assert callable(cuda.MemoryPool.malloc)
    assert callable(cuda.using_allocator)
    assert callable(cuda.alloc)
    assert callable(cupy.may_share_memory)
    copy = cuda.MemoryPointer.copy_from_device_async.__doc__
    assert "MemoryPointer src, size_t size" in copy
    assert cuda.runtime.runtimeGetVersion() // 1000 in (12, 13)


def test_kernels_become_objects_of_cupy(cupy: Any) -> None:
    """Both kinds are compiled when they are first called, so that they can be made here."""
    kind = TensorType(DType.float32, ["n", 4], CPU_REF)
    (elementwise,) = sources_of(lambda x: F.exp(x) + 1, kind)
    (row,) = sources_of(lambda x: F.softmax(x), kind)
    made = elementwise.to_cupy()
    assert isinstance(made, cupy.ElementwiseKernel)
    assert (made.nin, made.nout) == (1, 1)
    assert isinstance(row.to_cupy(), cupy.RawKernel)
