"""The facts about a compiled graph, before formatting."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from maxmod.compiler.memory import MemoryPlan
from maxmod.compiler.report.cost import Cost, cost_of
from maxmod.compiler.report.measurement import Measurement
from maxmod.compiler.steps import (
    Choice,
    RunCollective,
    RunKernel,
    RunOp,
    RunProduct,
    Schedule,
    Step,
)
from maxmod.kernel.source import KernelSource
from maxmod.op import Kind, ir
from maxmod.values.dim import Size, evaluate

if TYPE_CHECKING:
    from maxmod.compiler.groups.group import FusionGroup

# Why an op runs by itself.
_REASONS = {
    Kind.CONTRACT: "left to the matrix library",
    Kind.REDUCE: "kernels reduce the last axis only",
}
_NO_KERNEL = "there is no generated kernel for it"
MOST_CALLS = 8  # named in a reason
SCRATCH = "scratch"  # memory of a kernel that is not a value of the graph


@dataclass(frozen=True, slots=True)
class StepFacts:
    """One step of a call.

    Attributes:
        number: Its position in the schedule; both ways of a choice have the same.
        step: What runs.
        kind: `kernel`, `ops` (of a kernel that cannot be built), `call`, `view`, `store`, or the
            name of a branch or loop.
        kernel: The number of its kernel; -1 for none.
        name: The name of what runs.
        results: Names of the values that it makes.
        operands: Names of the values that it reads.
        detail: Results and operands: `%3 from %arg0`, or a formula.
        cost: Bytes and operations.
        places: Lines of user code that it comes from.
        reason: Why it does not run as a kernel; empty if it does.
        condition: When this branch of a choice is taken; empty without a choice.
        runs: Whether it is what runs with the known sizes.
        bodies: The facts of each graph of a branch or loop, by its name.
        time_s: Seconds of one call, if they were measured.
    """

    number: int
    step: Step
    kind: str
    kernel: int
    name: str
    results: tuple[str, ...]
    operands: tuple[str, ...]
    detail: str
    cost: Cost
    places: tuple[str, ...]
    reason: str = ""
    condition: str = ""
    runs: bool = True
    bodies: tuple[tuple[str, Facts], ...] = ()
    time_s: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What steps of equal layers have in common."""
        return self.kind, self.name, self.condition

    @property
    def title(self) -> str:
        """What runs, in short: `kernel 3 row_softmax`."""
        if self.kind == "ops":
            return f"ops of {self.name}"
        return f"kernel {self.kernel} {self.name}" if self.kernel >= 0 else f"call {self.name}"


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """One kernel.

    Attributes:
        number: Its position among the kernels.
        source: Its name and text.
        uses: Where it is launched, as texts: `3`, or `3, body 0` for a step of a loop.
        group: What its first use computes.
        names: The names of values there.
        reasons: Why it was formed, and what joined it or stayed out.
    """

    number: int
    source: KernelSource
    uses: tuple[str, ...]
    group: FusionGroup
    names: Mapping[ir.Value, str]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Intermediate:
    """A value that lives in the arena.

    Attributes:
        name: Its name in the graph.
        offset: Where it begins, in bytes.
        nbytes: Its size.
        born: Position, among the steps that run, of the one that makes it.
        dies: Position of the last one that reads it.
    """

    name: str
    offset: int
    nbytes: int
    born: int
    dies: int


class _Use(NamedTuple):
    """A step that launches a kernel: where it stands, and the names of values there."""

    kernel: int
    place: str
    group: FusionGroup
    names: Mapping[ir.Value, str]


