"""Data-dependent sizes: a schedule is split where one becomes known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from maxmod.compiler.steps import RunOp, Schedule
from maxmod.op import ir


@dataclass(frozen=True, slots=True)
class LateSize:
    """The point of a schedule where a symbolic dimension gets a computed value.

    Attributes:
        name: The symbolic dimension.
        count: Slot of its value.
        result: Slot of the step's result.
        rest: The steps after it.
    """

    name: str
    count: int
    result: int
    rest: Schedule


def cut(schedule: Schedule, dims: Mapping[str, int]) -> tuple[Schedule, LateSize | None]:
    """Splits a schedule where the first size without a value gets one."""
    for index, step in enumerate(schedule.steps):
        name = ir.late_name(step.op, step.attrs) if isinstance(step, RunOp) else None
        if name is not None and name not in dims:
            rest = replace(schedule, steps=schedule.steps[index + 1 :])
            late = LateSize(name, step.inputs[0], step.outputs[0], rest)
            return replace(schedule, steps=schedule.steps[:index]), late
    return schedule, None
