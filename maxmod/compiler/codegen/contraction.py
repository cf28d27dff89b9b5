"""Matrix products with an epilogue: their parts, and the text that both dialects need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from maxmod.compiler import choose_kernels
from maxmod.compiler.codegen.element import (
    ElementLowering,
    Text,
    index_sizes,
    symbol_names,
)
from maxmod.compiler.codegen.emit import index_text, statement, storage_type, symbols_of
from maxmod.compiler.groups.group import Contraction, FusionGroup
from maxmod.compiler.groups.instructions import Apply, Load, Lowered, Wanted
from maxmod.compiler.groups.lower import MAX_SPLITS, lower, split_loops
from maxmod.dtype import DType
from maxmod.kernel.source import Dialect
from maxmod.op import ir, op_of
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
from maxmod.ops.elementwise import cast_elements
from maxmod.values.dim import Size

# Of the variables in the epilogue of each product of a kernel; "tl" is for the left operand.
_PREFIXES = ("tf", "tg", "th", "ti", "tj", "tk", "tm", "tn")


@dataclass(frozen=True, slots=True)
class Codes:
    """A quantised right operand; see `maxmod.ops.weight_quantization`.

    Attributes:
        scales: How scale k of a column is read.
        per_byte: Codes of a byte; the right operand of the product is read byte by byte.
        group: Codes that share a scale; 1 where all of a column do.
        has_minimums: True if scales are bytes, followed by minimums and an exponent.
    """

    scales: Load
    per_byte: int
    group: int
    has_minimums: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One of the products of a kernel; or two whose columns alternate.

    Attributes:
        n: The loop over columns of one product.
        rights: How an element of each right operand is read; a byte of it, if it is quantised.
        codes: Codes and scales of each right operand; empty if they are not quantised.
        finish: The epilogue of a sum of each product.
        stores: (buffer, position, instruction of `finish`, value) of each result.
    """

    n: Loop
    rights: tuple[Load, ...]
    codes: tuple[Codes, ...]
    finish: ElementLowering
    stores: list[tuple[int, Index, int, ir.Value]]

    def is_by_depth(self, k: Loop) -> bool:
        """True if the elements of a column of every right operand are neighbours in memory."""
        indices = [load.index for load in self.rights]
        if any(index.factor(self.n) == 1 for index in indices) and self.n.extent != 1:
            return False
        return all(index.factor(k) in (0, 1) for index in indices)

    def columns(self) -> Size:
        """Returns the number of columns of all products."""
        return self.n.extent if len(self.rights) == 1 else int(self.n.extent) * len(self.rights)

    def formats(self) -> set[object]:
        """Returns how its right operands are stored."""
        if not self.codes:
            return {load.stored for load in self.rights}
        return {(codes.scales.stored, codes.per_byte, codes.group) for codes in self.codes}

    def loads(self) -> list[Load]:
        """Returns the loads of right operands."""
        return [*self.rights, *(codes.scales for codes in self.codes)]


