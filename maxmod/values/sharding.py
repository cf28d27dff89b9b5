"""Meshes and layouts, as code for several devices names them, on the one device of a tensor.

A mesh of any shape can be written down. What has a tensor (`Tensor`, `Module.to`, `compile`) takes
the meshes of one device: `DeviceMesh.ref` is that device, and an error for every other mesh.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DeviceError, OperandError, ShapeError
from maxmod.values.device import CPU_REF, DeviceLike, DeviceRef
from maxmod.values.shape import ShapeLike, Sizes
from maxmod.values.tensor_type import BufferType, TensorType


class ConversionError(ValueError):
    """A mapping by mesh axes and one by tensor axes cannot say the same thing."""


class ReduceOp(enum.StrEnum):
    """How the values of a `Partial` placement are combined.

    Args:
        value: The name of the reduction, such as `"sum"`.
    """

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    MEAN = "mean"
    PROD = "prod"


class Placement:
    """What one axis of a mesh does to a tensor; base of the three placements."""


@dataclasses.dataclass(frozen=True)
class Replicated(Placement):
    """Every device of the mesh axis holds the whole tensor."""


@dataclasses.dataclass(frozen=True)
class Sharded(Placement):
    """Every device of the mesh axis holds a slice of the tensor.

    Args:
        axis: The axis of the tensor that is split.
    """

    axis: int


@dataclasses.dataclass(frozen=True)
class Partial(Placement):
    """Every device of the mesh axis holds one operand of a reduction.

    Args:
        reduce_op: The reduction.
    """

    reduce_op: ReduceOp = ReduceOp.SUM


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


class DeviceMapping(ABC):
    """How a tensor is spread over a mesh; base of `PlacementMapping` and `NamedMapping`."""

    @property
    @abstractmethod
    def mesh(self) -> DeviceMesh:
        """The mesh."""

    @abstractmethod
    def to_placements(self) -> tuple[Placement, ...]:
        """The placement of each axis of the mesh.

        Raises:
            ConversionError: (a ValueError) If no placements say the same.
        """

    @abstractmethod
    def to_named_sharding(self, tensor_rank: int) -> NamedMapping:
        """The mapping by axes of the tensor.

        Args:
            tensor_rank: The number of axes of the tensor.

        Returns:
            A mapping with an entry for each axis.

        Raises:
            ConversionError: (a ValueError) If no such mapping says the same.
        """

    @property
    def is_fully_replicated(self) -> bool:
        """True if every device holds the whole tensor."""
        return all(isinstance(p, Replicated) for p in self.to_placements())

    @property
    def is_fully_resolved(self) -> bool:
        """True: the mapping can be used without a compiler that completes it."""
        return True

    @property
    def ref(self) -> DeviceRef:
        """The one device of the mesh.

        Raises:
            ValueError: If it has several.
        """
        return self.mesh.ref


class PlacementMapping(DeviceMapping):
    """A placement for each axis of the mesh.

    Args:
        mesh: The mesh.
        placements: A `Replicated`, `Sharded` or `Partial` for each of its axes.

    Raises:
        ValueError: If their number is not that of the axes.

    Example:
        >>> from maxmod.values.sharding import DeviceMesh, PlacementMapping, Sharded
        >>> rows = PlacementMapping(DeviceMesh.default(), (Sharded(0),))
        >>> rows.to_named_sharding(2).spec
        ('_', None)
    """

    def __init__(self, mesh: DeviceMesh, placements: Iterable[Placement]) -> None:
        self._mesh = mesh
        self._placements = tuple(placements)
        if len(self._placements) != mesh.ndim:
            raise ShapeError(
                f"PlacementMapping: expected {mesh.ndim} placements, one for each axis of {mesh}, "
                f"got {len(self._placements)}."
            )

    @property
    def mesh(self) -> DeviceMesh:
        return self._mesh

    @property
    def placements(self) -> tuple[Placement, ...]:
        """The placements, one for each axis of the mesh."""
        return self._placements

    def to_placements(self) -> tuple[Placement, ...]:
        return self._placements

    def to_named_sharding(self, tensor_rank: int) -> NamedMapping:
        names: list[list[str]] = [[] for _ in range(tensor_rank)]
        for name, placement in zip(self._mesh.axis_names, self._placements):
            if isinstance(placement, Sharded):
                if not -tensor_rank <= placement.axis < tensor_rank:
                    raise ConversionError(
                        f"{placement}: a tensor of rank {tensor_rank} has no such axis."
                    )
                names[placement.axis].append(name)
            elif not isinstance(placement, Replicated):
                raise ConversionError(f"{placement} of the mesh axis {name!r} has no named form.")
        return NamedMapping(
            self._mesh, [tuple(n) if len(n) > 1 else (n[0] if n else None) for n in names]
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PlacementMapping)
            and self._mesh == other._mesh
            and self._placements == other._placements
        )

    def __hash__(self) -> int:
        return hash((self._mesh, self._placements))

    def __repr__(self) -> str:
        return f"PlacementMapping({self._mesh}, {self._placements})"


class NamedMapping(DeviceMapping):
    """For each axis of the tensor, the mesh axes that split it.

    Args:
        mesh: The mesh.
        spec: For each axis of the tensor the name of a mesh axis, several names, or None.

    Raises:
        ValueError: For a name that the mesh does not have, or that comes twice.
    """

    def __init__(self, mesh: DeviceMesh, spec: Sequence[str | Sequence[str] | None]) -> None:
        self._mesh = mesh
        self.spec = tuple(
            entry if entry is None or isinstance(entry, str) else tuple(entry) for entry in spec
        )
        names = [name for entry in self.spec for name in _names(entry)]
        for name in names:
            mesh.axis_size(name)
        if len(set(names)) != len(names):
            raise ArgumentError(f"NamedMapping: {self.spec} uses one mesh axis twice.")

    @property
    def mesh(self) -> DeviceMesh:
        return self._mesh

    def to_placements(self) -> tuple[Placement, ...]:
        axis_of = {name: axis for axis, entry in enumerate(self.spec) for name in _names(entry)}
        return tuple(
            Sharded(axis_of[name]) if name in axis_of else Replicated()
            for name in self._mesh.axis_names
        )

    def to_named_sharding(self, tensor_rank: int) -> NamedMapping:
        if tensor_rank != len(self.spec):
            raise ConversionError(
                f"NamedMapping: {self.spec} has {len(self.spec)} entries, expected {tensor_rank}."
            )
        return self

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, NamedMapping)
            and self._mesh == other._mesh
            and self.spec == other.spec
        )

    def __hash__(self) -> int:
        return hash((self._mesh, self.spec))

    def __repr__(self) -> str:
        return f"NamedMapping({self._mesh}, {self.spec})"


def _names(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes of one entry of a spec."""
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else entry


