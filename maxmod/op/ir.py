"""The graph IR: a typed, ordered list of nodes in which every value is bound once.

`verify` re-runs every type rule; `interpret` runs a graph op by op and is the definition of what a
graph means; `format_graph` prints it. Graphs are immutable: a pass builds a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from maxmod.errors import GraphError
from maxmod.op.record import Op
from maxmod.values.array import Array
from maxmod.values.device import DeviceRef
from maxmod.values.dim import Dim, SymbolicDim, evaluate
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType


class Value:
    """A value of a graph: a type and an identity."""

    __slots__ = ("type",)

    def __init__(self, type: TensorType) -> None:
        self.type = type

    def __repr__(self) -> str:
        return f"Value({self.type.short()})"


@dataclass(frozen=True, slots=True)
class Source:
    """Where user code called an op."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """One call of a composite op that a pass expanded into other ops, or of a named function.

    Each call has a distinct object.

    Attributes:
        name: What the user called, such as `softmax`.
        outer: The call whose definition contains this one; None for a call by the user.
    """

    name: str
    outer: Scope | None = None

    @property
    def chain(self) -> tuple[Scope, ...]:
        """The calls around a node, outermost first."""
        return (self,) if self.outer is None else (*self.outer.chain, self)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One op call.

    Attributes:
        op: The op.
        inputs: Its operands.
        attrs: Its static arguments, sorted by name; they may contain symbolic dimensions.
        outputs: Its results.
        source: The user's line.
        scope: The call that it is a part of; None for an op that the user called.
    """

    op: Op
    inputs: tuple[Value, ...]
    attrs: tuple[tuple[str, Any], ...]
    outputs: tuple[Value, ...]
    source: Source | None = None
    scope: Scope | None = None

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value

    @property
    def kwargs(self) -> Attrs:
        """The static arguments as keywords."""
        return dict(self.attrs)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Graph:
    """A traced function. As a static argument of an op (a body), it is run by that op.

    Attributes:
        name: Name of the module or function.
        inputs: Arguments in order.
        weights: Parameters by qualified name; their data is bound when the graph runs.
        constants: Values with data that was captured or folded while the graph was made.
        nodes: Op calls in execution order.
        outputs: Results in order; a value may occur twice.
        input_names: Names of the arguments, for the text form.
        updates: (index of an argument, value) for each buffer that the function changes: the
            final content of the argument.
        traced: For the optimised graph of a branch or loop, the graph as it was traced.
    """

    name: str
    inputs: tuple[Value, ...]
    weights: Mapping[str, Value]
    constants: Mapping[Value, Array]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    input_names: tuple[str, ...] = ()
    updates: tuple[tuple[int, Value], ...] = ()
    traced: Graph | None = None

    @property
    def results(self) -> tuple[Value, ...]:
        """Everything that must be computed: outputs, and the new contents of buffers."""
        return (*self.outputs, *(value for _, value in self.updates))

    def __str__(self) -> str:
        return format_graph(self)

    def __repr__(self) -> str:
        return format_graph(self)  # complete, as it may be a static argument in a cache key


def node(
    op: Op,
    inputs: Sequence[Value],
    attrs: Mapping[str, object],
    outputs: Sequence[Value],
    source: Source | None = None,
    scope: Scope | None = None,
) -> Node:
    """Makes a node; attributes are put into canonical order."""
    return Node(op, tuple(inputs), tuple(sorted(attrs.items())), tuple(outputs), source, scope)


def verify(graph: Graph) -> Graph:
    """Checks that every value is bound once and before its use, and re-runs every type rule.

    Returns:
        The graph itself.

    Raises:
        GraphError: Naming the node and, where it is known, the user's line.
    """
    bound = {*graph.inputs, *graph.weights.values(), *graph.constants}
    if len(bound) != len(graph.inputs) + len(graph.weights) + len(graph.constants):
        raise GraphError(f"{graph.name}: an input, weight or constant is listed twice.")
    for index, n in enumerate(graph.nodes):
        where = f"{graph.name}: node {index} ({n.op.name}, {n.source or 'no source'})"
        if any(value not in bound for value in n.inputs):
            raise GraphError(f"{where}: an operand is used before it is bound.")
        if any(value in bound for value in n.outputs) or len(set(n.outputs)) != len(n.outputs):
            raise GraphError(f"{where}: an output is bound twice.")
        try:
            expected = n.op.result_types(*[v.type for v in n.inputs], **n.kwargs)
        except Exception as error:
            raise GraphError(f"{where}: its type rule rejects it: {error}") from error
        found = tuple(value.type for value in n.outputs)
        if expected != found:
            shown = ", ".join(t.short() for t in expected)
            raise GraphError(
                f"{where}: expected {shown}, got {', '.join(t.short() for t in found)}."
            )
        bound.update(n.outputs)
    if any(value not in bound for value in graph.results):
        raise GraphError(f"{graph.name}: an output is not bound.")
    return graph


