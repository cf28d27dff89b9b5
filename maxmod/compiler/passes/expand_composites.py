"""Replaces composite ops by their definition in other ops, so that kernels can fuse into them."""

from __future__ import annotations

from maxmod import ir
from maxmod.op import interpreter
from maxmod.tensor import Tensor
from maxmod.trace import Tracer


def expand_composites(graph: ir.Graph) -> ir.Graph:
    """Writes each composite op out in other ops, with the line of the original call.

    Before: ``%1 = softmax %0 axis=1``. After: ``reduce_max``, ``sub``, ``exp``, ``reduce_sum``,
    ``true_div``, which the planner turns into one row kernel.
    """
    if all(node.op.expand is None for node in graph.nodes):
        return graph
    nodes: list[ir.Node] = []
    replace: dict[ir.Value, ir.Value] = {}
    for node in graph.nodes:
        if node.op.expand is None:
            nodes.append(node)
            continue
        inner = Tracer({})
        arguments = [inner.argument(value.type) for value in node.inputs]
        with interpreter(inner):
            result = node.op.expand(*arguments, **node.kwargs)
        results = result if isinstance(result, list) else [result]
        values = dict(zip((a._value for a in arguments), node.inputs, strict=True))
        for made in inner.nodes:
            inputs = tuple(values.get(value, value) for value in made.inputs)
            nodes.append(ir.Node(made.op, inputs, made.attrs, made.outputs, node.source))
        for output, tensor in zip(node.outputs, results, strict=True):
            assert isinstance(tensor, Tensor)
            value = inner.lift(tensor)
            replace[output] = values.get(value, value)
    return expand_composites(ir.rebuild(graph, nodes, replace))
