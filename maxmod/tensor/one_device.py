"""What code for several devices asks a tensor, answered for one: the tensor is its only shard."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

from maxmod.errors import OperandError

if TYPE_CHECKING:
    from maxmod.backends.devices import Device
    from maxmod.tensor.exchange import Storage
    from maxmod.values.sharding import DeviceMapping, DeviceMesh, Placement, TensorLayout
    from maxmod.values.tensor_type import TensorType

_SHARDING = "maxmod.values.sharding"


def _sharding() -> ModuleType:
    """The module of meshes, which few scripts need: importing it takes milliseconds."""
    return importlib.import_module(_SHARDING)


class OneDevice:
    """The part of `Tensor` about devices and shards. Its mesh is that of one device."""

    __slots__ = ()

    if TYPE_CHECKING:
        _value: Any

        @property
        def type(self) -> TensorType: ...
        @property
        def device(self) -> Device: ...
        @property
        def storage(self) -> Storage | None: ...

    @classmethod
    def from_graph_value(cls, value: object) -> Self:
        """Returns the tensor of a value of a graph, which is the value itself.

        Args:
            value: A value of the graph that is being traced.

        Returns:
            The tensor, which has no data.

        Raises:
            TypeError: For anything else.

        Example:
            >>> from maxmod import CPU, DType, Tensor, TensorType
            >>> from maxmod.graph import Graph
            >>> with Graph("g", input_types=[TensorType(DType.float32, [2], CPU())]) as graph:
            ...     Tensor.from_graph_value(graph.inputs[0]).real
            False
        """
        if not isinstance(value, cls) or value._value is None:
            raise OperandError(
                f"from_graph_value: expected a graph value, got {type(value).__name__}."
            )
        return value

    @property
    def layout(self) -> TensorLayout:
        """Dtype, shape and mapping: the type, replicated on the mesh of its device."""
        return _sharding().layout_of(self.type)

    @property
    def mesh(self) -> DeviceMesh:
        """The devices that hold the tensor: a mesh of one."""
        return _sharding().DeviceMesh.single(self.device)

    @property
    def mapping(self) -> DeviceMapping:
        """How the tensor lies on its mesh: whole, on the only device."""
        return _sharding().PlacementMapping(self.mesh, self.placements)

    @property
    def placements(self) -> tuple[Placement, ...]:
        """How each axis of the mesh holds the tensor: the only one holds all of it."""
        return (_sharding().Replicated(),)

    @property
    def is_distributed(self) -> bool:
        """False: a tensor lives on one device."""
        return False

    @property
    def num_shards(self) -> int:
        """1: the tensor itself."""
        return 1

    @property
    def local_shards(self) -> tuple[Self, ...]:
        """The tensor itself."""
        return (self,)

    @property
    def buffers(self) -> tuple[Storage, ...]:
        """The data as a `driver.Buffer`; `TypeError` if there is none yet."""
        if self.storage is None:
            raise OperandError("buffers: the tensor is not realized.")
        return (self.storage,)

    @property
    def graph_values(self) -> tuple[Self, ...]:
        """The value of the graph that is being traced; `TypeError` for a tensor with data."""
        if self._value is None:
            raise OperandError("graph_values: the tensor has data and is not a graph value.")
        return (self,)

    @property
    def external_name(self) -> str | None:
        """None: weights of a graph are named by the module that holds them."""
        return None
