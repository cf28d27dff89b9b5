"""Recognises gelu by tanh that user code writes in other ops: it has a fast implementation, and the
matrix library can apply it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from maxmod.compiler.passes.simplify import Producers, number_of
from maxmod.dtype import DType
from maxmod.op import ir, is_op, op_of
from maxmod.ops.activation import gelu
from maxmod.ops.arithmetic import add, mul, pow, true_div
from maxmod.ops.elementwise import tanh

# Coefficients of x and x^3 under the tanh.
_INNER = {1: math.sqrt(2 / math.pi), 3: math.sqrt(2 / math.pi) * 0.044715}
_DEPTH = 6  # ops of such a polynomial, one inside the other
_TOLERANCE = 1e-6  # constants are written with a few digits: 0.7978845608
_TOLERANCE_OF_FLOAT64 = 1e-15

Polynomial = dict[int, float]


def recognize_gelu(graph: ir.Graph) -> ir.Graph:
    """Replaces ops that compute gelu by tanh, in any order of multiplication, by that op.

    Before: ``0.5 * x * (1 + tanh(0.7978845608 * (x + 0.044715 * x**3)))``, op by op. After:
    ``gelu %x approximate=tanh``; nodes that only it needed are dead.
    """
    producers: Producers = {value: node for node in graph.nodes for value in node.outputs}
    nodes: list[ir.Node] = []
    for node in graph.nodes:
        x = _argument(node, producers)
        if x is not None:
            attrs = (("approximate", "tanh"),)
            node = replace(node, op=op_of(gelu), inputs=(x,), attrs=attrs)
        nodes.append(node)
    return ir.rebuild(graph, nodes, {})


def _argument(node: ir.Node, producers: Producers) -> ir.Value | None:
    """Returns x if a node gives gelu by tanh of it."""
    if not is_op(node.op, mul) or not node.output.type.dtype.is_float():
        return None
    for factor, x, inner in _forms(node, producers):
        if x.type != node.output.type or not math.isclose(factor, 0.5):
            continue
        found = _polynomial(inner, x, producers)
        if found is not None and found.keys() == _INNER.keys():
            is_wide = x.type.dtype is DType.float64
            limit = _TOLERANCE_OF_FLOAT64 if is_wide else _TOLERANCE
            if all(math.isclose(found[n], _INNER[n], rel_tol=limit) for n in _INNER):
                return x
    return None


def _forms(
    node: ir.Node, producers: Producers, depth: int = _DEPTH
) -> Iterator[tuple[float, ir.Value, ir.Value]]:
    """Yields (c, x, y) where a product can be read as c * x * (1 + tanh(y))."""
    if not is_op(node.op, mul) or depth == 0:
        return
    for left, right in (node.inputs, node.inputs[::-1]):
        for (c, x), (d, last) in product(_scaled(left, producers), _scaled(right, producers)):
            inner = _inside(last, producers)
            if inner is not None:
                yield c * d, x, inner
        number, other = number_of(left, producers), producers.get(right)
        if number is not None and other is not None:
            for c, x, inner in _forms(other, producers, depth - 1):
                yield number * c, x, inner


def _scaled(value: ir.Value, producers: Producers) -> Iterator[tuple[float, ir.Value]]:
    """Yields (c, x) where a value can be read as c * x: as it is, and without a factor."""
    yield 1.0, value
    node = producers.get(value)
    if node is None or not is_op(node.op, mul, true_div):
        return
    x, y = node.inputs
    number = number_of(y, producers)
    if number:
        yield (number if is_op(node.op, mul) else 1 / number), x
    number = number_of(x, producers)
    if number is not None and is_op(node.op, mul):
        yield number, y


def _inside(value: ir.Value, producers: Producers) -> ir.Value | None:
    """Returns y if a value is 1 + tanh(y)."""
    node = producers.get(value)
    if node is None or not is_op(node.op, add):
        return None
    for one, other in (node.inputs, node.inputs[::-1]):
        inner = producers.get(other)
        if inner is not None and is_op(inner.op, tanh) and number_of(one, producers) == 1:
            return inner.inputs[0]
    return None


def _polynomial(
    value: ir.Value, x: ir.Value, producers: Producers, depth: int = _DEPTH
) -> Polynomial | None:
    """Returns the coefficients of a polynomial in x by their powers; None if it is none."""
    if value is x:
        return {1: 1.0}
    number = number_of(value, producers)
    if number is not None:
        return {0: number}
    node = producers.get(value)
    if node is None or not is_op(node.op, add, mul, pow) or depth == 0:
        return None
    left = _polynomial(node.inputs[0], x, producers, depth - 1)
    if is_op(node.op, pow):
        power = number_of(node.inputs[1], producers)
        return {3: 1.0} if left == {1: 1.0} and power == 3 else None
    right = _polynomial(node.inputs[1], x, producers, depth - 1)
    if left is None or right is None:
        return None
    found: Polynomial = {}
    if is_op(node.op, add):
        for n, c in (*left.items(), *right.items()):
            found[n] = found.get(n, 0.0) + c
    else:
        for (n, c), (m, d) in product(left.items(), right.items()):
            found[n + m] = found.get(n + m, 0.0) + c * d
    return found if len(found) <= len(_INNER) and max(found, default=0) <= max(_INNER) else None
