"""How a tensor is spread over a mesh: by axes of the mesh, or by axes of the tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from maxmod.errors import ArgumentError, ShapeError
from maxmod.values.device import DeviceRef
from maxmod.values.sharding.mesh import DeviceMesh
from maxmod.values.sharding.placement import Placement, Replicated, Sharded


class ConversionError(ValueError):
    """A mapping by mesh axes and one by tensor axes cannot say the same thing."""


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
