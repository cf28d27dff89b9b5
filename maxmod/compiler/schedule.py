"""From a graph to steps over numbered slots: kernels for the fusion groups, ops for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from maxmod.compiler.codegen.cuda.pointwise import emit_cuda
from maxmod.compiler.codegen.emit import symbols_of
from maxmod.compiler.codegen.host.loops import emit_host
from maxmod.compiler.codegen.reading import Reading
from maxmod.compiler.fusion.plan import plan_groups
from maxmod.compiler.groups.group import FusionGroup, LibraryProduct
from maxmod.compiler.groups.lower import lower
from maxmod.compiler.groups.naming import GraphNames, kernel_name
from maxmod.compiler.groups.order import Item, order_items, owners
from maxmod.compiler.passes.expand_composites import expand_products
from maxmod.compiler.steps import (
    Choice,
    RunCollective,
    RunKernel,
    RunOp,
    RunProduct,
    Schedule,
    Step,
)
from maxmod.compiler.templates import emit_template
from maxmod.dtype import DType
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.op import ir
from maxmod.values.dim import Size
from maxmod.values.tensor_type import TensorType

EMITTERS = {Dialect.HOST: emit_host, Dialect.CUDA: emit_cuda}


def schedule(
    graph: ir.Graph,
    dialect: Dialect | None,
    architecture: str = "",
    refused: Mapping[str, str] = MappingProxyType({}),
) -> Schedule:
    """Plans the fusion groups, emits their kernels and orders everything.

    Args:
        graph: An optimised graph.
        dialect: The kernel language, or None to run every node as an op.
        architecture: The architecture to build for; an unknown one is treated as new.
        refused: The text of each kernel that cannot be built, with the reason: its ops run instead.
    """
    kernels = _Kernels(dialect, architecture, refused)
    made = _scheduled(graph, kernels)
    sources = tuple(kernels.sources)
    numbers = {n: refused[s.plain] for n, s in enumerate(sources) if s.plain in refused}
    return replace(made, kernels=sources, refused=numbers)


def _scheduled(graph: ir.Graph, kernels: _Kernels) -> Schedule:
    """Returns a schedule without its kernels, which are added to the others."""
    items, in_place = _planned(graph, kernels.dialect, kernels.architecture)
    slots: dict[ir.Value, int] = {}
    for value in (*graph.inputs, *graph.weights.values(), *graph.constants):
        slots[value] = len(slots)
    kept = len(slots)
    for node in graph.nodes:
        for value in node.outputs:
            slots[value] = len(slots)
    maker = _StepMaker(slots, kernels)
    steps = maker.steps(items, in_place, GraphNames(graph))
    outputs = tuple(slots[value] for value in graph.outputs)
    flat = [s for step in steps for s in (step.steps if isinstance(step, Choice) else (step,))]
    owner = owners(pair for step in flat for pair in _shared(step))
    borrowed = (n for n, slot in enumerate(outputs) if owner.get(slot, slot) < kept)
    return Schedule(
        slot_count=maker.slot_count,
        inputs=tuple(slots[value] for value in graph.inputs),
        weights={name: slots[value] for name, value in graph.weights.items()},
        constants={slots[value]: data for value, data in graph.constants.items()},
        outputs=outputs,
        output_types=tuple(value.type for value in graph.outputs),
        borrowed=frozenset(borrowed),
        updates=tuple((slots[graph.inputs[n]], slots[value]) for n, value in graph.updates),
        steps=tuple(_with_frees(steps, kept, {slots[v] for v in graph.results}, owner)),
        kernels=(),
    )


def _planned(
    graph: ir.Graph, dialect: Dialect | None, architecture: str
) -> tuple[list[Item], set[ir.Node]]:
    """Returns groups and nodes in execution order, and the nodes that store in place."""
    for in_place in (True, False):
        groups: list[FusionGroup] = []
        if dialect is not None:
            groups = plan_groups(
                graph,
                template_dialect=dialect,
                has_library=dialect is Dialect.CUDA,
                in_place=in_place,
                architecture=architecture,
            )
        ordered = order_items(graph, groups)
        if ordered is not None:
            return ordered
    raise AssertionError("without kernels that store in place there is an order")


def _shared(step: Step) -> list[tuple[int, int]]:
    """Returns pairs of an output and the slot whose memory it shares."""
    if isinstance(step, RunKernel):
        return [(slot, target) for slot, target in zip(step.outputs, step.targets) if target >= 0]
    is_view = isinstance(step, RunOp) and step.is_view
    return [(step.outputs[0], step.inputs[0])] if is_view else []


class _StepMaker:
    """Makes the steps of a graph, and of parts of it.

    Args:
        slots: The slot of each value; kernels that need scratch memory, and values in only one
            branch of a choice, get additional slots.
        kernels: Takes the kernels.
    """

    def __init__(self, slots: Mapping[ir.Value, int], kernels: _Kernels) -> None:
        self._slots = dict(slots)
        self.slot_count = len(slots)
        self.kernels = kernels

    def steps(
        self, items: Sequence[Item], in_place: set[ir.Node], names: GraphNames
    ) -> list[Step | Choice]:
        """Returns the steps of groups and nodes that are in order.

        Args:
            items: The groups and nodes.
            in_place: The nodes that store in place.
            names: Those of the graph that they are in.
        """
        return [
            self._group_step(item, names)
            if isinstance(item, FusionGroup)
            else self._node_step(item, item in in_place)
            for item in items
        ]

    def _node_step(self, node: ir.Node, in_place: bool) -> Step:
        if node.op.meaning.collective is not None:
            return self._collective_step(node)
        if not node.op.meaning.is_product:
            return self._op_step(node, in_place)
        template = LibraryProduct(node)
        sizes = node.output.type.sizes
        return self._product_step(FusionGroup({node: 0}, sizes, (node.output,), template=template))

    def _collective_step(self, node: ir.Node) -> RunCollective:
        return RunCollective(
            node.op,
            node.kwargs["size"],
            tuple(self._slots[value] for value in node.inputs),
            (self._slots[node.output],),
            (node.output.type,),
            node=node,
        )

    def _product_step(self, group: FusionGroup) -> RunProduct:
        template = group.template
        assert isinstance(template, LibraryProduct)
        (output,) = group.outputs
        return RunProduct(
            tuple(self._slots[value] for value in template.operands),
            (self._slots[output],),
            (output.type,),
            template.bias is not None,
            template.addend is not None,
            template.activation,
            group=group,
        )

    def _group_step(self, group: FusionGroup, names: GraphNames) -> Step | Choice:
        if isinstance(group.template, LibraryProduct):
            return self._product_step(group)
        emitted = self.kernels.emitted(group, names)
        few = self._kernel_step(group, emitted.few)
        if isinstance(emitted.rows, int):
            return few
        if emitted.many is not None:
            many = (self._kernel_step(group, emitted.many),)
        else:
            many = self._steps_of_ops(group, names)
        return Choice(emitted.rows, emitted.limit, (few,), many)

    def _steps_of_ops(self, group: FusionGroup, names: GraphNames) -> tuple[Step, ...]:
        """Returns the steps of the ops of a group, without its template."""
        graph = expand_products(group.as_graph("group"), few=True)
        results = zip(graph.outputs, (names.values[value] for value in group.outputs))
        known = {**names.values, **dict(results)}
        slots = dict(zip(graph.outputs, (self._slots[value] for value in group.outputs)))
        for node in graph.nodes:
            for value in node.outputs:
                if value not in self._slots:
                    self._slots[value] = slots[value] if value in slots else self._new_slot()
        has_library = self.kernels.dialect is Dialect.CUDA
        ordered = order_items(graph, plan_groups(graph, has_library=has_library))
        assert ordered is not None, "nothing is stored in place"
        steps = self.steps(*ordered, GraphNames(graph, known))
        # Without templates there is no choice.
        return tuple(step for step in steps if not isinstance(step, Choice))

    def _new_slot(self) -> int:
        self.slot_count += 1
        return self.slot_count - 1

    def _kernel_step(self, group: FusionGroup, called: _Called) -> RunKernel:
        source = self.kernels.sources[called.number]
        outputs = [self._slots[value] for value in group.outputs]
        targets = [
            self._slots[group.targets[v]] if v in group.targets else -1 for v in group.outputs
        ]
        types = [value.type for value in group.outputs]
        if source.scratch_floats != 0:
            outputs.append(self._new_slot())
            targets.append(-1)
            device = group.outputs[0].type.device
            types.append(TensorType.of(DType.float32, (source.scratch_floats,), device))
        is_refused = source.plain in self.kernels.refused
        is_partial = bool(called.nonempty) or source.has_flag or is_refused
        return RunKernel(
            called.number,
            called.symbols,
            tuple(self._slots[value] for value in group.reads),
            tuple(outputs),
            tuple(targets),
            tuple(types),
            called.nonempty,
            tuple(self._op_step(node, False) for node in group.ordered) if is_partial else (),
            group=group,
        )

    def _op_step(self, node: ir.Node, in_place: bool) -> RunOp:
        attrs = node.kwargs
        bodies: list[tuple[str, Schedule]] = []
        for name, body in node.attrs:
            if isinstance(body, ir.Graph) and body.traced is not None:
                attrs[name] = body.traced
                bodies.append((name, _scheduled(body, self.kernels)))
        return RunOp(
            node.op,
            tuple(self._slots[value] for value in node.inputs),
            attrs,
            tuple(value.type for value in node.outputs),
            tuple(self._slots[value] for value in node.outputs),
            in_place=in_place,
            bodies=tuple(bodies),
            node=node,
        )


class _Called(NamedTuple):
    """A kernel: its number, the sizes that are its arguments, and those that must not be 0."""

    number: int
    symbols: tuple[str, ...]
    nonempty: tuple[Size, ...] = ()


class _Emitted(NamedTuple):
    """The kernels that compute a group.

    Attributes:
        few: The kernel, or the one for up to `limit` rows.
        rows: The number of rows, if it is symbolic and selects the kernel; else 0.
        limit: The largest number of rows for `few`.
        many: The kernel for more rows; None if the ops of the group are better on their own.
    """

    few: _Called
    rows: Size = 0
    limit: int = 0
    many: _Called | None = None


class _Kernels:
    """Distinct kernels: groups that compute the same share one, as equal layers do."""

    def __init__(
        self, dialect: Dialect | None, architecture: str, refused: Mapping[str, str]
    ) -> None:
        self.dialect = dialect
        self.architecture = architecture
        self.refused = refused
        self.sources: list[KernelSource] = []
        self._by_group: dict[tuple[object, ...], _Emitted] = {}
        self._by_text: dict[str, int] = {}

    def emitted(self, group: FusionGroup, names: GraphNames) -> _Emitted:
        """Returns the kernels of a group and their arguments."""
        key = group.key()
        found = self._by_group.get(key)
        if found is None:
            found = self._by_group[key] = self._emit(group, names)
        return found

    def _emit(self, group: FusionGroup, names: GraphNames) -> _Emitted:
        assert self.dialect is not None
        name = kernel_name(group, names)
        if group.template is not None:
            return self._emit_template(group, name, names)
        lowered = lower(group)
        source = EMITTERS[self.dialect](lowered, name)
        nonempty = tuple(dict.fromkeys(lowered.nonempty))
        called = _Called(self._number(source, names), tuple(symbols_of(lowered)), nonempty)
        return _Emitted(called)

    def _emit_template(self, group: FusionGroup, name: str, names: GraphNames) -> _Emitted:
        assert self.dialect is not None
        found = emit_template(group, self.dialect, name, self.architecture)
        few = _Called(self._number(found.few, names), found.few.symbols, found.nonempty)
        if isinstance(found.rows, int):
            return _Emitted(few)
        many = None
        if found.many is not None:
            many = _Called(self._number(found.many, names), found.many.symbols)
        return _Emitted(few, found.rows, found.limit, many)

    def _number(self, source: KernelSource, names: GraphNames) -> int:
        """Returns the number of a kernel; the first group that uses it gives it its names."""
        number = self._by_text.get(source.plain)
        if number is None:
            number = self._by_text[source.plain] = len(self.sources)
            assert isinstance(source.reading, Reading)
            self.sources.append(replace(source, reading=source.reading.of_graph(names)))
        return number


def _with_frees(
    steps: list[Step | Choice], kept: int, results: set[int], owner: Mapping[int, int]
) -> list[Step | Choice]:
    """Adds to each step the slots that it reads or writes last.

    A view keeps the memory of its operand in use for as long as the view itself is used.
    """
    last_use = _last_uses(steps, owner)
    pinned = results | {owner[slot] for slot in results if slot in owner}
    frees: dict[int, list[int]] = {}
    for slot, index in last_use.items():
        if slot >= kept and slot not in pinned:
            frees.setdefault(index, []).append(slot)
    return [
        _freeing(step, frees[index], owner) if index in frees else step
        for index, step in enumerate(steps)
    ]


def _last_uses(steps: Sequence[Step | Choice], owner: Mapping[int, int]) -> dict[int, int]:
    """Returns the position of the last step that uses each slot."""
    last_use: dict[int, int] = {}
    for index, step in enumerate(steps):
        parts = step.steps if isinstance(step, Choice) else (step,)
        overwritten = [slot for part in parts for _, slot in _shared(part)]
        for slot in (*step.inputs, *step.outputs, *overwritten):
            last_use[slot] = last_use[owner.get(slot, slot)] = index
    return last_use


def _freeing(step: Step | Choice, slots: list[int], owner: Mapping[int, int]) -> Step | Choice:
    """Returns a step that frees slots; in a choice, each way frees them as soon as it can."""
    if not isinstance(step, Choice):
        return replace(step, frees=tuple(slots))
    ways: list[tuple[Step, ...]] = []
    for way in (step.few, step.many):
        last_use = _last_uses(way, owner)
        frees: dict[int, list[int]] = {}
        for slot in slots:
            frees.setdefault(last_use.get(slot, len(way) - 1), []).append(slot)
        ways.append(tuple(replace(s, frees=tuple(frees.get(n, ()))) for n, s in enumerate(way)))
    return replace(step, few=ways[0], many=ways[1])
