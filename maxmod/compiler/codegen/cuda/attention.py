"""CUDA C: attention, the generated part of the files `kernels/cuda/attention_*.h`.

Which of the kernels is used is decided in `maxmod.compiler.choose_kernels`.
"""

from __future__ import annotations

import math
from dataclasses import replace

from maxmod.compiler.choose_kernels import FEW_QUERIES, LONGEST_MMA_HEAD, half_type
from maxmod.compiler.codegen.attention import LoweredAttention, lower_attention
from maxmod.compiler.codegen.cuda.text import VECTOR_NBYTES, multiple_of
from maxmod.compiler.codegen.element import ElementLowering, Text, template_source
from maxmod.compiler.codegen.emit import index_text, loaded, statement, storage_type
from maxmod.compiler.codegen.masks import open_test
from maxmod.compiler.groups.group import Attention, FusionGroup
from maxmod.compiler.groups.instructions import Apply, Load
from maxmod.dtype import DType
from maxmod.kernel.source import WARP, Dialect, KernelSource, Launch
from maxmod.op import is_op
from maxmod.op.affine import Index, Loop
from maxmod.ops.elementwise import cast_elements
from maxmod.values.dim import Size, as_dim, as_size
from maxmod.values.shape import product

FEW_THREADS = 128
FEW_INVERSE = 5  # 168 registers per thread allow 384 of the 2048 threads of an SM
MANY_THREADS = 128
MANY_INVERSE = 5
CHUNK = 128  # elements of a key that are staged at once
WANTED_TASKS = 264  # the keys are never split into more parts, see the kernel
MAX_ROWS = 8  # of a task
MAX_SUMS = 32  # that a lane keeps, in registers
MMA_WARPS = 4
MMA_TILE = 16  # rows and columns of the matrices that a tensor core takes
# (largest head size, query tiles per warp, keys staged at once). More queries per load of keys are
# better; the limits are the sums in registers and 48 KB of shared memory, which every GPU has
# without opting in to more.
MMA_SHAPES = ((80, 2, 64), (96, 2, 48), (128, 2, 32), (192, 1, 32), (LONGEST_MMA_HEAD, 1, 16))


def shared_rows(lowered: LoweredAttention) -> tuple[list[Loop], list[Loop]]:
    """Returns the loops that keys and values depend on, and those whose queries share them."""
    operands = (lowered.k[0], lowered.v[0])
    indices = [index for operand in operands for index in operand.indices()]
    members = [
        loop
        for loop in lowered.loops
        if isinstance(loop.extent, int) and all(index.factor(loop) == 0 for index in indices)
    ]
    return [loop for loop in lowered.loops if loop not in members], members


def query_rows(group: FusionGroup, attention: Attention) -> Size:
    """Returns how many queries attend to the same keys."""
    lowered = lower_attention(group, attention)
    _, members = shared_rows(lowered)
    return as_size(as_dim(product(loop.extent for loop in members)) * as_dim(lowered.i.extent))


