"""Backends: what devices can do. A backend is found by the kind of a device, on first use."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from maxmod.backends.base import Backend
from maxmod.op import Op
from maxmod.values.device import DeviceKind, DeviceRef
from maxmod.values.tensor_type import TensorType

# The room of each kind of device, and the class that its `backend.py` defines.
_ROOMS = {DeviceKind.CPU: ("host", "CpuBackend"), DeviceKind.GPU: ("cuda", "CudaBackend")}
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
        room, name = _ROOMS[device.device_type]
        module = importlib.import_module(f"maxmod.backends.{room}.backend")
        backend = _LOADED.setdefault(device.device_type, getattr(module, name)())
    return backend


def run(
    op: Op, arrays: Sequence[Any], attrs: dict[str, Any], types: Sequence[TensorType]
) -> Sequence[Any]:
    """Runs an op on arrays; see `Backend.run`. The first result decides where."""
    return get(types[0].device).run(op, arrays, attrs, types)


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