class TensorLayout(TensorType, DeviceMapping):
    """The type of a tensor with the mapping of its mesh; a `TensorType` for everything else.

    Args:
        dtype: Element type.
        shape: Sizes: ints, names of symbolic dimensions (`"batch"`) or Dims.
        mapping: A `DeviceMapping`, or a `DeviceMesh`, `Device` or `DeviceRef`, on which the tensor
            is then replicated. Its mesh has one device.
        device: Another name for `mapping`.

    Raises:
        TypeError: As for `TensorType`, or if neither or both of `mapping` and `device` are given.
        ValueError: If the mesh has several devices.

    Example:
        >>> from maxmod import CPU, DType
        >>> from maxmod.values.sharding import DeviceMesh, TensorLayout
        >>> x = TensorLayout(DType.float32, ["batch", 4], DeviceMesh.single(CPU()))
        >>> x.short(), x.mapping.placements
        ('float32[batch,4]', (Replicated(),))
    """

    __slots__ = ("_mapping",)
    _mapping: DeviceMapping | None

    def __init__(
        self,
        dtype: DType,
        shape: ShapeLike,
        mapping: DeviceMapping | DeviceMesh | DeviceLike | None = None,
        *,
        device: DeviceMapping | DeviceMesh | DeviceLike | None = None,
    ) -> None:
        if (mapping is None) == (device is None):
            raise OperandError(f"{type(self).__name__}: expected either a mapping or a device.")
        where = mapping if mapping is not None else device
        assert where is not None
        super().__init__(dtype, shape, where)
        self._mapping = _as_mapping(where)

    @classmethod
    def of(cls, dtype: DType, sizes: Sizes, device: DeviceRef) -> TensorLayout:
        self = super().of(dtype, sizes, device)
        assert isinstance(self, TensorLayout)
        self._mapping = None
        return self

    @property
    def mapping(self) -> DeviceMapping:
        """How the tensor lies on its mesh."""
        return self._mapping or _as_mapping(self.device)

    @property
    def mesh(self) -> DeviceMesh:
        """The mesh of the mapping."""
        return self.mapping.mesh

    def to_placements(self) -> tuple[Placement, ...]:
        return self.mapping.to_placements()

    def to_named_sharding(self, tensor_rank: int) -> NamedMapping:
        return self.mapping.to_named_sharding(tensor_rank)


class BufferLayout(TensorLayout, BufferType):
    """The layout of a tensor that the callee may change in place; a `BufferType`."""

    __slots__ = ()


def _as_mapping(where: DeviceMapping | DeviceMesh | DeviceLike) -> DeviceMapping:
    """The mapping that a device or a mesh stands for: the tensor is replicated on it."""
    if isinstance(where, DeviceMapping):
        return where.mapping if isinstance(where, TensorLayout) else where
    mesh = where if isinstance(where, DeviceMesh) else DeviceMesh.single(where)
    return PlacementMapping(mesh, [Replicated()] * mesh.ndim)


def layout_of(type: TensorType) -> TensorLayout:
    """Returns the layout of a type: replicated on the mesh of its device.

    Args:
        type: A `TensorType`, or a `BufferType`.

    Returns:
        A `TensorLayout`, or a `BufferLayout`.
    """
    if isinstance(type, TensorLayout):
        return type
    made = BufferLayout if isinstance(type, BufferType) else TensorLayout
    return made.of(type.dtype, type.sizes, type.device)


__all__ = [
    "BufferLayout",
    "ConversionError",
    "DeviceMapping",
    "DeviceMesh",
    "NamedMapping",
    "Partial",
    "Placement",
    "PlacementMapping",
    "ReduceOp",
    "Replicated",
    "Sharded",
    "TensorLayout",
    "layout_of",
]
