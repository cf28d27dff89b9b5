"""Asking for a GPU that is not there says which of the causes it is, and what to do."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from maxmod import Accelerator, Tensor, accelerator_count, backends
from maxmod.backends.cuda import backend as cuda
from maxmod.errors import MaxmodError, NoAcceleratorError
from maxmod.tensor import defaults
from maxmod.values.device import DeviceKind, DeviceRef


class FakeRuntimeError(RuntimeError):
    """Stands for `cupy.cuda.runtime.CUDARuntimeError`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def fake_cupy(count: int | FakeRuntimeError) -> ModuleType:
    def get_device_count() -> int:
        if isinstance(count, FakeRuntimeError):
            raise count
        return count

    module: Any = ModuleType("cupy")
    runtime = SimpleNamespace(getDeviceCount=get_device_count, CUDARuntimeError=FakeRuntimeError)
    module.cuda = SimpleNamespace(runtime=runtime)
    return module


@pytest.fixture(autouse=True)
def fresh_probe() -> Iterator[None]:
    """Clears the detected devices before and after the test."""
    previous = backends.replace(DeviceKind.GPU, cuda.CudaBackend())
    cuda._probe.cache_clear()
    yield
    cuda._probe.cache_clear()
    backends.replace(DeviceKind.GPU, previous)


def message() -> str:
    with pytest.raises(NoAcceleratorError) as caught:
        Accelerator()
    assert isinstance(caught.value, (RuntimeError, ValueError))
    return str(caught.value)


def test_cupy_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # makes the import fail
    text = message()
    assert text.startswith("Accelerator(0): no accelerator can be used. CuPy is not installed")
    assert "pip install cupy-cuda13x 'cuda-toolkit[cublas,cudart,nvrtc]==13.*'" in text


def test_cupy_cannot_write_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def failing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cupy":
            raise FileNotFoundError(2, "No such file or directory", "/proc/x")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", failing)
    assert "CuPy cannot be imported" in (text := message())
    assert "Hint: set CUPY_CACHE_DIR to a folder." in text


def test_driver_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(0))
    monkeypatch.setattr(cuda, "_has_driver", lambda: False)
    text = message()
    assert "CuPy is installed, but the NVIDIA driver is not" in text
    assert "Hint: install the driver, or give the container access to it." in text


@pytest.mark.parametrize("count", [0, FakeRuntimeError(100, "cudaErrorNoDevice")])
def test_device_is_missing(monkeypatch: pytest.MonkeyPatch, count: Any) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(count))
    monkeypatch.setattr(cuda, "_has_driver", lambda: True)
    text = message()
    assert "CuPy and a driver are installed, but no device is visible." in text
    assert "Hint: look at nvidia-smi and at CUDA_VISIBLE_DEVICES." in text


def test_driver_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    error = FakeRuntimeError(35, "cudaErrorInsufficientDriver: too old")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(error))
    monkeypatch.setattr(cuda, "_has_driver", lambda: True)
    text = message()
    assert "The NVIDIA driver does not work with this CuPy: cudaErrorInsufficientDriver" in text
    assert "Hint: update the driver, or install the other CuPy extra." in text


@pytest.mark.parametrize("ask", [Accelerator, DeviceRef.GPU().to_device])
def test_every_way_to_ask(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    for kind in (MaxmodError, RuntimeError, ValueError):
        with pytest.raises(kind, match="CuPy is not installed"):
            ask()


def test_moving_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(NoAcceleratorError, match="CuPy is not installed"):
        Tensor([1.0]).to(DeviceRef.GPU())
    with pytest.raises(NoAcceleratorError, match="CuPy is not installed"):
        Tensor.ones([2], device=DeviceRef.GPU())


def test_without_a_gpu_everything_is_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting devices and using the defaults is not an error, and does not import CuPy."""
    monkeypatch.setattr(cuda, "_has_driver", lambda: False)
    monkeypatch.setattr(cuda, "_probe", lambda: pytest.fail("CuPy was imported"))
    assert accelerator_count() == 0
    assert defaults()[1].is_host
    assert Tensor([1.0]).device.is_host


def test_cupy_without_a_driver_library_is_found_out_quickly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda._has_driver.cache_clear()
    monkeypatch.setattr(cuda, "_DRIVER", "a library that does not exist")
    assert cuda._has_driver() is False
    cuda._has_driver.cache_clear()