@dataclass(frozen=True, slots=True)
class LoweredContraction:
    """Everything that the text needs, in terms of loops over rows, and of n and k.

    Attributes:
        loops: Loops over the rows of the products.
        k: The summation loop.
        left: An element of the left operand: instructions, and which of them.
        prologue: The rows of the left operand, where the kernel computes them; the buffer behind
            all others is where it stages them.
        parts: The products, whose columns follow each other.
        rows: How many rows have the same right operand, where `is_batched`.
    """

    loops: list[Loop]
    k: Loop
    left: tuple[ElementLowering, int]
    parts: tuple[Part, ...]
    rows: Size = 1
    prologue: Lowered | None = None

    @property
    def is_batched(self) -> bool:
        """True if some rows have another right operand than others."""
        return any(variable in self.loops for variable, _ in self.right.index.terms)

    @property
    def right(self) -> Load:
        """How an element of the first right operand is read; all are stored alike."""
        return self.parts[0].rights[0]

    @property
    def codes(self) -> Codes | None:
        """The format of quantised right operands; None for others."""
        return self.parts[0].codes[0] if self.parts[0].codes else None

    @property
    def columns(self) -> Size:
        """The number of columns of all products."""
        if len(self.parts) == 1:
            return self.parts[0].columns()
        return sum(int(part.columns()) for part in self.parts)

    @property
    def is_pair(self) -> bool:
        """True if the columns of two products alternate."""
        return len(self.parts[0].rights) > 1

    @property
    def is_by_depth(self) -> bool:
        """True if the elements of a column of a right operand are neighbours in memory."""
        return all(part.is_by_depth(self.k) for part in self.parts)

    def symbols(self) -> list[str]:
        """Returns the names of the sizes that the text mentions."""
        sizes = self.left[0].sizes()
        sizes += [*(loop.extent for loop in (*self.loops, self.k)), self.rows]
        for part in self.parts:
            sizes += [*part.finish.sizes(), part.n.extent]
            for index in (*(x.index for x in part.loads()), *(flat for _, flat, *_ in part.stores)):
                sizes += index_sizes(index)
        rows = [] if self.prologue is None else symbols_of(self.prologue)
        return sorted({*symbol_names(sizes), *rows})

    def text(
        self, group: FusionGroup, dialect: Dialect, finish: str = "mm_finish", *, left: bool = True
    ) -> Text:
        """Returns the functions that both dialects need.

        Args:
            group: The group.
            dialect: The kernel language.
            finish: The name of what is done to a sum. Where there are several products that are no
                pair, the names have the number of each behind.
            left: False without the function that gives an element of the left operand.
        """
        text = Text(group, self.loops, self.symbols(), dialect)
        text.count("mm_rows", (loop.extent for loop in self.loops))
        text.count("mm_columns", (self.columns,))
        text.count("mm_depth", (self.k.extent,))
        text.place()
        if self.prologue is None and left:
            text.function("mm_left", ", int64_t k", *self.left)
        is_bytes = self.codes is not None and dialect is Dialect.CUDA
        self._pointers(text, "mm_code_bytes" if is_bytes else "mm_right", 0)
        if self.codes is not None:
            self._pointers(text, "mm_scales", 1)
        self._finish(text, finish)
        return text

    def _pointers(self, text: Text, name: str, which: int) -> None:
        """Adds a function that returns where element k of column n is.

        Args:
            text: The text.
            name: Its name.
            which: 0 for elements of right operands, 1 for their scales.
        """
        found = [p.rights if which == 0 else tuple(c.scales for c in p.codes) for p in self.parts]
        loads = [load for part in found for load in part]
        kind, parameters = f"const {storage_type(loads[0].stored)} *", ", int64_t k, int64_t n"
        places = [f"g.b{load.buffer} + ({index_text(load.index)})" for load in loads]
        if self.is_batched:
            text.define("MM_BATCHED", 1)
            text.count("mm_batch_rows", (self.rows,))
            text.raw(kind, "mm_right_of", parameters, [f"return {places[0]};"])
            return
        if len(loads) == 1:
            text.plain(kind, name, parameters, places[0])
            return
        indices = {index_text(load.index) for load in loads}
        if text.dialect is Dialect.CUDA and len(indices) == 1 and not self.is_pair:
            # Selected addresses: with a branch around each load, a thread waits for each of them.
            bases = self.of_column([f"g.b{load.buffer}" for load in loads])
            starts = self.of_column([str(start) for start, _ in self.ranges()])
            lines = [f"{kind}const from = {bases};", f"n -= {starts};"]
            text.plain(kind, name, parameters, f"from + ({indices.pop()})", lines)
            return
        for number, place in enumerate(places):
            text.plain(kind, f"{name}_{number}", parameters, place)
        calls = [f"{name}_{number}(g, k, {{n}})" for number in range(len(loads))]
        text.plain(kind, name, parameters, self.of_column(calls))

    def of_column(self, calls: Sequence[str]) -> str:
        """Returns the expression that selects one by column n of all; each has a place for its
        column.
        """
        if self.is_pair:
            even, odd = (call.format(n="n / 2") for call in calls)
            return f"n % 2 ? {odd} : {even}"
        chosen: list[str] = []
        for call, (start, end) in zip(calls, self.ranges(), strict=True):
            called = call.format(n=f"n - {start}" if start else "n")
            chosen.append(called if end == self.columns else f"n < {end} ? {called} : ")
        return "".join(chosen)

    def ranges(self) -> list[tuple[int, int]]:
        """Returns the first column of each part, and the one behind its last."""
        ends = [*accumulate(int(part.columns()) for part in self.parts)]
        return list(zip([0, *ends], ends))

    def _finish(self, text: Text, name: str) -> None:
        """Adds what is done to a sum: a function for each product, or one for a pair."""
        if self.is_pair or len(self.parts) == 1:
            given = ", float given, float given_1" if self.is_pair else ", float given"
            text.store(name, f", int64_t n{given}", self.parts[0].finish, self.parts[0].stores)
        else:
            for number, part in enumerate(self.parts):
                made = f"{name}_{number}"
                text.store(made, ", int64_t n, float given", part.finish, part.stores)


