"""Host C: pointwise and row kernels with threads, SIMD loops and streaming stores.

A pointwise kernel runs over blocks of the innermost loop, a row kernel over rows; a task does some
of them, and the threads of `kernels/host/threads.c` share the tasks. Either kind writes
into a scratch block that stays in the first-level cache and copies it out, with streaming stores
where all outputs together are larger than the caches (measured: such stores save the read of each
written line, 10.2 to 4.9 ms on a gelu chain of 4096 x 4096 floats, 2 cores of an AMD EPYC).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from maxmod.compiler.codegen.emit import (
    accumulated,
    bare,
    block,
    compute_type,
    guard_lines,
    index_text,
    literal,
    outside_text,
    scalar_name,
    size_text,
    start_value,
    statement,
    storage_type,
    stored_text,
    symbols_of,
)
from maxmod.compiler.codegen.reading import reading_of
from maxmod.compiler.codegen.rows import Phase, RowPlan, plan_rows
from maxmod.compiler.groups.instructions import Load, Lowered, Position, Reduction, Store, needed
from maxmod.dtype import DType
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.op.affine import ZERO, Index, Loop

BLOCK = 2048  # elements of one block: a few arrays of 8 KB stay in a 32 KB cache
STREAM_NBYTES = 16 << 20  # outputs above this leave the caches anyway
STACK_ELEMENTS = 8192  # longer rows have their scratch in the memory of the thread
ENTRY = "mm_kernel"
WRONG = "mm_wrong"  # not 0 if a position was out of range
_ARGUMENTS = "void *const *mm_buffers, const int64_t *mm_scalars"


def emit_host(lowered: Lowered, name: str) -> KernelSource:
    """Returns the C kernel of a lowered group."""
    made = _row_kernel(lowered) if lowered.row is not None else _pointwise_kernel(lowered)
    symbols = symbols_of(lowered)
    sizes = [f"const int64_t s_{s} = mm_scalars[{n}];" for n, s in enumerate(symbols)]
    buffers = _pointers(lowered)
    task, first = _with_flag(lowered, made.task, buffers)
    lines = [
        "static void mm_items(",
        f"    {_ARGUMENTS}, void *mm_shared, char *mm_room,",
        "    int64_t mm_begin, int64_t mm_end)",
        "{",
        *_indent([*buffers, *sizes, *made.sizes, *task], 1),
        "}",
        "",
        f"void {ENTRY}({_ARGUMENTS})",
        "{",
        *_indent([*sizes, *first, *made.sizes], 1),
        "    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,",
        f"        mm_portion(mm_total, {made.elements}), {made.room});",
        "}",
    ]
    code = "\n".join(lines) + "\n"
    return KernelSource(
        name,
        Dialect.HOST,
        code,
        ENTRY,
        len(lowered.buffers),
        len(symbols),
        has_flag=bool(lowered.positions),
        reading=reading_of(lowered),
    )


def _pointers(lowered: Lowered) -> list[str]:
    """Returns the declarations of the buffers."""
    lines: list[str] = []
    for number, dtype in enumerate(lowered.buffers):
        const = "const " if number < lowered.input_count else ""
        kind = f"{const}{storage_type(dtype)} *const restrict"
        lines.append(f"{kind} b{number} = mm_buffers[{number}];")
    return lines


def _with_flag(
    lowered: Lowered, task: list[str], buffers: list[str]
) -> tuple[list[str], list[str]]:
    """Returns what each thread does, and what comes before, with the flag of bad positions."""
    flag = f"(int64_t *)mm_buffers[{len(lowered.buffers)}]"
    first: list[str] = []
    if _checked(lowered):
        report = [f"if ({WRONG})", f"    __atomic_store_n({flag}, 1, __ATOMIC_RELAXED);"]
        task = [f"int {WRONG} = 0;", *task, *report]
    guards = _guards(lowered, buffers)
    if guards:
        first = [f"*{flag} = 1;", *guards]
    if lowered.positions:
        first.append(f"*{flag} = 0;")
    return task, first


@dataclass(frozen=True, slots=True)
class _Parts:
    """The text of a kernel.

    Attributes:
        sizes: Declares `mm_total`, the number of items, and what else both functions need.
        task: Works on the items from `mm_begin` to `mm_end`.
        elements: Elements of one item.
        room: Bytes of memory that a thread needs, 64-byte aligned.
    """

    sizes: list[str]
    task: list[str]
    elements: str
    room: str = "0"


def _guards(lowered: Lowered, buffers: Sequence[str]) -> list[str]:
    """Returns the text that ends a kernel before it stores anything, with what it reads: one that
    would store out of range, or overwrite a buffer with what it looks up out of range.
    """
    looked_up = sorted(_checked(lowered)) if lowered.group.targets else []
    needed_here = needed(lowered.instructions, [*lowered.store_positions, *looked_up])
    whats = [lowered.instructions[number].what for number in needed_here]
    read = sorted({what.buffer for what in whats if isinstance(what, Load)})
    lines = [*(buffers[number] for number in read), *guard_lines(lowered, "return;")]
    for number in looked_up:
        lines += _look_ahead(lowered, number)
    return lines


def _look_ahead(lowered: Lowered, position: int) -> list[str]:
    """Returns the text that ends a kernel if a position is out of range anywhere.

    It runs only along the loops that change the position: over the tokens, not over their elements.
    """
    loops = [*lowered.loops, *([lowered.row] if lowered.row else [])]
    *before, _ = wanted = needed(lowered.instructions, [position])
    lines = [line for n in before for line in statement(lowered.instructions, n)]
    lines += [f"if ({outside_text(lowered.instructions, position)})", "    return;"]
    for loop in reversed(loops):
        if not lowered.varying(loop).isdisjoint(wanted):
            head = f"for (int64_t {loop.name} = 0; {loop.name} < {size_text(loop.extent)}; "
            lines = block(f"{head}{loop.name}++)", lines)
    return block(f"if ({_total(loops)} > 0)", lines)


def _checked(lowered: Lowered) -> set[int]:
    """Returns the positions that are checked where they are made."""
    return set(lowered.positions).difference(lowered.store_positions)


def _indent(lines: Sequence[str], depth: int) -> list[str]:
    return [
        line if line.startswith("#") else "    " * depth + line if line else line for line in lines
    ]


def _total(loops: Sequence[Loop]) -> str:
    return " * ".join(f"(int64_t){size_text(loop.extent)}" for loop in loops) or "1"


def _outer_indices(loops: Sequence[Loop], counter: str) -> list[str]:
    """Recovers the outer loop variables from one counter."""
    if not loops:
        return []
    if len(loops) == 1:
        return [f"const int64_t {loops[0].name} = {counter};"]
    lines = [f"int64_t rest = {counter};"]
    for loop in reversed(loops[1:]):
        extent = size_text(loop.extent)
        lines.append(f"const int64_t {loop.name} = rest % {extent};")
        lines.append(f"rest /= {extent};")
    lines.append(f"const int64_t {loops[0].name} = rest;")
    return lines


def _instructions(lowered: Lowered, numbers: Iterable[int]) -> list[str]:
    """Returns the statements of instructions; positions are checked as well."""
    lines: list[str] = []
    for number in numbers:
        what = lowered.instructions[number].what
        lines += statement(lowered.instructions, number)
        if isinstance(what, Position) and not what.is_store:
            lines.append(f"{WRONG} |= {outside_text(lowered.instructions, number)};")
    return lines


def _pragma(directive: str, clauses: Sequence[str] = (), *, checks: bool = False) -> str:
    """Returns an OpenMP line; with `checks`, its lanes join what they found wrong."""
    found = [f"reduction(| : {WRONG})"] if checks else []
    return " ".join(("#pragma omp", directive, *clauses, *found))


def _stream_flag(lowered: Lowered, elements: str) -> str:
    nbytes = sum(store.stored.size_in_bytes for store in lowered.stores)
    return f"const int mm_stream = ({elements}) * {nbytes} > {STREAM_NBYTES};"


def _store_one(lowered: Lowered, store: Store) -> str:
    """Returns the statement that writes one element where it belongs."""
    return f"b{store.buffer}[{index_text(store.index)}] = {stored_text(lowered, store)};"


def _copy_out(store: Store, source: str, first: str, count: str) -> list[str]:
    target = f"b{store.buffer} + {first}"
    nbytes = f"(size_t)({count}) * sizeof *{source}"
    return [
        "if (mm_stream)",
        f"    mm_stream_row({target}, {source}, {nbytes});",
        "else",
        f"    memcpy({target}, {source}, {nbytes});",
    ]


# ---- pointwise -----------------------------------------------------------------------------------


def _pointwise_kernel(lowered: Lowered) -> _Parts:
    outer, inner = lowered.loops[:-1], (lowered.loops or [Loop("i0", 1)])[-1]
    extent = size_text(inner.extent)
    moving = lowered.varying(inner)
    fixed = [n for n, _ in enumerate(lowered.instructions) if n not in moving]
    body = [f"const int64_t {inner.name} = mm_first + mm_k;"]
    body += _instructions(lowered, sorted(moving))
    scratch, stores, copies = _blocks(lowered, inner)
    body += stores
    sizes = [
        f"const int64_t mm_extent = {extent};",
        f"const int64_t mm_blocks = (mm_extent + {BLOCK - 1}) / {BLOCK};",
        f"const int64_t mm_total = {_total(outer)} * mm_blocks;",
    ]
    task = [
        _stream_flag(lowered, f"{_total(outer)} * mm_extent"),
        "for (int64_t mm_work = mm_begin; mm_work < mm_end; mm_work++) {",
        *_indent(
            [
                f"const int64_t mm_first = mm_work % mm_blocks * {BLOCK};",
                f"const int64_t mm_count = mm_min_i64({BLOCK}, mm_extent - mm_first);",
                *_outer_indices(outer, "mm_work / mm_blocks"),
                *scratch,
                *_instructions(lowered, fixed),
                _pragma("simd", checks=not moving.isdisjoint(_checked(lowered))),
                "for (int64_t mm_k = 0; mm_k < mm_count; mm_k++) {",
                *_indent(body, 1),
                "}",
                *copies,
            ],
            1,
        ),
        "}",
        "if (mm_stream)",
        "    mm_fence();",
    ]
    return _Parts(sizes, task, f"mm_min_i64({BLOCK}, mm_extent)")


def _blocks(lowered: Lowered, inner: Loop) -> tuple[list[str], list[str], list[str]]:
    """Returns the blocks that results are collected in, how an element gets there, and how blocks
    go to memory.
    """
    scratch: list[str] = []
    stores: list[str] = []
    copies: list[str] = []
    for store in lowered.stores:
        if store.index.factor(inner) not in (0, 1):  # 0: there is one element
            stores.append(_store_one(lowered, store))
            continue
        out = f"o{store.buffer}"
        scratch.append(f"_Alignas(64) {storage_type(store.stored)} {out}[{BLOCK}];")
        stores.append(f"{out}[mm_k] = {stored_text(lowered, store)};")
        start = Index(((Loop("mm_first", inner.extent), 1),))
        first = index_text(store.index.substituted({inner: start}))
        copies += _copy_out(store, out, f"({first})", "mm_count")
    return scratch, stores, copies


# ---- rows ----------------------------------------------------------------------------------------


def _row_kernel(lowered: Lowered) -> _Parts:
    assert lowered.row is not None
    plan = plan_rows(lowered)
    row = lowered.row
    rows = _total(lowered.loops)
    body = [*_outer_indices(lowered.loops, "mm_row")]
    kept: set[int] = set()
    for phase in plan.phases:
        body += _phase(lowered, phase, kept)
        kept.update(phase.keeps)
    body += _instructions(lowered, plan.after)
    for store in lowered.stores:
        if store.index.factor(row) == 0:
            body.append(_store_one(lowered, store))
        elif store.index.factor(row) == 1:
            first = index_text(store.index.substituted({row: ZERO}))
            body += _copy_out(store, f"o{store.buffer}", f"({first})", "mm_extent")
    scratch, room = _row_scratch(lowered, plan)
    sizes = [
        f"const int64_t mm_extent = {size_text(row.extent)};",
        f"const int64_t mm_total = {rows};",
    ]
    task = [
        _stream_flag(lowered, "mm_total * mm_extent"),
        *scratch,
        "for (int64_t mm_row = mm_begin; mm_row < mm_end; mm_row++) {",
        *_indent(body, 1),
        "}",
        "if (mm_stream)",
        "    mm_fence();",
    ]
    return _Parts(sizes, task, "mm_extent", room)


def _row_scratch(lowered: Lowered, plan: RowPlan) -> tuple[list[str], str]:
    """Declares the arrays of one row: kept values, and outputs before they are copied out.

    Returns:
        The declarations, and how many bytes of the thread's memory they take.
    """
    assert lowered.row is not None
    arrays = [(f"e{n}", compute_type(lowered.instructions[n].dtype)) for n in plan.scratch]
    arrays += [
        (f"o{store.buffer}", storage_type(store.stored))
        for store in lowered.stores
        if store.index.factor(lowered.row) == 1
    ]
    extent = lowered.row.extent
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


def _phase(lowered: Lowered, phase: Phase, kept: set[int]) -> list[str]:
    assert lowered.row is not None
    starts, clauses = _started(lowered, phase.reductions)
    body: list[str] = []
    for number in phase.body:
        if number in kept:
            body += statement(lowered.instructions, number, f"e{number}[{lowered.row.name}]")
        else:
            body += _instructions(lowered, [number])
        if number in phase.keeps:
            body.append(f"e{number}[{lowered.row.name}] = t{number};")
    for number in phase.reductions:
        instruction = lowered.instructions[number]
        assert isinstance(instruction.what, Reduction)
        body += _accumulate(lowered, instruction.what, number)
    checked = _checked(lowered).intersection(phase.body).difference(kept)
    if phase.writes_outputs:
        body += _stores_of_elements(lowered, lowered.row)
    lines = [
        *_instructions(lowered, phase.before),
        *starts,
        _pragma("simd", clauses, checks=bool(checked)),
        f"for (int64_t {lowered.row.name} = 0; {lowered.row.name} < mm_extent; "
        f"{lowered.row.name}++) {{",
        *_indent(body, 1),
        "}",
    ]
    for number in phase.reductions:
        instruction = lowered.instructions[number]
        assert isinstance(instruction.what, Reduction)
        flagged = _needs_flag(instruction.what, instruction.dtype)
        nan = literal(math.nan, instruction.dtype) if flagged else ""
        value = f"n{number} ? {nan} : r{number}" if flagged else f"r{number}"
        lines += statement(lowered.instructions, number, value)
    return lines


def _started(lowered: Lowered, reductions: Sequence[int]) -> tuple[list[str], list[str]]:
    """Returns the declarations of running totals, and what the compiler is told about them."""
    lines: list[str] = []
    clauses: list[str] = []
    for number in reductions:
        instruction = lowered.instructions[number]
        what = instruction.what
        assert isinstance(what, Reduction)
        kind = compute_type(instruction.dtype)
        lines.append(f"{kind} r{number} = {bare(start_value(what, instruction.dtype))};")
        clauses.append(f"reduction({_operator(what, instruction.dtype)} : r{number})")
        if _needs_flag(what, instruction.dtype):
            lines.append(f"int n{number} = 0;")
            clauses.append(f"reduction(| : n{number})")
    return lines, clauses


def _stores_of_elements(lowered: Lowered, row: Loop) -> list[str]:
    """Returns the stores of results that differ along a row."""
    lines: list[str] = []
    for store in lowered.stores:
        if store.index.factor(row) == 1:
            lines.append(f"o{store.buffer}[{row.name}] = {stored_text(lowered, store)};")
        elif store.index.factor(row) != 0:
            lines.append(_store_one(lowered, store))
    return lines


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


def _accumulate(lowered: Lowered, what: Reduction, number: int) -> list[str]:
    """Returns the statements that take one element into a reduction."""
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
