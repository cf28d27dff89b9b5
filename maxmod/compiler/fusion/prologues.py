"""Rows that a product needs are computed by its own blocks, instead of by a kernel before it.

A norm of the few rows of a decoding step is a launch of one or two blocks, while all others wait.
The product that follows stages those rows in the shared memory of each of its blocks anyway: there,
they are computed as well, again in each block, from what the caches hold.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from maxmod.compiler.codegen.cuda.contraction import lower_with_prologue
from maxmod.compiler.fusion import conditions
from maxmod.compiler.groups.dependencies import Dependencies
from maxmod.compiler.groups.group import Contraction, FusionGroup
from maxmod.compiler.groups.lower import Attempts
from maxmod.compiler.groups.order import Waits
from maxmod.op import ir


def fold_prologues(
    graph: ir.Graph,
    groups: Sequence[FusionGroup],
    most_buffers: int,
    most_nodes: int,
    attempts: Attempts,
) -> list[FusionGroup]:
    """Joins row groups with the products, of few rows, that alone read what they make.

    Args:
        graph: The graph.
        groups: Its groups.
        most_buffers: The number of inputs and outputs that a kernel may have.
        most_nodes: The number of ops that a kernel may have.
        attempts: Which groups can be kernels.

    Returns:
        The groups; a joined one is where its product was.
    """
    finder = _Finder(graph, groups)
    result = [*groups]
    waits = Waits.of(graph, result, can_join=True)
    dependencies = Dependencies.of(waits.before if waits.with_stores is None else waits.with_stores)
    if dependencies is None:
        return result
    number_of = {item: number for number, item in enumerate(waits.items)}
    for group in groups:
        found = finder.find(group)
        if found is None:
            continue
        joined = _joined(*found, group)
        if (
            len(joined.inputs) + len(joined.outputs) > most_buffers
            or len(joined.nodes) > most_nodes
        ):
            continue
        one, other = number_of[found.rows], number_of[group]
        between = (n for n in range(len(waits.items)) if n not in (one, other))
        if any(dependencies.waits(n, one) and dependencies.waits(other, n) for n in between):
            continue
        assert isinstance(joined.template, Contraction)
        if attempts.refusal(joined, lower_with_prologue, joined, joined.template) is not None:
            continue
        result[result.index(group)] = joined
        result.remove(found.rows)
        dependencies.join(one, other)
    return result


class _Found(NamedTuple):
    """What makes the left operand of a product.

    Attributes:
        rows: A row group.
        value: Its result, of which the left operand is a view with the same rows.
    """

    rows: FusionGroup
    value: ir.Value


class _Finder:
    """Finds row groups whose result only one product reads.

    Args:
        graph: The graph.
        groups: Its groups.
    """

    def __init__(self, graph: ir.Graph, groups: Sequence[FusionGroup]) -> None:
        self._users = ir.users(graph)
        self._results = set(graph.results)
        self._producer = {value: node for node in graph.nodes for value in node.outputs}
        self._maker = {value: group for group in groups for value in group.outputs}

    def find(self, group: FusionGroup) -> _Found | None:
        """Returns the row group for a group of products, if there is one."""
        if not isinstance(group.template, Contraction):
            return None
        products = group.template.products
        value = group.template.product.inputs[0]
        if not self._is_read_by(value, products) or any(value in p.inputs[1:] for p in products):
            return None
        while value not in self._maker:
            node = self._producer.get(value)
            if node is None or not conditions.is_alias(node) or not self._keeps_rows(node):
                return None
            value = node.inputs[0]
            if not self._is_read_by(value, (node,)):
                return None
        rows = self._maker[value]
        if not rows.is_row or rows.template is not None or rows.targets:
            return None
        return _Found(rows, value)

    def _is_read_by(self, value: ir.Value, nodes: Collection[ir.Node]) -> bool:
        """True if these nodes alone read a value."""
        return value not in self._results and all(user in nodes for user in self._users[value])

    def _keeps_rows(self, view: ir.Node) -> bool:
        return view.inputs[0].type.sizes[-1:] == view.output.type.sizes[-1:]


def _joined(rows: FusionGroup, value: ir.Value, group: FusionGroup) -> FusionGroup:
    assert isinstance(group.template, Contraction)
    others = tuple(output for output in rows.outputs if output is not value)
    return replace(
        group,
        nodes={**rows.nodes, **group.nodes},
        outputs=(*group.outputs, *others),
        reasons=(*rows.reasons, *group.reasons, "each block computes the rows that it multiplies"),
        template=replace(group.template, prologue=replace(rows, outputs=(value, *others))),
    )
