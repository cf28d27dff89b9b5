"""Kernels beside each other: elementwise groups over the same positions become one launch.

Keys and values of a token go into two caches at the same position: neither needs the other, so the
planner, which grows groups from results back to operands, leaves them apart. A launch takes longer
than such a kernel computes.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from itertools import combinations

from maxmod.compiler.groups.group import FusionGroup
from maxmod.compiler.groups.lower import lower
from maxmod.compiler.groups.order import Item, Waits
from maxmod.op import ir
from maxmod.op.affine import Unfusable
from maxmod.values.dim import Sizes


def join_siblings(graph: ir.Graph, groups: list[FusionGroup], most_buffers: int) -> None:
    """Joins elementwise groups that run over the same positions and read a value in common.

    Args:
        graph: The graph.
        groups: Its groups; some are replaced by joined ones.
        most_buffers: The number of inputs and outputs that a kernel may have.
    """
    waits = Waits.of(graph, groups)
    before = waits.before if waits.with_stores is None else waits.with_stores
    reached = _reached(before)
    if reached is None:
        return
    items: list[Item | None] = list(waits.items)
    alike: dict[Sizes, list[int]] = {}
    for number, item in reversed(list(enumerate(items))):  # the planner has the last ones first
        if isinstance(item, FusionGroup) and not item.is_row and item.template is None:
            alike.setdefault(item.domain, []).append(number)
    for numbers in alike.values():
        for first, second in combinations(numbers, 2):
            one, other = items[first], items[second]
            if not isinstance(one, FusionGroup) or not isinstance(other, FusionGroup):
                continue
            if len(one.outputs) + len(other.outputs) > most_buffers:
                continue
            if reached[first] >> second & 1 or reached[second] >> first & 1:
                continue
            joined = _joined(one, other, most_buffers)
            if joined is None:
                continue
            groups[groups.index(one)] = items[first] = joined
            groups.remove(other)
            items[second] = None
            both = 1 << first | 1 << second
            mask = reached[first] | reached[second]
            reached[first] = reached[second] = mask
            for number, others in enumerate(reached):
                if others & both:
                    reached[number] = others | both | mask


def _joined(one: FusionGroup, other: FusionGroup, most_buffers: int) -> FusionGroup | None:
    """Returns two groups as one, or None if that is not worth while or cannot be a kernel."""
    if not set(one.inputs) & set(other.inputs):
        return None
    made = FusionGroup(
        {**one.nodes, **other.nodes},
        one.domain,
        [*one.outputs, *other.outputs],
        targets={**one.targets, **other.targets},
        reasons=[*one.reasons, *other.reasons, "two kernels are one: same positions, one launch"],
    )
    if len(made.inputs) + len(made.outputs) > most_buffers:
        return None
    overwritten = set(made.targets.values())
    if len(overwritten) < len(made.targets) or overwritten & {*one.reads, *other.reads}:
        return None
    try:
        lower(made)
    except Unfusable:
        return None
    return made


def _reached(before: list[set[int]]) -> list[int] | None:
    """Returns for each item a mask of all that it waits for; None if some wait in a circle."""
    found = [0] * len(before)
    try:
        for number in TopologicalSorter(dict(enumerate(before))).static_order():
            for other in before[number]:
                found[number] |= found[other] | 1 << other
    except CycleError:
        return None
    return found