class _Sums(ElementLowering):
    """Lowers an epilogue of the sums of several products.

    Args:
        group: The group.
        prefix: As for `ElementLowering`.
        givens: The products.
    """

    def __init__(self, group: FusionGroup, prefix: str, givens: Sequence[ir.Value]) -> None:
        super().__init__(group, prefix)
        self._givens = givens
        self._arguments: dict[int, str] = {}
        self.read_at: set[tuple[Index, ...]] = set()

    def _sources(self, value: ir.Value, position: tuple[Index, ...]) -> list[Wanted]:
        return [] if value in self._givens else super()._sources(value, position)

    def _make(self, value: ir.Value, position: tuple[Index, ...], args: Sequence[int]) -> int:
        if value not in self._givens:
            return super()._make(value, position, args)
        # A conversion to the same dtype is the value itself.
        what = Apply(op_of(cast_elements), (), (("dtype", value.type.dtype),))
        number = self.append(what, value.type.dtype)
        which = self._givens.index(value)
        self._arguments[number] = f"given_{which}" if which else "given"
        self.read_at.add(position)
        return number

    def text(self, number: int) -> list[str]:
        """Returns the C statement of one instruction; none for a plain number."""
        given = self._arguments.get(number, "")
        return statement(self.instructions, number, given, self.prefix)


def lower_contraction(group: FusionGroup, contraction: Contraction) -> LoweredContraction:
    """Lowers every part of a contraction group.

    Raises:
        Unfusable: If a part cannot be expressed, or has no kernel.
    """
    product = contraction.product
    is_batched = choose_kernels.has_batched_kernel(product)
    if not is_batched and not all(map(choose_kernels.has_kernel, contraction.products)):
        raise Unfusable("only sums in float32 of products with matrices are supported")
    loops = [Loop(f"x{axis}", size) for axis, size in enumerate(product.output.type.sizes[:-1])]
    start = [of_loop(loop) for loop in loops]
    k = Loop("k", product.inputs[0].type.sizes[-1])
    for _ in range(MAX_SPLITS):
        try:
            lowered = _lower(group, contraction, loops, start, k)
        except SplitNeeded as split:
            if split.loop not in loops:
                raise Unfusable(f"an inner loop would be split: {split}") from None
            loops, start = split_loops(loops, start, split)
            continue
        _check_parts(lowered)
        return _merged(lowered)
    raise Unfusable("too many loops would be needed")


def _lower(
    group: FusionGroup,
    contraction: Contraction,
    loops: list[Loop],
    start: Sequence[Index],
    k: Loop,
) -> LoweredContraction:
    left = contraction.product.inputs[0]
    prologue = contraction.prologue
    a = ElementLowering(group, "tl", None if prologue is None else left)
    rows = broadcast_indices(list(start), left.type.sizes[:-1])
    number = a.value(left, (*rows, of_loop(k)))
    if contraction.is_pair:
        outputs = _outputs_of(group, contraction.products[:1], prologue)
        parts = [_part(group, contraction.products, next(iter(outputs.values())), start, k, "tf")]
    else:
        outputs = _outputs_of(group, contraction.products, prologue)
        if len(contraction.products) > len(_PREFIXES):
            raise Unfusable("too many products")
        parts = [
            _part(group, (product,), outputs[product], start, k, prefix)
            for product, prefix in zip(contraction.products, _PREFIXES)
        ]
    sizes = contraction.product.output.type.sizes
    rows = sizes[-2] if choose_kernels.has_batched_kernel(contraction.product) else 1
    first = None if prologue is None else lowered_prologue(group, prologue)
    return LoweredContraction(loops, k, (a, number), tuple(parts), rows, first)


def lowered_prologue(group: FusionGroup, prologue: FusionGroup) -> Lowered:
    """Lowers the rows of a left operand, with the buffers of the whole group.

    Raises:
        Unfusable: If not only elements of whole rows would be written.
    """
    lowered = lower(prologue)
    if lowered.positions or lowered.row is None:
        raise Unfusable("it looks positions up, or reduces nothing")
    staged, *others = lowered.stores
    if any(store.index.factor(lowered.row) == 0 for store in lowered.stores):
        raise Unfusable("a result has one element for each row")
    for instruction in lowered.instructions:
        what = instruction.what
        if isinstance(what, Load):
            instruction.what = replace(what, buffer=group.inputs.index(prologue.reads[what.buffer]))
    staged.buffer, staged.index = len(group.inputs) + len(group.outputs), of_loop(lowered.row)
    for store, value in zip(others, prologue.outputs[1:], strict=True):
        store.buffer = len(group.inputs) + group.outputs.index(value)
        store.by_one_block = True
    return lowered


