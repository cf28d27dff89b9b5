"""`Device`, `CPU` and `Accelerator`: handles to devices that exist, and their streams."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from maxmod import backends
from maxmod.errors import ArgumentError, DeviceError
from maxmod.values.device import DeviceKind, DeviceRef, register_device_factory


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
        """Returns the host.

        Args:
            id: Accepted for compatibility.

        Returns:
            `CPU()`.
        """
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
            raise DeviceError("architecture_name: only accelerators have one, got the host.")
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
        """Memory numbers in bytes, such as `free_memory`; empty if the system reports none."""
        return backends.get(self.ref).stats(self.id)

    @property
    def max_single_alloc_size(self) -> int:
        """The largest number of bytes that one allocation can have: all memory of the device.

        Example:
            >>> from maxmod import CPU
            >>> CPU().max_single_alloc_size > 1 << 20
            True
        """
        return self.stats.get("total_memory", sys.maxsize)  # where the system tells none

    @property
    def default_stream(self) -> DeviceStream:
        """The stream on which work is put unless another one is named."""
        return DeviceStream.default(self)

    @property
    def default_queue(self) -> DeviceStream:
        """Another name of `default_stream`."""
        return self.default_stream

    def can_access(self, other: Device) -> bool:
        """Tells whether memory of another device can be read directly.

        Args:
            other: The other device.

        Returns:
            True for the device itself; devices do not read each other's memory here.
        """
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

    def __deepcopy__(self, memo: object) -> Device:
        return self


class CPU(Device):
    """The host. The id is always 0.

    Args:
        id: Accepted for compatibility.

    Example:
        >>> from maxmod import CPU
        >>> CPU(), CPU() == CPU(), list(CPU().devices)
        (Device(type=cpu,id=0), True, [Device(type=cpu,id=0)])
    """

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

    Example:
        >>> from maxmod import CPU, Accelerator
        >>> from maxmod import accelerator_count
        >>> device = Accelerator() if accelerator_count() else CPU()
    """

    __slots__ = ()

    def __init__(self, id: int = -1, device_memory_limit: int = -1) -> None:
        index = max(id, 0)
        backends.get(DeviceRef.GPU(index)).require(index)
        self.ref = DeviceRef.GPU(index)


def device_of(ref: DeviceRef) -> Device:
    """Returns the device of a reference."""
    device = _KNOWN.get(ref)
    if device is None:
        device = CPU() if ref.device_type is DeviceKind.CPU else Accelerator(ref.id)
        _KNOWN[ref] = device
    return device


_KNOWN: dict[DeviceRef, Device] = backends.device_cache()
register_device_factory(device_of)


def accelerator_api() -> str:
    """Returns the programming interface of the first accelerator, `"cuda"`; else `"cpu"`."""
    return Accelerator().api if backends.accelerator_count() else CPU().api


def accelerator_architecture_name() -> str:
    """Returns the architecture of the first accelerator, such as `sm_90`.

    Raises:
        NoAcceleratorError: If there is none.
    """
    return Accelerator().architecture_name


class DeviceStream:
    """A queue of work on a device. Work of one stream runs in order.

    On the host, work is done at once, and all streams are one.

    Args:
        device: The device, for a new stream of it.

    Example:
        >>> from maxmod import CPU, Tensor
        >>> from maxmod.driver import DeviceStream
        >>> stream = DeviceStream(CPU())
        >>> with stream.active():
        ...     y = Tensor([1.0, 2.0]) * 2
        >>> stream.synchronize()
    """

    __slots__ = ("_handle", "device")
    device: Device

    def __init__(self, device: Device) -> None:
        self.device = device
        self._handle = backends.get(device.ref).stream(device.id, new=True)

    @staticmethod
    def default(device: Device) -> DeviceStream:
        """Returns the default stream of a device.

        Args:
            device: The device.

        Returns:
            The stream on which ops run unless another one is active.
        """
        self = object.__new__(DeviceStream)
        self.device = device
        self._handle = backends.get(device.ref).stream(device.id, new=False)
        return self

    def synchronize(self) -> None:
        """Waits for all work on the stream."""
        if self._handle is not None:
            self._handle.synchronize()

    def wait_for(self, other: DeviceStream | Device) -> None:
        """Makes later work on this stream wait for the work that is now on another one.

        Args:
            other: A stream, or a device for its default stream.
        """
        source = other if isinstance(other, DeviceStream) else DeviceStream.default(other)
        if source.device == self.device and self._handle is not None:
            backends.get(self.device.ref).wait(self._handle, source._handle)
        else:
            source.synchronize()

    def active(self) -> contextlib.AbstractContextManager[None]:
        """Puts the work of a block on this stream: ``with stream.active(): ...``.

        The block starts after the work on the default stream, which then waits for the block.

        Returns:
            A context manager.
        """
        return backends.get(self.device.ref).using(self._handle, self.device.id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DeviceStream):
            return False
        return self.device == other.device and self._handle == other._handle

    def __hash__(self) -> int:
        return hash((self.device, self._handle))

    def __repr__(self) -> str:
        return f"DeviceStream({self.device})"


