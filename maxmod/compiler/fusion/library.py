"""Matrix products of the library, with their epilogues.

cuBLASLt adds a vector and a matrix to a product and applies an activation, so that the sums need
not be read and written again. Further ops are for a kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from maxmod.compiler import choose_kernels
from maxmod.compiler.fusion import conditions
from maxmod.compiler.groups.group import FusionGroup, LibraryProduct
from maxmod.op import Kind, ir, is_op
from maxmod.ops.arithmetic import add
from maxmod.values.tensor_type import TensorType


class LibraryFinder:
    """Finds the epilogues of products.

    Args:
        producer: The node that makes each value.
        users: The nodes that read each value.
        order: Position of each node.
        results: Values that the caller gets.
        group_of: The groups that there are already; it may grow.
    """

    def __init__(
        self,
        producer: Mapping[ir.Value, ir.Node],
        users: Mapping[ir.Value, list[ir.Node]],
        order: Mapping[ir.Node, int],
        results: Collection[ir.Value],
        group_of: Mapping[ir.Node, FusionGroup],
    ) -> None:
        self._producer = producer
        self._users = users
        self._order = order
        self._results = results
        self._group_of = group_of

    def find(self, product: ir.Node) -> FusionGroup | None:
        """Returns the group of a product and its epilogue; None without an epilogue."""
        if not product.op.meaning.is_product or any(v.type.rank < 2 for v in product.inputs):
            return None
        chain = [(LibraryProduct(product), product)]
        while True:
            found, last = chain[-1]
            node = self._only_user(last.output)
            larger = None if node is None else self._joined(found, node, last.output)
            if node is None or larger is None:
                break
            chain.append((larger, node))
        if not self._is_kept(chain[-1][1].output):  # a kernel follows, which can as well add
            chain = [(found, node) for found, node in chain if found.addend is None]
        if len(chain) == 1:
            return None
        found, last = chain[-1]
        numbers = {node: self._order[node] for _, node in chain}
        return FusionGroup(numbers, last.output.type.sizes, (last.output,), template=found)

    def _only_user(self, value: ir.Value) -> ir.Node | None:
        """Returns the only op that reads a value."""
        users = self._users.get(value, [])
        if len(users) != 1 or value in self._results or users[0] in self._group_of:
            return None
        return users[0] if users[0].op.kind is Kind.ELEMENTWISE else None

    def _joined(
        self, found: LibraryProduct, node: ir.Node, value: ir.Value
    ) -> LibraryProduct | None:
        """Returns the library call extended by one op, if possible."""
        if node.output.type != value.type or found.activation:
            return None
        has_epilogues = choose_kernels.library_adds_vectors(value.type.dtype)
        activation = choose_kernels.library_activation(node)
        if activation:
            fits = has_epilogues and found.addend is None
            return replace(found, activation=activation) if fits else None
        if not is_op(node.op, add):
            return None
        (other,) = (operand for operand in node.inputs if operand is not value)
        if found.bias is None and has_epilogues and self._is_bias(other, value.type):
            return replace(found, bias=other)
        fits = other.type == value.type and choose_kernels.library_adds_tensors(value.type.dtype)
        if found.addend is None and fits:
            is_there = self._is_in_memory(other, found.product)
            return replace(found, addend=other) if is_there else None
        return None

    def _is_bias(self, value: ir.Value, type: TensorType) -> bool:
        """True for a vector along the last axis that is already in memory."""
        sizes = value.type.sizes
        if not sizes or sizes[-1] != type.sizes[-1] or any(size != 1 for size in sizes[:-1]):
            return False
        node = self._producer.get(value)
        while node is not None and node.op.kind is Kind.VIEW:
            node = self._producer.get(node.inputs[0])
        return node is None

    def _is_in_memory(self, value: ir.Value, product: ir.Node) -> bool:
        """True for a value that is already in memory, row-major, when the product starts.

        A value that a kernel after the product could compute from its inputs is better computed
        there.
        """
        node = self._producer.get(value)
        while node is not None and conditions.is_alias(node):
            value = node.inputs[0]
            node = self._producer.get(value)
        if node is None or value in self._results:
            return True
        if node in self._group_of:
            return value in self._group_of[node].outputs
        if not conditions.can_fuse(node):
            return True
        if node.op.kind in (Kind.VIEW, Kind.SOURCE):
            return False
        return any(self._order[user] < self._order[product] for user in self._users[value])

    def _is_kept(self, value: ir.Value) -> bool:
        """True for a value that is written to memory."""
        users = self._users.get(value, [])
        if value in self._results or len(users) != 1:
            return True
        (user,) = users
        return (
            self._is_kept(user.output)
            if user.op.kind is Kind.VIEW
            else not conditions.can_fuse(user)
        )
