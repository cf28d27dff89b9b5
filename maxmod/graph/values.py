"""Values of a graph that is built by hand, and the tracer that makes them.

Values are tensors without data, so every op, method and operator of `Tensor` works on them; the
differences of graphs (`device` is a `DeviceRef`, a buffer has to be loaded) are added here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, NoGraphError, OperandError
from maxmod.interpreters.operands import as_strong, is_strong
from maxmod.interpreters.trace import Tracer
from maxmod.op import Op, innermost, ir
from maxmod.tensor import Tensor
from maxmod.tensor.exchange import DLPackArray
from maxmod.values.array import Subscript
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.dim import Dim
from maxmod.values.shape import Shape, ShapeLike
from maxmod.values.tensor_type import BufferType, TensorType


class Value(Tensor):
    """A value of a graph: a `TensorValue` or a `BufferValue`."""

    __slots__ = ()

    # Not iterable, as sizes may be symbolic. None, so that `isinstance(value, Iterable)` is False.
    __iter__ = None  # type: ignore[assignment]
    __contains__ = None

    def __init__(self, *args: Any) -> None:
        """Does nothing; `of` and `TensorValue.__new__` make values."""

    @classmethod
    def of(cls, value: ir.Value) -> Any:
        """Makes the tensor of a value of the graph."""
        self = object.__new__(cls)
        self._set(None, value.type)
        self._value = value
        return self

    @property
    def device(self) -> DeviceRef:  # type: ignore[override]
        """Where the value lives, as a `DeviceRef`."""
        return self._type._device

    @property
    def tensor(self) -> TensorValue:
        """The value itself, if it is a tensor; `TypeError` otherwise."""
        if not isinstance(self, TensorValue):
            raise OperandError(f"tensor: expected a TensorValue, got {type(self).__name__}.")
        return self

    @property
    def buffer(self) -> BufferValue:
        """The value itself, if it is a buffer; `TypeError` otherwise."""
        if not isinstance(self, BufferValue):
            raise OperandError(f"buffer: expected a BufferValue, got {type(self).__name__}.")
        return self

    def _realize(self) -> None:
        if isinstance(innermost(), Tracer):
            super()._realize()
        raise NoGraphError(
            f"No graph found: {self._type.short()} is a value of a graph and has no data. Hint: "
            "use it inside `with graph:`, and run the graph with InferenceSession().load(graph)."
        )


class TensorValue(Value):
    """A tensor of a graph: an input of a `Graph`, or the result of an op on one.

    It has the operators and methods of a `Tensor`, and no data.

    Args:
        value: A value of the current graph, a tensor, which becomes a constant, or a `Dim`.

    Raises:
        TypeError: For anything else; `ops.constant` takes numbers.
        LookupError: If no graph is being built, or the data is asked for.

    Example:
        >>> from maxmod import CPU, DType, TensorType
        >>> from maxmod.graph import Graph
        >>> with Graph("shapes", input_types=[TensorType(DType.float32, ["n", 4], CPU())]) as graph:
        ...     x = graph.inputs[0].tensor
        ...     y = x @ x.T
        >>> y.shape
        [Dim('n'), Dim('n')]
    """

    __slots__ = ()

    def __new__(cls, value: TensorValueLike) -> TensorValue:
        if isinstance(value, TensorValue):
            return value
        if not is_strong(value):
            raise OperandError(
                f"TensorValue: expected a value of a graph or a Tensor, got {type(value).__name__}."
                " Hint: ops.constant makes a value of a number or an array."
            )
        tracer = current_tracer()
        return cls.of(tracer.lift(as_strong(value)))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Returns the tensor with some adjacent axes merged; see `functional.flatten`.

        Args:
            start_dim: The first axis to merge.
            end_dim: The last one, included.

        Returns:
            A value of the graph.
        """
        return F.flatten(self, start_dim, end_dim)

    def rebind(self, shape: ShapeLike, message: str = "") -> Tensor:
        """Returns the tensor with another shape, which is checked when the graph runs.

        Args:
            shape: Sizes, as many as there are axes.
            message: Added to the error.

        Returns:
            A value of the graph.

        Raises:
            ValueError: If the rank or a known size differs.
        """
        return F.rebind(self, shape, message)

    def var(self, axis: int = -1) -> Tensor:
        """Returns the population variance along an axis, which stays with size 1.

        Args:
            axis: The axis.

        Returns:
            A value of the graph, of the same dtype; of integers the float result, cut toward zero.

        Raises:
            TypeError: For bool.
        """
        self._expect_number("var")
        return self._in_floats(lambda x: _variance(x, axis))

    def stdev(self, axis: int = -1) -> Tensor:
        """Returns the population standard deviation along an axis, which stays with size 1.

        Args:
            axis: The axis.

        Returns:
            A value of the graph, of the same dtype; of integers the float result, cut toward zero.

        Raises:
            TypeError: For bool.
        """
        self._expect_number("stdev")
        return self._in_floats(lambda x: F.sqrt(_variance(x, axis)))

    def print(self, label: str = "debug_tensor") -> None:
        """Prints the type, once, while the graph is built.

        Args:
            label: What to call it.
        """
        F.print(self, label)

    def _in_floats(self, fn: Callable[[Tensor], Tensor]) -> Tensor:
        """Applies a function; to integers in float64, with the result cast back."""
        if self.dtype.is_float():
            return fn(self)
        return fn(self.cast(DType.float64)).cast(self.dtype)

    def _expect_number(self, name: str) -> None:
        if self.dtype is DType.bool:
            raise OperandError(f"{name}: expected a tensor of numbers, got {self._type.short()}.")


