"""The fusion planner: greedy, from the results back to their operands.

The last node that is in no group yet starts one; then producers join it, latest first, as long as
the kernel stays correct and does not compute anything twice that is worth keeping. What a group may
hold is decided by `conditions.py` and proven by lowering it; what cannot be lowered stays out, with
the reason kept for `explain`.
"""

from __future__ import annotations

from dataclasses import replace

from maxmod import config
from maxmod.compiler import choose_kernels
from maxmod.compiler.codegen.cuda.attention import query_rows
from maxmod.compiler.fusion import conditions
from maxmod.compiler.fusion.attention import AttentionFinder
from maxmod.compiler.fusion.contraction import contraction_group
from maxmod.compiler.fusion.library import LibraryFinder
from maxmod.compiler.fusion.prologues import fold_prologues
from maxmod.compiler.fusion.siblings import join_siblings
from maxmod.compiler.groups.group import Attention, FusionGroup, LibraryProduct, WholeOp
from maxmod.compiler.groups.lower import Attempts
from maxmod.compiler.groups.order import find_stores
from maxmod.kernel.source import Dialect
from maxmod.op import Kind, ir

# A kernel with more arguments than this is slow to launch, and rarely useful.
MAX_BUFFERS = 24
# Compilers take more than twice as long for twice the statements, and so does planning. What a
# longer kernel would save, one more trip of an intermediate through memory, is little next to that.
MAX_NODES = 128
# Ops that change the positions at which their operands are read.
_MOVES = (Kind.VIEW, Kind.REDUCE, Kind.INDEX)


def _is_inlined(node: ir.Node) -> bool:
    """True for what costs nothing to do again, in every kernel that reads it."""
    return node.op.kind in (Kind.VIEW, Kind.SOURCE)


def plan_groups(
    graph: ir.Graph,
    *,
    template_dialect: Dialect | None = None,
    has_library: bool = False,
    in_place: bool = False,
    architecture: str = "",
) -> list[FusionGroup]:
    """Returns the fusion groups of a graph, in no particular order; other nodes run on their own.

    Args:
        graph: The graph, with composite ops expanded.
        template_dialect: The language of the hand-written kernels for attention and matrix products
            that may be used; None for no such kernels.
        has_library: True if the matrix library can do more than to multiply.
        in_place: True if kernels may write into the memory of buffer arguments; `order_items` says
            whether there is an order then.
        architecture: What kernels are made for; one that is not known is taken for new.
    """
    stores = find_stores(graph) if in_place else set[ir.Node]()
    planner = _Planner(graph, template_dialect, stores, architecture)
    if template_dialect:
        planner.find_attention()
    if has_library:
        planner.find_library_products()
    planner.run()
    if template_dialect:
        planner.add_products()
        planner.add_whole_ops()
    if in_place:
        planner.place_updates()
    settings = config.current()
    if not settings.nofuse and settings.fuse_limit < 0:
        limits = MAX_BUFFERS, MAX_NODES, planner.attempts
        groups = join_siblings(graph, planner.groups, *limits, template_dialect)
        is_cuda = template_dialect is Dialect.CUDA
        return fold_prologues(graph, groups, *limits) if is_cuda else groups
    return planner.groups


