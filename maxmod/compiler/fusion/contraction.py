"""Matrix products that the host computes itself, with the elementwise kernel that follows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from maxmod.compiler.codegen.contraction import lower_contraction
from maxmod.compiler.groups.group import Contraction, FusionGroup
from maxmod.compiler.groups.lower import attempt
from maxmod.op import ir
from maxmod.op.affine import Unfusable


def contraction_group(
    product: ir.Node,
    epilogue: FusionGroup | None,
    order: Mapping[ir.Node, int],
    views: Sequence[ir.Node],
) -> FusionGroup | None:
    """Returns the group of a product and, where it can be lowered, of what follows it.

    Args:
        product: The product.
        epilogue: An elementwise group that alone reads the product; it may hold the product.
        order: Position of each node.
        views: The views through which the product reads its operands.

    Returns:
        The group, which replaces `epilogue` if it has its outputs; None without a kernel.
    """
    inlined = {view: order[view] for view in views}
    reasons: list[str] = []
    for base in (epilogue, None) if epilogue is not None else (None,):
        for nodes in (inlined, {}) if inlined else ({},):
            group = _group(product, base, {**nodes, product: order[product]})
            found = attempt(lower_contraction, group, Contraction(product))
            if not isinstance(found, Unfusable):
                return replace(group, reasons=(*group.reasons, *reasons))
            reasons.append(f"matmul: {found}")
    return None


def _group(
    product: ir.Node, epilogue: FusionGroup | None, nodes: Mapping[ir.Node, int]
) -> FusionGroup:
    template = Contraction(product)
    if epilogue is None:
        sizes = product.output.type.sizes
        return FusionGroup(nodes, sizes, (product.output,), template=template)
    return replace(
        epilogue,
        nodes={**epilogue.nodes, **nodes},
        reasons=(*epilogue.reasons, "the sums of the matrix product stay in the cache"),
        template=template,
    )
