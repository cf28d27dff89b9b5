"""Arithmetic of floats: rounded once, as IEEE 754 says, also where a GPU approximates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ptx.conversions import from_halves, rounded, to_halves
from ptx.elementwise import Function, computed, simple
from ptx.text import Instruction, bits_of

if TYPE_CHECKING:
    from ptx.machine import Machine, Run

Array = npt.NDArray[Any]
_UFUNCS: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "abs": np.absolute,
    "sqrt": np.sqrt,
    "min": np.fmin,
    "max": np.fmax,
}
_FUNCTIONS: dict[str, Function] = {
    **_UFUNCS,
    "fma": lambda x, y, z: x * y + z,
    "mad": lambda x, y, z: x * y + z,
    "rcp": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}
_SMALLEST = np.float32(2.0**-126)  # normal number


def prepare(machine: Machine, position: int, instruction: Instruction) -> Run | None:
    """Returns a function that executes an instruction of this family; None for others."""
    parts = instruction.parts
    name, type = parts[0], parts[-1]
    if name == "copysign":
        return computed(machine, instruction, lambda x, y: np.copysign(y, x), [type, type], type)
    if name == "testp":
        return _property(machine, instruction)
    if name not in _FUNCTIONS:
        return None
    if type in ("bf16", "bf16x2", "f16x2", "f16"):
        return _halves(machine, instruction)
    plain = not {"ftz", "sat", "rz", "rm", "rp", "NaN", "approx"} & set(parts)
    if plain and name in _UFUNCS:
        return simple(machine, instruction, _UFUNCS[name], type)
    if plain and name == "fma" and type == "f32":
        return _fused(machine, instruction)
    count = 3 if name in ("fma", "mad") else len(instruction.operands) - 1
    function = _rounding(_FUNCTIONS[name], type, set(parts))
    return computed(machine, instruction, function, [type] * count, type)


def _fused(machine: Machine, instruction: Instruction) -> Run:
    """fma.rn.f32: the product of two float32 is exact in float64."""
    registers = machine.registers
    target = registers.view(instruction.operands[0], "f32")
    x, y, z = (registers.source(name, "f32") for name in instruction.operands[1:])
    exact = np.empty(machine.size, np.float64)

    def run() -> None:
        np.multiply(x, y, out=exact, dtype=np.float64)
        np.add(exact, z, out=exact)
        np.copyto(target, exact, where=machine.where, casting="same_kind")

    return run


def _rounding(function: Function, type: str, modifiers: set[str]) -> Function:
    """Returns a function that computes in float64 and rounds as the modifiers say."""
    direction = next((m for m in ("rz", "rm", "rp") if m in modifiers), "rn")

    def flushed(x: Any) -> Any:
        return np.where(np.abs(x) < _SMALLEST, np.copysign(np.float32(0), x), x)

    def run(*operands: Any) -> Any:
        if "ftz" in modifiers:
            operands = tuple(flushed(x) for x in operands)
        exact = function(*(np.asarray(x, np.float64) for x in operands))
        found = rounded(exact, type, direction)
        if "NaN" in modifiers:
            found = np.where(np.logical_or.reduce([np.isnan(x) for x in operands]), np.nan, found)
        if "ftz" in modifiers:
            found = flushed(found)
        if "sat" in modifiers:
            found = np.where(np.isnan(found), 0, np.clip(found, 0, 1))
        return found

    return run


def _halves(machine: Machine, instruction: Instruction) -> Run:
    """Arithmetic of 16-bit floats, one or two in a register: computed in float64, rounded once."""
    name, type = instruction.parts[0], instruction.parts[-1]
    count = 3 if name in ("fma", "mad") else len(instruction.operands) - 1
    bits = f"b{bits_of(type)}"
    is_bfloat = type.startswith("bf")

    def function(*operands: Any) -> Any:
        wide = [from_halves(x, is_bfloat).astype(np.float64) for x in operands]
        return to_halves(_FUNCTIONS[name](*wide), is_bfloat, bits_of(type))

    return computed(machine, instruction, function, [bits] * count, bits)


def _property(machine: Machine, instruction: Instruction) -> Run:
    registers, kind = machine.registers, instruction.parts[1]
    target = registers.bits(instruction.operands[0])
    source = registers.source(instruction.operands[1], instruction.parts[-1])
    tests: dict[str, Function] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "notanumber": np.isnan,
        "number": lambda x: ~np.isnan(x),
    }
    return lambda: np.copyto(target, tests[kind](source), where=machine.where)
