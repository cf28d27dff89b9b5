"""CUDA C: the entry function, and pointwise kernels.

A pointwise kernel is a grid-stride loop over all elements, seen through as few loops as its
positions allow. Each thread takes a few neighbouring elements of the innermost loop at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from maxmod.compiler.codegen.cuda.rows import row_kernel
from maxmod.compiler.codegen.cuda.text import (
    QUOTIENT,
    VECTORS,
    Span,
    Width,
    arguments,
    count_text,
    index_type,
    loop_variables,
    multiple_of,
    named_extents,
    parameters,
    span_width,
)
from maxmod.compiler.codegen.emit import (
    C_TYPES,
    block,
    function,
    guard_lines,
    scalar_text,
    size_text,
    statement,
    stored_text,
    symbols_of,
)
from maxmod.compiler.codegen.reading import reading_of
from maxmod.compiler.groups.instructions import Apply, Load, Lowered
from maxmod.dtype import DType
from maxmod.kernel.source import Dialect, KernelSource, Launch
from maxmod.op.affine import Loop, Unfusable
from maxmod.values.dim import Dim, as_dim, as_size
from maxmod.values.shape import product

ENTRY = "mm_kernel"
THREADS = 256  # eight warps: enough for full occupancy with few blocks per SM


def emit_cuda(lowered: Lowered, name: str) -> KernelSource:
    """Returns the CUDA kernel of a lowered group."""
    make = _pointwise if lowered.row is None else row_kernel
    helpers, body, launch, bounds = make(lowered)
    body = [*guard_lines(lowered, "return;"), *body]
    head = f'extern "C" __global__ void __launch_bounds__({bounds}) {ENTRY}'
    lines = [*helpers, *function(head, parameters(lowered), body)]
    code = with_helpers("\n".join(lines) + "\n")
    symbols = tuple(symbols_of(lowered))
    return KernelSource(
        name,
        Dialect.CUDA,
        code,
        ENTRY,
        len(lowered.buffers),
        len(symbols),
        launch,
        symbols=symbols,
        elementwise=_elementwise(lowered),
        reading=reading_of(lowered),
    )


def _pointwise(lowered: Lowered) -> tuple[list[str], list[str], Launch, str]:
    """Returns helper functions, the body of the entry function, the launch rule, and its bounds."""
    outer, inner = lowered.loops[:-1], (lowered.loops or [Loop("i0", 1)])[-1]
    width = span_width(lowered, inner, needs_whole=bool(outer))
    kind = index_type(lowered)
    per_block = THREADS * width.elements
    launch = Launch(product(loop.extent for loop in lowered.loops), per_block, THREADS)
    total = count_text(lowered.loops, kind)
    head = [
        f"const {kind} mm_step = ({kind})gridDim.x * {THREADS};",
        f"const {kind} mm_thread = ({kind})blockIdx.x * {THREADS} + threadIdx.x;",
    ]
    step = _step(lowered, outer, inner, kind, width)
    if width.elements == 1:
        return [], [*head, *_stride_loop(kind, "mm_thread", total, step)], launch, str(THREADS)
    v = width.elements
    if not width.conditions and multiple_of(inner.extent, v) == "true":
        count = size_text(as_size(as_dim(launch.elements) // as_dim(v)))
        loop = _stride_loop(kind, "mm_thread", count, step)
        return [], [f"constexpr int V = {v};", *head, *loop], launch, str(THREADS)
    return *_both_widths(lowered, outer, kind, width, total, step, head), launch, str(THREADS)


def blocks_of(lowered: Lowered) -> tuple[int, list[str]]:
    """Returns how many blocks a group of known size takes, and the text of block `mm_first` + n.

    Raises:
        Unfusable: If its size, or the width of its accesses, is known only later.
    """
    outer, inner = lowered.loops[:-1], (lowered.loops or [Loop("i0", 1)])[-1]
    width = span_width(lowered, inner, needs_whole=True)
    total = product(loop.extent for loop in lowered.loops)
    if not isinstance(total, int) or width.conditions or lowered.row is not None:
        raise Unfusable("its size is symbolic")
    kind = index_type(lowered)
    count = total // width.elements
    lines = [*guard_lines(lowered, "continue;")]
    lines += [f"constexpr int V = {width.elements};"] if width.elements > 1 else []
    lines.append(f"const {kind} mm_work = ({kind})mm_mine * {THREADS} + threadIdx.x;")
    step = _step(lowered, outer, inner, kind, width)
    return -(-count // THREADS), [*lines, *block(f"if (mm_work < {count})", step)]


def with_helpers(code: str) -> str:
    """Returns the text of a kernel behind the functions that it calls."""
    if "mm_vector<" in code:
        code = f"{VECTORS}\n{code}"
    return f"{QUOTIENT}\n{code}" if "mm_quotient(" in code else code


def _elementwise(lowered: Lowered) -> tuple[str, ...]:
    """Returns the parts of a `cupy.ElementwiseKernel`; nothing if the kernel is more than that."""
    dtypes = set(lowered.buffers)
    if lowered.row is not None or not dtypes <= C_TYPES.keys() - {DType.bool}:
        return ()  # CuPy has other types for halves
    if lowered.room:  # a part of a buffer is overwritten
        return ()
    index = lowered.stores[0].index
    lines: list[str] = []
    for number, instruction in enumerate(lowered.instructions):
        what = instruction.what
        if isinstance(what, Load) and what.index == index and what.buffer < lowered.input_count:
            text = f"b{what.buffer}"
        elif isinstance(what, Apply) and what.index is None and not _sizes_in(what):
            text = scalar_text(lowered.instructions, number)
        else:
            return ()
        lines += statement(lowered.instructions, number, text)
    if any(store.index != index for store in lowered.stores):
        return ()
    lines += [f"b{store.buffer} = {stored_text(lowered, store)};" for store in lowered.stores]
    parameters = [f"{dtype.name} b{n}" for n, dtype in enumerate(lowered.buffers)]
    inputs, outputs = parameters[: lowered.input_count], parameters[lowered.input_count :]
    return ", ".join(inputs), ", ".join(outputs), "\n".join(lines)


def _sizes_in(what: Apply) -> bool:
    return any(isinstance(value, Dim) for _, value in what.attrs)


def _stride_loop(kind: str, first: str, count: str, body: Sequence[str]) -> list[str]:
    head = f"for ({kind} mm_work = {first}; mm_work < {count}; mm_work += mm_step)"
    return block(head, body)


def _both_widths(
    lowered: Lowered,
    outer: Sequence[Loop],
    kind: str,
    width: Width,
    total: str,
    step: Sequence[str],
    head: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Emits the step as a function, used with vectors where sizes allow, and one by one."""
    params = [f"{kind} mm_work", *parameters(lowered)]
    helper = function(
        "template <int V>\nstatic __device__ __forceinline__ void mm_elements", params, step
    )
    v = width.elements
    passed = f"(mm_work, {arguments(lowered)});"
    condition = " && ".join(width.conditions)
    if outer:  # rows of a whole number of vectors, or none at all
        body = [
            *head,
            f"const {kind} mm_total = {total};",
            *block(
                f"if ({condition})",
                _stride_loop(kind, "mm_thread", f"mm_total / {v}", [f"mm_elements<{v}>{passed}"]),
            ),
            *block(
                "else", _stride_loop(kind, "mm_thread", "mm_total", [f"mm_elements<1>{passed}"])
            ),
        ]
        return [*helper, ""], body
    vectors = f"mm_total / {v}"
    body = [
        *head,
        f"const {kind} mm_total = {total};",
        f"const {kind} mm_vectors = {f'{condition} ? {vectors} : 0' if condition else vectors};",
        *_stride_loop(kind, "mm_thread", "mm_vectors", [f"mm_elements<{v}>{passed}"]),
        *_stride_loop(
            kind, f"mm_vectors * {v} + mm_thread", "mm_total", [f"mm_elements<1>{passed}"]
        ),
    ]
    return [*helper, ""], body


def _step(
    lowered: Lowered, outer: Sequence[Loop], inner: Loop, kind: str, width: Width
) -> list[str]:
    """Returns the text that handles the span number `mm_work`."""
    extent = size_text(inner.extent)
    span = Span(lowered, inner, kind, width.elements)
    varies = lowered.varying(inner)
    numbers = range(len(lowered.instructions))
    moving = [n for n in numbers if n in varies]
    lines: list[str] = []
    if span.is_vector:
        spans = ("mm_span", f"({extent} / V)")
        lines += loop_variables([*named_extents(outer), spans], kind, "mm_work")
        lines.append(f"const {kind} mm_i = mm_span * V;")
    elif outer or span.needs_position(moving, lowered.stores):
        lines += loop_variables([*named_extents(outer), ("mm_i", extent)], kind, "mm_work")
    for n in numbers:
        lines += [] if n in varies else statement(lowered.instructions, n)
    return [*lines, *span.lines(moving, lowered.stores)]