def emit_few(group: FusionGroup, attention: Attention, name: str) -> KernelSource:
    """Returns the CUDA kernel of an attention group for up to `FEW_QUERIES` rows."""
    lowered = lower_attention(group, attention)
    outer, members = shared_rows(lowered)
    sharing = math.prod(int(loop.extent) for loop in members)
    rows = as_size(as_dim(lowered.i.extent) * sharing)
    key, value = _stored(*lowered.k, lowered.d), _stored(*lowered.v, lowered.e)
    known_rows = rows if isinstance(rows, int) else sharing
    together, lanes, pieces, width = _few_shape(lowered, known_rows, _width(lowered, key, value))
    text = Text(group, lowered.loops, lowered.symbols(), Dialect.CUDA, ("float", "uint32_t"))
    text.count("mm_batches", (loop.extent for loop in outer))
    text.place(("batch", outer), ("member", members))
    lowered.write(text, group, attention)
    _pointer(text, "mm_key", "j", key)
    _pointer(text, "mm_value", "j", value)
    _write_query(text, lowered, width)
    _write_scratch(text)
    for constant, number in (
        ("MM_DEPTH", lowered.depth),
        ("MM_VALUES", lowered.width),
        ("MM_MEMBERS", sharing),
        ("MM_ROWS", together),
        ("MM_LANES", lanes),
        ("MM_PIECES", pieces),
        ("MM_WIDTH", width),
        ("MM_AHEAD", 4),
        ("MM_KEY_IS_STORED", int(key is not None)),
        ("MM_VALUE_IS_STORED", int(value is not None)),
    ):
        text.define(constant, number)
    text.lines.append("")
    most_rows = rows if isinstance(rows, int) else FEW_QUERIES
    tasks = as_size(as_dim(product(loop.extent for loop in outer)) * -(-most_rows // together))
    teams = FEW_THREADS // lanes
    shared = 4 * teams * together * (lowered.width + 2) + 16
    room = as_size(as_dim(tasks) + WANTED_TASKS)
    launch = Launch(room, 1, FEW_THREADS, shared, inverse_occupancy=FEW_INVERSE)
    files = ("cuda/memory.h", "cuda/pieces.h", "cuda/attention_few.h")
    source = template_source(text, group, name, files, launch)
    floats = as_size(as_dim(room) * (together * (lowered.width + 2)))
    return replace(source, scratch_floats=floats, counters=tasks)


def _write_scratch(text: Text) -> None:
    """Adds where parts of results are, and how many parts have arrived: the last two buffers."""
    scratch = text.buffer_count - 2
    text.plain("float *", "mm_partial", "", f"g.b{scratch}")
    text.plain("uint32_t *", "mm_arrived", "", f"g.b{scratch + 1}")


def _few_shape(lowered: LoweredAttention, rows: int, width: int) -> tuple[int, int, int, int]:
    """Returns the rows of a task, the lanes that share a key, the pieces of it that each of them
    takes, and the elements of a piece.

    Args:
        lowered: The attention.
        rows: How many rows there are, or a number that divides it.
        width: How many elements can be read at once.
    """
    longest = max(lowered.depth, lowered.width)
    wanted = min(_power_above(rows), MAX_ROWS)
    lanes = _lanes(longest, width)
    while lanes < WARP and width > 1 and wanted * width > MAX_SUMS:
        width //= 2
        lanes = _lanes(longest, width)
    pieces = -(-longest // (lanes * width))
    together = min(wanted, _power_below(MAX_SUMS // (pieces * width)))
    return together, lanes, pieces, width


def emit_many(group: FusionGroup, attention: Attention, name: str) -> KernelSource:
    """Returns the CUDA kernel of an attention group for any number of queries."""
    lowered = lower_attention(group, attention)
    text = Text(group, lowered.loops, lowered.symbols(), Dialect.CUDA)
    heads = product(loop.extent for loop in lowered.loops)
    text.count("mm_batches", (loop.extent for loop in lowered.loops))
    text.place()
    lowered.write(text, group, attention)
    longest = max(lowered.depth, lowered.width)
    warp_rows = 8 if longest <= CHUNK else 4 if longest <= 2 * CHUNK else 2
    text.define("MM_DEPTH", lowered.depth)
    text.define("MM_VALUES", lowered.width)
    text.define("MM_WARP_ROWS", warp_rows)
    text.lines.append("")
    rows = warp_rows * MANY_THREADS // WARP
    pitch = -(-lowered.depth // 4) * 4
    shared = 4 * (rows * (pitch + WARP) + CHUNK * (WARP + 1))
    tasks = as_size(as_dim(heads) * as_dim(lowered.i.extent))
    launch = Launch(tasks, rows // 2, MANY_THREADS, shared, inverse_occupancy=MANY_INVERSE)
    files = ("cuda/memory.h", "cuda/attention_many.h")
    return template_source(text, group, name, files, launch)


def emit_mma(group: FusionGroup, attention: Attention, name: str) -> KernelSource:
    """Returns the CUDA kernel of an attention group of a half type for any number of queries."""
    lowered = lower_attention(group, attention)
    dtype = half_type(group, attention)
    assert dtype is not None
    text = Text(group, lowered.loops, lowered.symbols(), Dialect.CUDA)
    heads = product(loop.extent for loop in lowered.loops)
    text.count("mm_batches", (loop.extent for loop in lowered.loops))
    text.place()
    lowered.write(text, group, attention)
    _write_open_score(text, lowered)
    is_stored = _write_operands(text, lowered, dtype)
    depth, width = (-(-size // MMA_TILE) * MMA_TILE for size in (lowered.depth, lowered.width))
    longest = max(depth, width)
    tiles, keys = next(shape[1:] for shape in MMA_SHAPES if longest <= shape[0])
    rows = MMA_WARPS * MMA_TILE * tiles
    for constant, number in (
        ("MM_DEPTH", lowered.depth),
        ("MM_VALUES", lowered.width),
        ("MM_BFLOAT", int(dtype is DType.bfloat16)),
        ("MM_TILES", tiles),
        ("MM_KEYS", keys),
        *((f"MM_{operand.upper()}_IS_STORED", int(known)) for operand, known in is_stored.items()),
    ):
        text.define(constant, number)
    text.lines.append("")
    shared = 2 * (rows * depth + keys * (depth + width))
    tasks = as_size(as_dim(heads) * as_dim(lowered.i.extent))
    # A block for each task where the device can hold them, so that it balances them.
    launch = Launch(tasks, rows // 2, MMA_WARPS * WARP, shared)
    files = ("cuda/mma.h", "cuda/attention_mma.h")
    return template_source(text, group, name, files, launch)


def _write_open_score(text: Text, lowered: LoweredAttention) -> None:
    """Adds a test if nothing in a block of scores is masked, and what a score is then."""
    test, opened = open_test(*lowered.logit, lowered.i, lowered.j)
    limits = ", int64_t i0, int64_t i1, int64_t j0, int64_t j1"
    text.raw("bool", "mm_is_open", limits, text.with_pointers(test))
    parameters = ", int64_t i, int64_t j, float given"
    text.function("mm_open_score", parameters, opened, lowered.logit[1])


def _write_operands(text: Text, lowered: LoweredAttention, dtype: DType) -> dict[str, bool]:
    """Adds where queries, keys and values are; returns which of them can be copied as they are."""
    is_stored: dict[str, bool] = {}
    for operand, row, (what, number), inner in (
        ("query", "i", lowered.q, lowered.d),
        ("key", "j", lowered.k, lowered.d),
        ("value", "j", lowered.v, lowered.e),
    ):
        place = _aligned(_stored(what, number, inner), dtype)
        is_stored[operand] = place is not None
        _pointer(text, f"mm_{operand}", row, place, dtype)
    return is_stored


def _aligned(operand: tuple[Load, Loop] | None, dtype: DType) -> tuple[Load, Loop] | None:
    """Returns the place of an operand if eight neighbours can be copied as they are stored."""
    if operand is None:
        return None
    load, inner = operand
    sizes: list[Size] = [load.index.const, *(f for loop, f in load.index.terms if loop != inner)]
    assert isinstance(inner.extent, int)
    width = VECTOR_NBYTES // dtype.size_in_bytes
    fits = all(multiple_of(size, width) == "true" for size in [*sizes, inner.extent])
    return operand if fits and load.stored is dtype and load.index.factor(inner) == 1 else None


def _stored(lowering: ElementLowering, number: int, inner: Loop) -> tuple[Load, Loop] | None:
    """Returns the load that gives an element as it is stored, if neighbours are neighbours."""
    what = lowering.instructions[number].what
    while isinstance(what, Apply) and is_op(what.op, cast_elements):
        target = dict(what.attrs)["dtype"]
        inside = lowering.instructions[what.args[0]].what
        is_same = isinstance(inside, Load) and inside.stored is target
        if not (target is DType.float32 or is_same):
            return None
        what = inside
    if isinstance(what, Load) and not what.index.data and what.index.factor(inner) in (0, 1):
        known = what.stored in (DType.float32, DType.float16, DType.bfloat16)
        return (what, inner) if known else None
    return None


def _width(lowered: LoweredAttention, *operands: tuple[Load, Loop] | None) -> int:
    """Returns how many elements of a key or value a lane takes at once.

    At least eight lanes share a key, so that they can share the work on its scores.
    """
    loads = [operand for operand in operands if operand is not None]
    itemsize = max((load.stored.size_in_bytes for load, _ in loads), default=4)
    sizes: list[Size] = [lowered.depth, lowered.width]
    for load, inner in loads:
        sizes += [load.index.const, *(f for loop, f in load.index.terms if loop != inner)]
    width = VECTOR_NBYTES // itemsize
    while width > 1 and not all(multiple_of(size, width) == "true" for size in sizes):
        width //= 2
    while width > 1 and max(lowered.depth, lowered.width) < 8 * width:
        width //= 2
    return width


def _lanes(longest: int, width: int) -> int:
    """Returns how many lanes share a key."""
    return min(max(_power_above(-(-longest // width)), 8), WARP)


def _power_above(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()


def _power_below(count: int) -> int:
    return 1 << (max(count, 1).bit_length() - 1)


def _write_query(text: Text, lowered: LoweredAttention, most: int) -> None:
    """Adds how neighbouring elements of a query are read together, if they are stored: at most
    `most` of them. What is done to each element follows.
    """
    lowering, number = lowered.q
    numbers = lowering.needed(number)
    loads = lowering.loads(numbers)
    width = _query_width(lowered, loads[0]) if len(loads) == 1 else 1
    whats = [lowering.instructions[n].what for n in numbers]
    if not all(isinstance(w, Load) or (isinstance(w, Apply) and w.index is None) for w in whats):
        width = 1
    text.define("MM_QUERY_WIDTH", min(width, most))
    if min(width, most) == 1:
        return
    text.lines.append("#define MM_QUERY_IS_STORED")
    (load,) = loads
    place = f"g.b{load.buffer} + ({index_text(load.index)})"
    kind = storage_type(load.stored)
    text.lines += [f"typedef {kind} mm_query_type;", ""]
    text.raw(f"const {kind} *", "mm_query", ", int64_t i, int64_t d", [f"return {place};"])
    body: list[str] = []
    for n in numbers:
        is_load = isinstance(lowering.instructions[n].what, Load)
        given = loaded(load.stored, "given") if is_load else ""
        body += statement(lowering.instructions, n, given, lowering.prefix)
    result = f"return {lowering.name(number)};"
    text.raw("float", "mm_query_load", f", {kind} given", [*body, result])


def _query_width(lowered: LoweredAttention, load: Load) -> int:
    """Returns how many elements of a query can be read at once: 16 bytes of them, or one."""
    if load.index.factor(lowered.d) != 1 or load.index.data:
        return 1
    sizes: list[Size] = [lowered.depth, load.index.const]
    sizes += [factor for loop, factor in load.index.terms if loop != lowered.d]
    width = VECTOR_NBYTES // load.stored.size_in_bytes
    return width if all(multiple_of(size, width) == "true" for size in sizes) else 1


def _pointer(
    text: Text,
    name: str,
    row: str,
    operand: tuple[Load, Loop] | None,
    made: DType = DType.float32,
) -> None:
    """Adds the type of an operand, `made` if it is not stored, and a pointer to an element."""
    dtype = made if operand is None else operand[0].stored
    text.converters(name, dtype)
    kind = storage_type(dtype)
    place = "nullptr"
    if operand is not None:
        index: Index = operand[0].index
        place = f"g.b{operand[0].buffer} + ({index_text(index)})"
    inner = "d" if operand is None else operand[1].name
    text.raw(f"const {kind} *", name, f", int64_t {row}, int64_t {inner}", [f"return {place};"])
