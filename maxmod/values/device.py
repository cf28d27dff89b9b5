"""Where tensors live: `DeviceRef`, a plain value. Behaviour belongs to the backends."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Protocol

from maxmod.errors import DeviceError


class DeviceKind(enum.StrEnum):
    """The kind of a device: `CPU` (host) or `GPU` (accelerator).

    Args:
        value: `"cpu"` or `"gpu"`.
    """

    CPU = "cpu"
    GPU = "gpu"

    @staticmethod
    def from_string(text: str) -> DeviceKind:
        """Returns the kind with a name.

        Args:
            text: `"cpu"` or `"gpu"`.

        Returns:
            The kind.

        Raises:
            ValueError: For another name.
        """
        try:
            return DeviceKind(text)
        except ValueError:
            raise DeviceError(f"DeviceKind: expected 'cpu' or 'gpu', got {text!r}.") from None


class DeviceRef:
    """A reference to a device by kind and ordinal, printed `gpu:0`. Making one needs no hardware.

    Args:
        device_type: `"cpu"` or `"gpu"`, or a `DeviceKind`.
        id: Its ordinal.

    Raises:
        ValueError: For another kind.

    Example:
        >>> from maxmod import DeviceRef
        >>> DeviceRef.GPU(1), DeviceRef("cpu") == DeviceRef.CPU()
        (gpu:1, True)
    """

    __slots__ = ("_hash", "device_type", "id")
    device_type: DeviceKind
    id: int
    _hash: int

    def __init__(self, device_type: DeviceKind | str, id: int = 0) -> None:
        kind = DeviceKind.from_string(str(device_type))
        object.__setattr__(self, "device_type", kind)
        object.__setattr__(self, "id", max(int(id), 0))
        object.__setattr__(self, "_hash", hash((kind.value, self.id)))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"DeviceRef is immutable; cannot assign {name!r}.")

    @staticmethod
    def CPU(id: int = 0) -> DeviceRef:
        """The host.

        Args:
            id: Its ordinal.

        Returns:
            The reference.
        """
        return DeviceRef(DeviceKind.CPU, id)

    @staticmethod
    def GPU(id: int = 0) -> DeviceRef:
        """An accelerator.

        Args:
            id: Its ordinal.

        Returns:
            The reference.
        """
        return DeviceRef(DeviceKind.GPU, id)

    @staticmethod
    def from_device(device: object) -> DeviceRef:
        """Returns the reference of a device.

        Args:
            device: A `Device`, or a `DeviceRef`, which is returned unchanged.

        Returns:
            The reference.

        Raises:
            TypeError: For anything else.
        """
        if isinstance(device, DeviceRef):
            return device
        ref = getattr(device, "ref", None)
        if isinstance(ref, DeviceRef):
            return ref
        shown = f"str {device!r}" if isinstance(device, str) else type(device).__name__
        raise TypeError(
            f"device: expected a Device or DeviceRef, got {shown}. Hint: CPU() is the host, "
            "Accelerator() the first GPU."
        )

    def is_cpu(self) -> bool:
        """True for the host."""
        return self.device_type is DeviceKind.CPU

    def is_gpu(self) -> bool:
        """True for an accelerator."""
        return self.device_type is DeviceKind.GPU

    def to_device(self) -> Any:
        """Returns the device.

        Returns:
            A `Device`.

        Raises:
            NoAcceleratorError: (a RuntimeError and ValueError) If there is no such accelerator.
        """
        assert _make_device is not None, "maxmod.backends registers itself when it is imported"
        return _make_device(self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, DeviceRef):
            return False
        return self.device_type is other.device_type and self.id == other.id

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"{self.device_type.value}:{self.id}"

    def __reduce__(self) -> tuple[type[DeviceRef], tuple[str, int]]:
        return (DeviceRef, (self.device_type.value, self.id))


class DeviceHandle(Protocol):
    """An object with a `DeviceRef`: `Device` is the only kind."""

    @property
    def ref(self) -> DeviceRef:
        """The reference."""
        ...


# Accepted wherever a device is expected.
DeviceLike = DeviceRef | DeviceHandle

CPU_REF = DeviceRef.CPU()
_make_device: Callable[[DeviceRef], Any] | None = None


def register_device_factory(factory: Callable[[DeviceRef], object]) -> None:
    """Tells `DeviceRef.to_device` how to make a `Device`; called once by `maxmod.backends`."""
    global _make_device
    _make_device = factory
