"""The bytes that a step moves and the operations that it does, counted from its types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from maxmod.compiler.steps import RunKernel, RunOp, RunProduct, Step
from maxmod.op import Kind, ir
from maxmod.values.dim import Dim, Size, as_size
from maxmod.values.shape import product
from maxmod.values.tensor_type import TensorType

if TYPE_CHECKING:
    from maxmod.compiler.groups.group import FusionGroup


class Cost(NamedTuple):
    """What a step costs.

    Attributes:
        reads: Bytes that it reads.
        writes: Bytes that it writes.
        flops: One operation for each element that an op makes, or that a reduction takes.
    """

    reads: Size
    writes: Size
    flops: Size


def cost_of(step: Step) -> Cost:
    """Returns what a step costs; symbolic if a size is."""
    if isinstance(step, RunKernel):
        assert step.group is not None
        reads, writes = _read_types(step.group), _written_types(step.group)
        return Cost(sum_nbytes(reads), sum_nbytes(writes), _flops_of(step.group.ordered))
    if isinstance(step, RunProduct):
        assert step.group is not None
        reads = [value.type for value in step.group.inputs]
        return Cost(sum_nbytes(reads), sum_nbytes(step.types), _flops_of(step.group.ordered))
    assert step.node is not None
    operands = [value.type for value in step.node.inputs]
    if (
        isinstance(step, RunOp) and step.in_place
    ):  # the stored value is read, and as many bytes of the buffer are written
        stored = sum_nbytes(operands[1:])
        return Cost(stored, stored, 0)
    return Cost(sum_nbytes(operands), sum_nbytes(step.types), _flops_of([step.node]))


def sum_nbytes(types: Iterable[TensorType]) -> Size:
    """Returns the bytes of several values, symbolic if a size is."""
    return total(type.nbytes for type in types)


def total(sizes: Iterable[Size]) -> Size:
    """Returns the sum of sizes, of which some may be symbolic."""
    found: int | Dim = 0
    for size in sizes:
        found = found + size
    return as_size(found)


def _flops_of(nodes: Iterable[ir.Node]) -> Size:
    return total(map(_flops_of_node, nodes))


def _flops_of_node(node: ir.Node) -> Size:
    if node.op.kind is Kind.ELEMENTWISE:
        return product(node.output.type.sizes)
    if node.op.kind is Kind.CONTRACT:
        return product((2, *node.output.type.sizes, node.inputs[0].type.sizes[-1]))
    if node.op.kind in (Kind.REDUCE, Kind.COMPOSITE):
        return product(node.inputs[0].type.sizes)
    return 0


def _read_types(group: FusionGroup) -> list[TensorType]:
    """Returns the types of the values that a kernel reads; of a table, only the rows looked up."""
    found: list[TensorType] = []
    for value in group.inputs:
        # Storing into a value does not read it.
        readers = {
            n: n.inputs[1:] if n.op.meaning.assign is not None else n.inputs for n in group.nodes
        }
        users = [node for node, inputs in readers.items() if value in inputs]
        is_table = all(n.op.kind is Kind.INDEX and n.inputs[0] is value for n in users)
        found += [node.output.type for node in users] if is_table else [value.type]
    return found


def _written_types(group: FusionGroup) -> list[TensorType]:
    """Returns the types of what a kernel writes; of a buffer that is the part that changes."""
    types = {value: value.type for value in group.outputs}
    for node in group.nodes:
        if node.op.meaning.assign is not None:
            types[node.output] = node.inputs[1].type
    return list(types.values())
