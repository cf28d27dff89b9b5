"""Instructions that compute each thread's result from its own operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ptx.registers import dtype_of
from ptx.text import Instruction

if TYPE_CHECKING:
    from ptx.machine import Machine, Run

Function = Callable[..., Any]
Description = tuple[Function, list[str], str]  # what it computes; types of operands and result


def simple(machine: Machine, instruction: Instruction, ufunc: Any, type: str) -> Run:
    """Returns a function that puts a ufunc of the operands straight into the result."""
    registers = machine.registers
    target = registers.view(instruction.operands[0], type)
    sources = [registers.source(operand, type) for operand in instruction.operands[1:]]
    if target.dtype != dtype_of(type) or len(sources) > 2:
        raise ValueError("operands do not fit")
    return lambda: ufunc(*sources, out=target, where=machine.where)


def computed(
    machine: Machine,
    instruction: Instruction,
    function: Function,
    types: list[str],
    result: str,
) -> Run:
    """Returns a function that computes for all threads and keeps what the selected ones need.

    Args:
        machine: The blocks that run.
        instruction: The instruction.
        function: Gives the result from the operands.
        types: Of the operands.
        result: The type of the result.
    """
    registers = machine.registers
    target = registers.view(instruction.operands[0], result)
    names = instruction.operands[1 : 1 + len(types)]
    sources = [registers.source(name, type) for name, type in zip(names, types, strict=True)]

    def run() -> None:
        np.copyto(target, function(*sources), where=machine.where, casting="unsafe")

    return run
