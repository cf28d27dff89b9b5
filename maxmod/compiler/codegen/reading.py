"""Readable kernels: variables get the names of their values in the graph.

Kernels are built from text whose variables are numbered from 0, and which mentions no line of the
user: equal kernels of different places, models and machines have equal text and are built once.
`Reading` gives the same text with names and remarks, line by line:

    const float t5 = mm_exp(t4);
    const float v12 = mm_exp(v11);  // %12 exp of softmax, model.py:41

Of the value `%12`, `v12` is an element, `in12` and `out12` are the buffers in which it comes from
another kernel or goes to one, `row12` is a row that is kept, `vec12` are neighbours that are read
together; `sum12` (`max12`, ...) is what a loop has added up so far. Arguments of the function and
weights have their names, buffers without anything before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from maxmod.compiler.groups.group import FusionGroup, WholeOp
from maxmod.compiler.groups.instructions import Instruction, Lowered, Position, Reduction
from maxmod.compiler.groups.lower import Memo
from maxmod.compiler.groups.naming import GraphNames
from maxmod.op import ir

MAX_LENGTH = 32  # of the name of an argument or weight
_COLUMN = 76  # remarks of lines up to here stand under each other

# Strings stay as they are: assembler text has its own names.
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|\b[a-z_]+\d+\b')
_DECLARED = re.compile(r"\s*const \w+ (t[a-z]?\d+) = ")
_TOTALS = {"add": "sum", "mul": "prod", "maximum": "max", "minimum": "min"}
# What no variable of C or CUDA C may be called, and what our text takes for granted.
_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
    alignas alignof and asm auto bitand bitor bool break case catch char class compl const constexpr
    continue decltype default delete do double else enum explicit export extern false float for
    friend goto if inline int long mutable namespace new noexcept not nullptr operator or private
    protected public register restrict return short signed sizeof static struct switch template this
    throw true try typedef typeid typename union unsigned using virtual void volatile while xor
    main NULL NAN INFINITY blockDim blockIdx gridDim threadIdx
    """,
    )
)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Instructions of a kernel whose variables start with the same letters.

    Attributes:
        prefix: The letters; a number follows.
        instructions: The instructions.
        memo: Which of them gives a value at a position.
    """

    prefix: str
    instructions: Sequence[Instruction]
    memo: Memo


class Reading:
    """The names and remarks of one kernel; they are made when somebody asks for them.

    Args:
        group: What the kernel computes.
        inputs: The values in its first buffers.
        parts: Its instructions.
        generated: The text that is generated, if there is other text, too: variables there have
            functions of their own.
        names: What the graph calls its values; without it, those of the group alone.
    """

    def __init__(
        self,
        group: FusionGroup,
        inputs: Sequence[ir.Value],
        parts: Sequence[Part],
        generated: str = "",
        names: GraphNames | None = None,
    ) -> None:
        self.group = group
        self.inputs = inputs
        self.parts = parts
        self.generated = generated
        self._names = names

    @cached_property
    def values(self) -> Mapping[ir.Value, str]:
        """What the graph calls its values."""
        return (self._names or GraphNames(self.group.as_graph("group"))).values

    def of_graph(self, names: GraphNames) -> Reading:
        """Returns the reading with the names of a graph."""
        return Reading(self.group, self.inputs, self.parts, self.generated, names)

    def shown(self, text: str) -> str:
        """Returns text of the kernel with its names and remarks."""
        table = self._table(text)
        lines: list[tuple[str, str]] = []
        for line in text.split("\n"):
            found = _DECLARED.match(line)
            remark = self._remarks.get(found[1], "") if found else ""
            named = _TOKEN.sub(lambda match: table.get(match[0], match[0]), line)
            lines.append((named, remark))
        return "\n".join(_aligned(lines))

    # ---- names -----------------------------------------------------------------------------------

    def _table(self, text: str) -> dict[str, str]:
        """Returns what each variable is shown as; no two of them the same, nor another word."""
        words = {*re.findall(r"(?<![.\w])\w+", self.generated or text)}
        wanted: dict[str, str] = {}
        for variable, name in (*self._buffers(), *self._variables()):
            wanted.setdefault(variable, name)
        taken = {*_RESERVED, *words.difference(wanted)}
        table: dict[str, str] = {}
        for variable, name in wanted.items():
            if variable in words:
                table[variable] = _unused(name, taken)
                taken.add(table[variable])
        return table

    def _buffers(self) -> Iterator[tuple[str, str]]:
        """Yields each buffer and the scratch of a block of it, with their names.

        Hand-written text that computes a whole op knows its buffers by their numbers.
        """
        if isinstance(self.group.template, WholeOp):
            return
        named = [self._word("in", value) for value in self.inputs]
        named += [self._output(value) for value in self.group.outputs]
        for number, name in enumerate(named):
            yield f"b{number}", name
            yield f"o{number}", f"{name}_block"
            yield f"s{number}", f"{name}_stream"
            yield f"f{number}", f"{name}_wide"
        yield f"b{len(named)}", "scratch"
        yield f"b{len(named) + 1}", "counters"

    def _output(self, value: ir.Value) -> str:
        """Returns the name of the buffer of an output: its own, or that which it overwrites."""
        if value in self.group.targets:
            return self._word("in", self.group.targets[value])
        return "out" if len(self.group.outputs) == 1 else self._word("out", value)

    def _variables(self) -> Iterator[tuple[str, str]]:
        """Yields each variable that depends on an instruction, with its name."""
        for part in self.parts:
            for number, value in self._values(part).items():
                what = part.instructions[number].what
                yield f"{part.prefix}{number}", self._word("v", value)
                yield f"v{number}", self._word("vec", value)
                yield f"e{number}", self._word("row", value)
                yield f"h{number}", self._word("wide", value)
                yield f"q{number}", self._word("tile", value)
                if isinstance(what, Reduction):
                    yield f"r{number}", self._word(_TOTALS[what.op.lowering.combine or ""], value)
                    yield f"n{number}", self._word("nan", value)
                    yield f"d{number}", self._word("whole", value)
                    yield f"mm_part{number}", self._word("part", value)
            for number, instruction in enumerate(part.instructions):
                if isinstance(instruction.what, Position):
                    value = self._values(part).get(instruction.what.arg)
                    yield f"{part.prefix}{number}", self._word("at", value)

    def _values(self, part: Part) -> dict[int, ir.Value]:
        """Returns the value that each instruction gives; a view gives that of its operand."""
        found: dict[int, ir.Value] = {}
        for (value, _), number in part.memo.items():
            found.setdefault(number, value)
        return found

    def _word(self, prefix: str, value: ir.Value | None) -> str:
        """Returns a name: the prefix and a number of the graph, or the name of an argument."""
        printed = "" if value is None else self.values.get(value, "")
        if printed[:1] == "%" and printed[1:].isdigit():
            return f"{prefix}{printed[1:]}"
        plain = _plain(printed) or "other"
        return plain if prefix in ("in", "out") else f"{prefix}_{plain}"

    # ---- remarks ---------------------------------------------------------------------------------

    @cached_property
    def _remarks(self) -> dict[str, str]:
        """The remark of each variable of an instruction."""
        producers = {value: node for node in self.group.nodes for value in node.outputs}
        found: dict[str, str] = {}
        for part in self.parts:
            for number, value in self._values(part).items():
                printed = self.values.get(value, "")
                node = producers.get(value)
                text = printed if node is None else f"{printed} {_called(node)}".strip()
                found[f"{part.prefix}{number}"] = _one_line(text)
        return found


def reading_of(lowered: Lowered) -> Reading:
    """Returns the reading of a kernel that is generated as a whole."""
    part = Part("t", lowered.instructions, lowered.memo)
    return Reading(lowered.group, lowered.group.reads, [part])


def _called(node: ir.Node) -> str:
    """Returns the op of a node, the composite op that it is a part of, and the line of the user."""
    scope = f" of {node.scope.chain[0].name}" if node.scope is not None else ""
    return ", ".join(filter(None, (f"{node.op.label}{scope}", ir.place(node))))


def _one_line(text: str) -> str:
    """Returns text that cannot end a comment or continue on the next line."""
    return "".join(sign if sign.isprintable() and sign != "\\" else "?" for sign in text)


def _plain(printed: str) -> str:
    """Returns the C name of an argument or weight.

    Of a weight it is the last two parts of its name without numbers: `@h.3.ln_1.weight` is
    `ln_1_weight` in each layer.
    """
    parts = printed[1:].split(".")
    if printed[:1] == "@":
        parts = [part for part in parts if not part.isdigit()][-2:]
    name = re.sub(r"\W+", "_", "_".join(parts), flags=re.ASCII)[:MAX_LENGTH].strip("_")
    is_ours = name[:1].isdigit() or name.startswith(("mm_", "MM_", "s_"))
    return f"_{name}" if is_ours else name


def _unused(wanted: str, taken: set[str]) -> str:
    """Returns a name that is not taken: the wanted one, or with a number appended."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def _aligned(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yields lines with their remarks, those of neighbouring lines under each other."""
    column = 0
    for number, (line, remark) in enumerate(lines):
        if not remark:
            column = 0
            yield line
            continue
        column = column or _column_of_run(lines, number)
        yield f"{line:<{column}}  // {remark}"


def _column_of_run(lines: Sequence[tuple[str, str]], first: int) -> int:
    """Returns the length of the longest line from one on that has remarks up to it."""
    longest = 1
    for line, remark in lines[first:]:
        if not remark:
            break
        if len(line) <= _COLUMN:
            longest = max(longest, len(line))
    return longest
