"""Functions that only graphs have: constants, weights, buffers, and calls of other graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import OperandError, ShapeError, TraceError
from maxmod.graph.builder import Graph
from maxmod.graph.values import BufferValue, TensorValue, current_tracer
from maxmod.interpreters.operands import strong
from maxmod.op import bind
from maxmod.tensor import Tensor
from maxmod.tensor.exchange import DLPackArray
from maxmod.values.device import DeviceLike
from maxmod.values.dim import AlgebraicDim, Dim, Size, SymbolicDim, as_size
from maxmod.values.plain import Numbers
from maxmod.values.tensor_type import BufferType, TensorType


def constant(
    value: Numbers | DLPackArray, dtype: DType | None = None, device: DeviceLike | None = None
) -> TensorValue:
    """A constant of the current graph; see `functional.constant`.

    Args:
        value: A number, a nested sequence of numbers, or an array, which keeps its dtype.
        dtype: Element type of a literal.
        device: Where to put it.

    Returns:
        A value of the graph.

    Raises:
        LookupError: If no graph is being built.
        ValueError: If a literal is not rectangular or does not fit, or an array has another dtype.
    """
    current_tracer()
    return TensorValue(F.constant(value, dtype, device))


def constant_external(
    name: str, type: TensorType, align: int | None = None, is_placeholder: bool = False
) -> TensorValue:
    """A weight of the current graph; its data is provided when the graph is loaded.

    Args:
        name: Name of the data.
        type: Its type.
        align: No effect, like the next.
        is_placeholder: No effect.

    Returns:
        A value of the graph.

    Raises:
        LookupError: If no graph is being built.
        TypeError: If `type` is not a `TensorType`.
        ValueError: If the name is declared with another type.

    Example:
        >>> import numpy as np
        >>> from maxmod import CPU, DType, TensorType
        >>> from maxmod.engine import InferenceSession
        >>> from maxmod.graph import Graph, ops
        >>> row = TensorType(DType.float32, [2], CPU())
        >>> with Graph("scaled", input_types=[row]) as graph:
        ...     graph.output(graph.inputs[0] * ops.constant_external("w", row))
        >>> weights = {"w": np.array([10, 100], np.float32)}
        >>> model = InferenceSession().load(graph, weights_registry=weights)
        >>> model(np.ones(2, np.float32))[0].to_numpy().tolist()
        [10.0, 100.0]
    """
    if not isinstance(type, TensorType) or isinstance(type, BufferType):
        raise OperandError(f"constant_external: type: expected a TensorType, got {type!r}.")
    return current_tracer().weight(name, type)


def buffer_create(type: BufferType) -> BufferValue:
    """A buffer of the current graph, initially zero.

    Args:
        type: Its type.

    Returns:
        The buffer, which `buffer_store` changes and `buffer_load` reads.

    Raises:
        LookupError: If no graph is being built.
        TypeError: If `type` is not a `BufferType`.
    """
    tracer = current_tracer()
    if not isinstance(type, BufferType):
        raise OperandError(f"buffer_create: type: expected a BufferType, got {type!r}.")
    filled = Tensor.full(type.shape, 0, dtype=type.dtype, device=type.device)
    return tracer.buffer(filled._value)


def buffer_load(buffer: BufferValue) -> TensorValue:
    """The current content of a buffer; a later store does not change it.

    Args:
        buffer: A buffer of the graph.

    Returns:
        A value of the graph.

    Raises:
        TypeError: If the value is not a buffer.
    """
    if not isinstance(buffer, BufferValue):
        raise OperandError(
            f"buffer_load: expected a BufferValue, got {type(buffer).__name__}. Hint: an input of "
            "a BufferType is one."
        )
    return TensorValue.of(buffer._value)


def call(graph: Graph, *args: Any) -> list[Any]:
    """The results of another graph, whose ops are inlined into the current one.

    Args:
        graph: A graph with outputs, without buffers.
        *args: A value for each of its inputs.

    Returns:
        A list of values.

    Raises:
        LookupError: If no graph is being built.
        ValueError: If the types of the arguments do not fit.
        TypeError: If the number of arguments is wrong, or the graph changes buffers.
    """
    tracer = current_tracer()
    inner = graph.build()
    if inner.updates:
        raise TraceError(f"call: the graph {graph.name} changes buffers, which is not supported.")
    if len(args) != len(inner.inputs):
        raise OperandError(
            f"call: the graph {graph.name} takes {len(inner.inputs)} arguments, got {len(args)}."
        )
    known: dict[object, Tensor] = {}
    dims: dict[str, Size] = {}
    for index, (value, arg) in enumerate(zip(inner.inputs, args, strict=True)):
        known[value] = strong("call", arg)
        _bind_sizes(f"call: argument {index} of {graph.name}", value.type, known[value].type, dims)
    for name, value in inner.weights.items():
        known[value] = tracer.weight(name, value.type)
    for value, data in inner.constants.items():
        known[value] = Tensor.wrap(data, value.type)
    for node in inner.nodes:
        attrs = {name: _substituted(attr, dims) for name, attr in node.attrs}
        made = bind(node.op, [known[value] for value in node.inputs], attrs)
        known.update(zip(node.outputs, made if isinstance(made, list) else [made], strict=True))
    return [TensorValue(known[value]) for value in inner.outputs]


def _bind_sizes(where: str, want: TensorType, have: TensorType, dims: dict[str, Size]) -> None:
    """Checks the type of an argument and binds its symbolic dimensions."""
    fits = (want.dtype, want.device, want.rank) == (have.dtype, have.device, have.rank)
    for size, found in zip(want.sizes, have.sizes, strict=False):
        if isinstance(size, SymbolicDim):
            fits &= dims.setdefault(size.name, found) == found
        elif isinstance(size, AlgebraicDim):
            fits &= _substituted(size, dims) == found
        else:
            fits &= size == found
    if not fits:
        raise ShapeError(f"{where}: expected {want.short()}, got {have.short()}.")


def _substituted(attr: Any, dims: Mapping[str, Size]) -> Any:
    """Replaces symbolic dimensions inside a static argument."""
    if isinstance(attr, tuple):
        return tuple(_substituted(item, dims) for item in attr)
    return as_size(attr.substitute(dims)) if isinstance(attr, Dim) else attr


def top_k(input: Any, k: int, axis: int = -1) -> Any:
    """The k largest elements along an axis and their indices, as `maxmod.functional.top_k`.

    Args:
        input: A value of a graph, or a tensor.
        k: How many.
        axis: The axis.

    Returns:
        A tuple (values, indices) for a value of a graph, a list for a tensor.

    Raises:
        ValueError: If k is negative or larger than the axis, or there is no such axis.
    """
    found = F.top_k(input, k, axis)
    return tuple(found) if isinstance(input, TensorValue) else found