Run = Callable[[Op, Sequence[Array], Attrs, Sequence[TensorType]], Sequence[Array]]


def interpret(
    graph: Graph,
    run: Run,
    args: Sequence[Array],
    weights: Mapping[str, Array],
    dims: Mapping[str, int],
) -> list[Array]:
    """Runs a graph op by op.

    Args:
        graph: The graph.
        run: Runs one op on arrays: `Backend.run`.
        args: One array for each input.
        weights: An array for each weight name.
        dims: The value of each symbol in the input types.

    Returns:
        One array for each output. Buffers that the graph updates are changed in place.
    """
    values: dict[Value, Array] = dict(zip(graph.inputs, args, strict=True))
    values.update((value, weights[name]) for name, value in graph.weights.items())
    values.update(graph.constants)
    dims = dict(dims)
    for n in graph.nodes:
        name = late_name(n.op, n.kwargs)
        if name is not None:
            dims.setdefault(name, int(values[n.inputs[0]].item()))
        results = run(
            n.op,
            [values[v] for v in n.inputs],
            bind_attrs(n.kwargs, dims),
            [bind_type(v.type, dims) for v in n.outputs],
        )
        values.update(zip(n.outputs, results, strict=True))
    results = [values[v] for v in graph.outputs]
    for position, value in graph.updates:
        args[position][...] = values[value]
    return results


def late_name(op: Op, attrs: Mapping[str, object]) -> str | None:
    """Returns the name of the data-dependent size that a call binds, None for most calls."""
    binds = op.meaning.binds
    size = attrs[binds] if binds is not None else None
    return size.name if isinstance(size, SymbolicDim) else None


def bind_attrs(attrs: Mapping[str, object], dims: Mapping[str, int]) -> Attrs:
    """Replaces symbolic dimensions inside static arguments by their values."""
    return {name: _bind(value, dims) for name, value in attrs.items()}


def _bind(value: object, dims: Mapping[str, int]) -> object:
    if isinstance(value, Dim):
        return evaluate(value, dims)
    if isinstance(value, tuple):
        return tuple(_bind(item, dims) for item in cast("tuple[object, ...]", value))
    return value


def bind_type(type: TensorType, dims: Mapping[str, int]) -> TensorType:
    """Replaces symbolic dimensions inside a shape by their values."""
    if all(isinstance(size, int) for size in type.sizes):
        return type
    return type.with_sizes(tuple(evaluate(size, dims) for size in type.sizes))


def symbols(graph: Graph) -> list[str]:
    """Returns the names of all symbolic dimensions in the input types, in order of appearance."""
    names: dict[str, None] = {}
    for value in graph.inputs:
        for symbol in value.type.parameters:
            names[symbol.name] = None
    return list(names)


def devices(graph: Graph) -> list[DeviceRef]:
    """Returns the device of every value except constants, which are placed where they are used."""
    values = [*graph.inputs, *graph.weights.values()]
    values += [value for node in graph.nodes for value in node.outputs]
    return [value.type.device for value in values]


def users(graph: Graph) -> dict[Value, list[Node]]:
    """Returns the nodes that read each value."""
    result: dict[Value, list[Node]] = {}
    for n in graph.nodes:
        for value in n.inputs:
            result.setdefault(value, []).append(n)
    return result


