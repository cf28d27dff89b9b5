"""Programs that run inside or after a step of another program, bound on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from maxmod.ops.control_flow.late_sizes import expect_size
from maxmod.runtime.arena import Arena
from maxmod.runtime.late_sizes import LateSize
from maxmod.runtime.program import Program, ProgramCache
from maxmod.runtime.work import Slots
from maxmod.values.array import Array

# Programs kept for the rest of a schedule, one for each value of a data-dependent size.
CONTINUATION_LIMIT = 16


class BoundBody:
    """The graph of a branch or a loop as a function of arrays.

    Args:
        bind: Binds its program.
    """

    def __init__(self, bind: Callable[[], Program]) -> None:
        self._bind = bind
        self._program: Program | None = None

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        program = self._program
        if program is None or not program.is_current:
            program = self._program = self._bind()
        return program.run_inside(arrays)


class Continuation:
    """The steps after a data-dependent size: one program for each of its values.

    Args:
        late: Where to read the size.
        arena: Memory for the intermediates of these steps.
        bind: Binds the program for a value of the size.
    """

    def __init__(self, late: LateSize, arena: Arena, bind: Callable[[int], Program]) -> None:
        self._count = late.count
        self._result = late.result
        self._reason = late.reason
        self._bind = bind
        self._programs = ProgramCache(arena, CONTINUATION_LIMIT)

    def __call__(self, slots: Slots) -> list[Array]:
        count = slots[self._count]
        size = int(count)
        expect_size(size, self._reason)
        slots[self._result] = count
        program = self._programs.get(size)
        if program is None:
            program = self._programs.bound(lambda: self._bind(size))
            self._programs.keep(size, program)
        return program.resume(slots)
