"""Host C: pointwise and row kernels with threads, SIMD loops and streaming stores.

A pointwise kernel runs over blocks of the innermost loop (`maps`), a row kernel over rows
(`row_loops`); a task does some of them, and the threads of `kernels/host/threads.c` share the
tasks. What both do with memory is in `blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence

from maxmod.compiler.codegen.emit import (
    block,
    guard_lines,
    indent,
    outside_text,
    size_text,
    statement,
    storage_type,
    symbols_of,
)
from maxmod.compiler.codegen.host.blocks import WRONG, checked, count_up, total
from maxmod.compiler.codegen.host.maps import pointwise_kernel
from maxmod.compiler.codegen.host.row_loops import row_kernel
from maxmod.compiler.codegen.reading import reading_of
from maxmod.compiler.groups.instructions import Load, Lowered, needed
from maxmod.kernel.source import Dialect, KernelSource

ENTRY = "mm_kernel"
_ARGUMENTS = "void *const *mm_buffers, const int64_t *mm_scalars"


def emit_host(lowered: Lowered, name: str) -> KernelSource:
    """Returns the C kernel of a lowered group."""
    made = row_kernel(lowered) if lowered.row is not None else pointwise_kernel(lowered)
    symbols = symbols_of(lowered)
    sizes = [f"const int64_t s_{s} = mm_scalars[{n}];" for n, s in enumerate(symbols)]
    buffers = _pointers(lowered)
    task, first = _with_flag(lowered, made.task, buffers)
    lines = [
        "static void mm_items(",
        f"    {_ARGUMENTS}, void *mm_shared, char *mm_room,",
        "    int64_t mm_begin, int64_t mm_end)",
        "{",
        *indent([*buffers, *sizes, *made.sizes, *task], 1),
        "}",
        "",
        f"void {ENTRY}({_ARGUMENTS})",
        "{",
        *indent([*sizes, *first, *made.sizes], 1),
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
    if checked(lowered):
        report = [f"if ({WRONG})", f"    __atomic_store_n({flag}, 1, __ATOMIC_RELAXED);"]
        task = [f"int {WRONG} = 0;", *task, *report]
    guards = _guards(lowered, buffers)
    if guards:
        first = [f"*{flag} = 1;", *guards]
    if lowered.positions:
        first.append(f"*{flag} = 0;")
    return task, first


def _guards(lowered: Lowered, buffers: Sequence[str]) -> list[str]:
    """Returns the text that ends a kernel before it stores anything, with what it reads: one that
    would store out of range, or overwrite a buffer with what it looks up out of range.
    """
    looked_up = sorted(checked(lowered)) if lowered.group.targets else []
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
            lines = block(count_up(loop.name, "0", size_text(loop.extent)), lines)
    return block(f"if ({total(loops)} > 0)", lines)
