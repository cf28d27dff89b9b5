"""CUDA C: products of a few rows with a matrix, the generated part of `kernels/cuda/gemv.h`."""

from __future__ import annotations

from maxmod.compiler.choose_kernels import MOST_GEMV_ROWS
from maxmod.compiler.codegen.contraction import Codes, LoweredContraction, lower_contraction
from maxmod.compiler.codegen.cuda.text import VECTOR_NBYTES, multiple_of
from maxmod.compiler.codegen.element import Text, template_source
from maxmod.compiler.groups.group import Contraction, FusionGroup
from maxmod.kernel.source import WARP, Dialect, KernelSource, Launch
from maxmod.values.dim import Size
from maxmod.values.shape import product

THREADS = 256
WARPS = 8
INVERSE_OCCUPANCY = 4  # 128 registers per thread allow 512 of the 2048 threads of an SM
FULL = 256  # blocks: about 2 per SM of an H100, which has 132
STAGED_NBYTES = 24 << 10  # of the left operand, in shared memory
ALIGNMENT = 128  # of the shared memory: 32 floats are read from it together
SEGMENT_NBYTES = 64  # smaller accesses waste memory bandwidth


def emit_gemv(group: FusionGroup, contraction: Contraction, name: str) -> KernelSource:
    """Returns the CUDA kernel of a contraction group, for up to `MOST_GEMV_ROWS` rows."""
    lowered = lower_contraction(group, contraction)
    # kernels/cuda/quantized.h comes between sums and what is done to them.
    finish = "mm_finish" if lowered.codes is None else "mm_finish_sum"
    text = lowered.text(group, Dialect.CUDA, finish)
    if len(lowered.parts) > 1:
        _write_finish(text, lowered, finish)
    rows = product(loop.extent for loop in lowered.loops)
    left, right = contraction.product.inputs[0].type.dtype, lowered.right.stored
    text.converters("mm_left", left)
    text.converters("mm_right", right)
    width, right_file = _width(lowered), "cuda/right.h"
    if lowered.codes is not None:
        right_file = "cuda/quantized.h"
        _write_codes(text, lowered.codes, width)
        width *= lowered.codes.per_byte
    is_by_depth = lowered.is_by_depth
    warp_columns, team = _by_depth_shape(lowered.columns, rows, lowered.is_pair)
    if lowered.codes is not None:
        warp_columns = 1  # the floats of two columns would not fit the registers
    across = _lanes_across(lowered.columns, width, right.size_in_bytes)
    columns = WARPS // team * warp_columns if is_by_depth else across * width
    most = rows if isinstance(rows, int) else MOST_GEMV_ROWS
    padded = 1 if most == 1 else 4 if most <= 4 else 8
    # At least one step of a warp, for each row.
    staged_nbytes = max(STAGED_NBYTES, padded * WARP * width * left.size_in_bytes)
    for constant, value in (
        ("MM_RIGHT_WIDTH", width),
        ("MM_RIGHT_BY_DEPTH", int(is_by_depth)),
        ("MM_WARP_COLUMNS", warp_columns),
        ("MM_TEAM", team),
        ("MM_ACROSS", across),
        ("MM_FEWEST_ROWS", rows if isinstance(rows, int) else 1),
        ("MM_MOST_ROWS", most),
        ("MM_STAGED_NBYTES", staged_nbytes),
    ):
        text.define(constant, value)
    text.lines += ["#define MM_HAS_PAIRS", ""] if lowered.is_pair else [""]
    sums = WARPS * (warp_columns if is_by_depth else columns)
    shared = _shared_nbytes(staged_nbytes, sums * padded)
    launch = Launch(lowered.columns, columns, THREADS, shared, inverse_occupancy=INVERSE_OCCUPANCY)
    files = ("cuda/memory.h", right_file, "cuda/gemv.h")
    return template_source(text, group, name, files, launch)


def _write_finish(text: Text, lowered: LoweredContraction, name: str) -> None:
    """Adds the function that finishes a sum of any of several products."""
    calls = [f"{name}_{number}(g, at, {{n}}, given)" for number in range(len(lowered.parts))]
    text.raw("void", name, ", int64_t n, float given", [f"{lowered.of_column(calls)};"])


def _shared_nbytes(staged: int, sums: int) -> int:
    """Returns the shared memory of a block: in the end, each warp leaves the sums of its columns
    there, for one, four or eight rows.
    """
    nbytes = staged + 4 * sums
    return nbytes + -nbytes % ALIGNMENT


def _write_codes(text: Text, codes: Codes, nbytes: int) -> None:
    """Adds what `kernels/cuda/quantized.h` needs, for accesses of `nbytes` bytes."""
    text.converters("mm_scale", codes.scales.stored)
    text.define("MM_CODE_NBYTES", nbytes)
    text.define("MM_CODES_PER_BYTE", codes.per_byte)
    text.define("MM_GROUP", codes.group)
    text.define("MM_MINIMUMS", int(codes.has_minimums))


def _width(lowered: LoweredContraction) -> int:
    """Returns how many elements of the right operands one aligned access can read."""
    sizes: list[Size] = []
    for part in lowered.parts:
        inner = lowered.k if lowered.is_by_depth else part.n
        sizes.append(inner.extent)
        for index in (load.index for load in part.rights):
            sizes += [index.const, *(f for loop, f in index.terms if loop != inner)]
    width = VECTOR_NBYTES // lowered.right.stored.size_in_bytes
    while width > 1 and not all(multiple_of(size, width) == "true" for size in sizes):
        width //= 2
    return width


def _by_depth_shape(columns: Size, rows: Size, is_pair: bool) -> tuple[int, int]:
    """Returns the columns of a warp, and the number of warps that share them.

    Two columns use each element of the left operand twice and keep more loads in flight; one gives
    twice as many blocks. The two columns of a pair are of one warp.
    """
    if not isinstance(columns, int):
        return 1, 1
    if is_pair:
        _, team = _by_depth_shape(columns // 2, rows, False)
        return 2, team
    if columns >= FULL * WARPS * 2 or (rows != 1 and columns >= FULL * WARPS):
        return 2, 1
    team = 1
    while team < WARPS and columns * team < FULL * WARPS:
        team *= 2
    return 1, team


def _lanes_across(columns: Size, width: int, itemsize: int) -> int:
    """Returns how many lanes read neighbouring columns: at least enough to fill a memory segment,
    and more where there are enough blocks.
    """
    lanes = max(SEGMENT_NBYTES // (width * itemsize), 1)
    if isinstance(columns, int):
        while lanes < 16 and columns >= FULL * 2 * lanes * width:
            lanes *= 2
    return lanes