def _outputs_of(
    group: FusionGroup, products: Sequence[ir.Node], prologue: FusionGroup | None
) -> dict[ir.Node, list[ir.Value]]:
    """Returns the results that are made of the sums of each product.

    Raises:
        Unfusable: If a result is made of the sums of several.
    """
    written = () if prologue is None else prologue.outputs
    outputs = [value for value in group.outputs if value not in written]
    if len(products) == 1:
        return {products[0]: outputs}
    found: dict[ir.Node, list[ir.Value]] = {product: [] for product in products}
    made_of: dict[ir.Value, set[ir.Node]] = {}
    for node in group.ordered:
        sources = [made_of.get(value, set[ir.Node]()) for value in node.inputs]
        made = {node} if node in found else set[ir.Node]().union(*sources)
        made_of.update((value, made) for value in node.outputs)
    for value in outputs:
        if len(made_of[value]) != 1:
            raise Unfusable("a result needs the sums of several products")
        found[next(iter(made_of[value]))].append(value)
    return found


def _part(
    group: FusionGroup,
    products: Sequence[ir.Node],
    outputs: Sequence[ir.Value],
    start: Sequence[Index],
    k: Loop,
    prefix: str,
) -> Part:
    sizes = products[0].output.type.sizes
    n = Loop("n", sizes[-1])
    operands = [_right_operand(group, product, start, n, k) for product in products]
    finish = _Sums(group, prefix, [product.output for product in products])
    position = (*start, of_loop(n))
    stores: list[tuple[int, Index, int, ir.Value]] = []
    for value in outputs:
        if value.type.sizes != sizes:
            raise Unfusable("the results have another shape than the product")
        made = finish.value(value, position)
        buffer = len(group.inputs) + group.outputs.index(value)
        stores.append((buffer, flat_index(position, value.type.sizes), made, value))
    if finish.read_at != {position}:
        raise Unfusable("the product is read in another order")
    codes = tuple(found for _, found in operands if found is not None)
    return Part(n, tuple(load for load, _ in operands), codes, finish, stores)


def _check_parts(lowered: LoweredContraction) -> None:
    """Raises Unfusable for products that the loops of one kernel cannot read."""
    if len(lowered.parts) == 1 and not lowered.is_pair:
        return
    if lowered.is_batched:
        raise Unfusable("each batch has right operands of its own")
    if len(set[object]().union(*(part.formats() for part in lowered.parts))) > 1:
        raise Unfusable("the weights are stored in several ways")
    if not lowered.is_by_depth:
        raise Unfusable("rows of a right operand are contiguous")
    if not all(isinstance(part.n.extent, int) for part in lowered.parts):
        raise Unfusable("the number of columns is symbolic")


def _right_operand(
    group: FusionGroup, product: ir.Node, start: Sequence[Index], n: Loop, k: Loop
) -> tuple[Load, Codes | None]:
    column, depth = of_loop(n), of_loop(k)
    if product.op.meaning.is_product:
        right = product.inputs[1]
        batch = broadcast_indices(list(start[:-1]), right.type.sizes[:-2])
        load = _plain_load(group, right, (*batch, depth, column))
        if load.index.factor(k) not in (0, 1) and load.index.factor(n) not in (0, 1):
            raise Unfusable("no axis of the right operand is contiguous")
        return load, None
    weight, scales = (_plain_load(group, value, (column, depth)) for value in product.inputs[1:])
    for load, value in zip((weight, scales), product.inputs[1:]):
        if load.index.factor(k) != 1 and value.type.sizes[1] != 1:
            raise Unfusable("rows of the quantised weight are not contiguous")
    groups = int(product.inputs[2].type.sizes[1])
    per_byte = 2 if weight.stored is DType.uint8 else 1
    has_minimums = scales.stored is DType.uint8
    groups = groups // 2 if has_minimums else groups
    is_whole = per_byte == 1 and groups == 1
    shared = 1 if is_whole else int(k.extent) // groups
    return weight, Codes(scales, per_byte, shared, has_minimums)


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
    accesses = [*a.indices(), *(load.index for part in lowered.parts for load in part.rights)]
    for part in lowered.parts:
        accesses += [*part.finish.indices(), *(flat for _, flat, *_ in part.stores)]
    loops, change = merge_loops(lowered.loops, accesses)
    a.rewrite(change)
    parts: list[Part] = []
    for part in lowered.parts:
        part.finish.rewrite(change)
        stores = [(b, change(flat), made, value) for b, flat, made, value in part.stores]
        rights = tuple(replace(load, index=change(load.index)) for load in part.rights)
        parts.append(replace(part, rights=rights, stores=stores))
    return replace(lowered, loops=loops, left=(a, number), parts=tuple(parts))
