"""Tracing: runs a function once on symbolic tensors and records every op call as a graph.

Recording goes by context, not by data: while a `Tracer` is active in this thread, every op call is
recorded, whatever its operands are. A parameter is recognised by identity and becomes a weight of
the graph; any other tensor from outside becomes a constant with its current value.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from maxmod.config import PACKAGE
from maxmod.errors import MaxmodError, TraceError
from maxmod.interpreters.operands import operands, plan
from maxmod.op import Op, innermost, interpreter, ir, lookup
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import Array
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import BufferType, TensorType

# Model files count as user code: messages point to lines in them.
_SHOWN = os.path.join(PACKAGE, "models", "")


@dataclass(frozen=True, slots=True)
class Trace:
    """The result of tracing: the graph, and what the function returned."""

    graph: ir.Graph
    results: object


class Tracer:
    """The interpreter that records op calls."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.nodes: list[ir.Node] = []
        self.weights: dict[str, ir.Value] = {}
        self.constants: dict[ir.Value, Array] = {}
        self.seed: int | None = None
        self.scope: ir.Scope | None = None
        self._names = {id(tensor): name for name, tensor in reversed(list(parameters.items()))}
        self._kept: list[Tensor] = []  # tensors known by id must stay alive
        self._known: dict[int, ir.Value] = {}
        self._own: set[ir.Value] = set()
        self._results: set[ir.Value] = set()  # of nodes
        self._buffers: dict[ir.Value, Tensor] = {}
        self._outer: Tracer | None = None
        self._captured: dict[ir.Value, ir.Value] = {}

    def nested(self, captured: dict[ir.Value, ir.Value], arguments: Sequence[ir.Value]) -> Tracer:
        """Makes the tracer of a body inside this graph.

        Args:
            captured: Values of this graph that become inputs of the body; filled while it traces.
            arguments: The other inputs of the body.
        """
        inner = self._empty()
        inner._outer = self
        inner.seed = self.seed
        inner._captured = captured
        inner._own.update(arguments)
        return inner

    def names_of_sizes(self) -> set[str]:
        """Returns the symbolic dimensions in all types so far, enclosing graphs included."""
        found = {symbol.name for value in self._own for symbol in value.type.parameters}
        return found if self._outer is None else found | self._outer.names_of_sizes()

    def _empty(self) -> Tracer:
        return Tracer({})

    def known(self, value: ir.Value) -> Tensor:
        """Returns the symbolic tensor of a value of this graph: its own, a weight, a constant."""
        self._own.add(value)
        return Tensor.symbolic(value)

    def argument(self, type: TensorType) -> Tensor:
        """Makes the symbolic tensor of an argument."""
        value = ir.Value(type.as_tensor())
        self._own.add(value)
        tensor = Tensor.symbolic(value)
        if isinstance(type, BufferType):
            self._buffers[value] = tensor
        return tensor

    def store(self, destination: Tensor, content: Tensor) -> None:
        """Records that a tensor now holds `content`; later reads see it.

        Raises:
            TraceError: If `destination` is neither a result of an op of this trace nor an argument
                of a `BufferType`.
        """
        if destination._value in self._results and not self._is_buffer(destination):
            destination._value = self.lift(content)
            return
        if self._outer is not None:
            raise TraceError(
                "buffer_store: a branch or a loop of a compiled function cannot change a buffer. "
                "Hint: return the new contents and store them after it."
            )
        if not self._is_buffer(destination):
            raise TraceError(
                f"buffer_store: {destination.type.short()} cannot be changed in a compiled "
                "function: only arguments of a BufferType and results of ops can. Hint: compile "
                "with BufferType, or change a copy: y = x + 0."
            )
        destination._value = self.lift(content)

    def _is_buffer(self, tensor: Tensor) -> bool:
        return any(buffer is tensor for buffer in self._buffers.values())

    def updates(self, inputs: Sequence[ir.Value]) -> tuple[tuple[int, ir.Value], ...]:
        """Returns the buffers that were stored to, by position, with their final contents."""
        found = []
        for position, value in enumerate(inputs):
            tensor = self._buffers.get(value)
            if tensor is not None and tensor._value is not value:
                found.append((position, tensor._value))
        return tuple(found)

    def later(self, make: Callable[[], Array]) -> None:
        """Literals have data, and become constants of the graph."""

    def apply(self, op: Op, args: Sequence[TensorLike], attrs: Attrs) -> Tensor | list[Tensor]:
        source = _user_source()
        try:
            tensors = operands(op, args)
            attrs, types, _ = plan(op, tensors, attrs)
        except MaxmodError as error:
            _add_source(error, source)
            raise
        return self.record(op, [self.lift(t) for t in tensors], attrs, types, source)

    def record(
        self,
        op: Op,
        inputs: Sequence[ir.Value],
        attrs: Mapping[str, object],
        types: Iterable[TensorType],
        source: ir.Source | None = None,
    ) -> Any:
        """Appends a node and returns its result as a symbolic tensor, or a list of them."""
        outputs = [ir.Value(type) for type in types]
        self._own.update(outputs)
        self._results.update(outputs)
        self.nodes.append(ir.node(op, inputs, attrs, outputs, source, self.scope))
        made = [Tensor.symbolic(value) for value in outputs]
        return made[0] if len(made) == 1 else made

    def lift(self, tensor: Tensor) -> ir.Value:
        """Returns the graph value of a tensor: its own, a weight, or a constant."""
        value = tensor._value
        if value is not None:
            if value not in self._own and self._outer is not None:
                return self._capture(self._outer.lift(tensor))
            if value not in self._own:
                raise TraceError(
                    f"A symbolic tensor {tensor.type.short()} of another trace was used. Hint: "
                    "a traced function must not keep tensors for later."
                )
            return value
        value = self._known.get(id(tensor))
        if value is not None:
            return value
        if tensor._literal is not None:
            return self._fill(tensor)
        if self._outer is not None:
            return self._capture(self._outer.lift(tensor))
        value = ir.Value(tensor.type)
        name = self._names.get(id(tensor))
        if name is not None:
            self.weights[name] = value
        else:
            self.constants[value] = tensor.data
            _keep_constant(tensor)
        self._known[id(tensor)] = value
        self._kept.append(tensor)
        return value

    def _capture(self, outer: ir.Value) -> ir.Value:
        """Makes a value of the enclosing graph an input."""
        inner = self._captured.setdefault(outer, ir.Value(outer.type))
        self._own.add(inner)
        return inner

    def _fill(self, tensor: Tensor) -> ir.Value:
        """Records a Python number operand as `full`, so that passes and kernels can see it."""
        type = tensor.type
        attrs = {"shape": (), "value": tensor._literal, "dtype": type.dtype, "device": type.device}
        return self.record(lookup("full"), (), attrs, [type])._value