def value_names(graph: Graph) -> dict[Value, str]:
    """Returns the printed name of every value."""
    names: dict[Value, str] = {}
    for index, value in enumerate(graph.inputs):
        names[value] = f"%{graph.input_names[index]}" if graph.input_names else f"%arg{index}"
    names.update((value, f"@{name}") for name, value in graph.weights.items())
    names.update((value, f"@constant.{i}") for i, value in enumerate(graph.constants))
    count = 0
    for n in graph.nodes:
        for value in n.outputs:
            names[value] = f"%{count}"
            count += 1
    return names


def format_graph(graph: Graph, note: Callable[[Node], str] | None = None) -> str:
    """Returns the text form, one line for each node: `%3: float32[batch,768] = rsqrt %2`.

    Args:
        graph: The graph.
        note: Gives the remark at the end of a node's line; the user's line by default.
    """
    names = value_names(graph)
    note = note or place

    def typed(value: Value) -> str:
        return f"{names[value]}: {value.type.short()}"

    lines = [f"graph {graph.name}({', '.join(typed(v) for v in graph.inputs)})"]
    lines += [f"  weight {typed(value)}" for value in graph.weights.values()]
    lines += [f"  constant {typed(value)}" for value in graph.constants]
    for n in graph.nodes:
        lines.append(format_node(n, names, note(n)))
        for _, value in n.attrs:
            if isinstance(value, Graph):
                lines += [f"    {line}" for line in format_graph(value, note).splitlines()]
    for position, value in graph.updates:
        lines.append(f"  store {names[graph.inputs[position]]} = {names[value]}")
    lines.append(f"  return {', '.join(names[value] for value in graph.outputs)}")
    return "\n".join(lines)


def format_node(n: Node, names: Mapping[Value, str], remark: str = "") -> str:
    """Returns the line of a node.

    Args:
        n: The node.
        names: The printed name of every value.
        remark: Stands at the end of the line.
    """
    left = ", ".join(f"{names[value]}: {value.type.short()}" for value in n.outputs)
    operands = [names[value] for value in n.inputs]
    attrs = [f"{key}={format_attr(value)}" for key, value in n.attrs]
    text = f"  {left} = {n.op.name} {' '.join(operands + attrs)}".rstrip()
    return f"{text:<72}  # {remark}" if remark else text


def place(n: Node) -> str:
    """Returns the user's line of a node, `model.py:41`; empty if unknown."""
    return f"{n.source.file}:{n.source.line}" if n.source else ""


def format_attr(value: object) -> str:
    """Returns the printed form of a static argument."""
    if isinstance(value, tuple):
        return "[" + ",".join(map(format_attr, cast("tuple[object, ...]", value))) + "]"
    if isinstance(value, Graph):
        return value.name
    if isinstance(value, TensorType):
        return value.short()
    return str(value) if isinstance(value, Dim) else repr(value)


def rebuild(
    graph: Graph,
    nodes: Sequence[Node],
    replace: Mapping[Value, Value],
    constants: Mapping[Value, Array] | None = None,
) -> Graph:
    """Returns the graph with other nodes, and with values replaced in node inputs and outputs."""

    def final(value: Value) -> Value:
        while value in replace:
            value = replace[value]
        return value

    changed = tuple(
        Node(n.op, tuple(final(v) for v in n.inputs), n.attrs, n.outputs, n.source, n.scope)
        for n in nodes
    )
    return Graph(
        graph.name,
        graph.inputs,
        graph.weights,
        graph.constants if constants is None else constants,
        changed,
        tuple(final(v) for v in graph.outputs),
        graph.input_names,
        tuple((position, final(value)) for position, value in graph.updates),
    )


def attr_symbols(n: Node) -> set[str]:
    """Returns the names of all symbolic dimensions in the static arguments of a node."""
    return symbols_in(tuple(value for _, value in n.attrs))


def symbols_in(values: tuple[object, ...]) -> set[str]:
    """Returns the names of all symbolic dimensions in static arguments."""
    found: set[str] = set()
    pending = [*values]
    while pending:
        value = pending.pop()
        if isinstance(value, tuple):
            pending += value
        elif isinstance(value, Dim):
            found.update(symbol.name for symbol in value.parameters)
    return found


def mentioned_names(n: Node) -> set[str]:
    """Returns the names of all symbolic dimensions in a node's attributes and result types."""
    found = attr_symbols(n)
    for value in n.outputs:
        found.update(symbol.name for symbol in value.type.parameters)
    return found
