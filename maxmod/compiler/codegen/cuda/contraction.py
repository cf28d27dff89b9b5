"""CUDA C: products of a few rows with a matrix, the generated part of `kernels/cuda/gemv.h`."""

from __future__ import annotations

from dataclasses import dataclass

from maxmod.compiler.choose_kernels import MOST_GEMV_ROWS
from maxmod.compiler.codegen.contraction import Codes, LoweredContraction, lower_contraction
from maxmod.compiler.codegen.cuda.rows import staged_row
from maxmod.compiler.codegen.cuda.text import QUOTIENT, VECTOR_NBYTES, VECTORS, multiple_of
from maxmod.compiler.codegen.element import Text, template_source
from maxmod.compiler.codegen.emit import index_text
from maxmod.compiler.groups.group import Contraction, FusionGroup
from maxmod.compiler.groups.instructions import Load, Lowered
from maxmod.dtype import DType
from maxmod.kernel.source import SHARED_NBYTES, WARP, Dialect, KernelSource, Launch
from maxmod.op.affine import Unfusable
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
    left, right = contraction.product.inputs[0].type.dtype, lowered.right.stored
    left_width = _left_width(lowered, left)
    text = lowered.text(group, Dialect.CUDA, finish, left=left_width == 1)
    if len(lowered.parts) > 1:
        _write_finish(text, lowered, finish)
    text.converters("mm_left", left)
    text.converters("mm_right", right)
    if lowered.prologue is None:
        _write_left(text, lowered, left_width)
    right_file = "cuda/right.h"
    if lowered.codes is not None:
        right_file = "cuda/quantized.h"
        _write_codes(text, lowered.codes, _width(lowered))
    shape = _Shape.of(lowered, left)
    for constant, value in (
        ("MM_RIGHT_WIDTH", shape.width),
        ("MM_RIGHT_BY_DEPTH", int(lowered.is_by_depth)),
        ("MM_WARP_COLUMNS", shape.warp_columns),
        ("MM_TEAM", shape.team),
        ("MM_STEPS", shape.steps),
        ("MM_ACROSS", shape.across),
        ("MM_FEWEST_ROWS", shape.fewest),
        ("MM_MOST_ROWS", shape.most),
        ("MM_STAGED_NBYTES", shape.staged_nbytes),
    ):
        text.define(constant, value)
    text.lines += ["#define MM_HAS_PAIRS", ""] if lowered.is_pair else [""]
    if lowered.prologue is not None:
        _write_prologue(text, lowered.prologue)
    files = ("cuda/memory.h", right_file, "cuda/gemv.h")
    return template_source(text, group, name, files, shape.launch(lowered.columns))


def lower_with_prologue(group: FusionGroup, contraction: Contraction) -> LoweredContraction:
    """Lowers a contraction whose left operand each block computes while it stages it.

    Raises:
        Unfusable: If a part cannot be expressed, or a block cannot hold all of the rows.
    """
    lowered = lower_contraction(group, contraction)
    left = contraction.product.inputs[0].type
    rows = product(left.sizes[:-1])
    if not isinstance(rows, int) or rows > MOST_GEMV_ROWS:
        raise Unfusable("there are more rows than a block computes again")
    assert lowered.prologue is not None
    staged_row(lowered.prologue, THREADS)
    if _Shape.of(lowered, left.dtype).shared_nbytes > SHARED_NBYTES:
        raise Unfusable("its rows do not fit in the shared memory of a block")
    return lowered


def _left_width(lowered: LoweredContraction, dtype: DType) -> int:
    """Returns how many elements of the left operand one aligned access can read.

    By column, sums take so many registers that there are none for vectors of several rows.
    """
    if not lowered.is_by_depth and product(loop.extent for loop in lowered.loops) != 1:
        return 1
    what = lowered.left[0].instructions[lowered.left[1]].what
    if not isinstance(what, Load) or what.stored is not dtype or what.index.factor(lowered.k) != 1:
        return 1
    sizes: list[Size] = [lowered.k.extent, what.index.const]
    sizes += [factor for loop, factor in what.index.terms if loop != lowered.k]
    width = VECTOR_NBYTES // dtype.size_in_bytes
    return width if all(multiple_of(size, width) == "true" for size in sizes) else 1


