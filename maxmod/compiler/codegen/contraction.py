"""Matrix products with an epilogue: their parts, and the text before `kernels/host/gemm.h`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from maxmod.compiler import choose_kernels
from maxmod.compiler.codegen.element import (
    ElementLowering,
    Text,
    index_sizes,
    symbol_names,
    template_source,
)
from maxmod.compiler.codegen.emit import index_text, storage_type
from maxmod.compiler.groups.group import Contraction, FusionGroup
from maxmod.compiler.groups.instructions import Load
from maxmod.compiler.groups.lower import MAX_SPLITS, split_loops
from maxmod.dtype import DType
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.op import ir
from maxmod.op.affine import (
    Index,
    Loop,
    SplitNeeded,
    Unfusable,
    broadcast_indices,
    flat_index,
    merge_loops,
    of_loop,
)

# How consecutive elements become a vector of floats on the host.
VECTOR_LOADS = {
    DType.float32: "mm_vec_load",
    DType.bfloat16: "mm_vec_load_bfloat16",
    DType.float16: "mm_vec_load_float16",
}


@dataclass(frozen=True, slots=True)
class Codes:
    """A quantised right operand; see `maxmod.ops.weight_quantization`.

    Attributes:
        scales: How scale k of a column is read.
        per_byte: Codes of a byte; the right operand of the product is read byte by byte.
        group: Codes that share a scale.
    """

    scales: Load
    per_byte: int
    group: int


@dataclass(frozen=True, slots=True)
class LoweredContraction:
    """Everything that the text needs, in terms of loops over rows, and of n and k.

    Attributes:
        loops: Loops over the rows of the product.
        n: The loop over columns.
        k: The summation loop.
        left: An element of the left operand: instructions, and which of them.
        right: How an element of the right operand is read; a byte of it, if it is quantised.
        finish: The epilogue of a sum.
        stores: (buffer, position, instruction of `finish`) of each result.
        codes: Codes and scales of a quantised right operand; None for others.
    """

    loops: list[Loop]
    n: Loop
    k: Loop
    left: tuple[ElementLowering, int]
    right: Load
    finish: ElementLowering
    stores: list[tuple[int, Index, int]]
    codes: Codes | None = None

    @property
    def is_by_depth(self) -> bool:
        """True if the elements of a column of the right operand are neighbours in memory."""
        index = self.right.index
        if index.factor(self.n) == 1 and self.n.extent != 1:
            return False
        return index.factor(self.k) in (0, 1)

    def symbols(self) -> list[str]:
        """Returns the names of the sizes that the text mentions."""
        sizes = [*self.left[0].sizes(), *self.finish.sizes()]
        sizes += [loop.extent for loop in (*self.loops, self.n, self.k)]
        loads = [self.right] if self.codes is None else [self.right, self.codes.scales]
        for index in (*(load.index for load in loads), *(flat for _, flat, _ in self.stores)):
            sizes += index_sizes(index)
        return symbol_names(sizes)

    def text(self, group: FusionGroup, dialect: Dialect) -> Text:
        """Returns the functions that both dialects need."""
        text = Text(group, self.loops, self.symbols(), dialect)
        text.count("mm_rows", (loop.extent for loop in self.loops))
        text.count("mm_columns", (self.n.extent,))
        text.count("mm_depth", (self.k.extent,))
        text.place()
        text.function("mm_left", ", int64_t k", *self.left)
        _pointer(text, "mm_right" if self.codes is None else "mm_code_bytes", self.right)
        if self.codes is not None:
            _pointer(text, "mm_scales", self.codes.scales)
        stores = [
            (buffer, flat, made, value)
            for (buffer, flat, made), value in zip(self.stores, group.outputs, strict=True)
        ]
        # On a GPU, kernels/cuda/quantized.h comes between.
        is_between = self.codes is not None and dialect is Dialect.CUDA
        name = "mm_finish_sum" if is_between else "mm_finish"
        text.store(name, ", int64_t n, float given", self.finish, stores)
        return text


def _pointer(text: Text, name: str, load: Load) -> None:
    """Adds a function that returns where element k of column n is."""
    text.plain(
        f"const {storage_type(load.stored)} *",
        name,
        ", int64_t k, int64_t n",
        f"g.b{load.buffer} + ({index_text(load.index)})",
    )


def lower_contraction(group: FusionGroup, contraction: Contraction) -> LoweredContraction:
    """Lowers every part of a contraction group.

    Raises:
        Unfusable: If a part cannot be expressed, or has no kernel.
    """
    product = contraction.product
    out = product.output.type
    left = product.inputs[0].type
    if not choose_kernels.has_kernel(product):
        raise Unfusable("only sums in float32 of products with a matrix are supported")
    loops = [Loop(f"x{axis}", size) for axis, size in enumerate(out.sizes[:-1])]
    start = [of_loop(loop) for loop in loops]
    n, k = Loop("n", out.sizes[-1]), Loop("k", left.sizes[-1])
    for _ in range(MAX_SPLITS):
        try:
            return _lower(group, contraction, loops, start, n, k)
        except SplitNeeded as split:
            if split.loop not in loops:
                raise Unfusable(f"an inner loop would be split: {split}") from None
            loops, start = split_loops(loops, start, split)
    raise Unfusable("too many loops would be needed")


def _lower(
    group: FusionGroup,
    contraction: Contraction,
    loops: list[Loop],
    start: Sequence[Index],
    n: Loop,
    k: Loop,
) -> LoweredContraction:
    product = contraction.product
    left = product.inputs[0]
    column, depth = of_loop(n), of_loop(k)
    a = ElementLowering(group, "tl")
    number = a.value(left, (*broadcast_indices(list(start), left.type.sizes[:-1]), depth))
    right, codes = _right_operand(group, product, n, k)
    finish = ElementLowering(group, "tf", given=product.output)
    position = (*start, column)
    stores: list[tuple[int, Index, int]] = []
    for offset, value in enumerate(group.outputs):
        if value.type.sizes != product.output.type.sizes:
            raise Unfusable("the results have another shape than the product")
        made = finish.value(value, position)
        flat = flat_index(position, value.type.sizes)
        stores.append((len(group.inputs) + offset, flat, made))
    if finish.given_position != position:
        raise Unfusable("the product is read in another order")
    return _merged(LoweredContraction(loops, n, k, (a, number), right, finish, stores, codes))


def _right_operand(
    group: FusionGroup, product: ir.Node, n: Loop, k: Loop
) -> tuple[Load, Codes | None]:
    column, depth = of_loop(n), of_loop(k)
    if product.op.meaning.is_product:
        load = _plain_load(group, product.inputs[1], (depth, column))
        if load.index.factor(k) not in (0, 1) and load.index.factor(n) not in (0, 1):
            raise Unfusable("no axis of the right operand is contiguous")
        return load, None
    weight, scales = (_plain_load(group, value, (column, depth)) for value in product.inputs[1:])
    for load, value in zip((weight, scales), product.inputs[1:]):
        if load.index.factor(k) != 1 and value.type.sizes[1] != 1:
            raise Unfusable("rows of the quantised weight are not contiguous")
    groups = int(product.inputs[2].type.sizes[1])
    per_byte = 2 if weight.stored is DType.uint8 else 1
    return weight, Codes(scales, per_byte, int(k.extent) // groups)


def _plain_load(group: FusionGroup, value: ir.Value, position: tuple[Index, ...]) -> Load:
    """Returns the load of an element, if it is only a load."""
    lowering = ElementLowering(group)
    number = lowering.value(value, position)
    what = lowering.instructions[number].what
    if not isinstance(what, Load) or what.stored is not value.type.dtype:
        raise Unfusable("the right operand is computed")
    return what


def _merged(lowered: LoweredContraction) -> LoweredContraction:
    """Joins row loops that every index steps through like a single loop."""
    a, number = lowered.left
    accesses = [*a.indices(), *lowered.finish.indices(), *(flat for _, flat, _ in lowered.stores)]
    loops, change = merge_loops(lowered.loops, accesses)
    a.rewrite(change)
    lowered.finish.rewrite(change)
    stores = [(buffer, change(flat), made) for buffer, flat, made in lowered.stores]
    return replace(lowered, loops=loops, left=(a, number), stores=stores)


def emit_contraction(group: FusionGroup, contraction: Contraction, name: str) -> KernelSource:
    """Returns the host kernel of a contraction group."""
    lowered = lower_contraction(group, contraction)
    text = lowered.text(group, Dialect.HOST)
    right, codes = lowered.right, lowered.codes
    operand = {
        "MM_RIGHT_TYPE": storage_type(right.stored),
        "MM_RIGHT_BY_DEPTH": int(lowered.is_by_depth),
    }
    if codes is None:
        operand["MM_RIGHT_VEC"] = VECTOR_LOADS[right.stored]
        operand["MM_BOTH_BFLOAT16"] = int(_is_both_bfloat16(lowered))
        return _shared_product(text, group, name, operand)
    for macro, value in operand.items():
        text.define(macro, value)
    text.define("MM_CODES_PER_BYTE", codes.per_byte)
    text.define("MM_GROUP", codes.group)
    text.define("MM_SCALE_TYPE", storage_type(codes.scales.stored))
    text.define("MM_SCALE_VEC", VECTOR_LOADS[codes.scales.stored])
    files = ("tile", "finish", "quantized", "quantized_few", "quantized_many")
    return template_source(text, group, name, [f"host/{file}.h" for file in files])


def _shared_product(
    text: Text, group: FusionGroup, name: str, operand: Mapping[str, int | str]
) -> KernelSource:
    """Returns a kernel that shares what its right operand decides with others."""
    defines = ("MM_SHARED", *(f"{macro} {value}" for macro, value in operand.items()))
    files = map(kernel_text.read, ("host/tile.h", "host/products.h", "host/gemm.h"))
    shared = (*(f"#define {define}" for define in defines), *files)
    return template_source(text, group, name, ("host/one_product.h",), shared=shared)


def _is_both_bfloat16(lowered: LoweredContraction) -> bool:
    """True if only products of stored elements are summed."""
    lowering, number = lowered.left
    what = lowering.instructions[number].what
    stored = {lowered.right.stored, what.stored if isinstance(what, Load) else None}
    return stored == {DType.bfloat16}
