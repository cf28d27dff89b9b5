"""Loads, stores, atomics, asynchronous copies, fences, and addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ptx.registers import dtype_of
from ptx.spaces import LOCAL, SHARED, Fault
from ptx.text import Instruction, bits_of, split

if TYPE_CHECKING:
    from ptx.machine import Machine, Run

Array = npt.NDArray[Any]
_SPACES = ("param", "shared", "global", "local", "const")
_ORDERS = {"acquire", "release", "acq_rel"}
_STRONG = {*_ORDERS, "relaxed", "volatile"}
_ATOMICS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda old, x: old + x,
    "exch": lambda old, x: x,
    "min": np.minimum,
    "max": np.maximum,
    "and": lambda old, x: old & x,
    "or": lambda old, x: old | x,
    "xor": lambda old, x: old ^ x,
    "inc": lambda old, x: np.where(old >= x, 0, old + 1).astype(old.dtype),
}


def prepare(machine: Machine, position: int, instruction: Instruction) -> Run | None:
    """Returns a function that executes an instruction of this family; None for others."""
    name = instruction.parts[0]
    if name in ("ld", "ldu"):
        is_parameter = "param" in instruction.parts
        return (_parameter if is_parameter else _load)(machine, position, instruction)
    made = {"st": _store, "atom": _atomic, "red": _atomic, "cp": _copy, "cvta": _convert}.get(name)
    if made is not None:
        return made(machine, position, instruction)
    if name in ("membar", "fence"):
        return lambda: machine.memory.clock.fence(np.unique(machine.blocks[machine.lanes]))
    return None


def space_of(instruction: Instruction) -> str:
    """Returns the space that an access names, "generic" for none."""
    found = next((part for part in instruction.parts if part in _SPACES), "generic")
    return "global" if found == "const" else found


def addresses(machine: Machine, operand: str) -> Callable[[], Any]:
    """Returns a function that gives the addresses of the selected threads."""
    base, offset = machine.registers.address(operand)
    if isinstance(base, np.ndarray):
        return lambda: base[machine.lanes].astype(np.int64) + offset
    return lambda: np.int64(base + offset)


def _names(operand: str) -> list[str]:
    return split(operand.strip("{}")) if operand.startswith("{") else [operand]


def _parameter(machine: Machine, position: int, instruction: Instruction) -> Run:
    bits = bits_of(instruction.parts[-1])
    name, _, offset = instruction.operands[1][1:-1].partition("+")
    value = machine.args[name.strip()] >> 8 * int(offset or 0) & ((1 << bits) - 1)
    (register,) = _names(instruction.operands[0])
    target = machine.registers.bits(register)
    number = target.dtype.type(value)
    return lambda: np.copyto(target, number, where=machine.where)


def _load(machine: Machine, position: int, instruction: Instruction) -> Run:
    type, space = instruction.parts[-1], space_of(instruction)
    names = _names(instruction.operands[0])
    width = bits_of(type) // 8
    at = addresses(machine, instruction.operands[1])
    targets = [machine.registers.wide_result(name, type) for name in names]
    dtype = dtype_of(type) if dtype_of(type).kind != "f" else np.dtype(f"u{width}")
    targets = [t if t.dtype.kind != "f" else t.view(f"u{t.dtype.itemsize}") for t in targets]
    is_constant = "nc" in instruction.parts
    orders, is_strong = (bool(s & set(instruction.parts)) for s in (_ORDERS, _STRONG))
    memory = machine.memory

    def run() -> None:
        place = memory.place(machine, position, instruction, space, at(), width * len(names))
        if orders:
            for block in np.unique(machine.blocks[machine.lanes]).tolist():
                memory.clock.acquired[block] = memory.clock.tick()
        numbers = memory.load(place, width, is_constant=is_constant, is_strong=is_strong)
        numbers = numbers.view(dtype)
        for index, target in enumerate(targets):
            target[machine.lanes] = numbers[:, index]

    return run


def _store(machine: Machine, position: int, instruction: Instruction) -> Run:
    width, space = bits_of(instruction.parts[-1]) // 8, space_of(instruction)
    names = _names(instruction.operands[1])
    at = addresses(machine, instruction.operands[0])
    sources = [machine.registers.source(name, f"b{8 * width}") for name in names]
    orders, is_strong = (bool(s & set(instruction.parts)) for s in (_ORDERS, _STRONG))
    memory = machine.memory

    def run() -> None:
        numbers = np.empty((len(machine.lanes), len(names)), f"u{width}")
        for index, source in enumerate(sources):
            numbers[:, index] = source[machine.lanes] if np.ndim(source) else source
        place = memory.place(machine, position, instruction, space, at(), width * len(names))
        memory.store(place, numbers, is_strong=is_strong)
        if orders:
            blocks = np.unique(machine.blocks[machine.lanes])
            memory.clock.fence(blocks)
            for block in blocks.tolist():
                memory.clock.atomic(block)

    return run


def _atomic(machine: Machine, position: int, instruction: Instruction) -> Run:
    parts, type = instruction.parts, instruction.parts[-1]
    returns = parts[0] == "atom"
    operands = instruction.operands if returns else ("", *instruction.operands)
    dtype, space = dtype_of(type), space_of(instruction)
    at = addresses(machine, operands[1])
    sources = [machine.registers.source(name, type) for name in operands[2:]]
    target = machine.registers.view(operands[0], type) if returns and operands[0] != "_" else None
    change = None if "cas" in parts else next(_ATOMICS[p] for p in parts[1:] if p in _ATOMICS)

    def of(source: Any, index: int) -> Any:
        return source[machine.lanes[index]] if np.ndim(source) else source

    def changed(old: Array, index: int) -> Any:
        old = old.view(dtype)
        given = [of(source, index) for source in sources]
        if change is None:
            new = np.where(old == given[0], given[1], old)
        else:
            new = change(old, given[0])
        return np.asarray(new).astype(dtype).view(f"u{dtype.itemsize}")

    def run() -> None:
        memory = machine.memory
        place = memory.place(machine, position, instruction, space, at(), dtype.itemsize)
        if _ORDERS & set(parts) and "acquire" not in parts:
            memory.clock.fence(np.unique(machine.blocks[machine.lanes]))
        is_ordered = space != "shared"
        old = memory.atomic(place, dtype.itemsize, changed, is_ordered=is_ordered)
        if target is not None:
            target[machine.lanes] = old.view(dtype)[:, 0]

    return run


def _copy(machine: Machine, position: int, instruction: Instruction) -> Run:
    parts, operands, memory = instruction.parts, instruction.operands, machine.memory
    if parts[1] != "async" or "bulk" in parts:
        raise KeyError(instruction.name)
    if "commit_group" in parts:
        return lambda: memory.commit(machine.lanes)
    if "wait_all" in parts:
        return lambda: memory.wait_for_copies(machine.lanes, None)
    if "wait_group" in parts:
        pending = int(operands[0])
        return lambda: memory.wait_for_copies(machine.lanes, pending)
    to, source = addresses(machine, operands[0]), addresses(machine, operands[1])
    nbytes = int(operands[2])
    size = machine.registers.source(operands[3], "u32") if len(operands) > 3 else np.uint32(nbytes)

    def run() -> None:
        lanes = machine.lanes
        sizes = size[lanes] if np.ndim(size) else np.full(len(lanes), size)
        if (sizes > nbytes).any():
            raise Fault(f"copies more than it writes: {instruction.text}")
        numbers = np.zeros((len(lanes), nbytes // 4), np.uint32)
        reads = sizes > 0
        if reads.any():
            # What lies beyond the size is not read, and here nothing copies only a part.
            given = memory.place(
                machine, position, instruction, "global", source()[reads], nbytes, lanes[reads]
            )
            numbers[reads] = memory.load(given, 4)
        kept = np.arange(nbytes // 4) * 4 < sizes[:, None]
        place = memory.place(machine, -1 - position, instruction, "shared", to(), nbytes)
        memory.copy_later(place, np.where(kept, numbers, 0).astype(np.uint32))

    return run


def _convert(machine: Machine, position: int, instruction: Instruction) -> Run:
    parts, type = instruction.parts, instruction.parts[-1]
    target = machine.registers.view(instruction.operands[0], type)
    source = machine.registers.source(instruction.operands[1], type)
    base = SHARED if "shared" in parts else LOCAL if "local" in parts else 0
    change = np.subtract if "to" in parts else np.add
    number = target.dtype.type(base)
    return lambda: change(source, number, out=target, where=machine.where)