def _write_left(text: Text, lowered: LoweredContraction, width: int) -> None:
    """Adds the function that reads neighbouring elements of the left operand."""
    kind = f"mm_vector<mm_left_type, {width}>"
    if width == 1:
        lines = [f"return {kind}{{{{mm_left_store(mm_left(g, at, k))}}}};"]
    else:
        what = lowered.left[0].instructions[lowered.left[1]].what
        assert isinstance(what, Load)
        place = f"g.b{what.buffer} + ({index_text(what.index)})"
        lines = [f"return *reinterpret_cast<const {kind} *>({place});"]
    text.define("MM_LEFT_WIDTH", width)
    text.raw(kind, "mm_left_piece", ", int64_t k", lines)


def _write_prologue(text: Text, prologue: Lowered) -> None:
    """Adds the function that computes a row of the left operand."""
    helpers, lines = staged_row(prologue, THREADS)
    text.row("mm_stage_row", prologue, lines)
    quotient = [QUOTIENT] if any("mm_quotient(" in line for line in lines) else []
    text.lines = [*quotient, VECTORS, *helpers, *text.lines, "#define MM_HAS_PROLOGUE", ""]


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a kernel divides its work.

    Attributes:
        width: Elements of a right operand that one access reads.
        warp_columns: Columns of a warp, by depth.
        team: Warps that share them.
        steps: Accesses of a lane to a column; 0 if that is not known, or a row is staged in parts.
        across: Lanes that read neighbouring columns, by column.
        columns: Columns of a block.
        fewest: Rows, or the fewest.
        most: Rows, or the most.
        staged_nbytes: Of the left operand, in shared memory.
        shared_nbytes: All shared memory of a block.
    """

    width: int
    warp_columns: int
    team: int
    steps: int
    across: int
    columns: int
    fewest: int
    most: int
    staged_nbytes: int
    shared_nbytes: int

    @staticmethod
    def of(lowered: LoweredContraction, left: DType) -> _Shape:
        """Chooses it; `left` is the dtype of the left operand."""
        rows = product(loop.extent for loop in lowered.loops)
        width = _width(lowered) * (1 if lowered.codes is None else lowered.codes.per_byte)
        warp_columns, team = _by_depth_shape(lowered.columns, rows, lowered.is_pair)
        if lowered.codes is not None and rows != 1 and not lowered.is_pair:
            warp_columns = 1  # the floats of two columns, for several rows, are too many
        across = _lanes_across(lowered.columns, width, lowered.right.stored.size_in_bytes)
        by_depth = lowered.is_by_depth
        columns = WARPS // team * warp_columns if by_depth else across * width
        most = rows if isinstance(rows, int) else MOST_GEMV_ROWS
        padded = 1 if most == 1 else 4 if most <= 4 else 8
        sums = WARPS * (warp_columns if by_depth else columns) * padded
        # At least one step of a warp, for each row; whole rows where they fit: loops over parts of
        # them cost registers, and a block that computes its rows computes them once.
        step = padded * WARP * width * left.size_in_bytes
        staged = max(STAGED_NBYTES, step)
        depth = lowered.k.extent
        whole = step * -(-depth // (WARP * width)) if isinstance(depth, int) else 0
        if lowered.prologue is not None or _shared_nbytes(whole, sums) <= SHARED_NBYTES:
            staged = max(staged, whole)
        shared = _shared_nbytes(staged, sums)
        is_whole = isinstance(depth, int) and whole <= staged
        steps = -(-int(depth) // (WARP * width * team)) if is_whole else 0
        fewest = rows if isinstance(rows, int) else 1
        return _Shape(
            width, warp_columns, team, steps, across, columns, fewest, most, staged, shared
        )

    def launch(self, columns: Size) -> Launch:
        """Returns how the kernel is launched."""
        occupancy = INVERSE_OCCUPANCY
        return Launch(
            columns, self.columns, THREADS, self.shared_nbytes, inverse_occupancy=occupancy
        )


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
