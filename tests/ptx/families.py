"""Which family an instruction belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptx import accesses, bits, conversions, floats, integers, moves, tensor_cores, warps
from ptx.text import Instruction

if TYPE_CHECKING:
    from ptx.machine import Machine, Run

# Hints, and what orders things that already happen in order here.
_NOTHING = {"prefetch", "nanosleep", "griddepcontrol", "applypriority", "discard", "pragma"}
_FAMILIES = (accesses, conversions, warps, tensor_cores, moves, bits, integers, floats)


def prepare(machine: Machine, position: int, instruction: Instruction) -> Run:
    """Returns a function that executes an instruction for the selected threads.

    Raises:
        KeyError: If no family has it.
    """
    if instruction.parts[0] in _NOTHING:
        return lambda: None
    for family in _FAMILIES:
        run = family.prepare(machine, position, instruction)
        if run is not None:
            return run
    raise KeyError(instruction.name)