class _Planner:
    """State of planning one graph."""

    def __init__(
        self,
        graph: ir.Graph,
        template_dialect: Dialect | None,
        stores: set[ir.Node],
        architecture: str,
    ) -> None:
        self.graph = graph
        self.template_dialect = template_dialect
        self.architecture = architecture
        self.stores = stores
        self.order = {node: number for number, node in enumerate(graph.nodes)}
        self.producer = {value: node for node in graph.nodes for value in node.outputs}
        self.users = ir.users(graph)
        self.results = set(graph.results)
        self.group_of: dict[ir.Node, FusionGroup] = {}
        self.groups: list[FusionGroup] = []
        self.attempts = Attempts()
        self.spans: list[tuple[int, int]] = []  # first output and last node of each group

    def find_attention(self) -> None:
        """Forms the attention groups, and marks what only they read as done."""
        settings = config.current()
        if settings.nofuse:
            return
        finder = AttentionFinder(
            self.graph,
            self.order,
            self.producer,
            self.users,
            leaves_epilogues=self.template_dialect is Dialect.CUDA,
        )
        self.groups = [group for group in finder.run() if not self._is_for_ops(group)]
        if settings.fuse_limit >= 0:
            del self.groups[settings.fuse_limit :]
        made = {value for group in self.groups for value in group.outputs}
        holder = {node: group for group in self.groups for node in group.nodes}
        wanted = self.results.union(*(group.inputs for group in self.groups))
        for node in reversed(self.graph.nodes):
            is_result = any(value in made for value in node.outputs)
            is_wanted = any(value in wanted for value in node.outputs)
            if is_result or (node in holder and not is_wanted):
                self.group_of[node] = holder[node]
            else:
                wanted.update(node.inputs)

    def _is_for_ops(self, group: FusionGroup) -> bool:
        """True for attention that no kernel of ours does as fast as ops do."""
        if self.template_dialect is not Dialect.CUDA or not isinstance(group.template, Attention):
            return False
        rows = query_rows(group, group.template)
        return choose_kernels.is_for_ops(group, group.template, rows, self.architecture)

    def find_library_products(self) -> None:
        """Forms groups of products and the epilogues that the library applies.

        An addend whose sum has several readers is fused by our own kernel for a few rows, too, so
        that the library can fuse it for many rows.
        """
        settings = config.current()
        if settings.nofuse:
            return
        finder = LibraryFinder(self.producer, self.users, self.order, self.results, self.group_of)
        for node in self.graph.nodes:
            if len(self.groups) == settings.fuse_limit >= 0:
                break
            if node.op.kind is not Kind.CONTRACT or node in self.group_of:
                continue
            group = finder.find(node) if conditions.is_on_one_device(node) else None
            if group is not None and not choose_kernels.is_for_library(node, self.template_dialect):
                group = self._few_rows(node, group)
            if group is not None:
                self.groups.append(group)
                nodes = (member for member in group.nodes if member.op.kind is not Kind.VIEW)
                self.group_of.update((member, group) for member in nodes)

    def _few_rows(self, product: ir.Node, found: FusionGroup) -> FusionGroup | None:
        """Returns the group of our own kernel for what the library does to many rows."""
        assert isinstance(found.template, LibraryProduct)
        if found.template.addend is None:  # the reader of the sums can add the rest
            return None
        group = contraction_group(product, found, self.order, self._inlined_views(product))
        return group if group is not None and group.outputs == found.outputs else None

    def run(self) -> None:
        """Forms the groups that are generated as a whole."""
        settings = config.current()
        self.spans = [self._span(group) for group in self.groups]
        for node in reversed(self.graph.nodes):
            if len(self.groups) == settings.fuse_limit >= 0:
                break
            if node in self.group_of or not self._is_root(node):
                continue
            group = conditions.start(node, self.order[node])
            if not self.attempts.is_kernel(group) or self._reads_overwritten(group):
                continue
            if not settings.nofuse:
                group = self._grown(group)
            self.groups.append(group)
            self.spans.append(self._span(group))
            self.group_of.update((member, group) for member in group.nodes)

    def _span(self, group: FusionGroup) -> tuple[int, int]:
        first = min(self.order[self.producer[value]] for value in group.outputs)
        return first, max(group.nodes.values())

    def place_updates(self) -> None:
        """Lets groups write into the buffers that hold their results in the end."""
        overwritten = {self._memory(node.inputs[0]) for node in self.stores}
        maker = {value: group for group in self.groups for value in group.outputs}
        for position, value in self.graph.updates:
            buffer, group = self.graph.inputs[position], maker.get(value)
            if group is None or group.template is not None or buffer in overwritten:
                continue
            if value in group.targets or buffer in group.targets.values():
                continue
            storing = group.with_target(value, buffer)
            if self.attempts.is_kernel(storing) and not self._reads_overwritten(storing):
                self.groups[self.groups.index(group)] = storing
                maker.update((output, storing) for output in storing.outputs)

    def add_products(self) -> None:
        """Puts matrix products into groups of their own, or before others."""
        settings = config.current()
        for node in reversed(self.graph.nodes):
            if len(self.groups) == settings.fuse_limit >= 0:
                break
            if node.op.kind is not Kind.CONTRACT or node in self.group_of:
                continue
            if not conditions.is_on_one_device(node):
                continue
            if choose_kernels.is_for_library(node, self.template_dialect):
                continue
            found = "fusion is switched off" if settings.nofuse else self._epilogue(node)
            epilogue = None if isinstance(found, str) else found
            group = contraction_group(node, epilogue, self.order, self._inlined_views(node))
            if group is None:
                continue
            if isinstance(found, str):
                alone = f"a matrix product on its own: {found}"
                group = replace(group, reasons=(alone, *group.reasons))
            if epilogue is not None and group.outputs == epilogue.outputs:
                self.groups.remove(epilogue)
                self.group_of.update((member, group) for member in epilogue.nodes)
            self.groups.append(group)
            self.group_of[node] = group

    def add_whole_ops(self) -> None:
        """Gives ops that have a hand-written kernel a group of their own."""
        for node in self.graph.nodes:
            if len(self.groups) == config.current().fuse_limit >= 0:
                break
            if node.op.lowering.kernel is not None and conditions.is_on_one_device(node):
                group = FusionGroup(
                    {node: self.order[node]},
                    node.inputs[0].type.sizes,
                    node.outputs,
                    reasons=("it has a separate kernel",),
                    template=WholeOp(node),
                )
                self.groups.append(group)

    def _epilogue(self, product: ir.Node) -> FusionGroup | str:
        """Returns the elementwise group that alone reads a product, or why there is none."""
        if product.output in self.results:
            return "the graph returns its sums"
        users = self.users.get(product.output, ())
        group = self.group_of.get(users[0]) if users else None
        if group is None or any(user.op.kind is not Kind.ELEMENTWISE for user in users):
            return "what reads it is not only elementwise"
        # Another group may do an op of this one for itself, and then reads the bare product.
        if any(user not in group.nodes for user in users) or any(
            product.output in other.inputs for other in self.groups if other is not group
        ):
            return "several kernels read it"
        if group.is_row:
            return "the kernel that reads it runs over whole rows"
        if group.template is not None:
            return "the kernel that reads it is a hand-written one"
        if group.targets:
            return "the kernel that reads it writes into a buffer"
        return group

    def _inlined_views(self, product: ir.Node) -> list[ir.Node]:
        """Returns the views through which a product reads its operands."""
        found: list[ir.Node] = []
        for value in product.inputs:
            node = self.producer.get(value)
            while node is not None and node.op.kind is Kind.VIEW and conditions.can_fuse(node):
                group = self.group_of.get(node)
                if group is not None and node.output in group.outputs:
                    break  # a kernel writes it
                found.append(node)
                node = self.producer.get(node.inputs[0])
        return found

    def _is_root(self, node: ir.Node) -> bool:
        """True for nodes whose value must be computed by a separate kernel."""
        if not conditions.can_fuse(node):
            return False
        if node.op.meaning.assign is not None:
            return node in self.stores
        if node.op.kind is Kind.VIEW:  # others alias memory; a result must own its elements
            return node.output in self.results and not conditions.is_alias(node)
        return node.op.kind is not Kind.SOURCE

    def _grown(self, group: FusionGroup) -> FusionGroup:
        """Returns a group with all producers that can join it, the latest first."""
        refused: set[ir.Node] = set()
        reasons = [*group.reasons]
        while True:
            candidates = {self.producer[v] for v in group.inputs if v in self.producer} - refused
            if not candidates:
                return replace(group, reasons=tuple(reasons))
            node = max(candidates, key=self.order.__getitem__)
            larger = self._joined(group, node) if self._is_free(node) else None
            if isinstance(larger, FusionGroup):
                group = larger
                if node.op.kind is Kind.INDEX:
                    reasons.append(f"{node.op.name} joins: elements are loaded where they are used")
                continue
            refused.add(node)
            if larger is not None:
                reasons.append(f"{node.op.name} stays out: {larger}")

    def _is_free(self, node: ir.Node) -> bool:
        """True if a kernel can compute a node, and none does yet."""
        if not conditions.can_fuse(node) or node.op.meaning.assign is not None:
            return False
        other = self.group_of.get(node)
        return other is None or (_is_inlined(node) and node.output not in other.outputs)

    def _is_private(self, group: FusionGroup, node: ir.Node) -> bool:
        """True if only the group reads a value, also through views, which others may share."""
        pending = [node.output]
        while pending:
            value = pending.pop()
            if value in self.results:
                return False
            for user in self.users.get(value, ()):
                if user not in group.nodes:
                    return False
                if user.op.kind is Kind.VIEW and user.output not in group.outputs:
                    pending += user.outputs
        return True

    def _joined(self, group: FusionGroup, node: ir.Node) -> FusionGroup | str:
        """Returns the group with a producer, or why that stays out."""
        is_inside = _is_inlined(node) or self._is_private(group, node)
        reason = conditions.refusal(group, node, is_inside)
        if reason is not None:
            return reason
        if len(group.nodes) >= MAX_NODES and node.op.kind is not Kind.SOURCE:
            return "the kernel would be too long"
        larger = group.with_node(node, self.order[node], is_output=not is_inside)
        if len(larger.inputs) + len(larger.outputs) > MAX_BUFFERS:
            return "the kernel would have too many arguments"
        if node.op.kind in _MOVES and not self.attempts.is_kernel(larger):
            # Other producers are computed at the positions where they were loaded before.
            return "its elements are read at positions that cannot be followed"
        if self._reads_overwritten(larger):
            return "it reads the memory that the kernel overwrites"
        if self._has_cycle(larger):
            return "the kernel would wait for its own result"
        return larger

    def _reads_overwritten(self, group: FusionGroup) -> bool:
        """True if an input of a group has the memory of a buffer that the group overwrites."""
        if not group.targets:
            return False
        overwritten = set(map(self._memory, group.targets.values()))
        return any(self._memory(value) in overwritten for value in group.reads)

    def _memory(self, value: ir.Value) -> ir.Value:
        """Returns the value whose memory a value shares, if it is a view or stored in place."""
        node = self.producer.get(value)
        while node is not None and (node.op.kind is Kind.VIEW or node in self.stores):
            value = node.inputs[0]
            node = self.producer.get(value)
        return value

    def _has_cycle(self, group: FusionGroup) -> bool:
        """True if a result of the group comes back to it through nodes outside."""
        if len(group.outputs) == 1 and not any(len(g.outputs) > 1 for g in self.groups):
            return False
        pending: list[ir.Node] = []
        left = list(group.outputs)
        while left:
            for user in self.users.get(left.pop(), ()):
                if user not in group.nodes:
                    pending.append(user)
                elif user.op.kind is Kind.VIEW and user.output not in group.outputs:
                    left += user.outputs  # others may read a view that the group makes itself
        # Nodes are read by later ones; only a kernel that spans the end of this one leads back.
        end = max(group.nodes.values())
        spanned = any(first < end < last for first, last in self.spans)
        if not spanned and all(self.order[node] > end for node in pending):
            return False
        seen: set[ir.Node] = set()
        while pending:
            node = pending.pop()
            if node in group.nodes:
                return True
            if node in seen:
                continue
            seen.add(node)
            # What a kernel writes depends on all that it reads. Views and sources are made again
            # wherever they are needed, so they tie no kernels together.
            other = None if _is_inlined(node) else self.group_of.get(node)
            made = node.outputs if other is None else other.outputs
            for value in made:
                pending += self.users.get(value, ())
        return False
