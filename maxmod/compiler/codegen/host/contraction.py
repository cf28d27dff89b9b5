"""Matrix products with an epilogue on the host: their generated part, and what they share."""

from __future__ import annotations

from maxmod.compiler.codegen.contraction import Codes, LoweredContraction, lower_contraction
from maxmod.compiler.codegen.element import Text, template_source
from maxmod.compiler.codegen.emit import storage_type
from maxmod.compiler.groups.group import Contraction, FusionGroup
from maxmod.compiler.groups.instructions import Load
from maxmod.dtype import DType
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource

# How consecutive elements become a vector of floats on the host.
VECTOR_LOADS = {
    DType.float32: "mm_vec_load",
    DType.bfloat16: "mm_vec_load_bfloat16",
    DType.float16: "mm_vec_load_float16",
    DType.uint8: "mm_vec_load_uint8",  # scales with minimums
}
# What kernels with the same kind of right operand share.
_SHARED_FLOATS = (
    "tile",
    "products",
    "gemm_operands",
    "gemm_few",
    "gemm_panels",
    "gemm_many",
    "gemm_narrow",
    "gemm",
)
_SHARED_CODES = ("tile", "products", "quantized", "quantized_few", "quantized_many")


def emit_contraction(group: FusionGroup, contraction: Contraction, name: str) -> KernelSource:
    """Returns the host kernel of a contraction group."""
    lowered = lower_contraction(group, contraction)
    text = lowered.text(group, Dialect.HOST)
    text.next_place()
    if lowered.is_pair or len(lowered.parts) > 1:
        _write_finish_columns(text, lowered)
    operand = _floats_macros(lowered) if lowered.codes is None else _codes_macros(lowered.codes)
    operand["MM_RIGHT_TYPE"] = storage_type(lowered.right.stored)
    defines = (f"#define {macro} {value}" for macro, value in operand.items())
    files = _SHARED_FLOATS if lowered.codes is None else _SHARED_CODES
    shared = (*defines, *(kernel_text.read(f"host/{file}.h") for file in files))
    return template_source(
        text, group, name, ("host/finish.h", "host/one_product.h"), shared=shared
    )


def _floats_macros(lowered: LoweredContraction) -> dict[str, int | str]:
    """Returns what gemm.h must know of right operands."""
    return {
        "MM_RIGHT_BY_DEPTH": int(lowered.is_by_depth),
        "MM_RIGHT_VEC": VECTOR_LOADS[lowered.right.stored],
        "MM_BOTH_BFLOAT16": int(_is_both_bfloat16(lowered)),
    }


def _codes_macros(codes: Codes) -> dict[str, int | str]:
    """Returns what quantized.h must know of right operands."""
    return {
        "MM_RIGHT_BY_DEPTH": 1,
        "MM_CODES_PER_BYTE": codes.per_byte,
        "MM_GROUP": codes.group,
        "MM_MINIMUMS": int(codes.has_minimums),
        "MM_SCALE_TYPE": storage_type(codes.scales.stored),
        "MM_SCALE_VEC": VECTOR_LOADS[codes.scales.stored],
    }


def _is_both_bfloat16(lowered: LoweredContraction) -> bool:
    """True if only products of stored elements are summed."""
    lowering, number = lowered.left
    what = lowering.instructions[number].what
    stored = {lowered.right.stored, what.stored if isinstance(what, Load) else None}
    return stored == {DType.bfloat16}


def _write_finish_columns(text: Text, lowered: LoweredContraction) -> None:
    """Adds the function that finishes neighbouring columns of a row of several products."""
    ranges = lowered.ranges()
    if lowered.is_pair:
        call = "mm_finish(g, at, n, sums[2 * n - n0], sums[2 * n + 1 - n0]);"
        lines = _simd("n0 / 2", "(n0 + count) / 2", call)
        ranges = [(0, lowered.parts[0].n.extent)] * 2
    else:
        lines: list[str] = []
        for number, (start, end) in enumerate(ranges):
            call = f"mm_finish_{number}(g, at, n - {start}, sums[n - n0]);"
            first, last = f"n0 > {start} ? n0 : {start}", f"n0 + count < {end} ? n0 + count : {end}"
            lines += _simd(first, last, call)
    text.define("MM_FINISH_COLUMNS", 1)
    text.define("MM_OPERAND_ENDS", ", ".join(str(end) for _, end in ranges))
    text.define("MM_ALTERNATES", int(lowered.is_pair))
    parameters = ", int64_t n0, int64_t count, const float *sums"
    text.raw("void", "mm_finish_columns", parameters, lines)


def _simd(first: str, end: str, call: str) -> list[str]:
    """Returns a loop over columns."""
    return [
        "{",
        f"    const int64_t first = {first}, end = {end};",
        "    #pragma omp simd",
        "    for (int64_t n = first; n < end; n++)",
        f"        {call}",
        "}",
    ]
