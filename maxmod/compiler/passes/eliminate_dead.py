"""Removes what no output needs."""

from __future__ import annotations

from maxmod.op import ir


def eliminate_dead(graph: ir.Graph) -> ir.Graph:
    """Drops nodes and constants whose values no output needs; inputs and weights stay.

    What gives a value to a name of a size is needed where the name is used.

    Before: ``%0 = exp %x; %1 = sin %x; return %1``. After: ``%1 = sin %x; return %1``.
    """
    needed = set(graph.results)
    names = {symbol.name for value in needed for symbol in value.type.parameters}
    kept: list[ir.Node] = []
    for node in reversed(graph.nodes):
        late = ir.late_name(node.op, node.kwargs)
        if needed.intersection(node.outputs) or late in names:
            kept.append(node)
            needed.update(node.inputs)
            names |= ir.mentioned_names(node)
    constants = {value: data for value, data in graph.constants.items() if value in needed}
    return ir.rebuild(graph, kept[::-1], {}, constants)
