"""Libraries of CUDA are found for the driver, and code is unloaded on the device that has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emulated_cuda import EmulatedCudaBackend, emulated_cuda

from maxmod import CPU, DType, Tensor
from maxmod.backends.cuda import backend as cuda_backend
from maxmod.backends.cuda import libraries as cuda_libraries
from maxmod.backends.cuda import nvrtc
from maxmod.backends.cuda import upload as cuda_upload
from maxmod.backends.cuda.launch import CudaKernel
from maxmod.kernel.source import KernelSource
from maxmod.values.device import DeviceRef


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A toolkit with two versions of each library, and nothing else; no driver."""
    folder = tmp_path / "lib64"
    folder.mkdir()
    for name in ("nvrtc", "cublasLt"):
        for version in ("12", "13"):
            (folder / f"lib{name}.so.{version}").touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("CUDA_PATH", "")
    monkeypatch.setattr(cuda_libraries.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(cuda_libraries, "_from_pathfinder", lambda stem: None)
    monkeypatch.setattr(cuda_libraries.sys, "platform", "linux")
    monkeypatch.setattr(cuda_libraries, "driver_major", lambda: 0)
    cuda_libraries.find.cache_clear()
    yield folder
    cuda_libraries.find.cache_clear()


@pytest.mark.parametrize(
    ("driver", "wanted", "found"),
    [(0, 0, 13), (13, 0, 13), (14, 0, 13), (12, 0, 12), (12, 13, 12), (13, 12, 12), (0, 12, 12)],
)
def test_no_library_is_newer_than_the_driver(
    toolkit: Path, monkeypatch: pytest.MonkeyPatch, driver: int, wanted: int, found: int
) -> None:
    """A driver of 12 loads no machine code of 13; one of 13 loads that of 12."""
    monkeypatch.setattr(cuda_libraries, "driver_major", lambda: driver)
    for name in ("nvrtc", "cublasLt"):
        path = cuda_libraries.find(name, wanted)
        assert path is not None
        assert Path(path).name == f"lib{name}.so.{found}"


def test_only_too_new_ones(toolkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names the file, what the driver takes, and what to install."""
    (toolkit / "libnvrtc.so.12").unlink()
    monkeypatch.setattr(cuda_libraries, "driver_major", lambda: 12)

    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(cuda_libraries.ctypes, "CDLL", refuse)
    assert cuda_libraries.find("nvrtc") is None
    reason = nvrtc.unavailable_reason()
    assert "libnvrtc.so.13 is newer than the driver, which loads what CUDA 12 makes" in reason
    assert "'cuda-toolkit[nvrtc]==12.*'" in reason


@pytest.mark.parametrize(
    ("status", "version", "major"), [(0, 12080, 12), (0, 13000, 13), (3, 0, 0)]
)
def test_the_driver_is_asked(
    monkeypatch: pytest.MonkeyPatch, status: int, version: int, major: int
) -> None:
    def answer(result: Any) -> int:
        result._obj.value = version
        return status

    library = SimpleNamespace(cuDriverGetVersion=answer)
    monkeypatch.setattr(cuda_libraries.ctypes, "CDLL", lambda name: library)
    assert cuda_libraries.driver_major.__wrapped__() == major


# ---- two devices ---------------------------------------------------------------------------------


class _Device:
    """A device that notes which one is current."""

    current = 0

    def __init__(self, index: int) -> None:
        self._index = index
        self._before = 0

    def __enter__(self) -> None:
        self._before, _Device.current = _Device.current, self._index

    def __exit__(self, *error: object) -> None:
        _Device.current = self._before


def test_code_is_unloaded_on_the_right_device() -> None:
    """The driver unloads it in the context that is current, which need not be that one."""
    unloaded = []

    class Module:
        def load(self, cubin: bytes) -> None:
            assert _Device.current == 1

        def get_function(self, entry: str) -> Any:
            return SimpleNamespace(ptr=1, module=self)

        def __del__(self) -> None:
            unloaded.append(_Device.current)

    cuda = SimpleNamespace(
        Module=Module, Device=_Device, driver=SimpleNamespace(CUDADriverError=RuntimeError)
    )
    source: KernelSource = SimpleNamespace(entry="mm_kernel", name="f")  # type: ignore[assignment]
    with _Device(1):  # type: ignore[attr-defined]
        kernel = CudaKernel(SimpleNamespace(cuda=cuda), source, b"", 1, 1024, cached=False)
    assert _Device.current == 0
    del kernel
    assert unloaded == [1]


# ---- page-locked memory --------------------------------------------------------------------------


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedCudaBackend]:
    """A backend whose buffers are small."""
    monkeypatch.setattr(cuda_upload, "BUFFER_NBYTES", 4096)
    monkeypatch.setattr(cuda_upload, "BUFFERS", 3)
    monkeypatch.setattr(cuda_backend, "_MOST_STAGED_NBYTES", 4096)
    with emulated_cuda() as (_, found):
        monkeypatch.setattr(found, "_uploaders", {})
        found.cuda.pinned.clear()
        yield found
        for uploader in found._uploaders.values():
            uploader.close()


def test_page_locked_memory_does_not_grow_with_the_arrays(backend: EmulatedCudaBackend) -> None:
    """Large arrays go through a ring of buffers, whatever their type and order."""
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal((37, 1000)).astype(np.float32),
        rng.standard_normal((300, 50)).T,
        rng.integers(-9, 9, (7, 3000)).astype(np.int8)[:, ::2],
        rng.standard_normal(5).astype(np.float16),
    ]
    for array in arrays:
        np.testing.assert_array_equal(backend.to_host(backend.from_host(array, 0)), array)
    for dtype in (DType.bfloat16, DType.float8_e4m3fn):
        x = Tensor(arrays[0], device=CPU()).cast(dtype)
        moved = x.to(DeviceRef.GPU())
        assert moved.dtype is dtype
        there = moved.to(CPU()).cast(DType.float32).to_numpy()
        np.testing.assert_array_equal(there, x.cast(DType.float32).to_numpy())
    pinned = backend.cuda.pinned
    assert max(pinned) <= 4096
    assert pinned.count(4096) <= 3
    with contextlib.suppress(ValueError):
        pinned.remove(16)
    assert sum(pinned) <= 3 * 4096 + 64
