"""Removes what no output needs."""

from __future__ import annotations

from maxmod import ir


def eliminate_dead(graph: ir.Graph) -> ir.Graph:
    """Drops nodes and constants whose values no output needs; inputs and weights stay.

    Before: ``%0 = exp %x; %1 = sin %x; return %1``. After: ``%1 = sin %x; return %1``.
    """
    needed = set(graph.results)
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    constants = {value: data for value, data in graph.constants.items() if value in needed}
    return ir.rebuild(graph, kept[::-1], {}, constants)
