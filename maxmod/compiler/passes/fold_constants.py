"""Constant folding: what depends on no argument and no weight is computed once."""

from __future__ import annotations

from maxmod import ir
from maxmod.op import Kind

# Larger results would cost more to read in every call than a kernel spends to make them again.
FOLD_LIMIT_NBYTES = 1 << 16


def fold_constants(graph: ir.Graph, run: ir.Run) -> ir.Graph:
    """Runs nodes whose operands are all constants and whose sizes are known.

    Before: ``%0 = full 2.0; %1 = sqrt %0; return mul %x %1``. After: ``mul %x @constant.0``.
    A number that is only filled into a shape stays a `full` node, so that kernels can inline it.
    """
    data = dict(graph.constants)
    sources: dict[ir.Value, ir.Node] = {}
    kept = []
    for node in graph.nodes:
        if not _is_foldable(node):
            kept.append(node)
            continue
        if node.op.kind is Kind.SOURCE:
            sources.update((value, node) for value in node.outputs)
            kept.append(node)
            continue
        if not node.inputs or any(v not in data and v not in sources for v in node.inputs):
            kept.append(node)
            continue
        for value in node.inputs:
            if value not in data:
                _evaluate(sources[value], data, run)
        _evaluate(node, data, run)
    folded = {value for node in graph.nodes if node not in kept for value in node.outputs}
    constants = {
        value: array for value, array in data.items() if value in graph.constants or value in folded
    }
    return ir.rebuild(graph, kept, {}, constants)


def _is_foldable(node: ir.Node) -> bool:
    for value in node.outputs:
        if not all(isinstance(size, int) for size in value.type.sizes):
            return False
        nbytes = value.type.nbytes
        if not isinstance(nbytes, int) or nbytes > FOLD_LIMIT_NBYTES:
            return False
    return not ir.attr_symbols(node)


def _evaluate(node: ir.Node, data: dict[ir.Value, object], run: ir.Run) -> None:
    types = [value.type for value in node.outputs]
    results = run(node.op, [data[value] for value in node.inputs], node.kwargs, types)
    data.update(zip(node.outputs, results, strict=True))
