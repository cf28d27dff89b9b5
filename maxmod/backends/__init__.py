"""Backends: what devices can do. A backend is found by the kind of a device, on first use."""

from __future__ import annotations

import importlib
from typing import Any

from maxmod.backends.base import Backend
from maxmod.values.device import DeviceKind, DeviceRef

# File name in this folder for each kind of device. The class in it is called `<Name>Backend`.
_FILES = {DeviceKind.CPU: ("cpu", "CpuBackend"), DeviceKind.GPU: ("cuda", "CudaBackend")}
_LOADED: dict[DeviceKind, Backend] = {}
_CACHES: list[dict[Any, Any]] = []


def device_cache() -> dict[Any, Any]:
    """Makes a dictionary for devices or arrays; it is emptied when a backend is replaced."""
    cache: dict[Any, Any] = {}
    _CACHES.append(cache)
    return cache


def get(device: DeviceRef) -> Backend:
    """Returns the backend of a device; it need not be available."""
    backend = _LOADED.get(device.device_type)
    if backend is None:
        file, name = _FILES[device.device_type]
        module = importlib.import_module(f"maxmod.backends.{file}")
        backend = _LOADED.setdefault(device.device_type, getattr(module, name)())
    return backend


def replace(kind: DeviceKind, backend: Backend | None) -> Backend | None:
    """Installs another backend for a kind of device (tests emulate an accelerator this way).

    Returns:
        The backend that was installed before, or None.
    """
    for cache in _CACHES:
        cache.clear()
    previous = _LOADED.pop(kind, None)
    if backend is not None:
        _LOADED[kind] = backend
    return previous


def accelerator_count() -> int:
    """Returns the number of usable accelerators; 0 without CuPy, a driver or a device."""
    return get(DeviceRef.GPU()).device_count()
