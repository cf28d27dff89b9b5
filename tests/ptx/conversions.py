"""Conversions of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ptx.registers import dtype_of
from ptx.text import Instruction, bits_of

if TYPE_CHECKING:
    from ptx.machine import Machine, Run

Array = npt.NDArray[Any]
_WHOLE: dict[str, Any] = {"rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil, "rni": np.rint}
_BFLOAT_NAN = 0x7FFF  # the NaN that cvt gives


def rounded(exact: Any, type: str, direction: str = "rn") -> Any:
    """Rounds float64 to a float type: to nearest, to zero ("rz"), down ("rm") or up ("rp")."""
    if type == "f64":
        return exact
    dtype = dtype_of(type)
    nearest = np.asarray(exact).astype(dtype)
    if direction == "rn":
        return nearest
    wide = nearest.astype(np.float64)
    if direction == "rz":
        beyond, towards = np.abs(wide) > np.abs(exact), dtype.type(0)
    elif direction == "rm":
        beyond, towards = wide > exact, dtype.type(-np.inf)
    else:
        beyond, towards = wide < exact, dtype.type(np.inf)
    return np.where(beyond, np.nextafter(nearest, towards), nearest)


def bfloat_bits(x: Any, direction: str = "rn") -> Array:
    """Returns the bits of floats rounded to bfloat16."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    if direction == "rn":
        high = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    else:
        high = bits >> np.uint32(16)
    return np.where(np.isnan(x), _BFLOAT_NAN, high).astype(np.uint16)


def from_halves(bits: Any, is_bfloat: bool) -> Array:
    """Returns 16-bit floats as float32; those of a register of 32 bits as [.., 2]."""
    array = np.asarray(bits)
    if array.dtype.itemsize == 4:
        parts = [array & np.uint32(0xFFFF), array >> np.uint32(16)]
        array = np.stack(parts, -1).astype(np.uint16)
    if is_bfloat:
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.ascontiguousarray(array).view(np.float16).astype(np.float32)


def to_halves(values: Any, is_bfloat: bool, bits: int) -> Array:
    """Rounds to 16-bit floats; pairs of them, [.., 2], into registers of 32 bits."""
    if is_bfloat:
        # Once: to odd in float32, which rounds like one step after it.
        narrow = np.asarray(values).astype(np.float32)
        lost = narrow.astype(np.float64) != values
        toward = np.where(
            np.abs(narrow) > np.abs(values), np.nextafter(narrow, np.float32(0)), narrow
        )
        odd = (toward.view(np.uint32) | (lost & np.isfinite(values))).astype(np.uint32)
        codes = bfloat_bits(odd.view(np.float32))
    else:
        codes = np.asarray(values).astype(np.float16).view(np.uint16)
    if bits == 16:
        return codes
    wide = codes.astype(np.uint32)
    return wide[..., 0] | wide[..., 1] << np.uint32(16)


def prepare(machine: Machine, position: int, instruction: Instruction) -> Run | None:
    """Returns a function that executes an instruction of this family; None for others."""
    if instruction.parts[0] != "cvt":
        return None
    to, source = instruction.parts[-2:]
    if to in ("bf16x2", "f16x2"):
        return _pairs(machine, instruction, to)
    registers = machine.registers
    given = registers.source(instruction.operands[1], "b16" if source == "bf16" else source)
    if to in ("bf16", "f16"):
        return _to_half(machine, instruction, given)
    if source == "bf16":
        target = registers.view(instruction.operands[0], "f32")
        return lambda: np.copyto(target, from_halves(given, True), where=machine.where)
    if to[0] == "f":
        return _to_float(machine, instruction, given)
    if source[0] == "f":
        return _to_integer(machine, instruction, given)
    target = _integer_result(machine, instruction, to)
    if "sat" in instruction.parts:
        info = np.iinfo(dtype_of(to))
        return lambda: np.copyto(
            target, np.clip(given, info.min, info.max), where=machine.where, casting="unsafe"
        )
    narrow = dtype_of(to)
    if target.dtype.itemsize == narrow.itemsize:
        return lambda: np.copyto(target, given, where=machine.where, casting="unsafe")
    return lambda: np.copyto(
        target, np.asarray(given).astype(narrow), where=machine.where, casting="unsafe"
    )


