"""CUDA C: elementwise groups over different positions in one launch; each has blocks of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from maxmod.compiler.codegen.cuda.pointwise import ENTRY, THREADS, blocks_of, with_helpers
from maxmod.compiler.codegen.emit import block, function, storage_type, symbols_of
from maxmod.compiler.codegen.reading import Part, Reading
from maxmod.compiler.groups.group import FusionGroup, Together
from maxmod.compiler.groups.instructions import Instruction, Lowered, Position
from maxmod.compiler.groups.lower import lower
from maxmod.kernel.source import Dialect, KernelSource, Launch
from maxmod.op.affine import Unfusable
from maxmod.values.dim import Size

# Larger groups keep a GPU busy on their own.
MOST_BLOCKS = 64
_NUMBERED = re.compile(r"\b([tvbo])(\d+)\b")


def check_together(group: FusionGroup, template: Together) -> None:
    """Raises Unfusable for groups that are better apart, or have no common kernel."""
    for part in template.parts:
        if blocks_of(lower(part))[0] > MOST_BLOCKS:
            raise Unfusable("it keeps the device busy on its own")


def emit_together(
    group: FusionGroup, template: Together, name: str
) -> tuple[KernelSource, tuple[Size, ...]]:
    """Returns the kernel of several groups, and the sizes that must be above 0."""
    body: list[str] = []
    parts: list[Part] = []
    names: set[str] = set()
    nonempty: dict[Size, None] = {}
    start = 0
    for number, part in enumerate(template.parts):
        lowered = lower(part)
        count, lines = blocks_of(lowered)
        before = sum(len(other.instructions) for other in parts[-1:])
        mine = [f"const int mm_mine = mm_block - {start};"] if start else []
        mine = mine or ["const int mm_mine = mm_block;"]
        start += count
        is_last = number + 1 == len(template.parts)
        head = "else" if is_last else f"{'else ' * (number > 0)}if (mm_block < {start})"
        body += block(head, [*mine, *_renumbered(lines, group, part, before)])
        parts.append(_part(lowered, parts[-1].instructions if parts else [], before))
        names.update(symbols_of(lowered))
        nonempty |= dict.fromkeys(lowered.nonempty)
    symbols = tuple(sorted(names))
    head = f"for (int mm_block = blockIdx.x; mm_block < {start}; mm_block += gridDim.x)"
    entry = f'extern "C" __global__ void __launch_bounds__({THREADS}) {ENTRY}'
    lines = function(entry, _parameters(group, symbols), block(head, body))
    source = KernelSource(
        name,
        Dialect.CUDA,
        with_helpers("\n".join(lines) + "\n"),
        ENTRY,
        len(group.reads) + len(group.outputs),
        len(symbols),
        Launch(start * THREADS, THREADS, THREADS),
        symbols=symbols,
        reading=Reading(group, group.reads, parts),
    )
    return source, tuple(nonempty)


def _parameters(group: FusionGroup, symbols: Sequence[str]) -> list[str]:
    values = (*group.reads, *group.outputs)
    found = [
        f"{'const ' * (number < len(group.reads))}{storage_type(value.type.dtype)} "
        f"*__restrict__ b{number}"
        for number, value in enumerate(values)
    ]
    return [*found, *(f"long long s_{symbol}" for symbol in symbols)]


def _renumbered(
    lines: Sequence[str], group: FusionGroup, part: FusionGroup, before: int
) -> list[str]:
    """Returns text of a part with the buffers of the whole and with variables of its own."""
    values = [*group.reads, *group.outputs]
    buffers = [values.index(value) for value in (*part.reads, *part.outputs)]

    def new(match: re.Match[str]) -> str:
        letter, number = match[1], int(match[2])
        return f"{letter}{buffers[number] if letter in 'bo' else before + number}"

    return [_NUMBERED.sub(new, line) for line in lines]


def _part(lowered: Lowered, others: Sequence[Instruction], before: int) -> Part:
    """Returns the instructions of a part, behind those of others, for readable names."""
    mine = [
        replace(one, what=replace(one.what, arg=one.what.arg + before))
        if isinstance(one.what, Position)
        else one
        for one in lowered.instructions
    ]
    memo = {wanted: number + before for wanted, number in lowered.memo.items()}
    return Part("t", [*others, *mine], memo)
