"""What loops of the host share: indices, blocks of results, and operands that are put in order.

A loop works on a block of at most `BLOCK` elements, so that what it reads and writes beside its
operands stays in the first-level cache. Where the outputs are small, it writes to them directly;
where they are larger than the caches, to a block that is copied out with streaming stores.
Meanwhile, the memory asks for the next block.

Two kinds of operands are put in order before the loop, because a compiler cannot read them in
vectors: columns (a tile of them is turned into rows), and floats of 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from maxmod.compiler.codegen.emit import (
    C_TYPES,
    index_text,
    outside_text,
    scalar_name,
    size_text,
    statement,
    storage_type,
    stored,
)
from maxmod.compiler.groups.instructions import Apply, Load, Lowered, Position, Store
from maxmod.dtype import DType
from maxmod.op import op_of
from maxmod.op.affine import Index, Loop
from maxmod.ops.elementwise import cast_elements

# Elements of one block. With short ones, reads and writes follow each other without pauses: x * 1.5
# far beyond the caches takes 1.04x the time of a copy with 2048, and 0.91x with 64 to 512 (2 cores
# of a Zen 3, December 2026). To ask for the next block did not help: the processor does.
BLOCK = 512
STREAM_NBYTES = 16 << 20  # outputs above this leave the caches anyway
WRONG = "mm_wrong"  # not 0 if a position was out of range

# Floats that are converted block by block. In rows, whose loops are shorter, a compiler converts
# bfloat16 as well on its way: softmax and layer_norm take 1.13 of that time with blocks, sums 2.1.
HALVES = (DType.float16, DType.bfloat16)
ROW_HALVES = (DType.float16,)
_CAST = op_of(cast_elements)
Texts = Mapping[int, str]  # what an instruction is read from, other than its own expression


@dataclass(frozen=True, slots=True)
class Parts:
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


# ---- statements ----------------------------------------------------------------------------------


def checked(lowered: Lowered) -> set[int]:
    """Returns the positions that are checked where they are made."""
    return set(lowered.positions).difference(lowered.store_positions)


def total(loops: Sequence[Loop]) -> str:
    """Returns the number of iterations of nested loops."""
    return " * ".join(f"(int64_t){size_text(loop.extent)}" for loop in loops) or "1"


def outer_indices(loops: Sequence[Loop], counter: str) -> list[str]:
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


def instructions(lowered: Lowered, numbers: Iterable[int], texts: Texts | None = None) -> list[str]:
    """Returns the statements of instructions; positions are checked as well."""
    lines: list[str] = []
    for number in numbers:
        what = lowered.instructions[number].what
        lines += statement(lowered.instructions, number, (texts or {}).get(number, ""))
        if isinstance(what, Position) and not what.is_store:
            lines.append(f"{WRONG} |= {outside_text(lowered.instructions, number)};")
    return lines


def pragma(directive: str, clauses: Sequence[str] = (), *, checks: bool = False) -> str:
    """Returns an OpenMP line; with `checks`, its lanes join what they found wrong."""
    found = [f"reduction(| : {WRONG})"] if checks else []
    return " ".join(("#pragma omp", directive, *clauses, *found))


def count_up(name: str, first: str, end: str, step: str = "") -> str:
    """Returns the head of a loop."""
    update = f"{name} += {step}" if step else f"{name}++"
    return f"for (int64_t {name} = {first}; {name} < {end}; {update})"


# ---- results -------------------------------------------------------------------------------------


def stream_flag(lowered: Lowered, elements: str) -> str:
    """Returns the declaration of `mm_stream`: the outputs are larger than the caches."""
    nbytes = sum(store.stored.size_in_bytes for store in lowered.stores)
    return f"const int mm_stream = ({elements}) * {nbytes} > {STREAM_NBYTES};"


def store_one(lowered: Lowered, store: Store) -> str:
    """Returns the statement that writes one element where it belongs."""
    text = stored(store.stored, _stored_name(lowered, store))
    return f"b{store.buffer}[{index_text(store.index)}] = {text};"


def _stored_name(lowered: Lowered, store: Store) -> str:
    """Returns the name of what a store writes: before it was rounded, as storing rounds."""
    what = lowered.instructions[store.value].what
    number = store.value
    if isinstance(what, Apply) and what.op is _CAST and dict(what.attrs)["dtype"] is store.stored:
        (argument,) = what.args
        if lowered.instructions[argument].dtype is DType.float32 and store.stored not in C_TYPES:
            number = argument
    return scalar_name(lowered.instructions, number)


@dataclass(frozen=True, slots=True)
class Results:
    """The text around a loop over a block, for what it stores.

    Attributes:
        before: Says where the block of each output is.
        stores: Write an element.
        after: Copies blocks to memory, where that was not where the loop wrote to.
    """

    before: list[str]
    stores: list[str]
    after: list[str]


def results(
    lowered: Lowered,
    loop: Loop,
    first: str,
    count: str,
    size: int,
    at: str,
    halves: Sequence[DType],
) -> Results:
    """Returns the text for the outputs that differ along a loop.

    Args:
        lowered: The kernel.
        loop: The loop.
        first: The variable with the first element of the block.
        count: How many elements it has.
        size: At most so many.
        at: The place of an element in its block.
        halves: The dtypes that are converted block by block.
    """
    found = Results([], [], [])
    for store in lowered.stores:
        if store.index.factor(loop) != 1:
            continue
        number, kind = store.buffer, storage_type(store.stored)
        place = f"b{number} + ({index_text(start_of(store.index, loop, first))})"
        found.before.append(f"_Alignas(64) {kind} s{number}[{size}];")
        found.before.append(f"{kind} *const o{number} = mm_stream ? s{number} : {place};")
        name = _stored_name(lowered, store)
        if store.stored in halves:
            found.before.append(f"_Alignas(64) float f{number}[{size}];")
            found.stores.append(f"f{number}[{at}] = {name};")
            found.after.append(f"mm_narrow_{store.stored.name}(o{number}, f{number}, {count});")
        else:
            found.stores.append(f"o{number}[{at}] = {stored(store.stored, name)};")
        copy = f"mm_stream_row({place}, s{number}, (size_t)({count}) * sizeof *s{number});"
        found.after.extend(["if (mm_stream)", f"    {copy}"])
    return found


# ---- operands ------------------------------------------------------------------------------------


def start_of(index: Index, loop: Loop, first: str) -> Index:
    """Returns an index with a loop variable replaced by another variable, or by 0."""
    start = Index() if first == "0" else Index(((Loop(first, loop.extent), 1),))
    return index.substituted({loop: start})


def neighbours(lowered: Lowered, loop: Loop, numbers: Iterable[int]) -> dict[int, Load]:
    """Returns the loads that read neighbours along a loop, at a place that no data decides."""
    whats = ((number, lowered.instructions[number].what) for number in sorted(numbers))
    return {
        number: what
        for number, what in whats
        if isinstance(what, Load) and not what.index.data and what.index.factor(loop) == 1
    }


def widened(number: int, load: Load, source: str, count: str) -> str:
    """Returns the statement that makes floats of type float32 of a block of narrow ones."""
    return f"mm_widen_{load.stored.name}(h{number}, {source}, {count});"
