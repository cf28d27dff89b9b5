"""`Graph`: builds a graph by calling ops inside a `with` block.

It is recorded as a traced function is, by a `Tracer` that is active in the block.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from maxmod import config
from maxmod.errors import ArgumentError, OperandError
from maxmod.graph.values import (
    GraphTracer,
    TensorValue,
    TensorValueLike,
    Value,
    Weight,
    current_tracer,
)
from maxmod.interpreters.operands import strong
from maxmod.op import interpreter, ir
from maxmod.tensor import Tensor
from maxmod.values.tensor_type import TensorType

_log = logging.getLogger(__name__)


class _Current:
    """`Graph.current`, a property of the class."""

    def __get__(self, instance: object, owner: type) -> Graph:
        return current_tracer().graph


class Graph:
    """A graph that is built by calling ops.

    Args:
        name: Name of the graph.
        forward: Called at once with the inputs, and with `args` and `kwargs`; its result (one
            value, several, or None) becomes the output.
        input_types: A `TensorType` or `BufferType` for each input. Equal names in their shapes mean
            equal sizes.
        path: Must be None; graphs are not read from files.
        *args: More arguments of `forward`.
        custom_extensions: Must be empty; `F.custom` takes kernels.
        context: Must be None.
        kernel_library: Ignored, with a line of the log: paths of kernels that MAX would load. An op
            of them that is used is an error, as any unknown name in `F.custom`.
        module: Must be None.
        strict_device_placement: Accepted for compatibility; devices are always checked.
        is_device_graph: No effect.
        **kwargs: More arguments of `forward`.

    Attributes:
        name: Name of the graph.
        subgraphs: The graphs made by `add_subgraph`, by name.
        inputs: A `TensorValue` or `BufferValue` for each input type.
        input_types: The types of the inputs.
        current: (of the class) The graph whose `with` block is the innermost; `LookupError` outside
            of all.

    Example:
        >>> from maxmod import CPU, DType, TensorType
        >>> from maxmod.engine import InferenceSession
        >>> from maxmod.graph import Graph, ops
        >>> with Graph("double", input_types=[TensorType(DType.float32, ["n"], CPU())]) as graph:
        ...     x = graph.inputs[0].tensor
        ...     graph.output(ops.add(x, x))
        >>> (y,) = InferenceSession().load(graph)([1.0, 2.0])
        >>> y.to_numpy().tolist()
        [2.0, 4.0]
    """

    current = _Current()

    def __init__(
        self,
        name: str,
        forward: Callable[..., object] | None = None,
        input_types: Iterable[TensorType] = (),
        path: object = None,
        *args: object,
        custom_extensions: Iterable[object] = (),
        context: object = None,
        kernel_library: object = None,
        module: object = None,
        strict_device_placement: object = None,
        is_device_graph: bool = False,
        **kwargs: Any,
    ) -> None:
        given = {"path": path, "context": context}
        given |= {"module": module, "custom_extensions": list(custom_extensions) or None}
        for what, value in given.items():
            if value is not None:
                raise NotImplementedError(f"Graph: {what}: not supported, got {value!r}.")
        if kernel_library:
            _log.warning(
                "Graph %s: kernel_library is ignored: %r. maxmod.custom takes kernels.",
                name,
                kernel_library,
            )
        self.name = name
        self.subgraphs: dict[str, Graph] = {}
        self.input_types = tuple(input_types)
        for index, type in enumerate(self.input_types):
            if not isinstance(type, TensorType):
                raise OperandError(
                    f"Graph {name}: input_types[{index}]: expected a TensorType or BufferType, got "
                    f"{type!r}."
                )
        self._tracer = GraphTracer(self)
        self.inputs: tuple[Value, ...] = tuple(map(self._tracer.argument, self.input_types))
        self._input_values = tuple(value._value for value in self.inputs)
        self._outputs: tuple[ir.Value, ...] | None = None
        self._blocks: list[contextlib.AbstractContextManager[None]] = []
        if forward is not None:
            with self:
                self.output(*_listed(forward(*self.inputs, *args, **kwargs)))

    def __enter__(self) -> Graph:
        block = interpreter(self._tracer)
        block.__enter__()
        self._blocks.append(block)
        return self

    def __exit__(self, *error: Any) -> None:
        self._blocks.pop().__exit__(*error)

    def output(self, *values: TensorValueLike) -> None:
        """Fixes the outputs.

        Args:
            *values: Values of this graph, or tensors, which become constants.

        Raises:
            ValueError: If the outputs are fixed already.
            TypeError: If something else is given.
        """
        if self._outputs is not None:
            raise ArgumentError(f"Graph {self.name}: output was already called.")
        with interpreter(self._tracer):
            self._outputs = tuple(self._tracer.lift(strong("Graph.output", v)) for v in values)

    @property
    def output_types(self) -> list[TensorType]:
        """The types of the outputs; `TypeError` before `output` is called."""
        if self._outputs is None:
            raise OperandError(f"Graph {self.name}: no outputs are set before output(...).")
        return [value.type for value in self._outputs]

    def add_weight(self, weight: Weight, force_initial_weight_on_host: bool = True) -> TensorValue:
        """Returns the value of a weight in this graph.

        Args:
            weight: The weight.
            force_initial_weight_on_host: No effect; the data may be anywhere when it is loaded.

        Returns:
            The value; the same one each time.

        Raises:
            ValueError: If another weight of the graph has its name and another type.
        """
        return self._tracer.weight(weight.name, weight.type)

    def add_subgraph(
        self,
        name: str,
        forward: Callable[..., object] | None = None,
        input_types: Iterable[TensorType] = (),
        path: object = None,
        custom_extensions: Iterable[object] = (),
        devices: Iterable[object] = (),
    ) -> Graph:
        """Makes a graph that this one can call: `ops.call(subgraph, *values)`.

        Its ops are inlined where it is called.

        Args:
            name: Name of the subgraph; one that exists is returned if nothing else is given.
            forward: As for `Graph`.
            input_types: As for `Graph`.
            path: Must be None.
            custom_extensions: Must be empty.
            devices: No effect.

        Returns:
            The subgraph, whose `with` block records its ops, not those of this graph.

        Raises:
            ValueError: If there is another subgraph of that name.
        """
        types = tuple(input_types)
        known = self.subgraphs.get(name)
        if known is not None:
            if forward is None and not types:
                return known
            raise ArgumentError(f"Graph {self.name}: there is a subgraph {name!r} already.")
        made = Graph(name, forward, types, path, custom_extensions=custom_extensions)
        self.subgraphs[name] = made
        return made

    def build(self) -> ir.Graph:
        """Returns the recorded graph.

        Returns:
            The typed graph, which can be printed.

        Raises:
            ValueError: If `output` was not called.

        Example:
            >>> from maxmod import CPU, DType, TensorType
            >>> from maxmod.graph import Graph
            >>> row = TensorType(DType.float32, ["n"], CPU())
            >>> print(Graph("double", lambda x: x + x, input_types=[row]).build())
            graph double(%arg0: float32[n])
              %0: float32[n] = add %arg0 %arg0  # ...
              return %0
        """
        if self._outputs is None:
            raise ArgumentError(
                f"Graph {self.name}: no output is set. Hint: call graph.output(...)."
            )
        made = self._recorded(self._outputs)
        return ir.verify(made) if config.current().verify else made

    def _recorded(self, outputs: tuple[ir.Value, ...]) -> ir.Graph:
        tracer = self._tracer
        return ir.Graph(
            self.name,
            self._input_values,
            tracer.weights,
            tracer.constants,
            tuple(tracer.nodes),
            outputs,
            updates=tracer.updates(self._input_values),
        )

    def __repr__(self) -> str:
        return str(self._recorded(self._outputs or ()))


def _listed(result: Any) -> Sequence[Any]:
    """Lists what a function returned: nothing, one value, or several."""
    if result is None:
        return ()
    several = isinstance(result, Iterable) and not isinstance(result, Tensor)
    return tuple(result) if several else (result,)
