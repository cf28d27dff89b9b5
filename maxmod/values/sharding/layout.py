"""`TensorLayout` and `BufferLayout`: types of tensors with the mapping of their mesh."""

from __future__ import annotations

from maxmod.dtype import DType
from maxmod.errors import OperandError
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.shape import ShapeLike, Sizes
from maxmod.values.sharding.mapping import DeviceMapping, NamedMapping, PlacementMapping
from maxmod.values.sharding.mesh import DeviceMesh
from maxmod.values.sharding.placement import Placement, Replicated
from maxmod.values.tensor_type import BufferType, TensorType


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
