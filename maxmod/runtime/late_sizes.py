"""Sizes that a schedule computes itself: it is cut where one becomes known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from maxmod.compiler.steps import RunOp, Schedule
from maxmod.op import ir


@dataclass(frozen=True, slots=True)
class LateSize:
    """Where a schedule gives a name the value of a number that it computed.

    Attributes:
        name: The name.
        count: Slot of the number.
        result: Slot of the step's result.
        rest: What comes after.
    """

    name: str
    count: int
    result: int
    rest: Schedule


def cut(schedule: Schedule, dims: Mapping[str, int]) -> tuple[Schedule, LateSize | None]:
    """Cuts a schedule where the first size without a value gets one."""
    for index, step in enumerate(schedule.steps):
        name = ir.late_name(step.op, step.attrs) if isinstance(step, RunOp) else None
        if name is not None and name not in dims:
            rest = replace(schedule, steps=schedule.steps[index + 1 :])
            late = LateSize(name, step.inputs[0], step.outputs[0], rest)
            return replace(schedule, steps=schedule.steps[:index]), late
    return schedule, None
