"""What code for several devices asks a tensor, answered for one: the tensor is its only shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from maxmod.errors import OperandError

if TYPE_CHECKING:
    from maxmod.backends.devices import Device
    from maxmod.tensor.exchange import Storage
    from maxmod.values.tensor_type import TensorType


class OneDevice:
    """The part of `Tensor` about devices and shards. A mesh of one device is the device itself."""

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
    def layout(self) -> TensorType:
        """Dtype, shape and device: the type."""
        return self.type

    @property
    def mesh(self) -> Device:
        """The devices that hold the tensor: the only one, whose `devices` lists itself."""
        return self.device

    @property
    def mapping(self) -> Device:
        """How the tensor lies on its devices: whole, on the only one."""
        return self.device

    @property
    def placements(self) -> tuple[()]:
        """How each axis of a mesh of devices holds the tensor: there is none."""
        return ()

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
