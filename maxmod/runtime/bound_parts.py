"""Binding again for other sizes: what does not depend on the sizes that changed is used again.

A new length of a cache changes what attention reads and nothing else: most steps have the same
arguments in the same memory, and are bound already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_not

from maxmod.compiler.memory import MemoryPlan, placed, plan_memory
from maxmod.compiler.steps import RunKernel, RunOp, Schedule, Step
from maxmod.op import ir
from maxmod.runtime.environment import Environment
from maxmod.runtime.work import Work
from maxmod.values.array import Array
from maxmod.values.dim import as_dim
from maxmod.values.tensor_type import TensorType


@dataclass(frozen=True, slots=True, eq=False)
class BoundStep:
    """What binding made of a step.

    Attributes:
        work: What a call does; None for a step whose result is the same in every call.
        inputs: The arrays that it reads; None for those that vary.
        outputs: The arrays of its results; None for those that vary.
        fresh: (slot, allocator) of the results that each call allocates.
    """

    work: Work | None
    inputs: Sequence[Array | None]
    outputs: Sequence[Array | None]
    fresh: Sequence[tuple[int, Callable[[], Array]]]


@dataclass(slots=True, eq=False)
class Parts:
    """A bound program in parts.

    Attributes:
        schedule: The schedule.
        dims: The sizes.
        environment: What it runs with.
        memory: Where intermediates are, in `block`.
        block: The memory.
        order: The steps that run with these sizes.
        counters: Zeros for the kernels that count.
        views: The arrays of intermediates in `block`, by slot.
        names: For each step the names of the sizes that it depends on, by `id`.
        steps: What was made of each step, by `id`; the schedule keeps the steps.
    """

    schedule: Schedule
    dims: Mapping[str, int]
    environment: Environment
    memory: MemoryPlan
    block: Array
    order: Sequence[Step] = ()
    counters: Array | None = None
    views: dict[int, Array] = field(default_factory=dict)
    names: dict[int, frozenset[str]] = field(default_factory=dict)
    steps: dict[int, BoundStep] = field(default_factory=dict)

    def is_for(self, schedule: Schedule, environment: Environment) -> bool:
        """True if the schedule, the weights and the arena are still those of this program."""
        is_same = self.schedule is schedule and self.environment is environment
        return is_same and self.block is environment.arena.block

    def names_of(self, step: Step) -> frozenset[str]:
        """Returns the names of the sizes that a step depends on."""
        found = self.names.get(id(step))
        if found is None:
            found = self.names[id(step)] = _names(step)
        return found


def _names(step: Step) -> frozenset[str]:
    found = {symbol.name for type in step.types for symbol in type.parameters}
    if isinstance(step, RunKernel):
        found.update(step.symbols)
        found.update(s.name for size in step.nonempty for s in as_dim(size).parameters)
    elif isinstance(step, RunOp):
        found.update(ir.symbols_in(tuple(step.attrs.values())))
    return frozenset(found)


class Reuse:
    """What of an earlier program serves a new one.

    Args:
        schedule: The schedule to bind.
        dims: The new sizes.
        environment: What it runs with.
        earlier: The parts of the earlier program; None if there is none.

    Attributes:
        parts: Those of the new program, so far without steps.
    """

    def __init__(
        self,
        schedule: Schedule,
        dims: Mapping[str, int],
        environment: Environment,
        earlier: Parts | None,
    ) -> None:
        if earlier is not None and not earlier.is_for(schedule, environment):
            earlier = None
        before = {} if earlier is None else earlier.dims
        self._changed = {name for name, size in dims.items() if before.get(name) != size}
        memory = None if earlier is None else self._memory(earlier, dims)
        if memory is None:
            memory = plan_memory(schedule, dims, weight_nbytes=0)
        block = environment.arena.reserve(memory.arena_nbytes)
        self.parts = Parts(schedule, dims, environment, memory, block)
        self._earlier = None
        if earlier is not None and block is earlier.block:
            self._earlier = earlier
            self.parts.names = earlier.names
            self.parts.counters = earlier.counters

    def _memory(self, earlier: Parts, dims: Mapping[str, int]) -> MemoryPlan | None:
        """Returns where intermediates were, if the steps are the same and none has another size."""
        steps = earlier.schedule.bound_steps(dims)
        if len(steps) != len(earlier.order) or any(map(is_not, steps, earlier.order)):
            return None
        types = {type for step in steps for _, type in placed(step)}
        names = {symbol.name for type in types for symbol in type.parameters}
        return earlier.memory if self._changed.isdisjoint(names) else None

    def view(self, slot: int, type: TensorType) -> Array | None:
        """Returns the earlier array of an intermediate, if it is where it was, and as large."""
        if self._earlier is None or not self._is_placed_as_before(slot):
            return None
        is_resized = any(symbol.name in self._changed for symbol in type.parameters)
        return None if is_resized else self._earlier.views.get(slot)

    def _is_placed_as_before(self, slot: int) -> bool:
        assert self._earlier is not None
        before, now = self._earlier.memory.offsets, self.parts.memory.offsets
        return before.get(slot) == now.get(slot)

    def step(self, step: Step, template: Sequence[Array | None]) -> BoundStep | None:
        """Returns an earlier step that reads the same arrays and depends on no changed size."""
        earlier = self._earlier
        found = None if earlier is None else earlier.steps.get(id(step))
        if found is None or earlier is None:
            return None
        if not self._changed.isdisjoint(earlier.names_of(step)):
            return None
        if any(template[slot] is not array for slot, array in zip(step.inputs, found.inputs)):
            return None
        return found if all(map(self._is_placed_as_before, step.outputs)) else None
