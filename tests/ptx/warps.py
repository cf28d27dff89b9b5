"""What the threads of a warp do together: shuffles, votes, reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ptx.spaces import Fault
from ptx.text import Instruction

if TYPE_CHECKING:
    from ptx.machine import Machine, Run

Array = npt.NDArray[Any]
_BITS = np.uint32(1) << np.arange(32, dtype=np.uint32)
_REDUCTIONS: dict[str, Any] = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


def prepare(machine: Machine, position: int, instruction: Instruction) -> Run | None:
    """Returns a function that executes an instruction of this family; None for others."""
    made = {
        "shfl": _shuffle,
        "vote": _vote,
        "activemask": _active,
        "redux": _reduce,
        "bar": _sync,
    }.get(instruction.parts[0])
    return None if made is None else made(machine, instruction)


def _expect(machine: Machine, members: Any, instruction: Instruction) -> None:
    """Refuses an instruction to which threads do not come that it names."""
    if machine.where is True and np.ndim(members) == 0 and len(machine.lanes) == machine.size:
        return
    here = _ballots(machine, machine.mask)[machine.lanes // 32]
    named = members[machine.lanes] if np.ndim(members) else np.uint32(members)
    if (named & ~here).any():
        raise Fault(f"threads do not come that are named: {instruction.text}")
    if not (named & _BITS[machine.lanes % 32]).all():
        raise Fault(f"a thread comes that is not named: {instruction.text}")


def _ballots(machine: Machine, mask: npt.NDArray[np.bool_]) -> Array:
    """Returns a word for each warp, with a bit for each thread."""
    return (mask.reshape(-1, 32) * _BITS).sum(1, dtype=np.uint32)


def _shuffle(machine: Machine, instruction: Instruction) -> Run:
    """Source: PTX ISA, shfl.sync: the formulas with bval, cval, segmask, minLane and maxLane."""
    registers, mode = machine.registers, instruction.parts[2]
    target, _, found = instruction.operands[0].partition("|")
    to = registers.view(target, "b32")
    is_found = registers.bits(found) if found else None
    x, b, c, members = (
        registers.source(operand, type)
        for operand, type in zip(instruction.operands[1:], ("b32", "u32", "u32", "u32"))
    )
    lane = np.arange(machine.size) % 32
    start = np.arange(machine.size) - lane
    from_lane = _sources(mode)

    def run() -> None:
        _expect(machine, members, instruction)
        bval, cval = np.asarray(b).astype(np.int64) & 31, np.asarray(c).astype(np.int64)
        segment, clamp = cval >> 8 & 31, cval & 31
        lowest = lane & segment
        highest = lowest | clamp & ~segment
        other = from_lane(lane, bval, lowest, segment)
        inside = other >= highest if mode == "up" else other <= highest
        at = start + np.where(inside, other, lane)
        if not machine.mask[at[machine.lanes]].all():
            raise Fault(f"a value of a thread that does not come: {instruction.text}")
        values = np.broadcast_to(x, (machine.size,))[at]
        np.copyto(to, values, where=machine.where)
        if is_found is not None:
            np.copyto(is_found, inside, where=machine.where)

    return run


def _sources(mode: str) -> Callable[[Array, Array, Array, Array], Array]:
    """Returns from which lane each lane reads."""
    return {
        "idx": lambda lane, b, lowest, segment: lowest | b & ~segment,
        "bfly": lambda lane, b, lowest, segment: lane ^ b,
        "up": lambda lane, b, lowest, segment: lane - b,
        "down": lambda lane, b, lowest, segment: lane + b,
    }[mode]


def _vote(machine: Machine, instruction: Instruction) -> Run:
    registers, mode = machine.registers, instruction.parts[2]
    operand = instruction.operands[1]
    is_negated = operand.startswith("!")
    source = registers.source(operand.lstrip("!"), "pred")
    members = registers.source(instruction.operands[2], "u32")
    to = registers.bits(instruction.operands[0])

    def run() -> None:
        _expect(machine, members, instruction)
        asked = np.broadcast_to(~source if is_negated else source, (machine.size,))
        yes = _ballots(machine, machine.mask & asked)
        here = _ballots(machine, machine.mask)
        found = {"any": yes != 0, "all": yes == here, "uni": (yes == 0) | (yes == here)}
        values = yes if mode == "ballot" else found[mode]
        np.copyto(to, np.repeat(values, 32), where=machine.where)

    return run


def _active(machine: Machine, instruction: Instruction) -> Run:
    to = machine.registers.bits(instruction.operands[0])
    return lambda: np.copyto(
        to, np.repeat(_ballots(machine, machine.mask), 32), where=machine.where
    )


def _reduce(machine: Machine, instruction: Instruction) -> Run:
    registers, type = machine.registers, instruction.parts[-1]
    to = registers.view(instruction.operands[0], type)
    source = registers.source(instruction.operands[1], type)
    members = registers.source(instruction.operands[2], "u32")
    change = _REDUCTIONS[instruction.parts[2]]

    def run() -> None:
        _expect(machine, members, instruction)
        values = np.broadcast_to(source, (machine.size,))
        warps = machine.lanes // 32
        starts = np.flatnonzero(np.diff(warps, prepend=-1))
        sums = change.reduceat(values[machine.lanes], starts)
        to[machine.lanes] = np.repeat(sums, np.diff(starts, append=len(warps)))

    return run


def _sync(machine: Machine, instruction: Instruction) -> Run:
    members = machine.registers.source(instruction.operands[0], "u32")

    def run() -> None:
        _expect(machine, members, instruction)
        machine.memory.order_warps(machine)

    return run
