"""What both dialects share: names, literals, and the text of one scalar instruction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from maxmod.compiler.groups.instructions import (
    Apply,
    Instruction,
    Load,
    Lowered,
    Position,
    Reduction,
    Store,
    needed,
)
from maxmod.dtype import DType
from maxmod.op.affine import Index
from maxmod.values.dim import Dim, Size, as_dim

C_TYPES = {
    DType.bool: "bool",
    DType.int8: "int8_t",
    DType.int16: "int16_t",
    DType.int32: "int32_t",
    DType.int64: "int64_t",
    DType.uint8: "uint8_t",
    DType.uint16: "uint16_t",
    DType.uint32: "uint32_t",
    DType.uint64: "uint64_t",
    DType.float32: "float",
    DType.float64: "double",
}


def compute_type(dtype: DType) -> str:
    """Returns the C type of a scalar while it is computed."""
    return C_TYPES[dtype]


def storage_type(dtype: DType) -> str:
    """Returns the C type of an array element; narrow floats and bools are raw integers."""
    if dtype is DType.bool:
        return "uint8_t"
    if dtype in C_TYPES:
        return C_TYPES[dtype]
    return "uint16_t" if dtype.size_in_bits == 16 else "uint8_t"


def loaded(dtype: DType, text: str) -> str:
    """Returns the expression that turns a stored element into a computed scalar."""
    if dtype is DType.bool:
        return f"({text} != 0)"
    return text if dtype in C_TYPES else f"mm_load_{dtype.name}({text})"


def stored(dtype: DType, text: str) -> str:
    """Returns the expression that turns a computed scalar into a stored element."""
    if dtype is DType.bool:
        return f"(uint8_t)({text})"
    return text if dtype in C_TYPES else f"mm_store_{dtype.name}({text})"


def literal(value: Any, dtype: DType) -> str:
    """Returns the C literal of a number: the one place where numbers become text.

    It is of the C type of the dtype, and can stand wherever a variable can.
    """
    if dtype is DType.bool:
        return "true" if value else "false"
    if dtype.is_float():
        return _float_literal(float(value), dtype)
    number = int(value)
    if dtype is DType.int32 and number != -(2**31):
        return str(number) if number >= 0 else f"({number})"
    if number == -(2**63):  # has no literal: the minus is an operator
        return "(int64_t)(-9223372036854775807ll - 1)"
    suffix = "ull" if dtype.kind == "unsigned" else "ll"
    return f"({C_TYPES[dtype]}){number}{suffix if abs(number) >= 2**31 else ''}"


def _float_literal(value: float, dtype: DType) -> str:
    """Returns the shortest decimal that is read as the same number.

    NumPy and Python print at most 9 digits of a float and 17 of a double, which is always enough
    (IEEE 754, section 5.12.2); compilers round what they read to the nearest.
    """
    is_double = dtype is DType.float64
    with np.errstate(over="ignore"):  # numbers that are too large become infinite
        text = repr(value) if is_double else str(np.float32(value))
    if "n" in text:  # of float type, both of them
        name = text.replace("nan", "NAN").replace("inf", "INFINITY")
        return f"(double){name}" if is_double else f"({name})" if value < 0 else name
    text = text if is_double else f"{text}f"
    return f"({text})" if text.startswith("-") else text


def number_text(instruction: Instruction) -> str | None:
    """Returns the literal of an instruction that only gives a number, None for any other.

    Booleans stay variables: in C, a literal would be an int.
    """
    what = instruction.what
    if not isinstance(what, Apply) or what.op.lowering.scalar != "{value}":
        return None
    value = dict(what.attrs)["value"]
    is_number = isinstance(value, (int, float)) and instruction.dtype is not DType.bool
    return literal(value, instruction.dtype) if is_number else None


def scalar_name(instructions: Sequence[Instruction], number: int, prefix: str = "t") -> str:
    """Returns what other statements call the value of an instruction: its variable, or a number."""
    return number_text(instructions[number]) or f"{prefix}{number}"


def statement(
    instructions: Sequence[Instruction], number: int, text: str = "", prefix: str = "t"
) -> list[str]:
    """Returns the statement that gives an instruction its variable; none for a plain number.

    Args:
        instructions: All instructions.
        number: Which of them.
        text: The expression; empty for that of its op.
        prefix: What the variables of these instructions start with.
    """
    if number_text(instructions[number]) is not None:
        return []
    text = bare(text or scalar_text(instructions, number, prefix))
    return [f"const {compute_type(instructions[number].dtype)} {prefix}{number} = {text};"]


def bare(text: str) -> str:
    """Removes brackets around a whole expression."""
    if not text.startswith("(") or not text.endswith(")"):
        return text
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return text[1:-1] if place == len(text) - 1 else text
    return text


def size_text(size: Size) -> str:
    """Returns the C expression of a size; symbols are variables `s_<name>`."""
    if isinstance(size, int):
        return str(size)
    text = _symbolic_text(as_dim(size))
    return text if text.isidentifier() else f"({text})"


def _symbolic_text(dim: Dim) -> str:
    terms = getattr(dim, "terms", None)
    if terms is None:
        return str(dim) if isinstance(getattr(dim, "dim", None), int) else f"s_{dim}"
    parts: list[str] = []
    for monomial, factor in terms:
        names = [_atom_text(atom) for atom in monomial]
        if factor != 1 or not names:
            names.append(str(factor))
        parts.append(" * ".join(names))
    return " + ".join(parts)


def _atom_text(atom: Any) -> str:
    if isinstance(atom, Dim):
        return _symbolic_text(atom)
    return f"(({_symbolic_text(atom.numerator)}) / ({_symbolic_text(atom.denominator)}))"


def index_text(index: Index) -> str:
    """Returns the C expression of an index."""
    return index.render(size_text)


def scalar_text(instructions: Sequence[Instruction], number: int, prefix: str = "t") -> str:
    """Returns the expression of an instruction; those that it needs are `scalar_name`s."""
    instruction = instructions[number]
    what = instruction.what
    if isinstance(what, Load):
        return loaded(what.stored, f"b{what.buffer}[{index_text(what.index)}]")
    if isinstance(what, Position):
        text = _integer(instructions, what)
        return text if what.is_store else f"mm_position({text}, {size_text(what.extent)})"
    assert isinstance(what, Apply) and what.op.lowering.scalar is not None
    attrs = {name: _attr_text(value, instruction.dtype) for name, value in what.attrs}
    index = "" if what.index is None else f"({index_text(what.index)})"
    operands = (scalar_name(instructions, arg, prefix) for arg in what.args)
    return what.op.lowering.scalar.format(*operands, index=index, **attrs)


def outside_text(instructions: Sequence[Instruction], number: int) -> str:
    """Returns the condition under which the integer behind a position is out of range."""
    what = instructions[number].what
    assert isinstance(what, Position)
    if what.is_store:
        text = _integer(instructions, what)
        return f"{text} < 0 || {text} >= {size_text(what.extent)}"
    return f"mm_is_outside({_integer(instructions, what)}, {size_text(what.extent)})"


def _integer(instructions: Sequence[Instruction], position: Position) -> str:
    """Returns an index as int64; a value beyond int64 becomes out of range."""
    is_larger = instructions[position.arg].dtype is DType.uint64
    name = scalar_name(instructions, position.arg)
    return f"mm_clipped_u64({name})" if is_larger else name


def _attr_text(value: object, dtype: DType) -> str:
    """Returns the text of an attribute: dtype names, method names, numbers."""
    if isinstance(value, DType):
        return value.name
    if isinstance(value, str):
        return value
    if isinstance(value, Dim):
        return f"(({C_TYPES[dtype]}){size_text(value)})"  # type: ignore[arg-type]
    if isinstance(value, (bool, int, float)):
        return literal(value, dtype)
    return ""


def guard_lines(lowered: Lowered, leave: str) -> list[str]:
    """Returns the statements that end a kernel whose place to store is out of range.

    Args:
        lowered: The kernel.
        leave: The statement that ends it.
    """
    lines: list[str] = []
    for number in lowered.store_positions:
        *before, _ = needed(lowered.instructions, [number])
        lines.append("{")
        for n in before:
            lines += [f"    {line}" for line in statement(lowered.instructions, n)]
        lines += [f"    if ({outside_text(lowered.instructions, number)})", f"        {leave}", "}"]
    return lines


def stored_text(lowered: Lowered, store: Store) -> str:
    """Returns the expression of the element that a store writes."""
    return stored(store.stored, scalar_name(lowered.instructions, store.value))


def combined(what: Reduction, left: str, right: str) -> str:
    """Returns the expression that joins two partial results."""
    return {
        "add": f"{left} + {right}",
        "mul": f"{left} * {right}",
        "maximum": f"mm_max({left}, {right})",
        "minimum": f"mm_min({left}, {right})",
    }[what.op.lowering.combine or ""]


def accumulated(what: Reduction, total: str, element: str) -> str:
    """Returns the statement that takes an element into a total."""
    sign = {"add": "+", "mul": "*"}.get(what.op.lowering.combine or "")
    return f"{total} {sign}= {element};" if sign else f"{total} = {combined(what, total, element)};"


def start_value(what: Reduction, dtype: DType) -> str:
    """Returns the literal that a reduction starts with."""
    if what.op.lowering.identity is not None:
        return literal(what.op.lowering.identity, dtype)
    lowest = what.op.lowering.combine == "maximum"
    if dtype.is_float():
        return literal(float("-inf") if lowest else float("inf"), dtype)
    if dtype is DType.bool:
        return literal(not lowest, dtype)
    low, high = _integer_range(dtype)
    return literal(low if lowest else high, dtype)


def _integer_range(dtype: DType) -> tuple[int, int]:
    bits = dtype.size_in_bits
    if dtype.kind == "unsigned":
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def symbols_of(lowered: Lowered) -> list[str]:
    """Returns the names of the symbolic sizes that the text of a kernel mentions, sorted."""
    sizes: list[Size | Dim] = [loop.extent for loop in lowered.loops]
    if lowered.row is not None:
        sizes.append(lowered.row.extent)
    indices = [store.index for store in lowered.stores]
    for instruction in lowered.instructions:
        what = instruction.what
        if isinstance(what, Load):
            indices.append(what.index)
        elif isinstance(what, Apply):
            if what.index is not None:
                indices.append(what.index)
            sizes += [value for _, value in what.attrs if isinstance(value, Dim)]
        elif isinstance(what, Position):
            sizes.append(what.extent)
    for index in indices:
        sizes += [index.const, *(factor for _, factor in index.terms)]
    names = {s.name for size in sizes if isinstance(size, Dim) for s in size.parameters}
    return sorted(names)


def indent(lines: Iterable[str], depth: int = 1) -> list[str]:
    """Indents lines, but no preprocessor lines."""
    return [line if not line or line[0] == "#" else "    " * depth + line for line in lines]


def block(head: str, body: Iterable[str]) -> list[str]:
    """Returns a statement with a body in braces."""
    return [f"{head} {{", *indent(body), "}"]


def function(head: str, params: Sequence[str], body: Iterable[str]) -> list[str]:
    """Returns a function with its parameters on as many lines as they need."""
    lines = [f"{head}("]
    for number, param in enumerate(params):
        text = param + (", " if number < len(params) - 1 else ")")
        if len(lines[-1]) + len(text) > 98:
            lines[-1] = lines[-1].rstrip()
            lines.append("    ")
        lines[-1] += text
    return [*lines, "{", *indent(body), "}"]
