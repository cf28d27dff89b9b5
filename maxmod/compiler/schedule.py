"""From a graph to steps over numbered slots: kernels for the fusion groups, ops for the rest."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from maxmod import ir
from maxmod.compiler.codegen.emit import symbols_of
from maxmod.compiler.codegen.host import emit_host
from maxmod.compiler.codegen.lower import lower
from maxmod.compiler.fusion.group import FusionGroup
from maxmod.compiler.fusion.plan import plan_groups
from maxmod.kernel import Dialect, KernelSource
from maxmod.op import Kind, Op
from maxmod.tensor_type import TensorType

EMITTERS = {Dialect.HOST: emit_host}


@dataclass(frozen=True, slots=True)
class RunOp:
    """Runs one op on the arrays in `inputs` and puts the results in `outputs`.

    Attributes:
        op: The op.
        inputs: Slots of the operands.
        attrs: Static arguments; symbols are replaced when a program is bound.
        types: Types of the results.
        outputs: Slots of the results.
        frees: Slots that nothing reads after this step.
    """

    op: Op
    inputs: tuple[int, ...]
    attrs: dict[str, Any]
    types: tuple[TensorType, ...]
    outputs: tuple[int, ...]
    frees: tuple[int, ...] = ()

    @property
    def is_view(self) -> bool:
        """True if the result shares the memory of the operand."""
        return self.op.kind is Kind.VIEW and self.op.view is not None


@dataclass(frozen=True, slots=True)
class RunKernel:
    """Launches a kernel on the buffers in `inputs` and `outputs`.

    Attributes:
        kernel: Number of the kernel in `Schedule.kernels`.
        symbols: Names of the sizes that are its integer arguments.
        inputs: Slots that it reads.
        outputs: Slots that it writes.
        types: Types of the results.
        group: What it computes.
        frees: Slots that nothing reads after this step.
    """

    kernel: int
    symbols: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    types: tuple[TensorType, ...]
    group: FusionGroup
    frees: tuple[int, ...] = ()


Step = RunOp | RunKernel


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps in order.

    Attributes:
        slot_count: Number of slots.
        inputs: Slots of the arguments.
        weights: Slot of each weight.
        constants: Data of the slots that hold constants.
        outputs: Slots of the results.
        steps: What to run; sizes may be symbolic.
        kernels: The distinct kernels, in order of first use.
    """

    slot_count: int
    inputs: tuple[int, ...]
    weights: Mapping[str, int]
    constants: Mapping[int, Any]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]
    kernels: tuple[KernelSource, ...]


def schedule(graph: ir.Graph, dialect: Dialect | None) -> Schedule:
    """Plans the fusion groups, emits their kernels and orders everything.

    Args:
        graph: An optimised graph.
        dialect: The kernel language, or None to run every node as an op.
    """
    groups = plan_groups(graph) if dialect is not None else []
    slots: dict[ir.Value, int] = {}
    for value in (*graph.inputs, *graph.weights.values(), *graph.constants):
        slots[value] = len(slots)
    kept = len(slots)
    for node in graph.nodes:
        for value in node.outputs:
            slots[value] = len(slots)
    kernels = _Kernels(dialect)
    steps = [
        _kernel_step(item, slots, kernels)
        if isinstance(item, FusionGroup)
        else _op_step(item, slots)
        for item in _ordered(graph, groups)
    ]
    outputs = tuple(slots[value] for value in graph.outputs)
    return Schedule(
        slot_count=len(slots),
        inputs=tuple(slots[value] for value in graph.inputs),
        weights={name: slots[value] for name, value in graph.weights.items()},
        constants={slots[value]: data for value, data in graph.constants.items()},
        outputs=outputs,
        steps=tuple(_with_frees(steps, kept, set(outputs))),
        kernels=tuple(kernels.sources),
    )


