"""A graph as a listing: one op a line, with the user's line, and equal layers once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from maxmod.compiler.report.lines import INDENT, folded, indented, wrapped
from maxmod.compiler.report.names import together
from maxmod.op import Kind, ir

_IN_TYPE = {"device", "dtype", "shape"}  # static arguments of sources that their type repeats
_LEAST_HIDDEN = 8  # ops; fewer are shown as they are


def graph_text(graph: ir.Graph, width: int) -> str:
    """Returns the arguments, the weights, the ops in order, and the results."""
    names = ir.value_names(graph)
    inputs = ", ".join(_typed(graph.inputs, names))
    lines = wrapped(f"graph {graph.name}({inputs})", width, "", INDENT)
    lines += [f"  weight {text}" for text in _typed(graph.weights.values(), names)]
    lines += [f"  constant {text}" for text in _typed(graph.constants, names)]
    lines += folded(
        nodes_lines(graph.nodes, names, width),
        [(n.op.name, repr(n.attrs), tuple(v.type for v in n.outputs)) for n in graph.nodes],
        [[names[value] for value in node.inputs] for node in graph.nodes],
        "op",
        "  ",
        _LEAST_HIDDEN,
    )
    for position, value in graph.updates:
        lines.append(f"  store {names[graph.inputs[position]]} = {names[value]}")
    results = ", ".join(names[value] for value in graph.outputs)
    return "\n".join([*lines, *wrapped(f"return {results}", width, "  ", INDENT)])


def nodes_lines(
    nodes: Sequence[ir.Node], names: Mapping[ir.Value, str], width: int
) -> list[list[str]]:
    """Returns the lines of each op, the user's line in a column at the right."""
    column = width - max((len(_remark(node)) for node in nodes), default=0)
    return [_node_lines(node, names, width, column) for node in nodes]


def _node_lines(node: ir.Node, names: Mapping[ir.Value, str], width: int, column: int) -> list[str]:
    """Returns the lines of an op and of the graphs that it runs."""
    lines = wrapped(node_text(node, names), width, "  ", INDENT + "  ")
    remark = _remark(node)
    if remark and len(lines[-1]) + 2 > column:
        lines.append("")
    lines[-1] = f"{lines[-1]:<{column}}{remark}".rstrip()
    for _, value in node.attrs:
        if isinstance(value, ir.Graph):
            lines += indented(graph_text(value, width - len(INDENT)))
    return lines


def _remark(node: ir.Node) -> str:
    """Returns what the user called, if it was written out in other ops, and the user's line."""
    call = node.scope.chain[0].name if node.scope is not None else ""
    found = ", ".join(filter(None, (call, ir.place(node))))
    return f"# {found}" if found else ""


def node_text(node: ir.Node, names: Mapping[ir.Value, str]) -> str:
    """Returns a node without the static arguments that its type tells already."""
    if node.op.kind is Kind.SOURCE:
        attrs = tuple(pair for pair in node.attrs if pair[0] not in _IN_TYPE)
        node = replace(node, attrs=attrs)
    return ir.format_node(node, names).strip()


def _typed(values: Iterable[ir.Value], names: Mapping[ir.Value, str]) -> Iterator[str]:
    for name, type, _ in together((names[value], value.type.short()) for value in values):
        yield f"{name}: {type}"
