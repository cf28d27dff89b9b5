"""What a graph refuses once the sizes of a call are known, before anything runs."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from maxmod.errors import MaxmodError
from maxmod.op import Kind, ir
from maxmod.ops.shape import rebound_sizes

# These go by the sizes of their operands alone, which agree by the names that they have in common.
_NEVER_REFUSE = (Kind.ELEMENTWISE, Kind.SOURCE)


class SizeChecks:
    """The type rules of a graph that depend on named sizes, to be run again for each call.

    A rule that a named size passed may refuse its value: the largest of no elements, for example,
    for which a kernel would give what it starts with.

    Args:
        graph: The graph as it was traced: eager execution refuses what no result needs, too.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph

    @functools.cached_property
    def _nodes(self) -> list[tuple[ir.Node, set[str]]]:
        """The calls with the names that matter; equal layers have one."""
        found: dict[tuple[object, ...], tuple[ir.Node, set[str]]] = {}
        for node in self.graph.nodes:
            if node.op.kind in _NEVER_REFUSE:
                continue
            key = (node.op, node.attrs, *(value.type for value in node.inputs))
            if key in found:
                continue
            names = {symbol.name for value in node.inputs for symbol in value.type.parameters}
            if names:
                found[key] = node, names | ir.attr_symbols(node)
        return list(found.values())

    def __call__(self, dims: Mapping[str, int]) -> dict[str, int]:
        """Runs the rules with the sizes of a call, and checks each `rebind`.

        Args:
            dims: The values of symbolic dimensions in the types of the inputs, and of later ones.

        Returns:
            The same, with the names that `rebind` introduces. Calls whose sizes are not known yet
            are left out.

        Raises:
            MaxmodError: What the type rule raises eagerly, with the user's line.
        """
        known = rebound_sizes(self.graph, dims)
        for node, names in self._nodes:
            if names.issubset(known):
                _check(node, known)
        return known


def _check(node: ir.Node, dims: Mapping[str, int]) -> None:
    types = [ir.bind_type(value.type, dims) for value in node.inputs]
    try:
        node.op.result_types(*types, **ir.bind_attrs(node.kwargs, dims))
    except MaxmodError as error:
        if node.source and error.args and "\n  at " not in str(error.args[0]):
            error.args = (f"{error.args[0]}\n  at {node.source}", *error.args[1:])
        raise