@dataclass(frozen=True)
class DeviceSpec:
    """A device by number and kind, before it is known whether it exists.

    Args:
        id: Its number; -1 means the only or the first one, on the host.
        device_type: `"cpu"` or `"gpu"`.

    Raises:
        ValueError: For an unknown kind, or an accelerator with a negative number.

    Example:
        >>> from maxmod.driver import DeviceSpec, devices_exist
        >>> DeviceSpec.accelerator(1)
        DeviceSpec(id=1, device_type='gpu')
        >>> devices_exist([DeviceSpec.cpu()])
        True
    """

    id: int
    device_type: str = "cpu"

    def __post_init__(self) -> None:
        kind = DeviceKind.from_string(self.device_type)
        if kind is DeviceKind.GPU and self.id < 0:
            raise DeviceError(f"DeviceSpec: id: expected 0 or more for a gpu, got {self.id}.")

    @staticmethod
    def cpu(id: int = -1) -> DeviceSpec:
        """Makes the spec of the host.

        Args:
            id: Accepted for compatibility.

        Returns:
            The spec.
        """
        return DeviceSpec(id, "cpu")

    @staticmethod
    def accelerator(id: int = 0) -> DeviceSpec:
        """Makes the spec of an accelerator.

        Args:
            id: Its number, from 0.

        Returns:
            The spec.
        """
        return DeviceSpec(id, "gpu")


def scan_available_devices() -> list[DeviceSpec]:
    """Lists the devices of this machine.

    Returns:
        A spec for each accelerator; without one, the spec of the host.

    Example:
        >>> from maxmod.driver import load_devices, scan_available_devices
        >>> devices = load_devices(scan_available_devices())
    """
    count = backends.accelerator_count()
    return [DeviceSpec.accelerator(i) for i in range(count)] or [DeviceSpec.cpu()]


def load_devices(specs: Iterable[DeviceSpec]) -> list[Device]:
    """Makes the devices of specs.

    Args:
        specs: The specs, such as `scan_available_devices` gives.

    Returns:
        A list of as many devices.

    Raises:
        NoAcceleratorError: (a ValueError) If an accelerator does not exist.

    Example:
        >>> from maxmod.driver import DeviceSpec, load_devices
        >>> load_devices([DeviceSpec.cpu()])
        [Device(type=cpu,id=0)]
    """
    return [CPU(s.id) if s.device_type == "cpu" else Accelerator(s.id) for s in specs]


def devices_exist(specs: Iterable[DeviceSpec]) -> bool:
    """Tells whether devices exist.

    Args:
        specs: The specs.

    Returns:
        True if every accelerator exists; the host always does.
    """
    count = backends.accelerator_count()
    return all(spec.device_type == "cpu" or spec.id < count for spec in specs)


def get_virtual_device_count() -> int:
    """Returns 0: devices that do not exist cannot be compiled for yet."""
    return 0


def set_virtual_device_count(count: int) -> None:
    """Accepts 0 only; there are no virtual devices.

    Args:
        count: 0.

    Raises:
        ValueError: For any other number.
    """
    if count != 0:
        raise ArgumentError(f"set_virtual_device_count: only 0 is supported, got {count}.")


def is_virtual_device_mode() -> bool:
    """Returns False: there are no virtual devices."""
    return False
