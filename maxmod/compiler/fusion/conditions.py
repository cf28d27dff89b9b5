"""What may be fused: predicates over nodes and groups, without side effects."""

from __future__ import annotations

from maxmod.compiler.groups.group import FusionGroup
from maxmod.compiler.groups.instructions import Load
from maxmod.compiler.groups.lower import attempt, lower
from maxmod.op import Kind, ir
from maxmod.op.affine import Unfusable
from maxmod.values.dim import as_dim, as_size
from maxmod.values.shape import Sizes, product


def can_fuse(node: ir.Node) -> bool:
    """True for nodes that a generated kernel can compute."""
    types = [value.type for value in (*node.inputs, *node.outputs)]
    if any(t.dtype.size_in_bits < 8 or t.device != types[0].device for t in types):
        return False
    if any(size == 0 for t in types for size in t.sizes):  # nothing to compute
        return False
    kind = node.op.kind
    if kind is Kind.ELEMENTWISE or kind is Kind.SOURCE:
        return node.op.lowering.scalar is not None
    if kind is Kind.VIEW:
        return node.op.lowering.view is not None
    if kind is Kind.INDEX:
        return node.op.lowering.position is not None
    if kind is Kind.REDUCE:
        x = node.inputs[0].type
        return node.op.lowering.combine is not None and dict(node.attrs)["axis"] == x.rank - 1
    return False


def is_on_one_device(node: ir.Node) -> bool:
    """True for nodes with something to compute, all of it on one device."""
    types = [value.type for value in (*node.inputs, *node.outputs)]
    return all(t.device == types[0].device and 0 not in t.sizes for t in types)


def is_alias(node: ir.Node) -> bool:
    """True for views that need no copy: the same elements in the same order."""
    if node.op.kind is not Kind.VIEW or node.op.lowering.view is None:
        return False
    if product(node.inputs[0].type.sizes) != product(node.output.type.sizes):
        return False
    lowered = attempt(lower, start(node, 0))
    if isinstance(lowered, Unfusable):
        return False
    what = lowered.instructions[0].what
    return isinstance(what, Load) and what.index == lowered.stores[0].index


def start(node: ir.Node, order: int) -> FusionGroup:
    """Returns the group that a node alone makes."""
    if node.op.kind is Kind.REDUCE:
        return FusionGroup({node: order}, node.inputs[0].type.sizes, (node.output,), is_row=True)
    if node.op.meaning.assign is not None:
        targets = {node.output: node.inputs[0]}
        return FusionGroup(
            {node: order}, node.inputs[1].type.sizes, (node.output,), targets=targets
        )
    return FusionGroup({node: order}, node.output.type.sizes, (node.output,))


def is_cheap(node: ir.Node) -> bool:
    """True for ops that cost no more than reading their result would."""
    return node.op.kind is not Kind.REDUCE and "mm_" not in (node.op.lowering.scalar or "").replace(
        "mm_cast_", ""
    )


def refusal(group: FusionGroup, node: ir.Node, inlined: bool) -> str | None:
    """Returns why a producer must not join a group, or None if it may.

    Args:
        group: The group.
        node: A producer of one of its inputs that `can_fuse`.
        inlined: True if nothing outside the group needs its value.
    """
    sizes = node.output.type.sizes
    if node.op.kind is Kind.REDUCE:
        reason = _reduction_refusal(group, node)
        if reason is not None:
            return reason
    elif not is_cheap(node) and not _has_domain_size(group, sizes):
        return "it would be computed again for every row"
    if not inlined and sizes not in _output_shapes(group, node):
        return "others need its value, and its shape differs from the kernel's"
    if not inlined and _is_looked_up(group, node):
        return "others need its value, and here it is read at positions that are data"
    return None


def _is_looked_up(group: FusionGroup, node: ir.Node) -> bool:
    """True if the group reads a value at positions that are data."""
    return any(user.op.kind is Kind.INDEX and user.inputs[0] is node.output for user in group.nodes)


def _reduction_refusal(group: FusionGroup, node: ir.Node) -> str | None:
    domain = node.inputs[0].type.sizes
    if group.is_row:
        return None if domain == group.domain else "it reduces rows of another shape"
    if group.domain in (domain, (*domain[:-1], 1)):
        return None
    return "the kernel does not run over its rows"


def _output_shapes(group: FusionGroup, node: ir.Node) -> tuple[Sizes, ...]:
    """Shapes that a result of the group can have."""
    domain = node.inputs[0].type.sizes if node.op.kind is Kind.REDUCE else group.domain
    if group.is_row or node.op.kind is Kind.REDUCE:
        return (domain, (*domain[:-1], 1))
    return (domain,)


def _has_domain_size(group: FusionGroup, sizes: Sizes) -> bool:
    """True if a value of this shape has one element for each row of the kernel, or at least one
    for each step: then nothing is computed twice.
    """
    if product(sizes) == product(group.domain[:-1]):
        return True
    more = as_size(as_dim(product(sizes)) - product(group.domain))
    return isinstance(more, int) and more >= 0
