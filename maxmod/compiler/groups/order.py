"""The order of kernels and calls, and which stores into buffers can happen in place."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from maxmod.compiler.groups.dependencies import Dependencies
from maxmod.compiler.groups.group import FusionGroup
from maxmod.op import Kind, ir

Item = FusionGroup | ir.Node


def order_items(
    graph: ir.Graph, groups: list[FusionGroup]
) -> tuple[list[Item], set[ir.Node]] | None:
    """Returns groups and remaining nodes so that operands come first, and the in-place nodes.

    A store may overwrite a buffer argument if everything that reads the old contents can come
    before it. Where that would be a cycle, all stores make copies instead. Kernels that store in
    place cannot make copies: with one of them in a cycle, None is returned.
    """
    waits = Waits.of(graph, groups)
    if waits.with_stores is not None:
        ordered = _sorted(graph, waits.items, waits.with_stores)
        if ordered is not None:
            return ordered, waits.stores
    if any(group.targets for group in groups):
        return None
    ordered = _sorted(graph, waits.items, waits.before)
    assert ordered is not None, "the fusion groups wait for each other"
    return ordered, set()


class Waits(NamedTuple):
    """What waits for what.

    Attributes:
        items: Groups and remaining nodes.
        before: For each item, the numbers of those that make its operands.
        stores: The nodes that change a buffer argument.
        with_stores: `before`, with those that read what a store overwrites, and those that may
            refuse the call, unless they need what is stored; None if nothing is stored, or not
            everything that reads it can come before.
    """

    items: list[Item]
    before: list[set[int]]
    stores: set[ir.Node]
    with_stores: list[set[int]] | None

    @staticmethod
    def of(graph: ir.Graph, groups: list[FusionGroup], *, can_join: bool = False) -> Waits:
        """Finds out for a graph and its groups.

        Args:
            graph: The graph.
            groups: Its groups.
            can_join: True if stores may still become one kernel, which checks before all of them;
                apart, a store waits for what an earlier one checks.
        """
        items = _items(graph, groups)
        before = _operands(items, _late_names(graph))
        stores = find_stores(graph)
        with_stores = _after_readers(graph, items, before, stores)
        if with_stores is not None:
            _add_checks(graph, items, with_stores, stores, can_join)
        return Waits(items, before, stores, with_stores)


def _items(graph: ir.Graph, groups: list[FusionGroup]) -> list[Item]:
    """Returns the groups, and the nodes that need a separate step.

    A node may be in several groups (views are repeated in each); nodes that only groups read
    need no step.
    """
    items: list[Item] = list(groups)
    fused = {value for group in groups for value in group.outputs}
    inside = {node for group in groups for node in group.nodes}
    wanted = set(graph.results)
    for group in groups:
        wanted.update(group.inputs)
    for node in reversed(graph.nodes):
        if any(value in fused for value in node.outputs):
            continue
        if any(value in wanted for value in node.outputs) or node not in inside:
            items.append(node)
            wanted.update(node.inputs)
    return items


def _late_names(graph: ir.Graph) -> dict[str, ir.Node]:
    """Returns the sizes that are known only when the graph runs, and what gives them a value."""
    found: dict[str, ir.Node] = {}
    seen = set(ir.symbols(graph))
    for node in graph.nodes:
        name = ir.late_name(node.op, node.kwargs)
        if name is not None and name not in seen:
            found[name] = node
        seen |= ir.mentioned_names(node)
    return found


def _operands(items: list[Item], late: dict[str, ir.Node]) -> list[set[int]]:
    """Returns, for each item, the items that make its operands, or the sizes that it mentions."""
    maker = {value: number for number, item in enumerate(items) for value in item.outputs}
    before = [{maker[v] for v in item.inputs if v in maker} for item in items]
    for number, item in enumerate(items) if late else ():
        nodes = [item] if isinstance(item, ir.Node) else item.nodes
        for name in set[str]().union(*map(ir.mentioned_names, nodes)) & late.keys():
            if late[name] not in nodes:
                before[number].add(maker[late[name].output])
    return before


def find_stores(graph: ir.Graph) -> set[ir.Node]:
    """Returns the nodes that change a buffer argument, or the result of such a node."""
    buffers = {graph.inputs[position] for position, _ in graph.updates}
    stores: set[ir.Node] = set()
    for node in graph.nodes:
        if node.op.meaning.assign is not None and node.inputs[0] in buffers:
            stores.add(node)
            buffers.add(node.output)
    return stores


def _after_readers(
    graph: ir.Graph, items: list[Item], before: list[set[int]], stores: set[ir.Node]
) -> list[set[int]] | None:
    """Adds to each store the items that read what it overwrites; None if a result does."""
    targets = [_overwritten(item, stores) for item in items]
    if not any(targets):
        return None
    readers: dict[ir.Value, list[int]] = {}
    for number, item in enumerate(items):
        for value in item.inputs:
            readers.setdefault(value, []).append(number)
    result = [set(numbers) for numbers in before]
    outputs = set(graph.outputs)
    for number, overwritten in enumerate(targets):
        pending = list(overwritten)
        while pending:
            value = pending.pop()
            if value in outputs:
                return None
            for reader in readers.get(value, ()):
                if reader == number:  # knows what it does, if it does not read a view
                    if isinstance(items[number], FusionGroup) and value not in overwritten:
                        return None
                    continue
                result[number].add(reader)
                view = items[reader]
                if isinstance(view, ir.Node) and view.op.kind is Kind.VIEW:
                    pending += view.outputs
    return result


def _add_checks(
    graph: ir.Graph,
    items: list[Item],
    before: list[set[int]],
    stores: set[ir.Node],
    can_join: bool,
) -> None:
    """Lets each store wait for what may refuse the call, so that a refused call stores nothing.

    What needs the stored elements comes after the store; eager execution has stored them by then,
    too. Where a check of an earlier line would have to wait for the store, there is no order.
    """
    dependencies = Dependencies.of(before)
    if dependencies is None:
        return
    order = {node: number for number, node in enumerate(graph.nodes)}
    lines = [(n, _line(item, order, _may_refuse)) for n, item in enumerate(items)]
    storing = {n for n, item in enumerate(items) if _overwritten(item, stores)}
    for store in storing:
        stored = _line(items[store], order, lambda node: node.op.meaning.assign is not None)
        for check, line in lines:
            if line is None or check == store or dependencies.waits(store, check):
                continue
            is_later = stored is None or line > stored
            if check in storing and (is_later or can_join):
                continue
            # The kernel of a later store may compute what an earlier one stores, too.
            if (is_later or check in storing) and dependencies.waits(check, store):
                continue
            before[store].add(check)
            dependencies.add(store, check)


def _may_refuse(node: ir.Node) -> bool:
    """True for ops that find out when they run whether the call is right.

    The bounds of views are checked before that: `maxmod.ops.known_sizes`.
    """
    return node.op.kind in (Kind.INDEX, Kind.OPAQUE)


def _line(
    item: Item, order: Mapping[ir.Node, int], is_wanted: Callable[[ir.Node], bool]
) -> int | None:
    """Returns the position of the first of some nodes of an item, None if it has none."""
    nodes = [item] if isinstance(item, ir.Node) else item.nodes
    return min((order[node] for node in nodes if is_wanted(node)), default=None)


def _overwritten(item: Item, stores: set[ir.Node]) -> list[ir.Value]:
    """Returns the buffers that an item overwrites."""
    if isinstance(item, FusionGroup):
        return list(item.targets.values())
    return [item.inputs[0]] if item in stores else []


def _sorted(graph: ir.Graph, items: list[Item], before: list[set[int]]) -> list[Item] | None:
    """Sorts items topologically, as close to program order as possible; None for a circle."""
    order = {node: number for number, node in enumerate(graph.nodes)}
    place = [
        max(item.nodes.values()) if isinstance(item, FusionGroup) else order[item] for item in items
    ]
    followers: dict[int, list[int]] = {}
    for number, others in enumerate(before):
        for other in others:
            followers.setdefault(other, []).append(number)
    missing = [len(others) for others in before]
    ready = [(place[number], number) for number, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    result: list[Item] = []
    while ready:
        _, number = heapq.heappop(ready)
        result.append(items[number])
        for other in followers.get(number, ()):
            missing[other] -= 1
            if missing[other] == 0:
                heapq.heappush(ready, (place[other], other))
    return result if len(result) == len(items) else None


def owners(views: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Returns, for each slot that is a view, the slot whose memory it shares in the end."""
    owner: dict[int, int] = {}
    for slot, source in views:
        owner[slot] = owner.get(source, source)
    return owner
