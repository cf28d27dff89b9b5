"""Tensor cores and loads of matrices.

Source: PTX ISA 8.8, "Matrix Fragments for mma.m16n8k16 with floating point type", "ldmatrix".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ptx.accesses import addresses
from ptx.conversions import from_halves
from ptx.spaces import Fault
from ptx.text import Instruction, split

if TYPE_CHECKING:
    from ptx.machine import Machine, Run

Array = npt.NDArray[Any]
_LANE = np.arange(32)
_GROUP, _MEMBER = _LANE // 4, _LANE % 4


def prepare(machine: Machine, position: int, instruction: Instruction) -> Run | None:
    """Returns a function that executes an instruction of this family; None for others."""
    if instruction.parts[0] == "ldmatrix":
        return _load(machine, position, instruction)
    if instruction.parts[0] == "mma":
        return _multiply(machine, instruction)
    return None


def _whole_warps(machine: Machine, instruction: Instruction) -> Array:
    """Returns the warps that run, all of whose threads must."""
    lanes = machine.lanes
    if len(lanes) % 32 or not machine.mask[lanes[::32, None] // 32 * 32 + _LANE].all():
        raise Fault(f"not all threads of a warp come: {instruction.text}")
    return lanes.reshape(-1, 32)


def _load(machine: Machine, position: int, instruction: Instruction) -> Run:
    """Threads 8 m to 8 m + 7 hold the addresses of the rows of matrix m."""
    parts = instruction.parts
    if parts[1:4] != ("sync", "aligned", "m8n8") or parts[-1] != "b16":
        raise KeyError(instruction.name)
    count = int(parts[4][1])
    targets = [machine.registers.bits(n) for n in split(instruction.operands[0].strip("{}"))]
    at = addresses(machine, instruction.operands[1])
    memory = machine.memory

    def run() -> None:
        warps = _whole_warps(machine, instruction)
        asked = warps[:, : 8 * count].reshape(-1)
        own = at().reshape(-1, 32)[:, : 8 * count].reshape(-1)
        place = memory.place(machine, position, instruction, "shared", own, 16, asked)
        rows = memory.load(place, 2).reshape(len(warps), count, 8, 8)
        if "trans" in parts:
            rows = rows.swapaxes(2, 3)
        for number, target in enumerate(targets):
            low = rows[:, number, _GROUP, 2 * _MEMBER].astype(np.uint32)
            high = rows[:, number, _GROUP, 2 * _MEMBER + 1].astype(np.uint32)
            target[warps] = low | high << np.uint32(16)

    return run


def _multiply(machine: Machine, instruction: Instruction) -> Run:
    """mma.m16n8k16: products of halves are exact, their sums are rounded once."""
    parts = instruction.parts
    if "m16n8k16" not in parts or parts[-1] != "f32" or parts[-4] != "f32":
        raise KeyError(instruction.name)
    is_bfloat = parts[-2] == "bf16"
    names = [split(operand.strip("{}")) for operand in instruction.operands]
    results = [machine.registers.view(name, "f32") for name in names[0]]
    left, right = ([machine.registers.bits(n) for n in part] for part in names[1:3])
    added = [machine.registers.source(name, "f32") for name in names[3]]

    def run() -> None:
        warps = _whole_warps(machine, instruction)
        a = np.empty((len(warps), 16, 16))
        b = np.empty((len(warps), 16, 8))
        for n, register in enumerate(left):
            pair = from_halves(register[warps], is_bfloat)
            row, column = _GROUP + n % 2 * 8, 2 * _MEMBER + n // 2 * 8
            a[:, row, column], a[:, row, column + 1] = pair[..., 0], pair[..., 1]
        for n, register in enumerate(right):
            pair = from_halves(register[warps], is_bfloat)
            row = 2 * _MEMBER + n * 8
            b[:, row, _GROUP], b[:, row + 1, _GROUP] = pair[..., 0], pair[..., 1]
        sums = a @ b
        for n, (result, given) in enumerate(zip(results, added)):
            own = sums[:, _GROUP + n // 2 * 8, 2 * _MEMBER + n % 2]
            before = given[warps] if np.ndim(given) else given
            result[warps] = own + before

    return run
