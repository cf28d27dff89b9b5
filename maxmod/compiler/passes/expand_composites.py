"""Replaces ops by their definition in other ops, so that kernels can fuse into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as replaced
from typing import cast

from maxmod.compiler import choose_kernels
from maxmod.interpreters.trace import Tracer
from maxmod.kernel.source import Dialect
from maxmod.op import Kind, interpreter, ir
from maxmod.tensor import Tensor


def expand_composites(graph: ir.Graph) -> ir.Graph:
    """Writes each composite op out in other ops, which keep its line and, as their scope, its name.

    Before: ``%1 = softmax %0 axis=1``. After: ``reduce_max``, ``sub``, ``exp``, ``reduce_sum``,
    ``true_div``, which the planner turns into one row kernel.
    """
    return _expanded(graph, lambda node: node.op.kind is Kind.COMPOSITE)


def expand_products(graph: ir.Graph, *, few: bool = False) -> ir.Graph:
    """Does the same with products for which the GPU has no kernel: quantised ones of many rows.

    Before: ``%1 = quantized_linear %x %codes %scales``. After: the codes become floats, which one
    kernel does, and ``%9 = matmul %x %8`` is left to the library.

    Args:
        graph: The graph.
        few: Expand those of a few rows, or of a number that is known later, too.
    """

    def is_wanted(node: ir.Node) -> bool:
        if node.op.kind is not Kind.CONTRACT:
            return False
        return few or choose_kernels.is_for_library(node, Dialect.CUDA)

    return _expanded(graph, is_wanted)


def _expanded(graph: ir.Graph, is_wanted: Callable[[ir.Node], bool]) -> ir.Graph:
    wanted = {
        node for node in graph.nodes if node.op.meaning.expand is not None and is_wanted(node)
    }
    if not wanted:
        return graph
    nodes: list[ir.Node] = []
    replace: dict[ir.Value, ir.Value] = {}
    for node in graph.nodes:
        if node not in wanted:
            nodes.append(node)
            continue
        assert node.op.meaning.expand is not None
        inner = Tracer({})
        arguments = [inner.argument(value.type) for value in node.inputs]
        with interpreter(inner):
            result = node.op.meaning.expand(*arguments, **node.kwargs)
        several = isinstance(result, list)
        results = cast("list[object]", result) if several else [result]
        values = dict(zip(map(inner.lift, arguments), node.inputs, strict=True))
        scope = ir.Scope(node.op.label, node.scope)
        for made in inner.nodes:
            inputs = tuple(values.get(value, value) for value in made.inputs)
            nodes.append(replaced(made, inputs=inputs, source=node.source, scope=scope))
        for output, tensor in zip(node.outputs, results, strict=True):
            assert isinstance(tensor, Tensor)
            value = inner.lift(tensor)
            replace[output] = values.get(value, value)
    return _expanded(ir.rebuild(graph, nodes, replace), is_wanted)
