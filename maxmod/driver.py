"""Devices, and concrete memory on them."""

from __future__ import annotations

from maxmod.backends import accelerator_count
from maxmod.backends.devices import (
    CPU,
    Accelerator,
    Device,
    DeviceSpec,
    DeviceStream,
    accelerator_api,
    accelerator_architecture_name,
    devices_exist,
    get_virtual_device_count,
    is_virtual_device_mode,
    load_devices,
    scan_available_devices,
    set_virtual_device_count,
)
from maxmod.config import __version__
from maxmod.tensor.buffer import Buffer
from maxmod.tensor.exchange import DLPackArray

# Names of other versions of the API.
Tensor = Buffer
DeviceQueue = DeviceStream

__all__ = [
    "CPU",
    "Accelerator",
    "Buffer",
    "DLPackArray",
    "Device",
    "DeviceQueue",
    "DeviceSpec",
    "DeviceStream",
    "Tensor",
    "__version__",
    "accelerator_api",
    "accelerator_architecture_name",
    "accelerator_count",
    "devices_exist",
    "get_virtual_device_count",
    "is_virtual_device_mode",
    "load_devices",
    "scan_available_devices",
    "set_virtual_device_count",
]