def _ordered(graph: ir.Graph, groups: list[FusionGroup]) -> list[FusionGroup | ir.Node]:
    """Returns groups and remaining nodes in an order in which operands come first."""
    order = {node: number for number, node in enumerate(graph.nodes)}
    items: list[FusionGroup | ir.Node] = list(groups)
    # A node may stand in several groups (views are done again in each); those that nothing but
    # groups read need no step of their own.
    fused = {value for group in groups for value in group.outputs}
    inside = {node for group in groups for node in group.nodes}
    wanted = set(graph.outputs)
    for group in groups:
        wanted.update(group.inputs)
    for node in reversed(graph.nodes):
        if any(value in fused for value in node.outputs):
            continue
        if any(value in wanted for value in node.outputs) or node not in inside:
            items.append(node)
            wanted.update(node.inputs)
    maker: dict[ir.Value, int] = {}
    for number, item in enumerate(items):
        made = item.outputs
        maker.update((value, number) for value in made)
    needs = [{maker[v] for v in item.inputs if v in maker} for item in items]
    place = [
        max(item.nodes.values()) if isinstance(item, FusionGroup) else order[item] for item in items
    ]
    followers: dict[int, list[int]] = {}
    for number, before in enumerate(needs):
        for other in before:
            followers.setdefault(other, []).append(number)
    missing = [len(before) for before in needs]
    ready = [(place[number], number) for number, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    result = []
    while ready:
        _, number = heapq.heappop(ready)
        result.append(items[number])
        for other in followers.get(number, ()):
            missing[other] -= 1
            if missing[other] == 0:
                heapq.heappush(ready, (place[other], other))
    assert len(result) == len(items), "the fusion groups wait for each other"
    return result


class _Kernels:
    """Distinct kernels: groups with the same text share one."""

    def __init__(self, dialect: Dialect | None) -> None:
        self.dialect = dialect
        self.sources: list[KernelSource] = []
        self._known: dict[str, int] = {}

    def number(self, group: FusionGroup) -> tuple[int, tuple[str, ...]]:
        """Returns the kernel of a group and the names of its size arguments."""
        assert self.dialect is not None
        lowered = lower(group)
        source = EMITTERS[self.dialect](lowered, _kernel_name(group))
        number = self._known.get(source.code)
        if number is None:
            number = self._known[source.code] = len(self.sources)
            self.sources.append(source)
        return number, tuple(symbols_of(lowered))


def _kernel_name(group: FusionGroup) -> str:
    """Returns a name made of the ops, such as `row_add_reduce_sum_mul`."""
    names = [n.op.name for n in group.ordered if n.op.kind not in (Kind.VIEW, Kind.SOURCE)]
    short = names if len(names) <= 6 else [*names[:3], f"{len(names) - 5}_more", *names[-2:]]
    return "_".join(["row" if group.is_row else "map", *short])


def _kernel_step(group: FusionGroup, slots: Mapping[ir.Value, int], kernels: _Kernels) -> RunKernel:
    number, symbols = kernels.number(group)
    return RunKernel(
        number,
        symbols,
        tuple(slots[value] for value in group.inputs),
        tuple(slots[value] for value in group.outputs),
        tuple(value.type for value in group.outputs),
        group,
    )


def _op_step(node: ir.Node, slots: Mapping[ir.Value, int]) -> RunOp:
    return RunOp(
        node.op,
        tuple(slots[value] for value in node.inputs),
        node.kwargs,
        tuple(value.type for value in node.outputs),
        tuple(slots[value] for value in node.outputs),
    )


def _with_frees(steps: list[Step], kept: int, outputs: set[int]) -> list[Step]:
    """Adds to each step the slots that it reads or writes last.

    A view keeps the memory of its operand in use for as long as the view itself is used.
    """
    owner: dict[int, int] = {}
    last_use: dict[int, int] = {}
    for index, step in enumerate(steps):
        for slot in (*step.inputs, *step.outputs):
            last_use[slot] = index
            while slot in owner:
                slot = owner[slot]
                last_use[slot] = index
        if isinstance(step, RunOp) and step.is_view:
            owner[step.outputs[0]] = step.inputs[0]
    pinned = set(outputs)
    for slot in outputs:
        while slot in owner:
            slot = owner[slot]
            pinned.add(slot)
    frees: dict[int, list[int]] = {}
    for slot, index in last_use.items():
        if slot >= kept and slot not in pinned:
            frees.setdefault(index, []).append(slot)
    return [
        replace(step, frees=tuple(frees[index])) if index in frees else step
        for index, step in enumerate(steps)
    ]
