"""Shifts, fields and permutations of bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ptx.elementwise import Description, computed
from ptx.text import Instruction, bits_of, number

if TYPE_CHECKING:
    from ptx.machine import Machine, Run

Array = npt.NDArray[Any]


def prepare(machine: Machine, position: int, instruction: Instruction) -> Run | None:
    """Returns a function that executes an instruction of this family; None for others."""
    made = _FUNCTIONS.get(instruction.parts[0])
    return None if made is None else computed(machine, instruction, *made(instruction))


def _shift(instruction: Instruction) -> Description:
    """Shifts by more than all bits give 0, or the sign."""
    name, type = instruction.parts[0], instruction.parts[-1]
    bits = bits_of(type)

    def function(x: Any, by: Any) -> Any:
        x = np.asarray(x)
        small = np.minimum(by, bits - 1).astype(x.dtype)
        if name == "shr" and type[0] == "s":
            return x >> small
        return np.where(by < bits, x << small if name == "shl" else x >> small, x.dtype.type(0))

    return function, [type, "u32"], type


def _funnel(instruction: Instruction) -> Description:
    is_left, clamps = instruction.parts[1] == "l", "clamp" in instruction.parts

    def function(low: Any, high: Any, by: Any) -> Any:
        both = np.asarray(low).astype(np.uint64) | np.asarray(high).astype(np.uint64) << np.uint64(
            32
        )
        by = np.asarray(np.minimum(by, 32) if clamps else by & 31).astype(np.uint64)
        return both << by >> np.uint64(32) if is_left else both >> by

    return function, ["b32", "b32", "u32"], "b32"


def _population(instruction: Instruction) -> Description:
    return np.bitwise_count, [instruction.parts[-1]], "u32"


def _lengths(x: Array) -> Array:
    """The position of the highest bit, from 1 on; 0 for 0."""
    found = np.zeros(x.shape, np.uint32)
    for step in (32, 16, 8, 4, 2, 1):
        if step < 8 * x.dtype.itemsize:
            is_high = x >> x.dtype.type(step) != 0
            found += np.where(is_high, np.uint32(step), np.uint32(0))
            x = np.where(is_high, x >> x.dtype.type(step), x)
    return found + (x != 0)


def _leading(instruction: Instruction) -> Description:
    type = instruction.parts[-1]
    bits, name = bits_of(type), instruction.parts[0]

    def function(x: Any) -> Any:
        x = np.asarray(x)
        if type[0] == "s":
            x = np.where(x < 0, ~x, x).view(f"u{x.dtype.itemsize}")
        length = _lengths(x)
        if name == "clz":
            return np.uint32(bits) - length
        found = (
            np.uint32(bits) - length if "shiftamt" in instruction.parts else length - np.uint32(1)
        )
        return np.where(length == 0, np.uint32(0xFFFFFFFF), found)

    return function, [type], "u32"


def _reverse(instruction: Instruction) -> Description:
    type = instruction.parts[-1]

    def function(x: Any) -> Any:
        x = np.atleast_1d(np.asarray(x))
        octets = np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1)
        bits = np.unpackbits(octets, axis=1, bitorder="little")[:, ::-1]
        return np.packbits(bits, axis=1, bitorder="little").view(x.dtype).reshape(-1)

    return function, [type], type


def _insert(instruction: Instruction) -> Description:
    type = instruction.parts[-1]
    bits = bits_of(type)

    def function(x: Any, into: Any, start: Any, count: Any) -> Any:
        unit = np.dtype(f"u{bits // 8}").type
        start, count = (np.asarray(n & 255).astype(unit) for n in (start, count))
        ones = np.where(count >= bits, ~unit(0), (unit(1) << np.minimum(count, bits - 1)) - unit(1))
        mask = np.where(start < bits, ones << np.minimum(start, bits - 1), unit(0))
        return into & ~mask | x << np.minimum(start, bits - 1) & mask

    return function, [type, type, "u32", "u32"], type


def _extract(instruction: Instruction) -> Description:
    type = instruction.parts[-1]
    bits = bits_of(type)

    def function(x: Any, start: Any, count: Any) -> Any:
        """The bits beyond the last are 0, or the sign."""
        unit = np.dtype(f"u{bits // 8}").type
        start, count = (np.asarray(n & 255).astype(np.int64) for n in (start, count))
        x = np.asarray(x)
        shifted = x >> np.minimum(start, bits - 1).astype(x.dtype)
        if type[0] != "s":
            shifted = np.where(start < bits, shifted, 0).astype(x.dtype)
            ones = (unit(1) << np.minimum(count, bits - 1).astype(unit)) - unit(1)
            return np.where(count >= bits, shifted, shifted & ones)
        left = np.clip(bits - count, 0, bits - 1).astype(x.dtype)
        return np.where(count == 0, 0, shifted << left >> left)

    return function, [type, "u32", "u32"], type


def _permute(instruction: Instruction) -> Description:
    if len(instruction.parts) > 2:
        raise KeyError(instruction.name)

    def function(x: Any, y: Any, choice: Any) -> Any:
        both = np.asarray(x).astype(np.uint64) | np.asarray(y).astype(np.uint64) << np.uint64(32)
        whole: Any = np.uint32(0)
        for n in range(4):
            selector = np.asarray(choice >> np.uint32(4 * n) & np.uint32(15)).astype(np.uint64)
            octet = (both >> (selector & np.uint64(7)) * np.uint64(8) & np.uint64(255)).astype(
                np.uint32
            )
            sign = np.where(octet & 128, np.uint32(255), np.uint32(0))
            whole = whole | np.where(selector & np.uint64(8), sign, octet) << np.uint32(8 * n)
        return whole

    return function, ["b32", "b32", "b32"], "b32"


def _table(instruction: Instruction) -> Description:
    """lop3: bit 4 a + 2 b + c of the table is the result for these bits of the operands."""
    table = number(instruction.operands[4], 8)

    def function(x: Any, y: Any, z: Any) -> Any:
        whole: Any = np.uint32(0)
        for n in range(8):
            if table >> n & 1:
                whole = whole | (x if n & 4 else ~x) & (y if n & 2 else ~y) & (z if n & 1 else ~z)
        return whole

    return function, ["b32"] * 3, "b32"


_FUNCTIONS: dict[str, Callable[[Instruction], Description]] = {
    "shl": _shift,
    "shr": _shift,
    "shf": _funnel,
    "popc": _population,
    "clz": _leading,
    "bfind": _leading,
    "brev": _reverse,
    "bfi": _insert,
    "bfe": _extract,
    "prmt": _permute,
    "lop3": _table,
}