def _variance(x: Tensor, axis: int) -> Tensor:
    distance = x - x.mean(axis)
    return (distance * distance).mean(axis)


class BufferValue(Value):
    """A buffer of a graph, which the graph can change: `buffer[...] = value`.

    Indexing loads: `buffer[...]` is a `TensorValue` of the current content of the buffer.
    """

    __slots__ = ()

    @property
    def type(self) -> BufferType:
        """The type of the buffer."""
        return self._type.as_buffer()

    def __getitem__(self, index: Subscript) -> Tensor:
        return TensorValue.of(self._value)[index]


class Weight:
    """A tensor whose data is provided when the graph is loaded: `session.load(graph, registry)`.

    It can be used as an operand of ops of any graph, and is then a weight of that graph.

    Args:
        name: Name of the data.
        dtype: Element type.
        shape: Sizes.
        device: A `Device` or `DeviceRef`.

    Example:
        >>> import numpy as np
        >>> from maxmod import CPU, DType, DeviceRef, TensorType
        >>> from maxmod.engine import InferenceSession
        >>> from maxmod.graph import Graph, Weight
        >>> weight = Weight("w", DType.float32, [2], DeviceRef.CPU())
        >>> row = TensorType(DType.float32, [2], CPU())
        >>> graph = Graph("scaled", lambda x: x * weight, input_types=[row])
        >>> registry = {"w": np.array([10, 100], np.float32)}
        >>> model = InferenceSession().load(graph, weights_registry=registry)
        >>> model(np.ones(2, np.float32))[0].to_numpy().tolist()
        [10.0, 100.0]
    """

    __slots__ = ("name", "type")
    name: str
    type: TensorType

    def __init__(self, name: str, dtype: DType, shape: ShapeLike, device: DeviceLike) -> None:
        self.name = name
        self.type = TensorType(dtype, shape, device)

    def __tensorvalue__(self) -> TensorValue:
        return current_tracer().weight(self.name, self.type)

    def __repr__(self) -> str:
        return f"Weight({self.name!r}, {self.type.short()})"


class GraphTracer(Tracer):
    """Records the ops of a `Graph`; results are `TensorValue`s."""

    def __init__(self, graph: Any) -> None:
        super().__init__({})
        self.graph = graph

    def _empty(self) -> GraphTracer:
        return GraphTracer(self.graph)

    def known(self, value: ir.Value) -> TensorValue:
        self._own.add(value)
        return TensorValue.of(value)

    def argument(self, type: TensorType) -> Value:
        value = ir.Value(type.as_tensor() if isinstance(type, BufferType) else type)
        self._own.add(value)
        return self.buffer(value) if isinstance(type, BufferType) else TensorValue.of(value)

    def buffer(self, value: ir.Value) -> BufferValue:
        """Makes a buffer with an initial value."""
        made = BufferValue.of(value)
        self._buffers[value] = made
        return made

    def weight(self, name: str, type: TensorType) -> TensorValue:
        """Returns the value of a weight, which is declared on first use."""
        if isinstance(self._outer, GraphTracer):
            return self.known(self._capture(self._outer.weight(name, type)._value))
        value = self.weights.setdefault(name, ir.Value(type))
        self._own.add(value)
        if value.type != type:
            raise ArgumentError(
                f"Graph {self.graph.name}: the weight {name!r} is declared twice: as "
                f"{value.type.short()} and as {type.short()}."
            )
        return TensorValue.of(value)

    def lift(self, tensor: Tensor) -> ir.Value:
        value = super().lift(tensor)
        self._own.add(value)  # a constant or weight may be an operand by its own value, too
        return value

    def record(
        self,
        op: Op,
        inputs: Sequence[ir.Value],
        attrs: Mapping[str, object],
        types: Iterable[TensorType],
        source: ir.Source | None = None,
    ) -> Any:
        made = super().record(op, inputs, attrs, types, source)
        if isinstance(made, list):
            return [TensorValue.of(tensor._value) for tensor in made]
        return TensorValue.of(made._value)


def current_tracer() -> GraphTracer:
    """Returns the tracer of the graph that is being built.

    Raises:
        NoGraphError: (a LookupError) If there is none.
    """
    inner = innermost()
    if not isinstance(inner, GraphTracer):
        raise NoGraphError("No graph found. Hint: ops of a graph go inside `with Graph(...):`.")
    return inner


# What ops take: values and types that convert to one, and literals that adopt an operand's type.
StrongTensorValueLike = TensorValue | Tensor | Dim | Shape | Weight
Numeric = int | float | np.integer | np.floating | np.ndarray
TensorValueLike = StrongTensorValueLike | int | float | np.generic | np.ndarray | DLPackArray
BufferValueLike = BufferValue

__all__ = [
    "BufferValue",
    "BufferValueLike",
    "GraphTracer",
    "Numeric",
    "StrongTensorValueLike",
    "TensorValue",
    "TensorValueLike",
    "Value",
    "Weight",
    "current_tracer",
]
