"""A fusion group: nodes that become one kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from maxmod.op import Kind, ir
from maxmod.values.shape import Sizes


@dataclass(frozen=True, slots=True)
class Attention:
    """What an attention group computes: softmax(logits) @ values, logits made from q @ k^T.

    Attributes:
        scores: The product of queries and transposed keys.
        logits: What the softmax is taken of; made from the scores element by element.
        mixed: The product with the values.
    """

    scores: ir.Node
    logits: ir.Value
    mixed: ir.Node


@dataclass(frozen=True, slots=True)
class Contraction:
    """What a contraction group computes: matrix products, and elementwise ops on their sums.

    Attributes:
        product: The product.
        siblings: More products with the same left operand.
        is_pair: True if one result needs sums of both products: then their columns alternate.
        prologue: A row group that makes the left operand, first of its outputs: each block computes
            its rows while it stages them. One block writes further outputs.
    """

    product: ir.Node
    siblings: tuple[ir.Node, ...] = ()
    is_pair: bool = False
    prologue: FusionGroup | None = None

    @property
    def products(self) -> tuple[ir.Node, ...]:
        """All products."""
        return (self.product, *self.siblings)


@dataclass(frozen=True, slots=True)
class Together:
    """Elementwise groups over different positions that one launch computes, block by block.

    Attributes:
        parts: The groups; none needs what another makes.
    """

    parts: tuple[FusionGroup, ...]


@dataclass(frozen=True, slots=True)
class WholeOp:
    """An op that a hand-written kernel computes from its operands in memory.

    Attributes:
        node: The op.
    """

    node: ir.Node


@dataclass(frozen=True, slots=True)
class LibraryProduct:
    """What the matrix library computes: activation(product + bias + addend).

    Attributes:
        product: The product.
        bias: A vector along the last axis; None for none.
        addend: A value of the type of the result; None for none.
        activation: A key of `maxmod.kernel.source.ACTIVATIONS`, or nothing.
    """

    product: ir.Node
    bias: ir.Value | None = None
    addend: ir.Value | None = None
    activation: str = ""

    @property
    def operands(self) -> list[ir.Value]:
        """What the library reads; a value may come twice."""
        added = [value for value in (self.bias, self.addend) if value is not None]
        return [*self.product.inputs, *added]


@dataclass(frozen=True, eq=False)
class FusionGroup:
    """Nodes that one kernel, or one call of a library, computes.

    A group never changes: to try whether a node can join, a planner makes a larger group, and keeps
    the old one if the larger one cannot be a kernel.

    Attributes:
        nodes: The nodes with their positions in the graph; `ordered` gives them in execution order.
        domain: The iteration space. Values of a row group have this shape, or the same with 1 on
            the last axis.
        outputs: Values that the kernel writes.
        is_row: True if the group reduces the last axis of `domain`.
        targets: For outputs that overwrite a buffer in place, that buffer.
        reasons: Why nodes joined, or were kept out; shown by `explain`.
        template: What a hand-written kernel or a library computes of it; None if all of it is
            generated.
    """

    nodes: Mapping[ir.Node, int]
    domain: Sizes
    outputs: tuple[ir.Value, ...]
    is_row: bool = False
    targets: Mapping[ir.Value, ir.Value] = field(default_factory=dict[ir.Value, ir.Value])
    reasons: tuple[str, ...] = ()
    template: Attention | Contraction | LibraryProduct | Together | WholeOp | None = None

    def with_node(self, node: ir.Node, position: int, *, is_output: bool) -> FusionGroup:
        """Returns the group with a node that makes one of its inputs.

        Args:
            node: The node; one that reduces makes a row group.
            position: Its position in the graph.
            is_output: True if the kernel has to write its value, because others need it.
        """
        outputs = (*self.outputs, node.output) if is_output else self.outputs
        larger = replace(self, nodes={**self.nodes, node: position}, outputs=outputs)
        if node.op.kind is not Kind.REDUCE:
            return larger
        return replace(larger, domain=node.inputs[0].type.sizes, is_row=True)

    def with_target(self, value: ir.Value, buffer: ir.Value) -> FusionGroup:
        """Returns the group with an output that overwrites a buffer in place."""
        return replace(self, targets={**self.targets, value: buffer})

    @cached_property
    def ordered(self) -> tuple[ir.Node, ...]:
        """The nodes in execution order.

        The order of attention depends only on what its nodes compute: a shared mask comes before
        the queries of some layers and after those of others, and all of them should share a
        kernel.
        """
        if isinstance(self.template, Attention):
            return self._operands_first()
        return tuple(sorted(self.nodes, key=self.nodes.__getitem__))

    def _operands_first(self) -> tuple[ir.Node, ...]:
        producer = {value: node for node in self.nodes for value in node.outputs}
        found: dict[ir.Node, None] = {}
        pending = [producer[value] for value in reversed(self.outputs)]
        while pending:
            node = pending[-1]
            missing = [producer[v] for v in node.inputs if v in producer]
            missing = [operand for operand in missing if operand not in found]
            if missing:
                pending += reversed(missing)
            else:
                found[pending.pop()] = None
        return tuple(found)

    @cached_property
    def inputs(self) -> tuple[ir.Value, ...]:
        """Values that the group reads from elsewhere: in order of first use, those of the library
        in its own order.
        """
        made = {value for node in self.nodes for value in node.outputs}
        found: dict[ir.Value, None] = {}
        if isinstance(self.template, LibraryProduct):
            found.update((value, None) for value in self.template.operands)
        for node in self.ordered:
            found.update((value, None) for value in node.inputs if value not in made)
        return tuple(found)

    @cached_property
    def reads(self) -> tuple[ir.Value, ...]:
        """The inputs that the kernel gets to read; a buffer that it overwrites is not one."""
        overwritten = set(self.targets.values())
        return tuple(value for value in self.inputs if value not in overwritten)

    def key(self) -> tuple[object, ...]:
        """Returns what decides the kernel: groups with equal keys have equal text."""
        numbers: dict[ir.Value, int] = {}
        parts: list[object] = [self.domain, self.is_row, type(self.template)]
        if isinstance(self.template, Contraction):
            parts += [len(self.template.products), self.template.is_pair]
            parts.append(self.template.prologue is not None)
        for value in self.inputs:
            numbers[value] = len(numbers)
            parts.append(value.type)
        for node in self.ordered:
            operands = tuple(numbers[value] for value in node.inputs)
            parts.append((node.op, operands, repr(node.attrs), node.output.type))
            numbers[node.output] = len(numbers)
        parts.append(tuple(numbers[value] for value in self.outputs))
        if isinstance(self.template, Attention):
            steps = (self.template.scores.output, self.template.logits, self.template.mixed.output)
            parts.append(tuple(numbers[value] for value in steps))
        if isinstance(self.template, Together):
            parts += [part.key() for part in self.template.parts]
            nodes = (part.ordered for part in self.template.parts)
            parts += [tuple(numbers[node.output] for node in found) for found in nodes]
        # A buffer that is not read is not an input and has no number.
        parts.append(tuple((numbers[y], numbers.get(x)) for y, x in self.targets.items()))
        return tuple(parts)

    def as_graph(self, name: str) -> ir.Graph:
        """Returns the group as a separate graph, which `ir.interpret` can run."""
        inputs = (*self.reads, *self.targets.values())
        return ir.Graph(name, inputs, {}, {}, self.ordered, self.outputs)
