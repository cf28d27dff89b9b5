"""From a graph to steps over numbered slots: kernels for the fusion groups, ops for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from maxmod import ir
from maxmod.compiler.codegen.cuda import emit_cuda
from maxmod.compiler.codegen.emit import symbols_of
from maxmod.compiler.codegen.host import emit_host
from maxmod.compiler.codegen.lower import lower
from maxmod.compiler.fusion.group import FusionGroup
from maxmod.compiler.fusion.plan import plan_groups
from maxmod.compiler.order import Item, order_items, owners
from maxmod.compiler.steps import RunKernel, RunOp, Schedule, Step
from maxmod.compiler.templates import emit_template
from maxmod.dim import Size
from maxmod.kernel import Dialect, KernelSource
from maxmod.op import Kind

EMITTERS = {Dialect.HOST: emit_host, Dialect.CUDA: emit_cuda}
TEMPLATES = (Dialect.HOST,)  # languages with hand-written kernels for whole groups


def schedule(graph: ir.Graph, dialect: Dialect | None) -> Schedule:
    """Plans the fusion groups, emits their kernels and orders everything.

    Args:
        graph: An optimised graph.
        dialect: The kernel language, or None to run every node as an op.
    """
    items, in_place = _planned(graph, dialect)
    slots: dict[ir.Value, int] = {}
    for value in (*graph.inputs, *graph.weights.values(), *graph.constants):
        slots[value] = len(slots)
    kept = len(slots)
    for node in graph.nodes:
        for value in node.outputs:
            slots[value] = len(slots)
    kernels = _Kernels(dialect)
    steps: list[Step] = []
    for item in items:
        if isinstance(item, FusionGroup):
            steps.append(_kernel_step(item, slots, kernels))
        else:
            steps.append(_op_step(item, slots, item in in_place))
    outputs = tuple(slots[value] for value in graph.outputs)
    owner = owners(pair for step in steps for pair in _shared(step))
    borrowed = (n for n, slot in enumerate(outputs) if owner.get(slot, slot) < kept)
    return Schedule(
        slot_count=len(slots),
        inputs=tuple(slots[value] for value in graph.inputs),
        weights={name: slots[value] for name, value in graph.weights.items()},
        constants={slots[value]: data for value, data in graph.constants.items()},
        outputs=outputs,
        output_types=tuple(value.type for value in graph.outputs),
        borrowed=frozenset(borrowed),
        updates=tuple((slots[graph.inputs[n]], slots[value]) for n, value in graph.updates),
        steps=tuple(_with_frees(steps, kept, {slots[v] for v in graph.results}, owner)),
        kernels=tuple(kernels.sources),
    )


def _planned(graph: ir.Graph, dialect: Dialect | None) -> tuple[list[Item], set[ir.Node]]:
    """Returns what runs, in order, and the nodes that store in place."""
    templates = dialect in TEMPLATES
    for in_place in (True, False):
        groups: list[FusionGroup] = []
        if dialect is not None:
            groups = plan_groups(graph, templates=templates, in_place=in_place)
        ordered = order_items(graph, groups)
        if ordered is not None:
            return ordered
    raise AssertionError("without kernels that store in place there is an order")


def _shared(step: Step) -> list[tuple[int, int]]:
    """Returns pairs of an output and the slot whose memory it shares."""
    if isinstance(step, RunKernel):
        return [(slot, target) for slot, target in zip(step.outputs, step.targets) if target >= 0]
    return [(step.outputs[0], step.inputs[0])] if step.is_view else []


class _Emitted(NamedTuple):
    """A kernel: its number, the sizes that are its arguments, and those that must not be 0."""

    number: int
    symbols: tuple[str, ...]
    nonempty: tuple[Size, ...] = ()


class _Kernels:
    """Distinct kernels: groups that compute the same share one, as equal layers do."""

    def __init__(self, dialect: Dialect | None) -> None:
        self.dialect = dialect
        self.sources: list[KernelSource] = []
        self._by_group: dict[tuple[object, ...], _Emitted] = {}
        self._by_text: dict[str, int] = {}

    def emitted(self, group: FusionGroup) -> _Emitted:
        """Returns the kernel of a group and how it is called."""
        key = group.key()
        found = self._by_group.get(key)
        if found is None:
            found = self._by_group[key] = self._emit(group)
        return found

    def _emit(self, group: FusionGroup) -> _Emitted:
        assert self.dialect is not None
        if group.template is not None:
            source = emit_template(group)
            return _Emitted(self._number(source), source.symbols)
        lowered = lower(group)
        source = EMITTERS[self.dialect](lowered, _kernel_name(group))
        nonempty = tuple(dict.fromkeys(lowered.nonempty))
        return _Emitted(self._number(source), tuple(symbols_of(lowered)), nonempty)

    def _number(self, source: KernelSource) -> int:
        number = self._by_text.get(source.code)
        if number is None:
            number = self._by_text[source.code] = len(self.sources)
            self.sources.append(source)
        return number


def _kernel_name(group: FusionGroup) -> str:
    """Returns a name made of the ops, such as `row_add_reduce_sum_mul`."""
    names = [n.op.name for n in group.ordered if n.op.kind not in (Kind.VIEW, Kind.SOURCE)]
    short = names if len(names) <= 6 else [*names[:3], f"{len(names) - 5}_more", *names[-2:]]
    return "_".join(["row" if group.is_row else "map", *short])


def _kernel_step(group: FusionGroup, slots: Mapping[ir.Value, int], kernels: _Kernels) -> RunKernel:
    emitted = kernels.emitted(group)
    is_partial = bool(emitted.nonempty) or kernels.sources[emitted.number].has_flag
    return RunKernel(
        emitted.number,
        emitted.symbols,
        tuple(slots[value] for value in group.reads),
        tuple(slots[value] for value in group.outputs),
        tuple(slots[group.targets[v]] if v in group.targets else -1 for v in group.outputs),
        tuple(value.type for value in group.outputs),
        emitted.nonempty,
        tuple(_op_step(node, slots, False) for node in group.ordered) if is_partial else (),
        group=group,
    )


def _op_step(node: ir.Node, slots: Mapping[ir.Value, int], in_place: bool) -> RunOp:
    return RunOp(
        node.op,
        tuple(slots[value] for value in node.inputs),
        node.kwargs,
        tuple(value.type for value in node.outputs),
        tuple(slots[value] for value in node.outputs),
        in_place=in_place,
    )


def _with_frees(
    steps: list[Step], kept: int, results: set[int], owner: Mapping[int, int]
) -> list[Step]:
    """Adds to each step the slots that it reads or writes last.

    A view keeps the memory of its operand in use for as long as the view itself is used.
    """
    last_use: dict[int, int] = {}
    for index, step in enumerate(steps):
        overwritten = [slot for _, slot in _shared(step)]
        for slot in (*step.inputs, *step.outputs, *overwritten):
            last_use[slot] = last_use[owner.get(slot, slot)] = index
    pinned = results | {owner[slot] for slot in results if slot in owner}
    frees: dict[int, list[int]] = {}
    for slot, index in last_use.items():
        if slot >= kept and slot not in pinned:
            frees.setdefault(index, []).append(slot)
    return [
        replace(step, frees=tuple(frees[index])) if index in frees else step
        for index, step in enumerate(steps)
    ]