def _integer_result(machine: Machine, instruction: Instruction, type: str) -> Array:
    return machine.registers.wide_result(instruction.operands[0], type)


def _pairs(machine: Machine, instruction: Instruction, to: str) -> Run:
    registers = machine.registers
    target = registers.view(instruction.operands[0], "b32")
    high, low = (registers.source(name, "f32") for name in instruction.operands[1:3])
    is_bfloat = to == "bf16x2"

    def run() -> None:
        pair = np.stack(np.broadcast_arrays(low, high), -1).astype(np.float64)
        codes = to_halves(pair, is_bfloat, 32)
        if "relu" in instruction.parts:
            raise ValueError("relu")
        np.copyto(target, codes, where=machine.where)

    return run


def _to_half(machine: Machine, instruction: Instruction, given: Any) -> Run:
    to, source = instruction.parts[-2:]
    target = machine.registers.view(instruction.operands[0], "b16")
    direction = "rz" if "rz" in instruction.parts else "rn"

    def run() -> None:
        exact = np.asarray(given)
        if source[0] != "f":
            exact = exact.astype(np.float64)
        if to == "bf16" and exact.dtype == np.float32:
            codes = bfloat_bits(exact, direction)
        elif to == "bf16":
            codes = to_halves(exact.astype(np.float64), True, 16)
        else:
            codes = rounded(exact.astype(np.float64), "f16", direction).view(np.uint16)
        np.copyto(target, codes, where=machine.where)

    return run


def _to_float(machine: Machine, instruction: Instruction, given: Any) -> Run:
    parts = instruction.parts
    to, source = parts[-2:]
    target = machine.registers.view(instruction.operands[0], to)
    whole = next((_WHOLE[p] for p in parts if p in _WHOLE), None)
    direction = next((p for p in parts if p in ("rz", "rm", "rp")), "rn")

    def run() -> None:
        value = np.asarray(given)
        if whole is not None:
            value = whole(value)
        if direction != "rn":
            value = rounded(value.astype(np.float64), to, direction)
        value = value.astype(target.dtype)
        if "sat" in parts:
            value = np.where(np.isnan(value), 0, np.clip(value, 0, 1)).astype(target.dtype)
        np.copyto(target, value, where=machine.where)

    if source[0] == "f" and bits_of(source) == bits_of(to) == 32 and len(parts) == 3:
        return lambda: np.copyto(target, given, where=machine.where)
    return run


def _to_integer(machine: Machine, instruction: Instruction, given: Any) -> Run:
    """Too large numbers become the largest, NaN becomes 0."""
    to = instruction.parts[-2]
    whole = next(_WHOLE[p] for p in instruction.parts if p in _WHOLE)
    target = _integer_result(machine, instruction, to)
    bits, is_signed = bits_of(to), to[0] == "s"
    low = -(2.0 ** (bits - 1)) if is_signed else 0.0
    high = 2.0 ** (bits - 1) if is_signed else 2.0**bits
    info = np.iinfo(dtype_of(to))

    def run() -> None:
        value = whole(np.asarray(given).astype(np.float64))
        inside = (value >= low) & (value < high)
        numbers = np.where(inside, value, 0).astype(dtype_of(to))
        beyond = np.where(value >= high, info.max, info.min).astype(dtype_of(to))
        found = np.where(inside, numbers, np.where(np.isnan(value), 0, beyond).astype(dtype_of(to)))
        np.copyto(target, found, where=machine.where, casting="unsafe")

    return run