def trace(
    fn: Callable[..., object],
    arguments: Callable[[Tracer], Sequence[object]],
    *,
    name: str,
    parameters: Mapping[str, Tensor],
    flatten: Callable[[object], list[object]],
    input_names: Sequence[str] = (),
) -> Trace:
    """Runs `fn` on symbolic arguments and returns the graph of what it did.

    Args:
        fn: The function or module.
        arguments: Makes the arguments of `fn`, with `Tracer.argument` for each tensor.
        name: Name of the graph.
        parameters: Tensors that become weights, by qualified name.
        flatten: Lists the leaves of the results; tensors become outputs, in order.
        input_names: Names of the tensors among the arguments.

    Raises:
        TraceError: (a TypeError) If `fn` looks at data or returns no tensor.
    """
    tracer = Tracer(parameters)
    inputs: list[ir.Value] = []
    with interpreter(tracer):
        made = arguments(tracer)
        inputs = [t._value for leaf in made for t in flatten(leaf) if isinstance(t, Tensor)]
        results = _located(fn, made)
        leaves = flatten(results)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        updates = tracer.updates(inputs)
        if not tensors and not updates:
            raise TraceError(
                f"{name}: a compiled function must return tensors, got "
                f"{type(results).__name__}. Hint: is a return missing?"
            )
        outputs = tuple(tracer.lift(t) for t in tensors)
    graph = ir.Graph(
        name,
        tuple(inputs),
        tracer.weights,
        tracer.constants,
        tuple(tracer.nodes),
        outputs,
        tuple(input_names),
        updates,
    )
    return Trace(graph, results)


def _located(fn: Callable[..., object], arguments: Sequence[object]) -> object:
    """Calls the traced function; adds the user's line to errors."""
    try:
        return fn(*arguments)
    except MaxmodError as error:
        source = None
        for frame, line in traceback.walk_tb(error.__traceback__):
            name = _shown_name(frame.f_code.co_filename)
            if name:
                source = ir.Source(name, line, frame.f_code.co_qualname)
        _add_source(error, source)
        raise


def current_tracer() -> Tracer | None:
    """Returns the tracer of this thread, or None outside a trace."""
    inner = innermost()
    return inner if isinstance(inner, Tracer) else None


@contextlib.contextmanager
def scope(name: str) -> Iterator[None]:
    """Records the ops of a block as parts of one computation.

    Kernels are named after it, as they are after a composite op. It has no effect eagerly.

    Args:
        name: The common name of the computation, such as `rotary`.
    """
    tracer = current_tracer()
    if tracer is None:
        yield
        return
    outer = tracer.scope
    tracer.scope = ir.Scope(name, outer)
    try:
        yield
    finally:
        tracer.scope = outer


def _keep_constant(tensor: Tensor) -> None:
    """Makes a captured tensor copy-on-write, so that the constant in the graph never changes."""
    root = tensor._alias if isinstance(tensor._alias, Tensor) else tensor
    root._alias = Tensor.wrap(root.data, root.type)


def _user_source() -> ir.Source | None:
    """Finds the innermost frame that belongs to user code or to a model file."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        name = _shown_name(code.co_filename)
        if name:
            return ir.Source(name, frame.f_lineno, code.co_qualname)
        frame = frame.f_back
    return None


@functools.cache
def _shown_name(file: str) -> str:
    """Returns the short name of a file of user code or of a model; empty for our own files."""
    is_ours = file.startswith(PACKAGE + os.sep) and not file.startswith(_SHOWN)
    return "" if is_ours else os.path.basename(file)


def _add_source(error: MaxmodError, source: ir.Source | None) -> None:
    """Adds the user's line to the message of an error, once."""
    if source is None or not error.args or "\n  at " in str(error.args[0]):
        return
    error.args = (f"{error.args[0]}\n  at {source}", *error.args[1:])


__all__ = ["Trace", "Tracer", "current_tracer", "scope", "trace"]
