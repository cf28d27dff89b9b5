"""Registers as arrays over the threads of some blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ptx.spaces import Fault
from ptx.text import Kernel, bits_of, number

Array = npt.NDArray[Any]
_KINDS = {"u": "u", "b": "u", "s": "i", "f": "f"}


def dtype_of(type: str) -> np.dtype[Any]:
    """Returns the NumPy type of a type of PTX; that of the bits for those which NumPy lacks."""
    bits = bits_of(type)
    if bits == 1:
        return np.dtype(np.bool_)
    kind = "u" if type.startswith("bf") or "x" in type or (type[0], bits) == ("f", 8) else type[0]
    return np.dtype(f"{_KINDS[kind]}{bits // 8}")


class Registers:
    """The registers of a kernel: an array of bits each, of which operands are views.

    Args:
        kernel: The kernel.
        lanes: How many threads there are.
        known: Arrays over the threads, of special registers such as `%tid.x`.
        addresses: Of the variables.
    """

    def __init__(
        self, kernel: Kernel, lanes: int, known: dict[str, Array], addresses: dict[str, int]
    ) -> None:
        self._kernel = kernel
        self._lanes = lanes
        self._arrays = dict(known)
        self._addresses = addresses

    def bits(self, name: str) -> Array:
        """Returns the array behind a register."""
        found = self._arrays.get(name)
        if found is None:
            size = self._kernel.registers.get(name)
            if size is None:
                raise Fault(f"unknown register {name}")
            dtype = np.dtype(np.bool_) if size == 1 else np.dtype(f"u{size // 8}")
            found = self._arrays[name] = np.zeros(self._lanes, dtype)
        return found

    def is_register(self, text: str) -> bool:
        """Whether an operand is a register."""
        return text in self._arrays or text in self._kernel.registers

    def view(self, name: str, type: str) -> Array:
        """Returns a register as a type; the low bits of it if the type is narrower."""
        array, dtype = self.bits(name), dtype_of(type)
        if array.dtype == np.bool_ or dtype == np.bool_:
            return array
        if array.dtype.itemsize > dtype.itemsize:
            return array.view(dtype)[:: array.dtype.itemsize // dtype.itemsize]
        if array.dtype.itemsize < dtype.itemsize:
            raise Fault(f"{name} is too narrow for .{type}")
        return array.view(dtype)

    def source(self, text: str, type: str) -> Any:
        """Returns what an operand holds: an array over the threads, or one number for all."""
        if self.is_register(text):
            return self.view(text, type)
        dtype = dtype_of(type)
        if text in self._addresses:
            return np.dtype(f"u{dtype.itemsize}").type(self._addresses[text])
        bits = number(text, 8 * dtype.itemsize)
        if dtype == np.bool_:
            return np.bool_(bits != 0)
        return np.frombuffer(bits.to_bytes(dtype.itemsize, "little"), dtype)[0]

    def wide_result(self, name: str, type: str) -> Array:
        """Returns a register to which a result of a narrower type is widened."""
        array, kind = self.bits(name), dtype_of(type).kind
        return array if array.dtype == np.bool_ or kind == "f" else array.view(_signed(array, kind))

    def address(self, text: str) -> tuple[Any, int]:
        """Returns the base of an operand such as `[%rd1+16]`, and the number behind it."""
        inner = text.strip()[1:-1].replace(" ", "")
        base, sign, offset = inner, "", "0"
        for char in "+-":
            if char in inner[1:]:
                base, sign, offset = inner.partition(char)
                break
        distance = int(offset.lstrip("+"), 0)
        distance = -distance if sign == "-" else distance
        if self.is_register(base):
            return self.bits(base), distance
        if base in self._addresses:
            return self._addresses[base], distance
        return int(base, 0), distance


def _signed(array: Array, kind: str) -> str:
    return f"{'i' if kind == 'i' else 'u'}{array.dtype.itemsize}"
