"""Sibling fusion: independent elementwise groups over the same domain become one launch.

Keys and values of a token go into two caches at the same position: neither needs the other, so the
planner, which grows groups from results back to operands, leaves them apart. A launch takes longer
than such a kernel runs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations

from maxmod.compiler.groups.dependencies import Dependencies
from maxmod.compiler.groups.group import FusionGroup
from maxmod.compiler.groups.lower import Attempts
from maxmod.compiler.groups.order import Item, Waits
from maxmod.op import ir
from maxmod.values.shape import Sizes


def join_siblings(
    graph: ir.Graph,
    groups: Sequence[FusionGroup],
    most_buffers: int,
    most_nodes: int,
    attempts: Attempts,
) -> list[FusionGroup]:
    """Joins elementwise groups that run over the same positions and read a value in common.

    Args:
        graph: The graph.
        groups: Its groups.
        most_buffers: The number of inputs and outputs that a kernel may have.
        most_nodes: The number of ops that a kernel may have.
        attempts: Which groups can be kernels.

    Returns:
        The groups; a joined one is where the first of its parts was.
    """
    waits = Waits.of(graph, [*groups], can_join=True)
    dependencies = Dependencies.of(waits.before if waits.with_stores is None else waits.with_stores)
    result = [*groups]
    if dependencies is None:
        return result
    for alike in _elementwise_by_domain(waits.items):
        for first, second in combinations([*alike], 2):
            if first not in alike or second not in alike or dependencies.tie(first, second):
                continue
            if len(alike[first].nodes) + len(alike[second].nodes) > most_nodes:
                continue
            joined = _joined(alike[first], alike[second], most_buffers)
            if joined is None or not attempts.is_kernel(joined):
                continue
            result[result.index(alike[first])] = joined
            result.remove(alike.pop(second))
            alike[first] = joined
            dependencies.join(first, second)
    return result


def _elementwise_by_domain(items: Sequence[Item]) -> Collection[dict[int, FusionGroup]]:
    """Returns the elementwise groups over the same positions, by number, in program order."""
    found: dict[Sizes, dict[int, FusionGroup]] = {}
    for number, item in reversed([*enumerate(items)]):  # the planner has the last ones first
        if isinstance(item, FusionGroup) and not item.is_row and item.template is None:
            found.setdefault(item.domain, {})[number] = item
    return found.values()


def _joined(one: FusionGroup, other: FusionGroup, most_buffers: int) -> FusionGroup | None:
    """Returns two groups as one, or None if that is not worthwhile or allowed."""
    if not set(one.inputs) & set(other.inputs):
        return None
    made = FusionGroup(
        {**one.nodes, **other.nodes},
        one.domain,
        (*one.outputs, *other.outputs),
        targets={**one.targets, **other.targets},
        reasons=(*one.reasons, *other.reasons, "two kernels are one: same positions, one launch"),
    )
    if len(made.inputs) + len(made.outputs) > most_buffers:
        return None
    overwritten = set(made.targets.values())
    if len(overwritten) < len(made.targets) or overwritten & {*one.reads, *other.reads}:
        return None
    return made
