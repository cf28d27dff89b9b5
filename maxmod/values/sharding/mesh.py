"""`DeviceMesh`: a grid of devices with named axes."""

from __future__ import annotations

import dataclasses
import math

from maxmod.errors import ArgumentError, DeviceError, ShapeError
from maxmod.values.device import CPU_REF, DeviceLike, DeviceRef


@dataclasses.dataclass(frozen=True, eq=False)
class DeviceMesh:
    """A grid of devices with named axes.

    Args:
        devices: The devices in row-major order: `Device` or `DeviceRef`.
        mesh_shape: The sizes of the grid.
        axis_names: A name for each axis.

    Raises:
        ValueError: If the number of devices, the sizes and the names do not fit each other.

    Example:
        >>> from maxmod import CPU
        >>> from maxmod.values.sharding import DeviceMesh
        >>> mesh = DeviceMesh((CPU(),), (1,), ("tp",))
        >>> mesh.is_single, mesh.axis_size("tp"), mesh.ref
        (True, 1, cpu:0)
    """

    devices: tuple[DeviceLike, ...]
    mesh_shape: tuple[int, ...] = (1,)
    axis_names: tuple[str, ...] = ("_",)

    def __post_init__(self) -> None:
        for name in ("devices", "mesh_shape", "axis_names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for device in self.devices:
            DeviceRef.from_device(device)
        if len(self.mesh_shape) != len(self.axis_names):
            raise ShapeError(
                f"DeviceMesh: expected a name for each of the {len(self.mesh_shape)} axes of "
                f"mesh_shape {self.mesh_shape}, got axis_names {self.axis_names}."
            )
        if len(set(self.axis_names)) != len(self.axis_names):
            raise ArgumentError(f"DeviceMesh: axis_names: {self.axis_names} has one name twice.")
        if not self.devices or math.prod(self.mesh_shape) != len(self.devices):
            raise ShapeError(
                f"DeviceMesh: mesh_shape {self.mesh_shape} has {math.prod(self.mesh_shape)} "
                f"places, got {len(self.devices)} devices."
            )

    @staticmethod
    def default() -> DeviceMesh:
        """The mesh with the host alone.

        Returns:
            A mesh of one device.
        """
        return DeviceMesh.single(CPU_REF.to_device())

    @staticmethod
    def single(device: DeviceLike) -> DeviceMesh:
        """The mesh with one device.

        Args:
            device: A `Device` or `DeviceRef`.

        Returns:
            A mesh of shape `(1,)`.
        """
        return DeviceMesh((device,))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.mesh_shape)

    @property
    def num_devices(self) -> int:
        """The number of places in the grid."""
        return len(self.devices)

    @property
    def is_single(self) -> bool:
        """True if there is one device."""
        return len(self.devices) == 1

    @property
    def is_simulated(self) -> bool:
        """True if there are several places, all with the same device."""
        return not self.is_single and len(set(map(DeviceRef.from_device, self.devices))) == 1

    @property
    def ref(self) -> DeviceRef:
        """The one device.

        Raises:
            ValueError: If there are several.
        """
        if not self.is_single:
            raise DeviceError(
                f"DeviceMesh: expected a mesh of one device, got {self}. Hint: a tensor lives on "
                "one device; DeviceMesh.single(device) is its mesh."
            )
        return DeviceRef.from_device(self.devices[0])

    def axis_size(self, axis: str | int) -> int:
        """The number of devices along an axis.

        Args:
            axis: Its name or position.

        Returns:
            An int.

        Raises:
            ValueError: For a name that the mesh does not have.
            IndexError: For a position outside of the mesh.
        """
        return self.mesh_shape[self._position(axis)]

    def device_coord(self, device_idx: int, axis: str | int) -> int:
        """The coordinate of a device along an axis.

        Args:
            device_idx: Its position in `devices`.
            axis: The name or position of the axis.

        Returns:
            An int below the size of the axis.

        Raises:
            ValueError: For a name that the mesh does not have.
            IndexError: For a position outside of the mesh.
        """
        position = self._position(axis)
        if not 0 <= device_idx < len(self.devices):
            raise IndexError(f"DeviceMesh: no device {device_idx}: there are {len(self.devices)}.")
        return device_idx // math.prod(self.mesh_shape[position + 1 :]) % self.mesh_shape[position]

    def _position(self, axis: str | int) -> int:
        if isinstance(axis, str):
            if axis not in self.axis_names:
                raise ArgumentError(
                    f"DeviceMesh: no axis {axis!r}: expected one of {self.axis_names}."
                )
            return self.axis_names.index(axis)
        if not 0 <= axis < self.ndim:
            raise IndexError(f"DeviceMesh: no axis {axis}: there are {self.ndim}.")
        return axis

    def _key(self) -> tuple[object, ...]:
        refs = tuple(map(DeviceRef.from_device, self.devices))
        return refs, self.mesh_shape, self.axis_names

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeviceMesh) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        axes = ", ".join(f"{n}={size}" for n, size in zip(self.axis_names, self.mesh_shape))
        devices = ", ".join(map(repr, map(DeviceRef.from_device, self.devices)))
        return f"DeviceMesh({axes}: {devices})"
