"""Which blocks of attention scores are certainly masked, or certainly not; from their ops.

A score is masked where it is -inf: `where(condition, score, -inf)`, or the score plus that of 0.
Conditions are comparisons of integers that rise or fall along the queries and keys, such as
`position of the query >= position of the key`. Over a block, such a comparison is false everywhere
if it is false between the largest value on the left and the smallest on the right. Both are in a
corner, or are searched: numbers that are read along the queries, or along the keys, such as the
first key of each query. Any other condition counts as not masked.
"""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace
from typing import NamedTuple

from maxmod.compiler.codegen.element import ElementLowering
from maxmod.compiler.codegen.emit import compute_type
from maxmod.compiler.groups.instructions import Apply, Load
from maxmod.dtype import can_hold
from maxmod.op import Op, is_op, op_of
from maxmod.op.affine import Loop
from maxmod.ops.arithmetic import add, maximum, minimum, negate, sub
from maxmod.ops.comparison import (
    greater,
    greater_equal,
    logical_and,
    logical_not,
    logical_or,
    select,
)
from maxmod.ops.create import full_source, iota
from maxmod.ops.elementwise import cast_elements

_MAX_DEPTH = 32


class _Slope(NamedTuple):
    """How a number changes along queries and keys: -1 falls, 0 stays, 1 rises."""

    i: int
    j: int


def mask_test(lowering: ElementLowering, number: int, i: Loop, j: Loop) -> list[str]:
    """Returns the body of `mm_is_masked`, for queries i0 to i1 and keys j0 to j1.

    Args:
        lowering: The instructions of one score.
        number: The score.
        i: The loop over queries.
        j: The loop over keys.
    """
    test = _Test(lowering, i, j)
    condition = test.is_masked(number, 0)
    return [*test.lines, f"return {condition or 'false'};"]


def open_test(
    lowering: ElementLowering, number: int, i: Loop, j: Loop
) -> tuple[list[str], ElementLowering]:
    """Returns the body of `mm_is_open`, and the instructions of a score where it is true.

    Where these tests pass for a whole block of scores, the mask of each score is not evaluated.

    Args:
        lowering: The instructions of one score.
        number: The score; it has the same number in the instructions that are returned.
        i: The loop over queries.
        j: The loop over keys.
    """
    test = _Test(lowering, i, j)
    opened = copy.copy(lowering)
    opened.instructions = list(lowering.instructions)
    condition = _both("true", *test.open(number, opened, 0))
    return [*test.lines, f"return {condition};"], opened


