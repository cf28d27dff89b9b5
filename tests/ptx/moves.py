"""Moves, comparisons, choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptx.elementwise import Function
from ptx.text import Instruction, bits_of, split

if TYPE_CHECKING:
    from ptx.machine import Machine, Run

_COMPARISONS: dict[str, Any] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}
_COMBINED: dict[str, Any] = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def prepare(machine: Machine, position: int, instruction: Instruction) -> Run | None:
    """Returns a function that executes an instruction of this family; None for others."""
    made = {"mov": _move, "setp": _compare, "selp": _select}.get(instruction.parts[0])
    return None if made is None else made(machine, instruction)


def _move(machine: Machine, instruction: Instruction) -> Run:
    registers, type = machine.registers, instruction.parts[-1]
    to, source = instruction.operands
    if to.startswith("{"):
        return _unpack(machine, split(to.strip("{}")), source, bits_of(type))
    if source.startswith("{"):
        return _pack(machine, to, split(source.strip("{}")), bits_of(type))
    target, given = registers.view(to, type), registers.source(source, type)
    return lambda: np.copyto(target, given, where=machine.where)


def _unpack(machine: Machine, names: list[str], source: str, bits: int) -> Run:
    registers, width = machine.registers, bits // len(names)
    given = registers.source(source, f"b{bits}")
    targets = [(n, registers.bits(name)) for n, name in enumerate(names) if name != "_"]

    def run() -> None:
        parts = [given >> given.dtype.type(n * width) for n, _ in targets]
        for part, (_, target) in zip(parts, targets):
            np.copyto(target, part, where=machine.where, casting="unsafe")

    return run


def _pack(machine: Machine, to: str, names: list[str], bits: int) -> Run:
    registers, width = machine.registers, bits // len(names)
    target = registers.view(to, f"b{bits}")
    sources = [registers.source(name, f"b{width}") for name in names]

    def run() -> None:
        whole = np.zeros(machine.size, target.dtype)
        for n, source in enumerate(sources):
            whole |= np.asarray(source).astype(target.dtype) << target.dtype.type(n * width)
        np.copyto(target, whole, where=machine.where)

    return run


def _compare(machine: Machine, instruction: Instruction) -> Run:
    registers, parts, type = machine.registers, instruction.parts, instruction.parts[-1]
    to, _, negated = instruction.operands[0].partition("|")
    target = registers.bits(to)
    opposite = registers.bits(negated) if negated else None
    x, y = (registers.source(name, type) for name in instruction.operands[1:3])
    test = _test(parts[1], is_float=type[0] == "f")
    combine = next((_COMBINED[p] for p in parts[2:-1] if p in _COMBINED), None)
    if combine is None and opposite is None and type[0] != "f":
        ufunc = _COMPARISONS[parts[1]]
        return lambda: ufunc(x, y, out=target, where=machine.where)
    other = registers.source(instruction.operands[3], "pred") if combine else None

    def run() -> None:
        found = test(x, y)
        wrong = ~found
        if combine is not None:
            found, wrong = combine(found, other), combine(wrong, other)
        np.copyto(target, found, where=machine.where)
        if opposite is not None:
            np.copyto(opposite, wrong, where=machine.where)

    return run


def _test(name: str, *, is_float: bool) -> Function:
    """Returns a comparison; that of floats is false for NaN, and true if its name ends with u."""
    if not is_float:
        return _COMPARISONS[name]
    if name in ("nan", "num"):
        return lambda x, y: (np.isnan(x) | np.isnan(y)) == (name == "nan")
    ufunc = _COMPARISONS[name[:2]]
    if len(name) == 3:
        return lambda x, y: ufunc(x, y) | np.isnan(x) | np.isnan(y)
    if name == "ne":  # of NumPy is true for NaN
        return lambda x, y: ufunc(x, y) & ~np.isnan(x) & ~np.isnan(y)
    return ufunc


def _select(machine: Machine, instruction: Instruction) -> Run:
    registers, type = machine.registers, instruction.parts[-1]
    target = registers.view(instruction.operands[0], type)
    x, y = (registers.source(name, type) for name in instruction.operands[1:3])
    chosen = registers.source(instruction.operands[3], "pred")
    return lambda: np.copyto(target, np.where(chosen, x, y), where=machine.where)
