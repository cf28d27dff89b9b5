"""Common subexpressions: equal calls are made once."""

from __future__ import annotations

from collections.abc import Hashable

from maxmod.op import ir


def merge_common(graph: ir.Graph) -> ir.Graph:
    """Replaces a call with the same op, operands and attributes as an earlier one by that one.

    Before: ``%0 = exp %x; %1 = exp %x; return add %0 %1``. After: ``add %0 %0``.
    """
    replace: dict[ir.Value, ir.Value] = {}
    seen: dict[tuple[Hashable, ...], ir.Node] = {}
    kept: list[ir.Node] = []
    for node in graph.nodes:
        inputs = tuple(replace.get(value, value) for value in node.inputs)
        # repr keeps 0.0 and -0.0, 1 and 1.0 and True apart, which are equal as keys.
        key = (node.op, inputs, repr(node.attrs))
        first = seen.setdefault(key, node)
        if first is node:
            kept.append(node)
        else:
            replace.update(zip(node.outputs, first.outputs, strict=True))
    return ir.rebuild(graph, kept, replace)
