"""Arithmetic of integers, and logic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ptx.elementwise import Description, Function, computed, simple
from ptx.registers import dtype_of
from ptx.text import Instruction, bits_of

if TYPE_CHECKING:
    from ptx.machine import Machine, Run

Array = npt.NDArray[Any]
_UFUNCS: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "neg": np.negative,
    "abs": np.absolute,
}


def prepare(machine: Machine, position: int, instruction: Instruction) -> Run | None:
    """Returns a function that executes an instruction of this family; None for others."""
    name, type = instruction.parts[0], instruction.parts[-1]
    if type[0] not in "usbp":
        return None
    if name in ("mul", "mad"):
        return _multiply(machine, instruction)
    if name in _UFUNCS:
        return simple(machine, instruction, _UFUNCS[name], type)
    made = {"div": _divide, "rem": _divide, "dp4a": _dot}.get(name)
    return None if made is None else computed(machine, instruction, *made(instruction))


def _multiply(machine: Machine, instruction: Instruction) -> Run:
    parts, type = instruction.parts, instruction.parts[-1]
    bits = bits_of(type)
    adds = parts[0].startswith("mad")
    if "wide" in parts:
        wide = f"{type[0]}{2 * bits}"
        dtype = dtype_of(wide)
        types = [type, type, *([wide] if adds else [])]
        return computed(machine, instruction, _wide(dtype), types, wide)
    types = [type] * (3 if adds else 2)
    if "hi" in parts:
        return computed(machine, instruction, _high(bits, type[0] == "s"), types, type)
    if not adds:
        return simple(machine, instruction, np.multiply, type)
    return computed(machine, instruction, lambda x, y, z: x * y + z, types, type)


def _wide(dtype: np.dtype[Any]) -> Function:
    def function(x: Any, y: Any, *added: Any) -> Any:
        product = np.multiply(x, y, dtype=dtype)
        return product + added[0] if added else product

    return function


def _high(bits: int, is_signed: bool) -> Function:
    def function(x: Any, y: Any, *added: Any) -> Any:
        if bits < 64:
            product = np.multiply(x, y, dtype=np.int64 if is_signed else np.uint64)
            high = product >> product.dtype.type(bits)
        else:
            high = _high64(x, y)
        return high + added[0] if added else high

    return function


def _high64(x: Any, y: Any) -> Array:
    """The upper half of products of 64 bits, from products of 32 bits."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    a, b = (np.asarray(n).view(np.uint64) for n in (x, y))
    a0, a1, b0, b1 = a & low, a >> shift, b & low, b >> shift
    middle = (a0 * b0 >> shift) + (a1 * b0 & low) + a0 * b1
    high = a1 * b1 + (a1 * b0 >> shift) + (middle >> shift)
    if np.asarray(x).dtype.kind == "i":
        high = high - np.where(np.asarray(x) < 0, b, 0) - np.where(np.asarray(y) < 0, a, 0)
        return high.view(np.int64)
    return high


def _divide(instruction: Instruction) -> Description:
    is_rest = instruction.parts[0] == "rem"
    type = instruction.parts[-1]

    def function(x: Any, y: Any) -> Any:
        """Rounds to zero, as C does; a division by 0 gives ones on a GPU."""
        x = np.asarray(x)
        divisor = np.where(y == 0, 1, y).astype(x.dtype)
        quotient = x // divisor
        if type[0] == "s":
            quotient = quotient + ((x % divisor != 0) & ((x < 0) != (divisor < 0)))
        found = x - quotient * divisor if is_rest else quotient
        return np.where(y == 0, x if is_rest else ~np.zeros_like(x), found)

    return function, [type, type], type


def _dot(instruction: Instruction) -> Description:
    """dp4a: four products of bytes, and a number."""
    first, second = (part[0] for part in instruction.parts[1:3])

    def octets(x: Any, kind: str) -> Any:
        kind = "i1" if kind == "s" else "u1"
        array = np.ascontiguousarray(np.atleast_1d(x))
        return array.view(kind).reshape(-1, 4).astype(np.int32)

    def function(x: Any, y: Any, z: Any) -> Any:
        return (octets(x, first) * octets(y, second)).sum(1, dtype=np.int32) + z

    return function, ["b32", "b32", "s32"], "s32"
