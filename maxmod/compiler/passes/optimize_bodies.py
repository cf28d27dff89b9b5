"""Optimises the graphs of branches and loops, so that they can be compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from maxmod.op import ir
from maxmod.values.device import DeviceRef


def optimize_bodies(graph: ir.Graph, optimize: Callable[[ir.Graph], ir.Graph]) -> ir.Graph:
    """Runs all passes on each graph that an op runs, by itself.

    Constants that folding makes there become operands of the op: a graph that an op runs has inputs
    only. Graphs with values on several devices are left as they are, and are run op by op.

    Args:
        graph: The graph around them.
        optimize: Runs all passes.
    """
    constants = dict(graph.constants)
    nodes: list[ir.Node] = []
    for node in graph.nodes:
        traced = {name: value for name, value in node.attrs if isinstance(value, ir.Graph)}
        if not traced or len(set[DeviceRef]().union(*map(ir.devices, traced.values()))) > 1:
            nodes.append(node)
            continue
        bodies = {name: optimize(body) for name, body in traced.items()}
        inner = {value: data for body in bodies.values() for value, data in body.constants.items()}
        outer = [ir.Value(value.type) for value in inner]
        constants.update(zip(outer, inner.values(), strict=True))
        made = {
            name: replace(body, inputs=(*body.inputs, *inner), constants={}, traced=traced[name])
            for name, body in bodies.items()
        }
        attrs = {**node.kwargs, **made}
        inputs = (*node.inputs, *outer)
        nodes.append(ir.node(node.op, inputs, attrs, node.outputs, node.source, node.scope))
    return ir.rebuild(graph, nodes, {}, constants)
