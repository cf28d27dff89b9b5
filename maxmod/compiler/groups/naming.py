"""What kernels are called: after the ops and composite ops that the user called.

A composite op that a kernel computes as a whole gives its name once, instead of its parts:
`row_mul_add_softmax`. A name is a C identifier of at most `MAX_LENGTH` characters; a longer one
loses its arithmetic first, then other elementwise ops.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from maxmod.compiler.groups.group import Attention, Contraction, FusionGroup, Together, WholeOp
from maxmod.op import Kind, ir, is_op
from maxmod.ops.arithmetic import add
from maxmod.ops.elementwise import cast_elements

MAX_LENGTH = 40
_MORE = "_more"
_BIAS = "bias"


class GraphNames:
    """What the values and the composite ops of one graph are called.

    Args:
        graph: The graph.
        known: The names of values that a graph around this one has, too. Others are called
            `%scratch0` and so on, since numbers are those of the graph that people see.
    """

    def __init__(self, graph: ir.Graph, known: Mapping[ir.Value, str] | None = None) -> None:
        self.graph = graph
        self._known = known

    @cached_property
    def values(self) -> Mapping[ir.Value, str]:
        """The printed name of every value."""
        if self._known is None:
            return ir.value_names(self.graph)
        made = [value for node in self.graph.nodes for value in node.outputs]
        new = [value for value in made if value not in self._known]
        return {**self._known, **{value: f"%scratch{n}" for n, value in enumerate(new)}}

    @cached_property
    def sizes(self) -> dict[ir.Scope, int]:
        """How many nodes that compute something each composite op was written out in."""
        return _counted(self.graph.nodes)


class _Part(NamedTuple):
    """A part of a name, and how much it says: the least is left out first."""

    text: str
    weight: int


def kernel_name(group: FusionGroup, names: GraphNames) -> str:
    """Returns the name of the kernel of a group, such as `row_softmax` or `matmul_bias_gelu`."""
    if isinstance(group.template, Attention):
        return "attention"
    if isinstance(group.template, WholeOp):
        return _identifier(group.template.node.op.label)
    is_map = not group.is_row and isinstance(group.template, Together | None)
    prefix = ["row"] if group.is_row else ["map"] if is_map else []
    parts = [*_parts(group, names.sizes)]
    most = max((part.weight for part in parts), default=0)
    name = ""
    for least in range(min(1, most), most + 1):
        texts = [part.text for part in parts if part.weight >= least]
        name = "_".join([*prefix, *_joined(texts)])
        if len(name) <= MAX_LENGTH:
            return name
    return _cut(name)


def _parts(group: FusionGroup, sizes: Mapping[ir.Scope, int]) -> Iterator[_Part]:
    """Yields what a kernel computes, in order; each composite op once."""
    nodes = [node for node in group.ordered if _computes(node)]
    here = _counted(nodes)
    seen: set[ir.Scope] = set()
    for node in nodes:
        scopes = () if node.scope is None else node.scope.chain
        whole = next((scope for scope in scopes if here[scope] == sizes[scope]), None)
        scope = whole or (scopes[0] if scopes else None)
        if scope is not None and scope not in seen:
            seen.add(scope)
            yield _Part(_identifier(scope.name), 3)
        if whole is None:
            yield _Part(_label(node, group), _weight(node))


def _counted(nodes: Sequence[ir.Node]) -> dict[ir.Scope, int]:
    """Returns how many nodes that compute something belong to each call."""
    found: dict[ir.Scope, int] = {}
    for node in nodes:
        scope = node.scope if _computes(node) else None
        while scope is not None:
            found[scope] = found.get(scope, 0) + 1
            scope = scope.outer
    return found


def _computes(node: ir.Node) -> bool:
    return node.op.kind not in (Kind.VIEW, Kind.SOURCE)


def _label(node: ir.Node, group: FusionGroup) -> str:
    """Returns the name of an op; a vector that is added to a product is its bias."""
    if is_op(node.op, add) and isinstance(group.template, Contraction):
        added = [value for value in node.inputs if value in group.inputs]
        if any(value.type.rank == 1 for value in added):
            return _BIAS
    return _identifier(node.op.label)


def _weight(node: ir.Node) -> int:
    """Returns how much an op says about a kernel: conversions nothing, arithmetic little."""
    if node.op.kind is not Kind.ELEMENTWISE:
        return 3
    if is_op(node.op, cast_elements):
        return 0
    return 2 if "mm_" in (node.op.lowering.scalar or "") else 1


def _joined(texts: Sequence[str]) -> list[str]:
    """Returns texts without those that repeat the one before."""
    return [text for n, text in enumerate(texts) if n == 0 or text != texts[n - 1]]


def _cut(name: str) -> str:
    """Shortens a name between its words."""
    if len(name) <= MAX_LENGTH:
        return name
    return name[: MAX_LENGTH - len(_MORE) + 1].rpartition("_")[0] + _MORE


def _identifier(text: str) -> str:
    """Returns text with only the characters of a C identifier."""
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "op"
