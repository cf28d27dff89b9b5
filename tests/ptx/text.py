"""PTX text to instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

_SIZES = {"pred": 1, "b8": 8, "u8": 8, "s8": 8}
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)")
_MANY = re.compile(r"(%?[\w$]+)<(\d+)>")
_LABEL = re.compile(r"([$\w]+):\s*")
_GUARD = re.compile(r"@(!?)(%?[\w$]+)\s+")
_VARIABLE = re.compile(
    r"(?P<extern>\.extern\s+)?(?:\.visible\s+)?\.(?P<space>shared|global|const|local)\s+"
    r"(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)\s+(?P<name>[\w$]+)"
    r"(?P<sizes>(?:\[\d*\])*)\s*(?:=\s*(?P<values>\{[^}]*\}|[\w.]+))?\s*;"
)
_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)([^{]*)\{", re.DOTALL)
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(?:\.ptr[^,]*?\s)?([\w$]+)")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        text: All of it.
        parts: Its name, split at the dots: `("add", "rn", "f32")`.
        operands: As they are written; registers in braces are one operand.
        guard: The predicate that lets it run, or nothing.
        is_negated: True if it runs where the guard is false.
    """

    text: str
    parts: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str = ""
    is_negated: bool = False

    @property
    def name(self) -> str:
        """The name with its modifiers."""
        return ".".join(self.parts)


@dataclass(frozen=True)
class Variable:
    """A variable outside of registers.

    Attributes:
        space: "shared", "global", "const" or "local".
        nbytes: Its size; 0 for dynamic shared memory.
        align: Bytes of its alignment.
        data: What it starts with; empty for undefined.
    """

    space: str
    nbytes: int
    align: int
    data: bytes = b""


@dataclass
class Kernel:
    """An entry function.

    Attributes:
        name: Its name.
        parameters: (name, bytes) of each parameter.
        threads: The largest number of threads of a block.
        registers: Bits of each register; 1 for a predicate.
        variables: By name; those of the module, too.
        code: The instructions.
        labels: The position of each label in `code`.
    """

    name: str
    parameters: list[tuple[str, int]]
    threads: int
    registers: dict[str, int] = field(default_factory=dict[str, int])
    variables: dict[str, Variable] = field(default_factory=dict[str, Variable])
    code: list[Instruction] = field(default_factory=list[Instruction])
    labels: dict[str, int] = field(default_factory=dict[str, int])


def parse(text: str) -> list[Kernel]:
    """Returns the kernels of a module in order."""
    text = _COMMENT.sub("", text)
    found = [*_ENTRY.finditer(text)]
    starts = [match.start() for match in found] + [len(text)]
    shared = dict(_variables(text[: starts[0]]))
    kernels = []
    for match, end in zip(found, starts[1:], strict=True):
        body, behind = _body(text[match.end() : end])
        kernel = _kernel(match, body)
        kernel.variables |= shared
        kernels.append(kernel)
        shared |= dict(_variables(behind))  # of the kernels after it
    return kernels


def _body(text: str) -> tuple[str, str]:
    """Splits at the brace that ends a function."""
    depth = 1
    for match in re.finditer(r"[{}]", text):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return text[: match.start()], text[match.end() :]
    raise ValueError("a function has no end")


def _kernel(match: re.Match[str], body: str) -> Kernel:
    most = re.search(r"\.(?:max|req)ntid\s+(\d+)", match[3])
    parameters = [(m[2], bits_of(m[1]) // 8) for m in _PARAMETER.finditer(match[2])]
    kernel = Kernel(match[1], parameters, int(most[1]) if most else 1024)
    kernel.variables = dict(_variables(body))
    for statement in _VARIABLE.sub("", body).split(";"):
        _add(kernel, " ".join(statement.split()))
    return kernel


def _add(kernel: Kernel, statement: str) -> None:
    """Adds a statement, with the labels and braces in front of it."""
    while statement:
        if statement[0] in "{}":
            statement = statement[1:].lstrip()
        elif label := _LABEL.match(statement):
            kernel.labels[label[1]] = len(kernel.code)
            statement = statement[label.end() :]
        else:
            break
    if declared := _REGISTERS.match(statement):
        kernel.registers |= _registers(declared[1], declared[2])
    elif statement and not statement.startswith("."):
        kernel.code.append(instruction(statement))


def instruction(statement: str) -> Instruction:
    """Returns the instruction of one statement without its semicolon."""
    guard = _GUARD.match(statement)
    rest = statement[guard.end() :] if guard else statement
    name, _, operands = rest.partition(" ")
    parts = tuple(name.replace("::", "@").split("."))
    return Instruction(
        statement,
        tuple(part.replace("@", "::") for part in parts),
        tuple(split(operands)),
        guard[2] if guard else "",
        bool(guard and guard[1]),
    )


def _registers(type: str, names: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in split(names):
        many = _MANY.fullmatch(name)
        for each in [f"{many[1]}{n}" for n in range(int(many[2]))] if many else [name]:
            found[each] = bits_of(type)
    return found


def _variables(text: str) -> list[tuple[str, Variable]]:
    found: list[tuple[str, Variable]] = []
    for match in _VARIABLE.finditer(text):
        nbytes = bits_of(match["type"]) // 8
        for size in re.findall(r"\[(\d*)\]", match["sizes"]):
            nbytes *= int(size or 0)
        data = _data(match["type"], match["values"] or "")
        align = int(match["align"] or 1)
        found.append((match["name"], Variable(match["space"], nbytes, align, data)))
    return found


def _data(type: str, values: str) -> bytes:
    bits = bits_of(type)
    numbers = [number(value, bits) for value in split(values.strip("{}"))]
    return b"".join(n.to_bytes(bits // 8, "little") for n in numbers)


def split(text: str) -> list[str]:
    """Splits at the commas outside of brackets."""
    parts, depth, current = list[str](), 0, ""
    for char in text:
        depth += (char in "[{(") - (char in "]})")
        if char == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += char
    return parts + ([current.strip()] if current.strip() else [])


def bits_of(type: str) -> int:
    """Returns the bits of a type such as `u32` or `bf16x2`."""
    if type in _SIZES:
        return _SIZES[type]
    match = re.fullmatch(r"[a-z]+(\d+)(?:x(\d))?", type)
    if match is None:
        raise ValueError(f"unknown type {type!r}")
    return int(match[1]) * int(match[2] or 1)


def number(text: str, bits: int) -> int:
    """Returns the bits of a literal."""
    if text[:2].lower() in ("0f", "0d"):
        return int(text[2:], 16)
    if re.fullmatch(r"-?\d+\.\d*(?:[eE][-+]?\d+)?", text):
        return int.from_bytes(np.array(float(text), f"<f{bits // 8}").tobytes(), "little")
    return int(text.rstrip("U"), 0) & ((1 << bits) - 1)
