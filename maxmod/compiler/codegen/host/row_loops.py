"""Row kernels of the host: the loops over a row, its kept values, and the block that it ends in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeGuard

from maxmod.compiler.codegen.emit import (
    accumulated,
    bare,
    block,
    compute_type,
    index_text,
    literal,
    scalar_name,
    size_text,
    start_value,
    statement,
)
from maxmod.compiler.codegen.host.blocks import (
    BLOCK,
    ROW_HALVES,
    Parts,
    checked,
    count_up,
    instructions,
    neighbours,
    outer_indices,
    pragma,
    results,
    start_of,
    store_one,
    stream_flag,
    total,
    widened,
)
from maxmod.compiler.codegen.rows import Phase, RowPlan, plan_rows
from maxmod.compiler.groups.instructions import Apply, Lowered, Reduction, What
from maxmod.dtype import DType
from maxmod.op import is_op
from maxmod.op.affine import Loop
from maxmod.ops.arithmetic import true_div
from maxmod.ops.elementwise import exp

STACK_ELEMENTS = 8192  # longer rows have their scratch in the memory of the thread


def row_kernel(lowered: Lowered) -> Parts:
    """Returns the text of a row kernel."""
    assert lowered.row is not None
    return _RowText(lowered, lowered.row).parts()


class _RowText:
    """The text of one row kernel.

    Args:
        lowered: The kernel.
        row: The loop over a row.
    """

    def __init__(self, lowered: Lowered, row: Loop) -> None:
        self.lowered = lowered
        self.row = row
        self.plan: RowPlan = plan_rows(lowered)
        in_row = [n for n, instruction in enumerate(lowered.instructions) if instruction.in_row]
        self.loads = neighbours(lowered, row, in_row)
        self.halves = [n for n in self.loads if self.loads[n].stored in ROW_HALVES]
        self.texts = {number: f"h{number}[{row.name}]" for number in self.halves}
        self.shares = _shares(lowered)
        for number, (part, whole) in self.shares.items():
            self.texts[number] = f"mm_over(t{part}, d{whole})"

    def parts(self) -> Parts:
        """Returns the text of the kernel."""
        scratch, room = self._scratch()
        sizes = [
            f"const int64_t mm_extent = {size_text(self.row.extent)};",
            f"const int64_t mm_total = {total(self.lowered.loops)};",
        ]
        task = [
            stream_flag(self.lowered, "mm_total * mm_extent"),
            *scratch,
            *block(count_up("mm_row", "mm_begin", "mm_end"), self._one_row()),
            "if (mm_stream)",
            "    mm_fence();",
        ]
        return Parts(sizes, task, "mm_extent", room)

    def _one_row(self) -> list[str]:
        lines = outer_indices(self.lowered.loops, "mm_row")
        for number in self.halves:
            load = self.loads[number]
            source = f"b{load.buffer} + ({index_text(start_of(load.index, self.row, '0'))})"
            lines.append(widened(number, load, source, "mm_extent"))
        kept: set[int] = set()
        for phase in self.plan.phases:
            lines += self._phase(phase, kept)
            kept.update(phase.keeps)
        lines += instructions(self.lowered, self.plan.after)
        ends = [s for s in self.lowered.stores if s.index.factor(self.row) == 0]
        return lines + [store_one(self.lowered, store) for store in ends]

    def _scratch(self) -> tuple[list[str], str]:
        """Declares the arrays of one row: kept values, and operands that were widened.

        Returns:
            The declarations, and how many bytes of the thread's memory they take.
        """
        kinds = self.lowered.instructions
        arrays = [(f"e{n}", compute_type(kinds[n].dtype)) for n in self.plan.scratch]
        arrays += [(f"h{n}", "float") for n in self.halves]
        extent = self.row.extent
        if isinstance(extent, int) and extent <= STACK_ELEMENTS:
            size = (extent + 63) // 64 * 64
            return [f"_Alignas(64) {kind} {name}[{size}];" for name, kind in arrays], "0"
        # Eight bytes hold an element of any type.
        room = "((size_t)mm_extent + 7) / 8 * 64"
        lines = [
            f"{kind} *const {name} = (void *)(mm_room + {number} * ({room}));"
            for number, (name, kind) in enumerate(arrays)
        ]
        return lines, f"{len(arrays)} * ({room})" if arrays else "0"

    # ---- loops -----------------------------------------------------------------------------------

    def _phase(self, phase: Phase, kept: set[int]) -> list[str]:
        """Returns one loop over the row, with what comes before and after it."""
        lowered, name = self.lowered, self.row.name
        starts, clauses = _started(lowered, phase.reductions)
        texts = {**self.texts, **{number: f"e{number}[{name}]" for number in kept}}
        body: list[str] = []
        for number in phase.body:
            body += instructions(lowered, [number], texts)
            if number in phase.keeps:
                body.append(f"e{number}[{name}] = t{number};")
        for number in phase.reductions:
            body += _accumulate(lowered, number)
        checks = bool(checked(lowered).intersection(phase.body).difference(kept))
        head = pragma("simd", clauses, checks=checks)
        lines = [*instructions(lowered, phase.before), *starts]
        if phase.writes_outputs:
            lines += self._blocks(head, body)
        else:
            lines += [head, *block(count_up(name, "0", "mm_extent"), body)]
        for number in phase.reductions:
            lines += statement(lowered.instructions, number, _ended(lowered, number))
            if any(whole == number for _, whole in self.shares.values()):
                lines.append(f"const mm_divisor d{number} = mm_divisor_of(t{number});")
        return lines

    def _blocks(self, head: str, body: list[str]) -> list[str]:
        """Returns the loop that writes the outputs, in blocks if the row is longer than one."""
        lowered, row = self.lowered, self.row
        extent = row.extent
        is_one = isinstance(extent, int) and extent <= BLOCK
        first, end, size = "mm_first", "mm_stop", BLOCK
        if is_one:
            assert isinstance(extent, int)
            first, end, size = "0", "mm_extent", (extent + 15) // 16 * 16
        count, at = (end, row.name) if is_one else (f"{end} - {first}", f"{row.name} - {first}")
        written = results(lowered, row, first, count, size, at, ROW_HALVES)
        others = [s for s in lowered.stores if s.index.factor(row) not in (0, 1)]
        lines = [
            *written.before,
            *self._next_row(first, count),
            head,
            *block(
                count_up(row.name, first, end),
                [*body, *written.stores, *(store_one(lowered, store) for store in others)],
            ),
            *written.after,
        ]
        if is_one:
            return block("", lines) if written.before else lines
        stop = f"const int64_t mm_stop = mm_min_i64({first} + {BLOCK}, mm_extent);"
        return block(count_up(first, "0", "mm_extent", str(BLOCK)), [stop, *lines])

    def _next_row(self, first: str, count: str) -> list[str]:
        """Asks for the same part of the next row, of operands whose rows follow each other.

        A processor guesses what comes next only within a page. Of rows of 1024 floats in memory,
        layer_norm takes 0.74 and softmax 0.77 of the time so (Zen 3, December 2026).
        """
        loops = self.lowered.loops
        lines: dict[int, str] = {}
        for load in self.loads.values():
            if loops and load.index.factor(loops[-1]) == self.row.extent:
                size = load.stored.size_in_bytes
                place = index_text(start_of(load.index, self.row, first))
                lines[load.buffer] = (
                    f"mm_prefetch(b{load.buffer} + ({place}), (size_t)mm_extent * {size}, "
                    f"(size_t)({count}) * {size});"
                )
        return [*lines.values()]


# ---- reductions ----------------------------------------------------------------------------------


def _shares(lowered: Lowered) -> dict[int, tuple[int, int]]:
    """Returns the quotients that are a part of a whole, as in softmax, with both numbers.

    An exponential is never above the sum of all of them, so that multiplying with the inverse,
    corrected, gives the same result as a division, which costs three times as much.
    """
    found: dict[int, tuple[int, int]] = {}
    for number, instruction in enumerate(lowered.instructions):
        what = instruction.what
        if not (instruction.in_row and instruction.dtype is DType.float32 and _is(what, true_div)):
            continue
        part, whole = (lowered.instructions[arg].what for arg in what.args)
        if not isinstance(whole, Reduction) or whole.op.lowering.combine != "add":
            continue
        if whole.arg == what.args[0] and _is(part, exp):
            found[number] = (what.args[0], what.args[1])
    return found


def _is(what: What, op: Callable[..., object]) -> TypeGuard[Apply]:
    return isinstance(what, Apply) and is_op(what.op, op)


def _reduction(lowered: Lowered, number: int) -> Reduction:
    what = lowered.instructions[number].what
    assert isinstance(what, Reduction)
    return what


def _started(lowered: Lowered, reductions: Sequence[int]) -> tuple[list[str], list[str]]:
    """Returns the declarations of running totals, and what the compiler is told about them."""
    lines: list[str] = []
    clauses: list[str] = []
    for number in reductions:
        dtype = lowered.instructions[number].dtype
        what = _reduction(lowered, number)
        lines.append(f"{compute_type(dtype)} r{number} = {bare(start_value(what, dtype))};")
        clauses.append(f"reduction({_operator(what, dtype)} : r{number})")
        if _needs_flag(what, dtype):
            lines.append(f"int n{number} = 0;")
            clauses.append(f"reduction(| : n{number})")
    return lines, clauses


def _ended(lowered: Lowered, number: int) -> str:
    """Returns the expression of a reduction whose loop is done."""
    dtype = lowered.instructions[number].dtype
    if not _needs_flag(_reduction(lowered, number), dtype):
        return f"r{number}"
    return f"n{number} ? {literal(math.nan, dtype)} : r{number}"


def _operator(what: Reduction, dtype: DType) -> str:
    """Returns the OpenMP operator of a reduction.

    Declared reductions would keep their value in memory (measured: 0.18 ns an element instead of
    0.05), so maximum and minimum use the built-in ones.
    """
    combine = what.op.lowering.combine or ""
    if combine in ("add", "mul"):
        return {"add": "+", "mul": "*"}[combine]
    if dtype is DType.bool:
        return "||" if combine == "maximum" else "&&"
    return "max" if combine == "maximum" else "min"


def _needs_flag(what: Reduction, dtype: DType) -> bool:
    """True if a NaN must be looked for separately, because comparisons of the reduction miss it."""
    return what.op.lowering.combine in ("maximum", "minimum") and dtype.is_float()


def _accumulate(lowered: Lowered, number: int) -> list[str]:
    """Returns the statements that take one element into a reduction."""
    what = _reduction(lowered, number)
    dtype = lowered.instructions[number].dtype
    total, element = f"r{number}", scalar_name(lowered.instructions, what.arg)
    if what.op.lowering.combine not in ("maximum", "minimum"):
        return [accumulated(what, total, element)]
    if dtype is DType.bool:
        return [f"{total} = {total} {_operator(what, dtype)} {element};"]
    sign = ">" if what.op.lowering.combine == "maximum" else "<"
    lines = [f"{total} = {element} {sign} {total} ? {element} : {total};"]
    if _needs_flag(what, dtype):
        lines.append(f"n{number} |= {element} != {element};")
    return lines
