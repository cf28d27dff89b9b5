"""`Device`, `CPU` and `Accelerator`: handles to devices that exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maxmod import backends
from maxmod.device import DeviceKind, DeviceRef, register_device_factory
from maxmod.errors import NoAcceleratorError


class Device:
    """A device of this machine; made with `CPU()` or `Accelerator()`.

    Equal and hashed by kind and number. `ref` is the plain `DeviceRef` of it.
    """

    __slots__ = ("ref",)
    ref: DeviceRef

    def __init__(self) -> None:
        raise TypeError("Device is abstract: use CPU() or Accelerator().")

    @staticmethod
    def cpu(id: int = -1) -> CPU:
        """Returns the host."""
        return CPU(id)

    @property
    def label(self) -> str:
        """`"cpu"` or `"gpu"`."""
        return self.ref.device_type.value

    @property
    def id(self) -> int:
        """The number of the device."""
        return self.ref.id

    @property
    def api(self) -> str:
        """`"cpu"` or `"cuda"`."""
        return backends.get(self.ref).api

    @property
    def architecture_name(self) -> str:
        """The GPU architecture, such as `sm_90`.

        Raises:
            ValueError: On the host.
        """
        if self.is_host:
            raise ValueError("architecture_name: only accelerators have one.")
        return backends.get(self.ref).architecture(self.id)

    @property
    def is_host(self) -> bool:
        """True for the CPU."""
        return self.ref.is_cpu()

    @property
    def is_compatible(self) -> bool:
        """True if maxmod can run on the device."""
        return True

    @property
    def devices(self) -> Sequence[Device]:
        """The device itself, so that code written for a mesh of one device works."""
        return (self,)

    @property
    def stats(self) -> dict[str, int]:
        """Memory numbers in bytes; empty on the host."""
        return backends.get(self.ref).stats(self.id)

    def can_access(self, other: Device) -> bool:
        """True if memory of `other` can be read directly."""
        return self == other

    def synchronize(self) -> None:
        """Waits for all work on the device."""
        backends.get(self.ref).synchronize(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.ref == other.ref

    def __hash__(self) -> int:
        return hash(self.ref)

    def __repr__(self) -> str:
        return f"Device(type={self.label},id={self.id})"

    def __copy__(self) -> Device:
        return self

    def __deepcopy__(self, memo: Any) -> Device:
        return self


class CPU(Device):
    """The host. The id is always 0."""

    __slots__ = ()

    def __init__(self, id: int = -1) -> None:
        self.ref = DeviceRef.CPU()


class Accelerator(Device):
    """An NVIDIA GPU.

    Args:
        id: Its number; -1 means device 0.
        device_memory_limit: Accepted for compatibility; memory is taken as it is needed.

    Raises:
        NoAcceleratorError: (a RuntimeError and ValueError) Saying whether CuPy, the driver or the
            device is missing, and what to install.
    """

    __slots__ = ()

    def __init__(self, id: int = -1, device_memory_limit: int = -1) -> None:
        index = max(id, 0)
        backend = backends.get(DeviceRef.GPU(index))
        count = backend.device_count()
        if count == 0:
            raise NoAcceleratorError(
                f"Accelerator({index}): no accelerator can be used. {backend.unavailable_reason()}"
            )
        if index >= count:
            raise NoAcceleratorError(
                f"Accelerator({index}): there is no such device: expected a number below {count}."
            )
        self.ref = DeviceRef.GPU(index)


def device_of(ref: DeviceRef) -> Device:
    """Returns the device of a reference."""
    device = _KNOWN.get(ref)
    if device is None:
        device = CPU() if ref.device_type is DeviceKind.CPU else Accelerator(ref.id)
        _KNOWN[ref] = device
    return device


_KNOWN: dict[DeviceRef, Device] = {}
register_device_factory(device_of)