class Facts:
    """The facts about a compiled graph.

    Args:
        graph: The optimised graph.
        plan: Its schedule, with the groups.
        dims: The value of each named size, to show numbers instead of expressions; may be empty.
        memory: The memory plan for these sizes; None if they are not known.
        measured: Times for these sizes; None without a measurement.
        slower: What ran slower than planned so far, and how often.
    """

    def __init__(
        self,
        graph: ir.Graph,
        plan: Schedule,
        dims: Mapping[str, int] = MappingProxyType({}),
        memory: MemoryPlan | None = None,
        measured: Measurement | None = None,
        slower: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.graph = graph
        self.plan = plan
        self.dims = dims
        self.memory = memory
        self.measured = measured
        self.slower = dict(slower)
        self.names = ir.value_names(graph)
        self._slots = list(self.names.values())  # slots count the values of a graph in order
        # What runs with these sizes; where they are not known, what runs for many rows.
        self.is_bound = all(name in dims for name in ir.symbols(graph))
        self._bound = plan.bound_steps(dims) if self.is_bound else plan.steps_for_many

    # ---- steps -----------------------------------------------------------------------------------

    @cached_property
    def steps(self) -> list[StepFacts]:
        """All steps in order, both ways of a choice included."""
        bound = {id(step) for step in self._bound}
        found: list[StepFacts] = []
        for number, step in enumerate(self.plan.steps):
            if not isinstance(step, Choice):
                found.append(self._step(number, step))
                continue
            for way, sign in ((step.few, "<="), (step.many, ">")):
                condition = f"if {step.rows} {sign} {step.limit}"
                for one in way:
                    facts = self._step(number, one)
                    runs = not self.is_bound or id(one) in bound
                    found.append(replace(facts, condition=condition, runs=runs))
        return found

    @cached_property
    def running(self) -> list[StepFacts]:
        """The steps that run: one way of each choice."""
        by_step = {id(facts.step): facts for facts in self.steps}
        return [by_step[id(step)] for step in self._bound]

    def _step(self, number: int, step: Step) -> StepFacts:
        results, operands = (tuple(map(self._name, s)) for s in (step.outputs, step.inputs))
        time_s = self.measured.times_s.get(step.outputs[0]) if self.measured else None
        facts = StepFacts(
            number, step, "", -1, "", results, operands, "", cost_of(step), (), time_s=time_s
        )
        if isinstance(step, RunKernel):
            return self._launch(facts, step)
        if isinstance(step, RunCollective):
            return self._collective(facts, step)
        return self._product(facts, step) if isinstance(step, RunProduct) else self._op(facts, step)

    def _launch(self, facts: StepFacts, step: RunKernel) -> StepFacts:
        assert step.group is not None
        name = self.plan.kernels[step.kernel].name
        buffers = ", ".join(self._name(slot) for slot in step.targets if slot >= 0)
        in_place = f", stored in {buffers}" if buffers else ""
        return replace(
            facts,
            kind="ops" if step.kernel in self.plan.refused else "kernel",
            kernel=step.kernel,
            name=name,
            detail=_made_from(facts) + in_place,
            places=_places(step.group.ordered),
            reason=self._refusal(step.kernel),
        )

    def _refusal(self, kernel: int) -> str:
        """Why the ops of a kernel run in its place; empty where they do not."""
        why = self.plan.refused.get(kernel)
        return f"its ops run one by one: {why}" if why is not None else ""

    def _product(self, facts: StepFacts, step: RunProduct) -> StepFacts:
        """What the matrix library does."""
        assert step.group is not None
        left, right, *added = facts.operands
        formula = " + ".join([f"matmul({left}, {right})", *added])
        formula = f"{step.activation}({formula})" if step.activation else formula
        return replace(
            facts,
            kind="call",
            name=step.name,
            detail=f"{facts.results[0]} = {formula}",
            places=_places(step.group.ordered),
            reason=_REASONS[Kind.CONTRACT] if step.has_epilogue or self.plan.kernels else "",
        )

    def _collective(self, facts: StepFacts, step: RunCollective) -> StepFacts:
        """What all processes of a group do together."""
        assert step.node is not None
        return replace(
            facts,
            kind="call",
            name=step.name,
            detail=f"{_made_from(facts)}, of {step.size} processes",
            places=_places([step.node]),
        )

    def _op(self, facts: StepFacts, step: RunOp) -> StepFacts:
        assert step.node is not None
        kind = "store" if step.in_place else "view" if step.is_view else "call"
        kind = step.op.name if step.bodies else kind
        is_left = kind == "call" and self.plan.kernels
        return replace(
            facts,
            kind=kind,
            name=step.op.name,
            detail=_made_from(facts),
            places=_places([step.node]),
            reason=_REASONS.get(step.op.kind, _NO_KERNEL) if is_left else "",
            bodies=tuple(self._bodies(step)),
        )

    def _bodies(self, step: RunOp) -> Iterator[tuple[str, Facts]]:
        assert step.node is not None
        graphs = step.node.kwargs
        for name, body in step.bodies:
            plan = replace(body, kernels=self.plan.kernels, refused=self.plan.refused)
            yield name, Facts(graphs[name], plan, self.dims)

    def _name(self, slot: int) -> str:
        return self._slots[slot] if slot < len(self._slots) else SCRATCH

    # ---- kernels ---------------------------------------------------------------------------------

    @cached_property
    def kernels(self) -> list[KernelFacts]:
        """The kernels in order."""
        uses: dict[int, list[_Use]] = {}
        for use in self._uses():
            uses.setdefault(use.kernel, []).append(use)
        return [
            self._kernel(number, source, uses[number])
            for number, source in enumerate(self.plan.kernels)
        ]

    def _kernel(self, number: int, source: KernelSource, uses: list[_Use]) -> KernelFacts:
        first = uses[0]
        refusal = filter(None, [self._refusal(number)])
        reasons = tuple(dict.fromkeys((*refusal, *_reasons(first.group))))
        places = tuple(use.place for use in uses)
        return KernelFacts(number, source, places, first.group, first.names, reasons)

    def _uses(self) -> Iterator[_Use]:
        """The steps that launch kernels."""
        for facts in self.steps:
            if isinstance(facts.step, RunKernel):
                assert facts.step.group is not None
                yield _Use(facts.kernel, str(facts.number), facts.step.group, self.names)
            for name, body in facts.bodies:
                for use in body._uses():
                    yield use._replace(place=f"{facts.number}, {name} {use.place}")

    # ---- memory ----------------------------------------------------------------------------------

    @cached_property
    def intermediates(self) -> list[Intermediate]:
        """What lives in the arena, in order of birth; empty if the sizes are not known."""
        if self.memory is None:
            return []
        offsets = self.memory.offsets
        died = {slot: at for at, step in enumerate(self._bound) for slot in step.frees}
        return [
            Intermediate(
                self._name(slot), offsets[slot], evaluate(type.nbytes, self.dims), at, died[slot]
            )
            for at, step in enumerate(self._bound)
            for slot, type in zip(step.outputs, step.types)
            if slot in offsets
        ]

    @property
    def apart_nbytes(self) -> int:
        """Bytes that intermediates would take without sharing the arena."""
        return sum(one.nbytes for one in self.intermediates)

    # ---- numbers ---------------------------------------------------------------------------------

    def number(self, size: Size) -> Size:
        """The value of a size if its names have one, else the size."""
        if isinstance(size, int) or any(s.name not in self.dims for s in size.parameters):
            return size
        return evaluate(size, self.dims)


def counted(texts: Iterable[str]) -> Iterator[str]:
    """Writes equal neighbours once, with their number: `6 x float32[4]`."""
    for text, same in itertools.groupby(texts):
        count = len(list(same))
        yield f"{count} x {text}" if count > 1 else text


def _made_from(facts: StepFacts) -> str:
    operands = f" from {', '.join(facts.operands)}" if facts.operands else ""
    return f"{', '.join(facts.results)}{operands}"


def _places(nodes: Iterable[ir.Node]) -> tuple[str, ...]:
    """The lines of user code that nodes come from."""
    return tuple(dict.fromkeys(filter(None, map(ir.place, nodes))))


def _reasons(group: FusionGroup) -> Iterator[str]:
    """Why a kernel was formed, then what joined it or was kept out of it and why."""
    count = sum(node.op.kind not in (Kind.VIEW, Kind.SOURCE) for node in group.ordered)
    if group.template is not None and not group.reasons:
        yield "a matrix product on its own"
    elif group.template is None and count > 1:
        why = (
            f"on rows of {group.domain[-1]}: a row is read once and stays in the cache"
            if group.is_row
            else "on the same elements: nothing between them goes to memory"
        )
        yield f"{count} ops {why} ({', '.join(_calls(group))})"
    elif group.template is None and not group.reasons:
        yield "a single op, with no neighbour that the same kernel could compute"
    yield from group.reasons


def _calls(group: FusionGroup) -> list[str]:
    """What the user called, each call once: `mul, add, softmax`."""
    found: dict[object, str] = {}
    for node in group.ordered:
        call = node.scope.chain[0] if node.scope is not None else None
        if call is not None:
            found[call] = call.name
        elif node.op.kind not in (Kind.VIEW, Kind.SOURCE):
            found[node] = node.op.name
    names = list(found.values())
    return names if len(names) <= MOST_CALLS else [*names[:MOST_CALLS], "..."]
