"""Sibling fusion: independent groups that are alike become one launch.

Keys and values of a token go into two caches at the same position: neither needs the other, so the
planner, which grows groups from results back to operands, leaves them apart. A launch takes longer
than such a kernel runs. Queries, keys and values are products with the same left operand, as are a
gate and what it is multiplied with: one kernel prepares that operand once, and its threads start
and end together once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from maxmod.compiler.codegen.contraction import lower_contraction
from maxmod.compiler.codegen.cuda.together import check_together
from maxmod.compiler.groups.dependencies import Dependencies
from maxmod.compiler.groups.group import Contraction, FusionGroup, Together
from maxmod.compiler.groups.lower import Attempts
from maxmod.compiler.groups.order import Item, Waits
from maxmod.dtype import DType
from maxmod.kernel.source import Dialect
from maxmod.op import ir
from maxmod.values.shape import Sizes
from maxmod.values.shape import product as sizes_product

Join = Callable[[FusionGroup, FusionGroup], FusionGroup | None]


def join_siblings(
    graph: ir.Graph,
    groups: Sequence[FusionGroup],
    most_buffers: int,
    most_nodes: int,
    attempts: Attempts,
    dialect: Dialect | None = None,
) -> list[FusionGroup]:
    """Joins elementwise groups over the same positions that read a value in common, and products
    with the same left operand.

    Args:
        graph: The graph.
        groups: Its groups.
        most_buffers: The number of inputs and outputs that a kernel may have.
        most_nodes: The number of ops that a kernel may have.
        attempts: Which groups can be kernels.
        dialect: The language of hand-written kernels.

    Returns:
        The groups; a joined one is where the first of its parts was.
    """

    def join(one: FusionGroup, other: FusionGroup) -> FusionGroup | None:
        if len(one.nodes) + len(other.nodes) > most_nodes:
            return None
        make = _elementwise if one.template is None else _side_by_side
        made = make(one, other, attempts)
        if made is None or len(made.inputs) + len(made.outputs) > most_buffers:
            return None
        return made

    def join_blocks(one: FusionGroup, other: FusionGroup) -> FusionGroup | None:
        if len(one.nodes) + len(other.nodes) > most_nodes:
            return None
        made = _block_by_block(one, other, attempts)
        if made is None or len(made.inputs) + len(made.outputs) > most_buffers:
            return None
        return made

    result = _pairs(graph, groups, attempts, most_buffers, dialect)
    waits = Waits.of(graph, [*result], can_join=True)
    dependencies = Dependencies.of(waits.before if waits.with_stores is None else waits.with_stores)
    if dependencies is not None:
        for alike in (*_elementwise_by_domain(waits.items), *_products_by_left(waits.items)):
            _join_alike(alike, result, dependencies, join)
        if dialect is Dialect.CUDA:
            _join_alike(_small_maps(waits.items, result), result, dependencies, join_blocks)
    return result


def _join_alike(
    alike: dict[int, FusionGroup],
    groups: list[FusionGroup],
    dependencies: Dependencies,
    join: Join,
) -> None:
    """Joins groups of a kind, which have the numbers of items, in the list of all groups."""
    for first, second in combinations([*alike], 2):
        if first not in alike or second not in alike or dependencies.tie(first, second):
            continue
        joined = join(alike[first], alike[second])
        if joined is None:
            continue
        groups[groups.index(alike[first])] = joined
        groups.remove(alike.pop(second))
        alike[first] = joined
        dependencies.join(first, second)


def _elementwise_by_domain(items: Sequence[Item]) -> Collection[dict[int, FusionGroup]]:
    """Returns the elementwise groups over the same positions, by number, in program order."""
    found: dict[Sizes, dict[int, FusionGroup]] = {}
    for number, item in reversed([*enumerate(items)]):  # the planner has the last ones first
        if isinstance(item, FusionGroup) and not item.is_row and item.template is None:
            found.setdefault(item.domain, {})[number] = item
    return found.values()


def _elementwise(one: FusionGroup, other: FusionGroup, attempts: Attempts) -> FusionGroup | None:
    """Returns two elementwise groups as one; None if they share nothing or cannot be a kernel."""
    if not set(one.inputs) & set(other.inputs):
        return None
    made = FusionGroup(
        {**one.nodes, **other.nodes},
        one.domain,
        (*one.outputs, *other.outputs),
        targets={**one.targets, **other.targets},
        reasons=(*one.reasons, *other.reasons, "two kernels are one: same positions, one launch"),
    )
    overwritten = set(made.targets.values())
    if len(overwritten) < len(made.targets) or overwritten & {*one.reads, *other.reads}:
        return None
    return made if attempts.is_kernel(made) else None


def _small_maps(items: Sequence[Item], groups: Sequence[FusionGroup]) -> dict[int, FusionGroup]:
    """Returns the elementwise groups, by the number of their first part, in program order."""
    found: dict[int, FusionGroup] = {}
    for number, item in reversed([*enumerate(items)]):
        if isinstance(item, FusionGroup) and item.template is None and not item.is_row:
            whole = next((g for g in groups if item.nodes.keys() <= g.nodes.keys()), None)
            if whole is not None and whole not in found.values():
                found[number] = whole
    return found


def _block_by_block(one: FusionGroup, other: FusionGroup, attempts: Attempts) -> FusionGroup | None:
    """Returns two elementwise groups over other positions as one; None without a kernel."""
    parts = [
        part
        for group in (one, other)
        for part in (group.template.parts if isinstance(group.template, Together) else (group,))
    ]
    made = FusionGroup(
        {**one.nodes, **other.nodes},
        one.domain,
        (*one.outputs, *other.outputs),
        targets={**one.targets, **other.targets},
        reasons=(*one.reasons, *other.reasons, "two kernels are one: each has its own blocks"),
        template=Together(tuple(parts)),
    )
    overwritten = set(made.targets.values())
    if len(overwritten) < len(made.targets) or overwritten & {*one.reads, *other.reads}:
        return None
    assert isinstance(made.template, Together)
    refusal = attempts.refusal(made, check_together, made, made.template)
    return made if refusal is None else None


# ---- products ----------------------------------------------------------------------------------


def _products_by_left(items: Sequence[Item]) -> Collection[dict[int, FusionGroup]]:
    """Returns the products with the same left operand, by number, in program order."""
    found: dict[Hashable, dict[int, FusionGroup]] = {}
    for number, item in reversed([*enumerate(items)]):
        template = item.template if isinstance(item, FusionGroup) else None
        if isinstance(template, Contraction) and not template.is_pair:
            assert isinstance(item, FusionGroup)
            found.setdefault(template.product.inputs[0], {})[number] = item
    return found.values()


def _side_by_side(one: FusionGroup, other: FusionGroup, attempts: Attempts) -> FusionGroup | None:
    """Returns two groups of products with the same left operand as one; None without a kernel."""
    left, right = one.template, other.template
    assert isinstance(left, Contraction) and isinstance(right, Contraction)
    joined = FusionGroup(
        {**one.nodes, **other.nodes},
        one.domain,
        (*one.outputs, *other.outputs),
        reasons=(*one.reasons, *other.reasons, "products are one kernel: same left operand"),
        template=replace(left, siblings=(*left.siblings, *right.products)),
    )
    return _if_lowered(joined, attempts)


def _if_lowered(group: FusionGroup, attempts: Attempts) -> FusionGroup | None:
    assert isinstance(group.template, Contraction)
    refusal = attempts.refusal(group, lower_contraction, group, group.template)
    return group if refusal is None else None


def _pairs(
    graph: ir.Graph,
    groups: Sequence[FusionGroup],
    attempts: Attempts,
    most_buffers: int,
    dialect: Dialect | None,
) -> list[FusionGroup]:
    """Joins products with the same left operand, of which one alone reads the other: a gate.

    On a GPU both columns of a pair are of one warp, whose registers have to hold the floats of an
    access to each.
    """
    users, results = ir.users(graph), set(graph.results)
    maker = {value: group for group in groups for value in group.outputs}
    found = [*groups]
    for group in groups:
        made = _paired(group, attempts, maker, users, results) if group in found else None
        if made is None or len(made[1].inputs) + len(made[1].outputs) > most_buffers:
            continue
        first, joined = made
        if dialect is not Dialect.CUDA or _fits_in_registers(joined):
            found.remove(first)
            found[found.index(group)] = joined
    return found


def _fits_in_registers(group: FusionGroup) -> bool:
    """True for floats and 8-bit codes, and for 4-bit codes if they are multiplied with one row."""
    assert isinstance(group.template, Contraction)
    is_packed = any(
        not product.op.meaning.is_product and product.inputs[1].type.dtype is DType.uint8
        for product in group.template.products
    )
    return not is_packed or sizes_product(group.template.product.output.type.sizes[:-1]) == 1


def _paired(
    group: FusionGroup,
    attempts: Attempts,
    maker: Mapping[ir.Value, FusionGroup],
    users: Mapping[ir.Value, Sequence[ir.Node]],
    results: Collection[ir.Value],
) -> tuple[FusionGroup, FusionGroup] | None:
    """Returns a product that only the epilogue of another needs, and both as one group."""
    template = group.template
    if not isinstance(template, Contraction) or template.is_pair or template.siblings:
        return None
    for value in group.inputs:
        first = maker.get(value)
        if first is None or not _can_pair(first, template, value):
            continue
        if value in results or any(user not in group.nodes for user in users[value]):
            continue
        assert isinstance(first.template, Contraction)
        pair = replace(first.template, siblings=(template.product,), is_pair=True)
        made = replace(
            group,
            nodes={**first.nodes, **group.nodes},
            reasons=(*first.reasons, *group.reasons, "both products are summed column by column"),
            template=pair,
        )
        made = _if_lowered(made, attempts)
        if made is not None:
            return first, made
    return None


def _can_pair(first: FusionGroup, template: Contraction, value: ir.Value) -> bool:
    """True if a group is a product with the left operand and as many columns as another's."""
    one, other = first.template, template.product
    return (
        isinstance(one, Contraction)
        and first.outputs == (value,)
        and not one.siblings
        and one.product.inputs[0] is other.inputs[0]
        and one.product.output.type.sizes == other.output.type.sizes
    )
