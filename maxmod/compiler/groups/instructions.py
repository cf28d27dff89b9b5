"""Scalar instructions: what a kernel computes for each element, in terms of its loops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from maxmod.compiler.groups.group import FusionGroup
from maxmod.dtype import DType
from maxmod.op import Op, ir
from maxmod.op.affine import Index, Loop
from maxmod.values.dim import Size


@dataclass(frozen=True, slots=True)
class Load:
    """Reads a buffer at a flat position."""

    buffer: int
    index: Index
    stored: DType


@dataclass(frozen=True, slots=True)
class Apply:
    """Evaluates the scalar text of an op; `index` is the flat position, for sources."""

    op: Op
    args: tuple[int, ...]
    attrs: tuple[tuple[str, Any], ...]
    index: Index | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Makes a position on an axis of `extent` elements of the integer `arg`.

    Negative integers count from the end, unless it is where something is stored: a kernel does
    nothing if such a position is out of range.
    """

    arg: int
    extent: Size
    is_store: bool = False


@dataclass(frozen=True, slots=True)
class Reduction:
    """Combines `arg` over the row loop."""

    op: Op
    arg: int


What = Load | Apply | Position | Reduction
Wanted = tuple[ir.Value, tuple[Index, ...]]  # a value, and the position of one of its elements
Memo = dict[Wanted, int]


def operands(what: What) -> tuple[int, ...]:
    """Returns the instructions that one needs, those in its index included."""
    if isinstance(what, (Position, Reduction)):
        return (what.arg,)
    args = what.args if isinstance(what, Apply) else ()
    return args if what.index is None else (*args, *what.index.data)


@dataclass(slots=True)
class Instruction:
    """One scalar: what it is, its compute dtype, and the reductions that it waits for.

    Attributes:
        what: What it is.
        dtype: Type of the scalar.
        in_row: True if it differs along the row loop.
        level: Number of reductions that must be complete before it can be computed.
    """

    what: What
    dtype: DType
    in_row: bool
    level: int


def needed(instructions: Sequence[Instruction], numbers: Iterable[int]) -> list[int]:
    """Returns instructions and everything that they are computed from, in order."""
    found: set[int] = set()
    pending = list(numbers)
    while pending:
        number = pending.pop()
        if number not in found:
            found.add(number)
            pending += operands(instructions[number].what)
    return sorted(found)


@dataclass(slots=True)
class Store:
    """Writes an instruction to a buffer at a flat position.

    Attributes:
        buffer: The buffer.
        index: The position.
        value: The instruction.
        stored: Its dtype in the buffer.
        by_one_block: True if all blocks of a kernel compute it, and the first alone writes.
    """

    buffer: int
    index: Index
    value: int
    stored: DType
    by_one_block: bool = False


@dataclass(slots=True)
class Lowered:
    """A group as scalar instructions.

    Attributes:
        loops: Loops around everything, outermost first; for a pointwise group the last one is the
            vector loop.
        row: The row loop of a row group, else None.
        instructions: In an order in which operands come first.
        stores: The outputs.
        buffers: Stored dtype of each buffer: the inputs of the group, then its outputs.
        input_count: How many buffers are inputs.
        room: For stores in place, the space left on each axis; above 0 if the store is in range.
        group: The group.
        memo: Which instruction gives a value at a position.

    A buffer that is overwritten in place counts as an output only, also where it is read.
    """

    loops: list[Loop]
    row: Loop | None
    instructions: list[Instruction]
    stores: list[Store]
    buffers: list[DType]
    input_count: int
    room: list[Size]
    group: FusionGroup
    memo: Memo

    def varying(self, loop: Loop) -> set[int]:
        """Returns the instructions that differ along a loop."""
        found: set[int] = set()
        for number, instruction in enumerate(self.instructions):
            what = instruction.what
            index = what.index if isinstance(what, (Load, Apply)) else None
            moves = index is not None and index.factor(loop) != 0
            if moves or not found.isdisjoint(operands(what)):
                found.add(number)
        return found

    @property
    def positions(self) -> list[int]:
        """The instructions that make a position of an integer, which may be out of range."""
        return [n for n, i in enumerate(self.instructions) if isinstance(i.what, Position)]

    @property
    def nonempty(self) -> list[Size]:
        """Sizes, known later, that must be above 0: axes that are read at such positions (an empty
        one has none), and the space left on an axis after the store.
        """
        whats = (instruction.what for instruction in self.instructions)
        read = [w.extent for w in whats if isinstance(w, Position) and not w.is_store]
        return [size for size in (*read, *self.room) if not isinstance(size, int)]

    @property
    def store_positions(self) -> list[int]:
        """The positions, equal for all elements, that must be in range for anything to happen."""
        whats = enumerate(instruction.what for instruction in self.instructions)
        return [n for n, what in whats if isinstance(what, Position) and what.is_store]
