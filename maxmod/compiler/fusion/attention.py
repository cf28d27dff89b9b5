"""Finds attention: softmax(f(queries @ keys^T)) @ values, with f a chain of elementwise ops.

The softmax is what the composite op becomes: exp(x - max x), divided by its sum. Everything from
the first product to the second becomes one group, because nothing else reads the scores; views and
cheap ops around queries, keys, values and result join where their positions can be followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from maxmod.compiler.codegen.attention import lower_attention
from maxmod.compiler.fusion import conditions
from maxmod.compiler.groups.group import Attention, FusionGroup
from maxmod.compiler.groups.lower import Attempts
from maxmod.op import Kind, ir, is_op
from maxmod.op.affine import Unfusable
from maxmod.ops.arithmetic import sub, true_div
from maxmod.ops.elementwise import cast_elements, exp
from maxmod.ops.reduce import reduce_max, reduce_sum
from maxmod.values.shape import product

MAX_FREE_NODES = 16  # of a mask that is made again for every score
MAX_NODES = 64  # of the ops between the products; more are not worth searching


class AttentionFinder:
    """Finds the attention groups of a graph.

    Args:
        graph: The graph, with composite ops expanded.
        order: Position of each node.
        producer: Node that makes each value.
        users: Nodes that read each value.
        leaves_epilogues: True if ops on the result of a matrix product are to stay with it.
    """

    def __init__(
        self,
        graph: ir.Graph,
        order: Mapping[ir.Node, int],
        producer: Mapping[ir.Value, ir.Node],
        users: Mapping[ir.Value, list[ir.Node]],
        *,
        leaves_epilogues: bool = False,
    ) -> None:
        self.graph = graph
        self.leaves_epilogues = leaves_epilogues
        self.order = order
        self.producer = producer
        self.users = users
        self.results = set(graph.results)
        self.written: set[ir.Value] = set()  # results of the groups that were found
        self.attempts = Attempts()

    def run(self) -> list[FusionGroup]:
        """Returns the groups."""
        groups: list[FusionGroup] = []
        for node in self.graph.nodes:
            if node.op.meaning.is_product and min(v.type.rank for v in node.inputs) > 1:
                group = self._match(node)
                if group is not None:
                    groups.append(group)
                    self.written.update(group.outputs)
        return groups

    def _match(self, mixed: ir.Node) -> FusionGroup | None:
        found = self._softmax(mixed.inputs[0])
        if found is None:
            return None
        logits, nodes = found
        nodes.append(mixed)
        scores = self._scores(logits)
        if scores is None or 0 in scores.output.type.sizes or 0 in mixed.output.type.sizes:
            return None
        path = self._path(logits, scores)
        if path is None:
            return None
        nodes += [*path, scores]
        if not self._is_private(nodes, mixed.output):
            return None
        attention = Attention(scores, logits, mixed)
        return self._grown(nodes, attention)

    def _softmax(self, weights: ir.Value) -> tuple[ir.Value, list[ir.Node]] | None:
        """Returns what a softmax over the last axis is taken of, and its nodes."""
        nodes: list[ir.Node] = []
        division = self.producer.get(weights)
        while division is not None and is_op(division.op, cast_elements):
            nodes.append(division)
            division = self.producer.get(division.inputs[0])
        if division is None or not is_op(division.op, true_div):
            return None
        exponential = self.producer.get(division.inputs[0])
        total = self._row_reduction(division.inputs[1], reduce_sum)
        if exponential is None or total is None or total.inputs != exponential.outputs:
            return None
        shifted = self.producer.get(exponential.inputs[0])
        if not is_op(exponential.op, exp) or shifted is None or not is_op(shifted.op, sub):
            return None
        logits, top = shifted.inputs
        largest = self._row_reduction(top, reduce_max)
        if largest is None or largest.inputs[0] is not logits or logits.type.rank < 2:
            return None
        return logits, [*nodes, division, exponential, total, shifted, largest]

    def _row_reduction(self, value: ir.Value, reduction: Callable[..., object]) -> ir.Node | None:
        node = self.producer.get(value)
        if node is None or not is_op(node.op, reduction):
            return None
        return node if node.kwargs["axis"] == node.inputs[0].type.rank - 1 else None

    def _scores(self, logits: ir.Value) -> ir.Node | None:
        """Returns the product that the logits are computed from, if there is exactly one."""
        count, inner = product(logits.type.sizes), logits.type.sizes[-2:]
        found: list[ir.Node] = []
        pending = [logits]
        seen: set[ir.Node] = set()
        while pending:
            node = self.producer.get(pending.pop())
            if node is None or node in seen or len(seen) > MAX_NODES:
                continue
            seen.add(node)
            sizes = node.outputs[0].type.sizes
            if node.op.meaning.is_product:
                if product(sizes) == count and sizes[-2:] == inner:
                    found.append(node)
            elif node.op.kind in (Kind.ELEMENTWISE, Kind.VIEW):
                pending += node.inputs
        if len(found) != 1 or min(value.type.rank for value in found[0].inputs) < 2:
            return None
        return found[0]

    def _path(self, logits: ir.Value, scores: ir.Node) -> list[ir.Node] | None:
        """Returns the nodes between the product and the logits; None if one cannot be fused."""
        depends: dict[ir.Value, bool] = {scores.output: True}
        for node in self.graph.nodes[self.order[scores] + 1 :]:
            inside = node.op.kind in (Kind.ELEMENTWISE, Kind.VIEW)
            depends.update(
                (value, inside and any(depends.get(x, False) for x in node.inputs))
                for value in node.outputs
            )
            if logits in node.outputs:
                break
        path: list[ir.Node] = []
        pending, seen = [logits], {scores}
        while pending:
            node = self.producer.get(pending.pop())
            if node is None or node in seen or not depends.get(node.outputs[0], False):
                continue
            seen.add(node)
            if not conditions.can_fuse(node):
                return None
            path.append(node)
            pending += node.inputs
        return path

    def _is_private(self, nodes: list[ir.Node], result: ir.Value) -> bool:
        """True if nothing else reads the results of the nodes."""
        inside = set(nodes)
        for node in nodes:
            for value in node.outputs:
                if value is result:
                    continue
                if value in self.results or any(u not in inside for u in self.users[value]):
                    return False
        return True

    # ---- what joins ------------------------------------------------------------------------------

    def _grown(self, nodes: list[ir.Node], attention: Attention) -> FusionGroup | None:
        """Returns the group with as much around it as can be lowered; None if it cannot be."""
        result = attention.mixed.output
        members = {node: self.order[node] for node in nodes}
        reason = "softmax(q k^T) v: the scores stay in the cache"
        group = FusionGroup(
            members, result.type.sizes, (result,), reasons=(reason,), template=attention
        )
        optional = self._optional(nodes, attention.logits)
        trailing = self._trailing(result)
        group, is_all = self._joined(group, [*optional, *trailing], trailing)
        if is_all:
            return group
        if self._refusal(group) is not None:
            return None
        for node in trailing:
            group, has_joined = self._joined(group, [node], [node])
            if not has_joined:
                break
        for node in optional:
            if any(value in group.inputs for value in node.outputs):
                group, _ = self._joined(group, [node], [])
        return group

    def _joined(
        self, group: FusionGroup, nodes: list[ir.Node], trailing: list[ir.Node]
    ) -> tuple[FusionGroup, bool]:
        """Returns the group with nodes and True; without them and False if that cannot be a kernel.

        One node that stays out is named, with the reason.

        Args:
            group: The group.
            nodes: The nodes to add.
            trailing: Those of the nodes that follow the result, in order.
        """
        larger = replace(group, nodes={**group.nodes, **{n: self.order[n] for n in nodes}})
        if trailing:
            result = trailing[-1].output
            larger = replace(larger, outputs=(result,), domain=result.type.sizes)
        refusal = self._refusal(larger)
        if refusal is None:
            return larger, True
        if len(nodes) == 1:
            reason = f"{nodes[0].op.name} stays out: {refusal}"
            group = replace(group, reasons=(*group.reasons, reason))
        return group, False

    def _refusal(self, group: FusionGroup) -> Unfusable | None:
        """Returns why a group cannot be a kernel; None if it can."""
        assert isinstance(group.template, Attention)
        return self.attempts.refusal(group, lower_attention, group, group.template)

    def _trailing(self, value: ir.Value) -> list[ir.Node]:
        """Returns the views and conversions that alone read the result, one after the other."""
        found: list[ir.Node] = []
        while value not in self.results and len(self.users.get(value, ())) == 1:
            (node,) = self.users[value]
            rounds = is_op(node.op, cast_elements) and node.output.type.dtype.is_float()
            rounds = rounds and all(other.op is not node.op for other in found)
            if not (rounds or node.op.kind is Kind.VIEW) or not conditions.can_fuse(node):
                break
            found.append(node)
            value = node.output
        return found

    def _optional(self, nodes: list[ir.Node], scores: ir.Value) -> list[ir.Node]:
        """Returns producers that may join, users before producers."""
        found: dict[ir.Node, None] = {}
        inside = set(nodes)
        pending = [value for node in nodes for value in node.inputs]
        while pending:
            node = self.producer.get(pending.pop(0))
            if node is None or node in inside or not conditions.can_fuse(node):
                continue
            if node.op.kind is Kind.INDEX or node.outputs[0] in self.written:
                continue
            if node.op.kind is Kind.ELEMENTWISE and not self._may_join(node, inside, scores):
                continue
            inside.add(node)
            found[node] = None
            pending += node.inputs
        return list(found)

    def _may_join(self, node: ir.Node, inside: set[ir.Node], scores: ir.Value) -> bool:
        """True for an elementwise op that costs no more than reading its result."""
        shared = node.output in self.results
        shared = shared or any(user not in inside for user in self.users[node.output])
        free = self._is_free(node, scores, shared) or (not shared and self._is_scaling(node))
        return conditions.is_cheap(node) and free

    def _is_scaling(self, node: ir.Node) -> bool:
        """True for an op on one value and numbers."""
        makers = (self.producer.get(value) for value in node.inputs)
        return sum(maker is None or maker.op.kind is not Kind.SOURCE for maker in makers) <= 1

    def _is_free(self, node: ir.Node, scores: ir.Value, shared: bool) -> bool:
        """True if a value is made cheaply of positions, numbers and small tensors, as masks are.

        Made in the kernel, it costs little more than reading it, and shows which blocks of scores
        are masked. What others need as well is left to the matrix product that it comes from, or
        that product would be computed twice: bare for this kernel, and with the op for them.
        """
        leaves = shared or self.leaves_epilogues
        pending, seen = [node], {node}
        while pending:
            for value in pending.pop().inputs:
                inner = self.producer.get(value)
                if inner in seen or (inner is not None and inner.op.kind is Kind.SOURCE):
                    continue
                if inner is not None and conditions.can_fuse(inner) and conditions.is_cheap(inner):
                    seen.add(inner)
                    pending.append(inner)
                elif inner is not None and inner.op.kind is Kind.CONTRACT and leaves:
                    return False
                elif value.type.sizes[-2:] == scores.type.sizes[-2:]:
                    return False  # as large as the value computed from it
        return len(seen) <= MAX_FREE_NODES
