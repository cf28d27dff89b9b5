"""CUDA C: row kernels.

Short rows belong to a warp or a part of one, longer rows to a block. Values that several loops over
a row need stay in registers where the length is known and small enough, else in shared memory where
they fit, else they are recomputed. Partial results are always joined in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maxmod.compiler.codegen.cuda.text import (
    Span,
    Width,
    arguments,
    count_text,
    index_type,
    loop_variables,
    named_extents,
    parameters,
    span_width,
)
from maxmod.compiler.codegen.emit import (
    accumulated,
    bare,
    block,
    combined,
    compute_type,
    function,
    index_text,
    scalar_name,
    size_text,
    start_value,
    statement,
    stored_text,
)
from maxmod.compiler.codegen.rows import Keep, Phase, RowPlan, plan_rows
from maxmod.compiler.groups.instructions import Lowered, Reduction
from maxmod.kernel.source import SHARED_NBYTES, WARP, Launch
from maxmod.op.affine import Loop, Unfusable
from maxmod.values.dim import Size, as_dim, as_size
from maxmod.values.shape import product

WARP_ROW = 1024  # longer rows get a block: 32 elements for each thread of a warp
WARP_THREADS = 256  # of a block that works on several rows
LOOP_BLOCKS = 2  # on an SM, where a loop is not unrolled: 64 registers per thread
KEPT_PER_THREAD = 16  # elements of a row that a thread of a block works on, if it can be chosen
MAX_THREADS = 512  # of a block: 128 registers for each
REGISTERS = 48  # of them for kept values; with 64, loads of weights are spilled


@dataclass(frozen=True, slots=True)
class _Team:
    """The threads that work on one row.

    Attributes:
        lanes: Their number; 0 if it is the whole block, of unknown size.
        threads: Threads of a block.
        steps: Spans that each thread handles if the row stays in registers, else 0.
        is_block: True if the team is the block.
    """

    lanes: int
    threads: int
    steps: int
    is_block: bool


def row_kernel(lowered: Lowered) -> tuple[list[str], list[str], Launch, str]:
    """Returns helper functions, the body of the entry function, the launch rule, and its bounds."""
    assert lowered.row is not None
    plan = plan_rows(lowered, Keep.ALL)
    width = span_width(lowered, lowered.row, needs_whole=True)
    team = None if width.conditions else _register_team(lowered, plan, width)
    rows = product(loop.extent for loop in lowered.loops)
    joins = _joins(lowered, team is None or team.is_block)
    if team is not None:
        constants = [f"constexpr int V = {width.elements};"] if width.elements > 1 else []
        body = [*constants, *_rows(lowered, plan, team, width.elements)]
        launch = Launch(rows, 1 if team.is_block else team.threads // team.lanes, team.threads)
        # The minimum of blocks per SM, or the compiler would limit registers for more.
        return joins, body, launch, f"{team.threads}, {MAX_THREADS // team.threads}"
    return _looping(lowered, plan, width, rows, joins)


def _register_team(lowered: Lowered, plan: RowPlan, width: Width) -> _Team | None:
    """Chooses the threads for a row that stays in registers, or None if it does not."""
    assert lowered.row is not None
    extent = lowered.row.extent
    if not isinstance(extent, int):
        return None
    words = sum(nbytes for _, nbytes in _slots(lowered, plan).values()) // 4
    if extent <= WARP_ROW:
        spans = -(-extent // width.elements)
        lanes = min(WARP, _power_of_two(spans))
        team = _Team(lanes, WARP_THREADS, -(-spans // lanes), False)
        if team.steps * width.elements * words <= REGISTERS:
            return team
    threads = min(max(_power_of_two(-(-extent // KEPT_PER_THREAD)), 128), MAX_THREADS)
    steps = -(-extent // (threads * width.elements))
    if steps * width.elements * max(words, 1) > REGISTERS:
        return None
    return _Team(threads, threads, steps, True)


def staged_row(lowered: Lowered, threads: int) -> tuple[list[str], list[str]]:
    """Returns helper functions, and the text that computes row `mm_row` by all threads of a block.

    Raises:
        Unfusable: If the row does not stay in their registers.
    """
    row = _row(lowered)
    plan = plan_rows(lowered, Keep.ALL)
    width = span_width(lowered, row, needs_whole=True)
    if not isinstance(row.extent, int) or width.conditions:
        raise Unfusable("the length of its rows is symbolic")
    words = sum(nbytes for _, nbytes in _slots(lowered, plan).values()) // 4
    steps = -(-row.extent // (threads * width.elements))
    if steps * width.elements * max(words, 1) > REGISTERS:
        raise Unfusable("its rows do not fit in the registers of a block")
    team = _Team(threads, threads, steps, True)
    kind = index_type(lowered)
    lines = [f"constexpr int V = {width.elements};"] if width.elements > 1 else []
    lines += ["const int mm_lane = threadIdx.x;", *_part_arrays(lowered, team)]
    lines += loop_variables(named_extents(lowered.loops), kind, "mm_row")
    lines += _phases(lowered, plan, team, Span(lowered, row, kind, width.elements))
    return _joins(lowered, is_block=True), lines


def _power_of_two(number: int) -> int:
    """Returns the smallest power of two that is not below a number."""
    return 1 << max(number - 1, 0).bit_length()


def _slots(lowered: Lowered, plan: RowPlan) -> dict[int, tuple[int, int]]:
    """Gives kept values a slot: (number of the slot, bytes of an element).

    Two values share a slot if one is last read in the loop that writes the other: each thread
    reads only what it wrote itself, and reads before it writes.
    """
    phases = plan.phases
    first = {n: number for number, phase in enumerate(phases) for n in phase.keeps}
    last = {n: number for number, phase in enumerate(phases) for n in phase.body if n in first}
    places: list[tuple[str, int, int]] = []  # type, bytes, last use
    found: dict[int, tuple[int, int]] = {}
    for n in sorted(first, key=lambda n: (first[n], n)):
        dtype = lowered.instructions[n].dtype
        kind = compute_type(dtype)
        nbytes = dtype.size_in_bytes
        for place, (other, _, until) in enumerate(places):
            if other == kind and until <= first[n]:
                places[place] = (kind, nbytes, last[n])
                found[n] = (place, 0)  # counted already
                break
        else:
            found[n] = (len(places), max(nbytes, 4))
            places.append((kind, nbytes, last[n]))
    return found


# ---- rows of any length --------------------------------------------------------------------------


def _looping(
    lowered: Lowered, plan: RowPlan, width: Width, rows: Size, joins: list[str]
) -> tuple[list[str], list[str], Launch, str]:
    """A block for each row; kept values are in shared memory if they fit."""
    assert lowered.row is not None
    extent = lowered.row.extent
    is_known = isinstance(extent, int)
    team = _Team(0, MAX_THREADS, 0, True)
    slots = _slots(lowered, plan)
    per_element = sum(nbytes for _, nbytes in slots.values())
    shared = as_size(as_dim(extent) * as_dim(per_element))
    versions: list[tuple[str, str]] = []  # (condition, function name)
    helpers = list(joins)
    if slots and (not is_known or (isinstance(shared, int) and shared <= SHARED_NBYTES)):
        condition = "" if is_known else f"{size_text(shared)} <= {SHARED_NBYTES}"
        versions.append((condition, "mm_rows_kept"))
        helpers += _rows_function("mm_rows_kept", lowered, plan, team, width.elements)
    else:
        shared = 0
    if not versions or versions[0][0]:
        versions.append(("", "mm_rows"))
        again = plan_rows(lowered, Keep.NOTHING)
        helpers += _rows_function("mm_rows", lowered, again, team, width.elements)
    launch = Launch(rows, 1, team.threads, shared, 0 if is_known else extent)
    bounds = f"{team.threads}, {LOOP_BLOCKS}"
    return helpers, _choice(versions, width, arguments(lowered)), launch, bounds


def _rows_function(
    name: str, lowered: Lowered, plan: RowPlan, team: _Team, elements: int
) -> list[str]:
    template = "template <int V>\n" if elements > 1 else ""
    head = f"{template}static __device__ __forceinline__ void {name}"
    body = _rows(lowered, plan, team, elements)
    return [*function(head, parameters(lowered), body), ""]


def _choice(versions: Sequence[tuple[str, str]], width: Width, passed: str) -> list[str]:
    """Calls the version that fits the sizes of this launch."""
    lines: list[str] = []
    vectors = " && ".join(width.conditions)
    for condition, name in versions:
        call = [f"{name}({passed});"]
        if width.elements > 1:
            call = [f"{name}<{width.elements}>({passed});"]
            if vectors:
                call = [
                    f"if ({vectors})",
                    f"    {name}<{width.elements}>({passed});",
                    "else",
                    f"    {name}<1>({passed});",
                ]
        if condition:
            lines += [*block(f"if ({condition})", [*call, "return;"])]
        else:
            lines += call
    return lines


# ---- the loop over rows --------------------------------------------------------------------------


def _rows(lowered: Lowered, plan: RowPlan, team: _Team, elements: int) -> list[str]:
    """Returns the text that handles all rows of a block."""
    kind = index_type(lowered)
    rows = count_text(lowered.loops, kind)
    body: list[str] = []
    lines: list[str] = []
    if team.is_block:
        if team.steps:
            lines.append("const int mm_lane = threadIdx.x;")
        head = f"for ({kind} mm_row = blockIdx.x; mm_row < {rows}; mm_row += gridDim.x)"
        counter = "mm_row"
    else:
        per_block = team.threads // team.lanes
        lines.append(f"const int mm_lane = threadIdx.x % {team.lanes};")
        head = (
            f"for ({kind} mm_base = ({kind})blockIdx.x * {per_block}; mm_base < {rows}; "
            f"mm_base += ({kind})gridDim.x * {per_block})"
        )
        body += [
            f"{kind} mm_row = mm_base + threadIdx.x / {team.lanes};",
            f"mm_row = mm_row < {rows} ? mm_row : {rows} - 1;  // too many threads: repeat a row",
        ]
        counter = "mm_row"
    lines += _part_arrays(lowered, team)
    lines += _kept_arrays(lowered, plan, team)
    body += loop_variables(named_extents(lowered.loops), kind, counter)
    body += _phases(lowered, plan, team, Span(lowered, _row(lowered), kind, elements))
    body += _statements(lowered, plan.after)
    body += _row_results(lowered, team)
    if team.is_block and len(_reductions(lowered)) == 1:
        body.append("__syncthreads();  // the partial results are written again for the next row")
    return [*lines, *block(head, body)]


def _phases(lowered: Lowered, plan: RowPlan, team: _Team, span: Span) -> list[str]:
    """Returns the text of all loops over a row."""
    lines: list[str] = []
    kept: set[int] = set()
    for phase in plan.phases:
        lines += _phase(lowered, phase, kept, team, span)
        kept.update(phase.keeps)
    return lines


def _row(lowered: Lowered) -> Loop:
    assert lowered.row is not None
    return lowered.row


def _reductions(lowered: Lowered) -> list[tuple[int, Reduction]]:
    return [
        (number, i.what)
        for number, i in enumerate(lowered.instructions)
        if isinstance(i.what, Reduction)
    ]


def _part_arrays(lowered: Lowered, team: _Team) -> list[str]:
    """Declares a slot for the partial result of each warp, for each reduction."""
    if not team.is_block:
        return []
    return [
        f"__shared__ {compute_type(lowered.instructions[n].dtype)} mm_part{n}[{WARP}];"
        for n, _ in _reductions(lowered)
    ]


def _kept_arrays(lowered: Lowered, plan: RowPlan, team: _Team) -> list[str]:
    """Declares the arrays of kept values, in registers or in shared memory."""
    slots = _slots(lowered, plan)
    if team.steps or not slots:
        return []
    extent = size_text(_row(lowered).extent)
    offsets: dict[int, int] = {}
    taken = 0
    # Wide types first, so that every slot is aligned.
    for n in sorted(slots, key=lambda n: -slots[n][1]):
        place, nbytes = slots[n]
        if nbytes:
            offsets[place] = taken
            taken += nbytes
    lines = ["extern __shared__ __align__(16) unsigned char mm_shared[];"]
    for n, (place, _) in slots.items():
        kind = compute_type(lowered.instructions[n].dtype)
        start = f"mm_shared + {offsets[place]} * {extent}" if offsets[place] else "mm_shared"
        lines.append(f"{kind} *const e{n} = reinterpret_cast<{kind} *>({start});")
    return lines


def _phase(lowered: Lowered, phase: Phase, kept: set[int], team: _Team, span: Span) -> list[str]:
    """Returns the text of one loop over the row, and of joining the partial results."""
    lines = _statements(lowered, phase.before)
    reductions = {n: what for n, what in _reductions(lowered) if n in phase.reductions}
    for number, what in reductions.items():
        dtype = lowered.instructions[number].dtype
        lines.append(f"{compute_type(dtype)} r{number} = {bare(start_value(what, dtype))};")
    if team.steps:
        lines += _register_arrays(lowered, phase, team, span)
    row = _row(lowered)
    stores = [s for s in lowered.stores if s.index.factor(row) != 0] if phase.writes_outputs else []
    index = _kept_index(lowered, team, span)
    given = {number: f"e{number}[{index}]" for number in phase.body if number in kept}
    then = [f"e{number}[{index}] = t{number};" for number in phase.keeps]
    for number, what in reductions.items():
        element = scalar_name(lowered.instructions, what.arg)
        then.append(accumulated(what, f"r{number}", element))
    body = span.lines(phase.body, stores, given, then)
    if team.steps:
        needs_position = span.needs_position(phase.body, stores, given)
        lines += _unrolled_loop(lowered, team, span, body, needs_position)
    else:
        lines += _strided_loop(lowered, span, body)
    for number, what in reductions.items():
        start = start_value(what, lowered.instructions[number].dtype)
        lines += statement(lowered.instructions, number, _joined(what, number, start, team))
    return lines


def _statements(lowered: Lowered, numbers: Sequence[int]) -> list[str]:
    """Returns the statements of instructions that are the same in every span."""
    return [line for number in numbers for line in statement(lowered.instructions, number)]


def _register_arrays(lowered: Lowered, phase: Phase, team: _Team, span: Span) -> list[str]:
    size = f"{team.steps} * V" if span.is_vector else f"{team.steps}"
    return [
        f"{compute_type(lowered.instructions[n].dtype)} e{n}[{size}];  // kept in registers"
        for n in phase.keeps
    ]


def _kept_index(lowered: Lowered, team: _Team, span: Span) -> str:
    """Returns the position of a kept value; neighbouring threads use neighbouring slots."""
    if team.steps:
        return "mm_j * V + mm_k" if span.is_vector else "mm_j"
    if not span.is_vector:
        return "mm_i"
    return f"mm_k * ({size_text(_row(lowered).extent)} / V) + mm_i / V"


def _unrolled_loop(
    lowered: Lowered, team: _Team, span: Span, body: Sequence[str], needs_position: bool
) -> list[str]:
    """A short loop of known length, unrolled so that kept values stay in registers."""
    extent = _row(lowered).extent
    first = f"(mm_j * {team.lanes} + mm_lane)" if team.steps > 1 else "mm_lane"
    start = f"const int mm_i = {first}{' * V' if span.is_vector else ''};"
    inside = list(body)
    if extent != team.steps * team.lanes * span.elements:
        inside = block(f"if (mm_i < {extent})", body)
        needs_position = True
    head = f"for (int mm_j = 0; mm_j < {team.steps}; mm_j++)"
    return ["#pragma unroll", *block(head, [start, *inside] if needs_position else inside)]


def _strided_loop(lowered: Lowered, span: Span, body: Sequence[str]) -> list[str]:
    """A loop over a row of any length."""
    extent = size_text(_row(lowered).extent)
    v = " * V" if span.is_vector else ""
    start = f"({span.kind})threadIdx.x{v}"
    head = f"for ({span.kind} mm_i = {start}; mm_i < {extent}; mm_i += blockDim.x{v})"
    unroll = "#pragma unroll 2" if span.elements <= 4 else "#pragma unroll 1"
    return [unroll, *block(head, body)]


def _row_results(lowered: Lowered, team: _Team) -> list[str]:
    """Writes the outputs that have one element for each row."""
    writes = [
        f"b{store.buffer}[{index_text(store.index)}] = {stored_text(lowered, store)};"
        for store in lowered.stores
        if store.index.factor(_row(lowered)) == 0
    ]
    if not writes:
        return []
    return block("if (threadIdx.x == 0)" if team.is_block else "if (mm_lane == 0)", writes)


# ---- joining partial results ---------------------------------------------------------------------


def _joined(what: Reduction, number: int, start: str, team: _Team) -> str:
    if team.is_block:
        return f"mm_block_{what.op.lowering.combine}(r{number}, {start}, mm_part{number})"
    return (
        f"r{number}"
        if team.lanes == 1
        else f"mm_warp_{what.op.lowering.combine}<{team.lanes}>(r{number})"
    )


def _joins(lowered: Lowered, is_block: bool) -> list[str]:
    """Defines a function for each kind of reduction; every thread of the team gets the result."""
    lines: list[str] = []
    for what in {what.op.lowering.combine: what for _, what in _reductions(lowered)}.values():
        lines += [
            "template <int LANES, typename T>",
            f"static __device__ __forceinline__ T mm_warp_{what.op.lowering.combine}(T mm_mine)",
            "{",
            "#pragma unroll",
            "    for (int mm_lane = LANES / 2; mm_lane > 0; mm_lane /= 2) {",
            "        const T mm_other = (T)__shfl_xor_sync(0xffffffffu, mm_mine, mm_lane);",
            f"        mm_mine = {combined(what, 'mm_mine', 'mm_other')};",
            "    }",
            "    return mm_mine;",
            "}",
            "",
        ]
        if is_block:
            lines += [
                "template <typename T>",
                f"static __device__ __forceinline__ T mm_block_{what.op.lowering.combine}"
                "(T mm_mine, T mm_start, T *mm_parts)",
                "{",
                f"    mm_mine = mm_warp_{what.op.lowering.combine}<{WARP}>(mm_mine);",
                f"    if (threadIdx.x % {WARP} == 0)",
                f"        mm_parts[threadIdx.x / {WARP}] = mm_mine;",
                "    __syncthreads();",
                f"    const int mm_warp = threadIdx.x % {WARP};",
                f"    mm_mine = mm_warp < blockDim.x / {WARP} ? mm_parts[mm_warp] : mm_start;",
                f"    return mm_warp_{what.op.lowering.combine}<{WARP}>(mm_mine);",
                "}",
                "",
            ]
    return lines
