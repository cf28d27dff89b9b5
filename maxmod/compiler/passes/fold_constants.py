"""Constant folding: what depends on no argument and no weight is computed once."""

from __future__ import annotations

from collections.abc import Mapping

from maxmod.compiler.fusion.conditions import is_cheap
from maxmod.custom import CustomKernel
from maxmod.op import Kind, ir
from maxmod.values.array import Array

# Larger results would cost more to read in every call than a kernel spends to make them again.
FOLD_LIMIT_NBYTES = 1 << 16


def fold_constants(graph: ir.Graph, run: ir.Run, *, keep_formulas: bool = False) -> ir.Graph:
    """Runs nodes whose operands are all constants and whose sizes are known.

    Before: ``%0 = full 2.0; %1 = sqrt %0; return mul %x %1``. After: ``mul %x @constant.0``.
    A number that is only filled into a shape stays a `full` node, so that kernels can inline it.

    Args:
        graph: The graph.
        run: Runs one op on arrays.
        keep_formulas: Leave values that are cheap to compute from positions, such as causal masks:
            kernels make it where they need it, and see what it is.
    """
    data = dict(graph.constants)
    sources: dict[ir.Value, ir.Node] = {}  # what could be folded, but is not unless it is needed
    kept: list[ir.Node] = []
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
        if keep_formulas and _is_formula(node, sources):
            sources.update((value, node) for value in node.outputs)
            kept.append(node)
            continue
        _evaluate(node, sources, data, run)
    left = set(kept)
    folded = {value for node in graph.nodes if node not in left for value in node.outputs}
    constants = {
        value: array for value, array in data.items() if value in graph.constants or value in folded
    }
    return ir.rebuild(graph, kept, {}, constants)


def _is_foldable(node: ir.Node) -> bool:
    if any(type(value) is CustomKernel for _, value in node.attrs):
        return False  # what a function of a user does may depend on more than its operands
    if node.op.meaning.collective is not None:
        return False  # other processes may have their plan already, and would not come to it
    for value in node.outputs:
        if not all(isinstance(size, int) for size in value.type.sizes):
            return False
        nbytes = value.type.nbytes
        if not isinstance(nbytes, int) or nbytes > FOLD_LIMIT_NBYTES:
            return False
    return not ir.attr_symbols(node)


def _is_formula(node: ir.Node, sources: Mapping[ir.Value, ir.Node]) -> bool:
    """True for many elements that are made cheaply, of no data."""
    if any(value not in sources for value in node.inputs):
        return False
    if all(value.type.num_elements() == 1 for value in node.outputs):
        return False
    return node.op.kind is Kind.VIEW or (node.op.kind is Kind.ELEMENTWISE and is_cheap(node))


def _evaluate(
    node: ir.Node,
    sources: Mapping[ir.Value, ir.Node],
    data: dict[ir.Value, Array],
    run: ir.Run,
) -> None:
    for value in node.inputs:
        if value not in data:
            _evaluate(sources[value], sources, data, run)
    types = [value.type for value in node.outputs]
    results = run(node.op, [data[value] for value in node.inputs], node.kwargs, types)
    data.update(zip(node.outputs, results, strict=True))