class _Test:
    """Builds the expression of one test."""

    def __init__(self, lowering: ElementLowering, i: Loop, j: Loop) -> None:
        self.lowering = lowering
        self.i = i
        self.j = j
        self.lines: list[str] = []

    def open(self, number: int, opened: ElementLowering, depth: int) -> list[str]:
        """Replaces choices by the chosen values; returns the conditions for that."""
        op, args = self._apply(number)
        if depth > _MAX_DEPTH:
            return []
        if is_op(op, add, cast_elements):
            return [found for arg in args for found in self.open(arg, opened, depth + 1)]
        if not is_op(op, select):
            return []
        condition, chosen, other = args
        if self._is_lowest(other):
            kept, known = chosen, self.is_always(condition, depth + 1)
        elif self._is_lowest(chosen):
            kept, known = other, self.is_never(condition, depth + 1)
        else:
            return []
        if known:
            old = self.lowering.instructions[number]
            same = Apply(op_of(cast_elements), (kept,), (("dtype", old.dtype),))
            opened.instructions[number] = replace(old, what=same)
        return [*([known] if known else []), *self.open(kept, opened, depth + 1)]

    def _apply(self, number: int) -> tuple[Op | None, tuple[int, ...]]:
        what = self.lowering.instructions[number].what
        if number == self.lowering.given_number or not isinstance(what, Apply):
            return None, ()
        return what.op, what.args

    def is_masked(self, number: int, depth: int) -> str:
        """Returns a condition under which a score is -inf in the whole block, or ''."""
        op, args = self._apply(number)
        if depth > _MAX_DEPTH:
            return ""
        if is_op(op, add):
            return _either(*(self.is_masked(arg, depth + 1) for arg in args))
        if is_op(op, cast_elements):
            return self.is_masked(args[0], depth + 1)
        if not is_op(op, select):
            return ""
        condition, chosen, other = args
        if self._is_lowest(other):
            inner = self.is_masked(chosen, depth + 1)
            return _either(self.is_never(condition, depth + 1), inner)
        if self._is_lowest(chosen):
            inner = self.is_masked(other, depth + 1)
            return _either(self.is_always(condition, depth + 1), inner)
        return ""

    def _is_lowest(self, number: int) -> bool:
        what = self.lowering.instructions[number].what
        if isinstance(what, Apply) and is_op(what.op, cast_elements) and what.args:
            return self._is_lowest(what.args[0])
        if not isinstance(what, Apply) or not is_op(what.op, full_source):
            return False
        value = dict(what.attrs)["value"]
        return isinstance(value, float) and value == -math.inf

    def is_never(self, number: int, depth: int) -> str:
        """Returns a condition under which a comparison is false in the whole block, or ''."""
        op, args = self._apply(number)
        if depth > _MAX_DEPTH:
            return ""
        if is_op(op, logical_and):
            return _either(*(self.is_never(arg, depth + 1) for arg in args))
        if is_op(op, logical_or):
            return _both(*(self.is_never(arg, depth + 1) for arg in args))
        if is_op(op, logical_not):
            return self.is_always(args[0], depth + 1)
        return self._compared(op, args, never=True)

    def is_always(self, number: int, depth: int) -> str:
        """Returns a condition under which a comparison is true in the whole block, or ''."""
        op, args = self._apply(number)
        if depth > _MAX_DEPTH:
            return ""
        if is_op(op, logical_and):
            return _both(*(self.is_always(arg, depth + 1) for arg in args))
        if is_op(op, logical_or):
            return _either(*(self.is_always(arg, depth + 1) for arg in args))
        if is_op(op, logical_not):
            return self.is_never(args[0], depth + 1)
        return self._compared(op, args, never=False)

    def _compared(self, op: Op | None, args: tuple[int, ...], never: bool) -> str:
        if not is_op(op, greater, greater_equal):
            return ""
        sign = ">" if is_op(op, greater) else ">="
        left, right = args
        # Never: even the largest left is not above the smallest right. Always: the reverse.
        a = self._extreme(left, largest=never)
        b = self._extreme(right, largest=not never)
        if not (a and b):
            return ""
        return f"!({a} {sign} {b})" if never else f"({a} {sign} {b})"

    def _extreme(self, number: int, largest: bool) -> str:
        """Adds the statements that find the largest or smallest of some numbers in the block.

        Returns:
            Its name; '' if that is not known to be possible.
        """
        slope = self._slope(number)
        if slope is not None:
            return self._corner(number, slope, largest)
        loops = {loop for n in self.lowering.needed(number) for loop in self._loops(n)}
        is_signed = self.lowering.instructions[number].dtype.is_signed_integral()
        return self._searched(number, loops.pop(), largest) if len(loops) == 1 and is_signed else ""

    def _loops(self, number: int) -> list[Loop]:
        """Returns those of the two loops along which the index of an instruction moves."""
        what = self.lowering.instructions[number].what
        index = what.index if isinstance(what, (Load, Apply)) else None
        return [loop for loop in (self.i, self.j) if index is not None and index.factor(loop) != 0]

    def _searched(self, number: int, loop: Loop, largest: bool) -> str:
        """Adds the statements that look at every number along one loop, and returns its name."""
        at = loop.name
        name, value = f"corner{len(self.lines)}", self.lowering.name(number)
        sign = ">" if largest else "<"
        body = [line for n in self.lowering.needed(number) for line in self.lowering.text(n)]
        body.append(f"if ({at} == {at}0 || {value} {sign} {name}) {name} = {value};")
        kind = compute_type(self.lowering.instructions[number].dtype)
        head = f"for (int64_t {at} = {at}0; {at} <= {at}1; {at}++)"
        self.lines += [f"{kind} {name} = 0;", f"{head} {{ {' '.join(body)} }}"]
        return name

    def _corner(self, number: int, slope: _Slope, largest: bool) -> str:
        """Adds the statements that compute a number in a corner, and returns its name."""
        i = "i1" if (slope.i > 0) == largest else "i0"
        j = "j1" if (slope.j > 0) == largest else "j0"
        name = f"corner{len(self.lines)}"
        kind = compute_type(self.lowering.instructions[number].dtype)
        needed = self.lowering.needed(number)
        statements = [line for n in needed for line in self.lowering.text(n)]
        used = set(re.findall(r"\w+", " ".join(statements)))
        ends = [f"const int64_t {n} = {x};" for n, x in (("i", i), ("j", j)) if n in used]
        body = " ".join((*ends, *statements, f"{name} = {self.lowering.name(number)};"))
        self.lines += [f"{kind} {name};", f"{{ {body} }}"]
        return name

    def _slope(self, number: int, depth: int = 0) -> _Slope | None:
        instruction = self.lowering.instructions[number]
        what = instruction.what
        if depth > _MAX_DEPTH or not instruction.dtype.is_signed_integral():
            return None
        if isinstance(what, Load):
            moves = what.index.factor(self.i) != 0 or what.index.factor(self.j) != 0
            return None if moves else _Slope(0, 0)
        op, args = self._apply(number)
        assert isinstance(what, Apply)
        if is_op(op, iota) and what.index is not None:
            return _slope_of(what.index.factor(self.i), what.index.factor(self.j))
        slopes = [self._slope(arg, depth + 1) for arg in args]
        if any(slope is None for slope in slopes):
            return None
        known = [slope for slope in slopes if slope is not None]
        if all(slope == (0, 0) for slope in known):  # sources and values computed from them
            return None if what.index is not None else _Slope(0, 0)
        if is_op(op, cast_elements):  # one that wraps around is not monotonic
            source = self.lowering.instructions[args[0]].dtype
            return known[0] if can_hold(instruction.dtype, source) else None
        if is_op(op, negate):
            return _Slope(-known[0].i, -known[0].j)
        if is_op(op, add, maximum, minimum):
            return _sum(known[0], known[1])
        if is_op(op, sub):
            return _sum(known[0], _Slope(-known[1].i, -known[1].j))
        return None


def _slope_of(i: object, j: object) -> _Slope | None:
    if not (isinstance(i, int) and isinstance(j, int)):  # the sign is not known
        return None
    return _Slope((i > 0) - (i < 0), (j > 0) - (j < 0))


def _sum(a: _Slope, b: _Slope) -> _Slope | None:
    """The slope of a sum; None if the terms move against each other."""
    if a.i * b.i < 0 or a.j * b.j < 0:
        return None
    return _Slope(a.i or b.i, a.j or b.j)


def _either(*conditions: str) -> str:
    known = [condition for condition in conditions if condition]
    return f"({' || '.join(known)})" if known else ""


def _both(*conditions: str) -> str:
    return f"({' && '.join(conditions)})" if all(conditions) else ""
