"""Ops that run graphs: a branch and a loop whose conditions are known when they run.

The functions that a user gives are traced to graphs of their own, which are static arguments of the
op. What they use of the graph around them becomes an operand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from maxmod import backends
from maxmod.errors import TraceError
from maxmod.interpreters.operands import strong
from maxmod.interpreters.trace import Tracer
from maxmod.op import Kind, Op, interpreter, ir, op
from maxmod.ops.known_sizes import SizeChecks
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule
from maxmod.values.dim import Size, SymbolicDim
from maxmod.values.tensor_type import TensorType


def listed_results(name: str, made: object) -> list[Tensor]:
    """Lists what a function returned: nothing, one tensor, or several."""
    if made is None:
        return []
    if isinstance(made, Iterable) and not isinstance(made, Tensor):
        return [strong(name, item) for item in made]
    return [strong(name, made)]


def _declared(
    op: Op, *operands: TensorType, types: tuple[TensorType, ...], **attrs: object
) -> tuple[TensorType, ...]:
    return types


# A graph that is interpreted, or what it was compiled to.
Body = ir.Graph | Callable[[Sequence[Array]], list[Array]]


def _run_body(body: Body, arrays: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
    if not isinstance(body, ir.Graph):
        return body(arrays)
    known = SizeChecks(body.traced or body)(dict(sizes))
    return ir.interpret(body, backends.run, arrays, {}, known)


def _apart(xp: ArrayModule, results: Sequence[Array], others: Sequence[Array]) -> list[Array]:
    """Copies results that share memory with operands or with each other."""
    apart: list[Array] = []
    for result in results:
        on_device = [other for other in (*others, *apart) if type(other) is type(result)]
        module = np if isinstance(result, np.ndarray) else xp
        shared = any(module.may_share_memory(result, other) for other in on_device)
        apart.append(result.copy() if shared else result)
    return apart


@op(Kind.OPAQUE, _declared, mixed_devices=True)
def branch(
    xp: ArrayModule,
    operands: Sequence[Tensor],
    then: Body,
    otherwise: Body,
    sizes: tuple[tuple[str, Size], ...],
    types: tuple[TensorType, ...],
) -> list[Tensor]:
    """Runs one of two graphs.

    Args:
        operands: A bool scalar, then the inputs of both graphs.
        then: The graph to run if it is true.
        otherwise: The graph to run if it is false.
        sizes: (name, value) of the symbolic dimensions in the graphs.
        types: The types of the results.
    """
    condition, *arrays = operands
    chosen = then if bool(condition) else otherwise
    return _apart(xp, _run_body(chosen, arrays, sizes), arrays)


@op(Kind.OPAQUE, _declared, mixed_devices=True)
def loop(
    xp: ArrayModule,
    operands: Sequence[Tensor],
    condition: Body,
    body: Body,
    sizes: tuple[tuple[str, Size], ...],
    types: tuple[TensorType, ...],
) -> list[Tensor]:
    """Runs a graph on its own results as long as another one gives true.

    Args:
        operands: The first values, then the other inputs of both graphs.
        condition: Gives a bool scalar.
        body: Gives the next values.
        sizes: (name, value) of the symbolic dimensions in the graphs.
        types: The types of the values.
    """
    values, others = list(operands[: len(types)]), list(operands[len(types) :])
    while bool(_run_body(condition, [*values, *others], sizes)[0]):
        values = _run_body(body, [*values, *others], sizes)
    return _apart(xp, values, operands)


class Bodies:
    """Traces functions to graphs that take the same inputs.

    Args:
        name: Of the calling op, for messages.
        tracer: The trace that calls them.
        types: The types of the arguments of the functions.
    """

    def __init__(self, name: str, tracer: Tracer, types: Sequence[TensorType] = ()) -> None:
        self.name = name
        self.tracer = tracer
        self.captured: dict[ir.Value, ir.Value] = {}
        self.arguments = [ir.Value(type) for type in types]
        self.bodies: list[tuple[str, Tracer, list[Tensor]]] = []
        self.seed = tracer.seed

    def trace(self, what: str, fn: Callable[..., object]) -> list[Tensor]:
        """Runs a function on symbolic tensors and returns what it returns."""
        inner = self.tracer.nested(self.captured, self.arguments)
        with interpreter(inner):
            made = fn(*(inner.known(value) for value in self.arguments))
            results = listed_results(self.name, made)
        self._refuse_collectives(what, inner)
        self.bodies.append((what, inner, results))
        if inner.seed is not None and inner.seed != self.seed:  # later numbers are others
            self.tracer.seed = max(inner.seed, self.tracer.seed or 0)
        return results

    def _refuse_collectives(self, what: str, inner: Tracer) -> None:
        """Raises for a collective: processes that take another branch would not come to it."""
        for node in inner.nodes:
            if node.op.meaning.collective is not None:
                raise TraceError(
                    f"{self.name}: {what}: {node.op.label} exchanges data with other processes, "
                    "which may not take this branch, or stop the loop at another time. Hint: call "
                    "it outside, on what the function returns."
                )

    def graphs(self) -> list[ir.Graph]:
        """Returns the graph of each function."""
        lifted = [[inner.lift(t) for t in results] for _, inner, results in self.bodies]
        inputs = (*self.arguments, *self.captured.values())
        return [
            ir.Graph(what, inputs, {}, inner.constants, tuple(inner.nodes), tuple(outputs))
            for (what, inner, _), outputs in zip(self.bodies, lifted, strict=True)
        ]

    def operands(self) -> list[Tensor]:
        """Returns the outer values that the graphs capture, to be passed after the arguments."""
        return [self.tracer.known(value) for value in self.captured]

    def sizes(self) -> tuple[tuple[str, Size], ...]:
        """Returns the names of sizes in the graphs that have a value outside."""
        names: dict[str, None] = {}
        for value in (*self.arguments, *self.captured.values()):
            names.update((symbol.name, None) for symbol in value.type.parameters)
        outside = self.tracer.names_of_sizes()
        for _, inner, _ in self.bodies:
            for node in inner.nodes:
                mentioned = sorted(ir.mentioned_names(node))
                names.update((name, None) for name in mentioned if name in outside)
        return tuple((name, SymbolicDim(name)) for name in names)
