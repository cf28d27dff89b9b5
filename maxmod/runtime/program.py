"""Bound programs, which calls run. `maxmod.runtime.binding` makes them.

A program holds everything that is constant between calls: views of the arena and of weights,
kernels with their argument tables. A call fills in its arguments and runs a list of functions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from maxmod.backends.base import Backend
from maxmod.runtime.arena import Arena
from maxmod.runtime.bound_parts import Parts
from maxmod.runtime.recording import RepeatedSlots
from maxmod.runtime.work import Action, Slots
from maxmod.values.array import Array
from maxmod.values.tensor_type import TensorType

# Runs the steps after a data-dependent size, and returns the results of the whole program.
Rest = Callable[[Slots], list[Array]]


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A schedule that is bound to one set of sizes.

    Attributes:
        backend: Where it runs.
        arena: Memory for intermediates, and the lock that a call holds.
        block: The arena block that it is bound to.
        template: The array of each slot that is constant between calls; None elsewhere.
        fresh: (slot, allocator) of the arrays that are allocated in every call.
        inputs: Slots of the arguments.
        actions: The functions to run, in order.
        rest: Runs the remaining steps after a data-dependent size, and returns the results.
        outputs: Slots of the results.
        copied: Positions of results that are copied, because they alias memory of the caller.
        updates: Run last; they write new contents into buffers of the caller.
        types: The types of the results; None if one may have a data-dependent size.
        parts: What it was put together from, for a program of other sizes; None if that cannot be
            used again.
    """

    backend: Backend
    arena: Arena
    block: Array
    template: Slots
    fresh: Sequence[tuple[int, Callable[[], Array]]]
    inputs: Sequence[int]
    actions: Sequence[Action]
    rest: Rest | None
    outputs: Sequence[int]
    copied: Sequence[int]
    updates: Sequence[Action]
    types: Sequence[TensorType] | None
    parts: Parts | None

    @property
    def is_current(self) -> bool:
        """False once the arena block that this is bound to was replaced."""
        return self.block is self.arena.block

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Runs the program on argument arrays and returns result arrays."""
        arena = self.arena
        with arena.lock:
            if arena.is_queued:
                arena.follow()
            return self.run_inside(inputs)

    def filled(self, inputs: Sequence[Array]) -> Slots:
        """Returns the slots at the start of a call."""
        slots = self.template.copy()
        for slot, array in zip(self.inputs, inputs):
            slots[slot] = array
        return slots

    def repeat(self, slots: Slots, keys: dict[int, tuple[int, ...] | None]) -> list[Array]:
        """Runs the program with the arguments of an earlier call.

        Args:
            slots: What `filled` returned for them.
            keys: What recordings remember of these arguments; empty the first time.
        """
        arena = self.arena
        with arena.lock:
            if arena.is_queued:
                arena.follow()
            return self._finish(RepeatedSlots(slots, keys))

    def run_inside(self, inputs: Sequence[Array]) -> list[Array]:
        """Runs the program as `run` does, while the lock of the arena is held."""
        return self._finish(self.filled(inputs))

    def resume(self, slots: Slots) -> list[Array]:
        """Runs the program on the slots of another one, which ran the steps before."""
        return self._finish(
            [found if kept is None else kept for kept, found in zip(self.template, slots)]
        )

    def _finish(self, slots: Slots) -> list[Array]:
        for slot, allocate in self.fresh:
            slots[slot] = allocate()
        for action in self.actions:
            action(slots)
        if self.rest is not None:
            return self.rest(slots)
        results = [slots[slot] for slot in self.outputs]
        for position in self.copied:
            results[position] = self.backend.copy(results[position])
        for update in self.updates:
            update(slots)
        return results


class ProgramCache(OrderedDict[Hashable, Program]):
    """A limited number of programs in one arena; the oldest are dropped.

    Args:
        arena: Memory for their intermediates.
        limit: The largest number of programs.
    """

    def __init__(self, arena: Arena, limit: int) -> None:
        super().__init__()
        self._arena = arena
        self.limit = limit

    @property
    def latest(self) -> Program | None:
        """The program that was kept or used last."""
        return next(reversed(self.values()), None)

    def bound(self, bind: Callable[[], Program]) -> Program:
        """Returns a program in the arena, and drops the others if it needed a larger block."""
        block = self._arena.block
        program = bind()
        if self._arena.block is not block:
            self.clear()
        return program

    def keep(self, key: Hashable, program: Program) -> None:
        """Keeps a program, and drops the oldest one if there are too many."""
        self[key] = program
        if len(self) > self.limit:
            self.popitem(last=False)
