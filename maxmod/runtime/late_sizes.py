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
        reason: What errors call the size.
    """

    name: str
    count: int
    result: int
    rest: Schedule
    reason: str


def cut(schedule: Schedule, dims: Mapping[str, int]) -> tuple[Schedule, LateSize | None]:
    """Splits a schedule where the first size without a value gets one."""
    for index, step in enumerate(schedule.steps):
        if not isinstance(step, RunOp):
            continue
        name = ir.late_name(step.op, step.attrs)
        if name is not None and name not in dims:
            rest = replace(schedule, steps=schedule.steps[index + 1 :])
            reason = str(step.attrs["reason"])
            late = LateSize(name, step.inputs[0], step.outputs[0], rest, reason)
            return replace(schedule, steps=schedule.steps[:index]), late
    return schedule, None
