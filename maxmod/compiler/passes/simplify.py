"""Algebraic simplification: calls that return an operand, and cheaper forms of the same value.

Only rewrites that are exact for every input, NaN, infinities and signed zeros included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace as replaced

from maxmod.dtype import DType, can_hold
from maxmod.op import Op, ir, is_op, op_of
from maxmod.ops.arithmetic import add, mul, negate, pow, sub, true_div
from maxmod.ops.comparison import logical_not
from maxmod.ops.create import full_source
from maxmod.ops.elementwise import cast_elements
from maxmod.ops.shape import broadcast, permute, reshape
from maxmod.values.plain import Attrs

Producers = dict[ir.Value, ir.Node]
# Returns the value to use instead, a node to put in place, or None to leave the call alone.
Rule = Callable[[ir.Node, Producers], "ir.Value | ir.Node | None"]


def simplify(graph: ir.Graph) -> ir.Graph:
    """Applies every rule to every node, operands first.

    Before: ``%1 = mul %0 1.0; %2 = permute %1 dims=[1,0]; %3 = permute %2 dims=[1,0]``.
    After: uses of ``%3`` read ``%0``.
    """
    replace: dict[ir.Value, ir.Value] = {}
    producers: Producers = {}
    kept: list[ir.Node] = []
    for original in graph.nodes:
        inputs = tuple(replace.get(value, value) for value in original.inputs)
        node = ir.Node(
            original.op,
            inputs,
            original.attrs,
            original.outputs,
            original.source,
            original.scope,
        )
        found = _apply(node, producers)
        if isinstance(found, ir.Value):
            replace[node.output] = found
            continue
        node = found or node
        kept.append(node)
        producers.update((value, node) for value in node.outputs)
    return ir.rebuild(graph, kept, replace)


def _apply(node: ir.Node, producers: Producers) -> ir.Value | ir.Node | None:
    for rule in RULES.get(node.op, ()):
        found = rule(node, producers)
        if found is not None:
            return found
    return None


def number_of(value: ir.Value, producers: Producers) -> float | None:
    """Returns the number that a value is filled with, or None."""
    node = producers.get(value)
    while node is not None and is_op(node.op, broadcast):
        node = producers.get(node.inputs[0])
    if node is None or not is_op(node.op, full_source):
        return None
    number = node.kwargs["value"]
    return float(number) if isinstance(number, (bool, int, float)) else None


def _neutral(number: float, negative_zero: bool | None = None) -> Rule:
    """``x op number`` is x, if the result has the type of x."""

    def rule(node: ir.Node, producers: Producers) -> ir.Value | None:
        x, y = node.inputs
        found = number_of(y, producers)
        if found is None or found != number or x.type != node.output.type:
            return None
        if negative_zero is not None and x.type.dtype.is_float():
            return x if (math.copysign(1, found) < 0) == negative_zero else None
        return x

    return rule


def _commuted(rule: Rule) -> Rule:
    """The same rule with the operands exchanged."""

    def commuted(node: ir.Node, producers: Producers) -> ir.Value | ir.Node | None:
        swapped = replaced(node, inputs=node.inputs[::-1])
        return rule(swapped, producers)

    return commuted


def _square(node: ir.Node, producers: Producers) -> ir.Node | None:
    """``x ** 2`` is ``x * x``."""
    x, y = node.inputs
    if number_of(y, producers) != 2 or x.type.sizes != node.output.type.sizes:
        return None
    return replaced(node, op=op_of(mul), inputs=(x, x), attrs=())


def _same_type(node: ir.Node, producers: Producers) -> ir.Value | None:
    """A conversion or view to the type that is already there."""
    (x,) = node.inputs
    return x if x.type == node.output.type else None


def _widened(node: ir.Node, producers: Producers) -> ir.Value | None:
    """A conversion back from a type that held every value."""
    inner = producers.get(node.inputs[0])
    if inner is None or inner.op is not node.op:
        return None
    x = inner.inputs[0]
    back = x.type == node.output.type and can_hold(inner.output.type.dtype, x.type.dtype)
    return x if back and x.type.dtype is not DType.bool else None


def _twice(node: ir.Node, producers: Producers) -> ir.Value | None:
    """An op that undoes itself."""
    inner = producers.get(node.inputs[0])
    return inner.inputs[0] if inner is not None and inner.op is node.op else None


def _identity_permutation(node: ir.Node, producers: Producers) -> ir.Value | None:
    dims = node.kwargs["dims"]
    return node.inputs[0] if dims == tuple(range(len(dims))) else None


def _permuted_twice(node: ir.Node, producers: Producers) -> ir.Value | ir.Node | None:
    inner = producers.get(node.inputs[0])
    if inner is None or inner.op is not node.op:
        return None
    first, second = inner.kwargs["dims"], node.kwargs["dims"]
    dims = tuple(first[axis] for axis in second)
    joined = _with(node, inner.inputs, {"dims": dims})
    return _identity_permutation(joined, producers) or joined


def _reshaped_twice(node: ir.Node, producers: Producers) -> ir.Node | None:
    inner = producers.get(node.inputs[0])
    if inner is None or inner.op is not node.op:
        return None
    return _with(node, inner.inputs, node.kwargs)


def _with(node: ir.Node, inputs: Sequence[ir.Value], attrs: Attrs) -> ir.Node:
    return ir.node(node.op, inputs, attrs, node.outputs, node.source, node.scope)


_ONE = _neutral(1)
RULES: dict[Op, tuple[Rule, ...]] = {
    op_of(add): (_neutral(0, negative_zero=True), _commuted(_neutral(0, negative_zero=True))),
    op_of(sub): (_neutral(0, negative_zero=False),),
    op_of(mul): (_ONE, _commuted(_ONE)),
    op_of(true_div): (_ONE,),
    op_of(pow): (_ONE, _square),
    op_of(cast_elements): (_same_type, _widened),
    op_of(negate): (_twice,),
    op_of(logical_not): (_twice,),
    op_of(permute): (_identity_permutation, _permuted_twice),
    op_of(reshape): (_same_type, _reshaped_twice),
    op_of(broadcast): (_same_type,),
}
