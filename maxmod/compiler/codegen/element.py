"""Element functions: values of a group at chosen positions, as C functions of hand-written text.

A hand-written kernel knows its loops and calls short generated functions for what it loads, for
what happens to a value between its steps, and for what it stores. They are pure: positions in,
scalar out, so that a compiler can inline and vectorise them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from maxmod.compiler.codegen.emit import (
    compute_type,
    function,
    index_text,
    loaded,
    scalar_name,
    size_text,
    statement,
    storage_type,
    stored,
)
from maxmod.compiler.codegen.reading import Part, Reading
from maxmod.compiler.groups.group import FusionGroup
from maxmod.compiler.groups.instructions import Apply, Load, Lowered, Wanted, needed
from maxmod.compiler.groups.lower import MAX_SPLITS, Lowering, split_loops
from maxmod.dtype import DType
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import OWN, Dialect, KernelSource, Launch
from maxmod.op import ir, op_of
from maxmod.op.affine import Index, Loop, SplitNeeded, Unfusable, flat_index, of_loop
from maxmod.ops.elementwise import cast_elements
from maxmod.values.dim import Dim, Size
from maxmod.values.shape import product


class ElementLowering(Lowering):
    """Lowers values of a group at positions that the caller chooses.

    Args:
        group: The group.
        prefix: Prefix of its variables: no two parts of a kernel share a variable, so that one
            table gives all of them readable names.
        given: The value that the hand-written text has computed: the argument `given` of the
            element function.

    Attributes:
        given_number: The instruction of the argument; None if nothing needs it.
        given_position: Where the argument is read.
    """

    def __init__(
        self, group: FusionGroup, prefix: str = "t", given: ir.Value | None = None
    ) -> None:
        super().__init__(group, [], None, [])
        self.prefix = prefix
        self.given = given
        self.given_number: int | None = None
        self.given_position: tuple[Index, ...] = ()

    def _sources(self, value: ir.Value, position: tuple[Index, ...]) -> list[Wanted]:
        return [] if value is self.given else super()._sources(value, position)

    def _make(self, value: ir.Value, position: tuple[Index, ...], args: Sequence[int]) -> int:
        if value is not self.given:
            return super()._make(value, position, args)
        if self.given_number is not None and position != self.given_position:
            raise Unfusable("a computed value is read at two positions")
        # A conversion to the same dtype is the value itself.
        what = Apply(op_of(cast_elements), (), (("dtype", value.type.dtype),))
        self.given_number = self.append(what, value.type.dtype)
        self.given_position = position
        return self.given_number

    def _read(self, node: ir.Node, number: int, position: Sequence[Index], size: Size) -> Index:
        raise Unfusable("hand-written text does not report positions that are out of range")

    def text(self, number: int) -> list[str]:
        """Returns the C statement of one instruction; none for a plain number."""
        given = "given" if number == self.given_number else ""
        return statement(self.instructions, number, given, self.prefix)

    def name(self, number: int) -> str:
        """Returns what other statements call the value of an instruction."""
        return scalar_name(self.instructions, number, self.prefix)

    def needed(self, number: int) -> list[int]:
        """Returns an instruction and everything that it is computed from, in order."""
        return needed(self.instructions, [number])

    def loads(self, numbers: Iterable[int]) -> list[Load]:
        """Returns the loads among instructions."""
        found = (self.instructions[number].what for number in numbers)
        return [what for what in found if isinstance(what, Load)]

    def rewrite(self, change: Callable[[Index], Index]) -> None:
        """Replaces every index."""
        for instruction in self.instructions:
            what = instruction.what
            if isinstance(what, (Load, Apply)) and what.index is not None:
                instruction.what = replace(what, index=change(what.index))

    def indices(self) -> list[Index]:
        """Returns every index."""
        whats = (instruction.what for instruction in self.instructions)
        found = (what.index for what in whats if isinstance(what, (Load, Apply)))
        return [index for index in found if index is not None]

    def sizes(self) -> list[Size | Dim]:
        """Returns every size that the text mentions."""
        found: list[Size | Dim] = []
        for instruction in self.instructions:
            what = instruction.what
            if isinstance(what, Apply):
                found += [value for _, value in what.attrs if isinstance(value, Dim)]
        return found + [size for index in self.indices() for size in index_sizes(index)]


def index_sizes(index: Index) -> list[Size]:
    """Returns the sizes in an index."""
    return [index.const, *(factor for _, factor in index.terms)]


def position_through_views(
    group: FusionGroup, value: ir.Value, result: ir.Value, position: Sequence[Index]
) -> Index:
    """Returns the row-major position of an element of a value in a view of all of the value.

    Args:
        group: Holds the nodes between.
        value: The viewed value.
        result: The view; it has the same elements in another order.
        position: The position of the element in `value`.

    Raises:
        Unfusable: If the place is not an affine function of the position.
    """
    if product(value.type.sizes) != product(result.type.sizes):
        raise Unfusable("a view of a part")
    loops = [Loop(f"y{axis}", size) for axis, size in enumerate(result.type.sizes)]
    start = [of_loop(loop) for loop in loops]
    for _ in range(MAX_SPLITS):
        lowering = ElementLowering(group, given=value)
        try:
            lowering.value(result, tuple(start))
        except SplitNeeded as split:
            loops, start = split_loops(loops, start, split)
            continue
        flat = flat_index(start, result.type.sizes)
        return flat.substituted(_inverse(lowering.given_position, position, flat))
    raise Unfusable("too many loops would be needed")


def _inverse(found: Sequence[Index], position: Sequence[Index], flat: Index) -> dict[Loop, Index]:
    """Returns the value of each loop over the view at which it reads `position`."""
    values: dict[Loop, Index] = {}
    for index, target in zip(found, position, strict=True):
        if index == Index() and target == Index():
            continue
        if len(index.terms) != 1 or index.const != 0 or index.terms[0][1] != 1:
            raise Unfusable("a view that joins axes")
        loop = index.terms[0][0]
        assert isinstance(loop, Loop)  # nothing that is data: see `_read`
        if loop in values:
            raise Unfusable("a view that reads a diagonal")
        values[loop] = target
    if any(variable not in values for variable, _ in flat.terms):
        raise Unfusable("a view that repeats elements")
    return values


# ---- text ----------------------------------------------------------------------------------------


class Text:
    """The generated text in front of a hand-written kernel.

    Args:
        group: What the kernel computes.
        loops: Loops over batch axes and the like; the kernel counts them with one number.
        symbols: Names of the sizes that are arguments.
        dialect: The language.
        scratch: Element types of buffers behind those of the group.
    """

    def __init__(
        self,
        group: FusionGroup,
        loops: Sequence[Loop],
        symbols: Sequence[str],
        dialect: Dialect = Dialect.HOST,
        scratch: Sequence[str] = (),
    ) -> None:
        self.loops = list(loops)
        self.symbols = list(symbols)
        self.dialect = dialect
        values = (*group.inputs, *group.outputs)
        self._types = [*(storage_type(value.type.dtype) for value in values), *scratch]
        self._input_count = len(group.inputs)
        self._lowerings: dict[str, ElementLowering] = {}
        self._rows: list[Part] = []
        self.lines = [*self._argument_types(), ""]

    @property
    def buffer_count(self) -> int:
        """How many buffers the kernel takes."""
        return len(self._types)

    def parts(self) -> list[Part]:
        """Returns the instructions in the text so far."""
        found = self._lowerings.values()
        return [*self._rows, *(Part(part.prefix, part.instructions, part.memo) for part in found)]

    def define(self, name: str, value: int | str) -> None:
        """Adds a constant; a macro on the host, where `#if` asks for it."""
        is_host = self.dialect is Dialect.HOST
        self.lines.append(
            f"#define {name} {value}" if is_host else f"constexpr int {name} = {value};"
        )

    def count(self, name: str, sizes: Iterable[Size]) -> None:
        """Adds a function that returns the product of sizes."""
        shown = " * ".join(f"(int64_t){size_text(size)}" for size in sizes) or "1"
        self.plain("int64_t ", name, "", shown)

    def place(self, *counters: tuple[str, Sequence[Loop]]) -> None:
        """Adds the function that turns numbers into the loop variables.

        Args:
            *counters: For each number its name, and the loops that it counts, the last one running
                fastest; without any, there is one for all loops.
        """
        counters = counters or (("number", self.loops),)
        lines = ["mm_at at;"]
        for name, loops in counters:
            for loop in reversed(loops[1:]):
                extent = size_text(loop.extent)
                lines += [f"at.{loop.name} = {name} % {extent};", f"{name} /= {extent};"]
            lines += [f"at.{loops[0].name} = {name};"] if loops else []
        lines += [] if self.loops else ["at.none = 0;"]
        parameters = "".join(f", int64_t {name}" for name, _ in counters)
        self._function(f"mm_at mm_place(const mm_args g{parameters})", [*lines, "return at;"])

    def next_place(self) -> None:
        """Adds the function that steps to the next place: it divides nothing."""
        lines: list[str] = []
        for loop in reversed(self.loops[1:]):
            lines.append(f"if (++at->{loop.name} < {size_text(loop.extent)})")
            lines += ["    return;", f"at->{loop.name} = 0;"]
        lines += [f"at->{loop.name}++;" for loop in self.loops[:1]]
        self._function("void mm_next(const mm_args g, mm_at *at)", lines)

    def converters(self, name: str, dtype: DType) -> None:
        """Adds the type of a stored element, and functions from it to float and back."""
        kind = storage_type(dtype)
        self.lines += [f"typedef {kind} {name}_type;", ""]
        self._function(f"float {name}_load({kind} given)", [f"return {loaded(dtype, 'given')};"])
        self._function(f"{kind} {name}_store(float given)", [f"return {stored(dtype, 'given')};"])

    def function(
        self, name: str, parameters: str, lowering: ElementLowering, number: int, kind: str = ""
    ) -> None:
        """Adds an element function that returns an instruction.

        Args:
            name: Its name.
            parameters: Parameters after `g` and `at`, with types.
            lowering: The instructions.
            number: Which of them is returned.
            kind: The C type, if it is not that of the instruction.
        """
        kind = kind or compute_type(lowering.instructions[number].dtype)
        body = self.body(lowering, [number])
        self.raw(kind, name, parameters, [*body, f"return {lowering.name(number)};"])

    def plain(
        self, kind: str, name: str, parameters: str, result: str, lines: Sequence[str] = ()
    ) -> None:
        """Adds a function of the arguments alone that returns an expression, behind statements."""
        head = f"{kind}{name}(const mm_args g{parameters})"
        self._function(head, [*lines, f"return {result};"])

    def store(
        self,
        name: str,
        parameters: str,
        lowering: ElementLowering,
        stores: Sequence[tuple[int, Index, int, ir.Value]],
    ) -> None:
        """Adds an element function that writes results: (buffer, position, instruction, value)."""
        lines = self.body(lowering, [number for _, _, number, _ in stores])
        for buffer, _, _, _ in stores:
            lines.append(f"{self._types[buffer]} *const __restrict__ b{buffer} = g.b{buffer};")
        for buffer, index, number, value in stores:
            text = stored(value.type.dtype, lowering.name(number))
            lines.append(f"b{buffer}[{index_text(index)}] = {text};")
        self.raw("void", name, parameters, lines)

    def row(self, name: str, lowered: Lowered, lines: Sequence[str]) -> None:
        """Adds a function that makes a row and leaves it where its last argument points to.

        Args:
            name: Its name.
            lowered: The row; the buffer behind all others is where it goes.
            lines: The text that makes it.
        """
        self._rows.append(Part("t", lowered.instructions, lowered.memo))
        to = f"b{self.buffer_count}"
        written = {store.buffer for store in lowered.stores} - {self.buffer_count}
        pointers = [f"{self._types[b]} *const __restrict__ b{b} = g.b{b};" for b in sorted(written)]
        head = f"void {name}(const mm_args g, int64_t mm_row, mm_left_type *const {to})"
        self._function(head, self.with_pointers([*pointers, *lines]))

    def body(self, lowering: ElementLowering, numbers: Sequence[int]) -> list[str]:
        """Returns the statements that compute instructions."""
        self._lowerings[lowering.prefix] = lowering
        needed = sorted({n for number in numbers for n in lowering.needed(number)})
        return self.with_pointers([line for n in needed for line in lowering.text(n)])

    def with_pointers(self, lines: Sequence[str]) -> list[str]:
        """Returns statements behind the declarations of the buffers that they read."""
        used = _words(lines)
        buffers = [number for number in range(self._input_count) if f"b{number}" in used]
        kinds = self._types
        return [*(f"const {kinds[b]} *const __restrict__ b{b} = g.b{b};" for b in buffers), *lines]

    def raw(self, kind: str, name: str, parameters: str, lines: Sequence[str]) -> None:
        """Adds a function of any lines; they can use the loop variables and sizes."""
        used = _words(lines)
        loops = [
            f"const int64_t {loop.name} = at.{loop.name};"
            for loop in self.loops
            if loop.name in used
        ]
        head = f"{kind} {name}(const mm_args g, const mm_at at{parameters})"
        self._function(head, [*loops, *lines])

    def _function(self, head: str, lines: Sequence[str]) -> None:
        """Adds a function, with the sizes that it mentions."""
        used = _words(lines)
        symbols = [
            f"const int64_t s_{symbol} = g.s_{symbol};"
            for symbol in self.symbols
            if f"s_{symbol}" in used
        ]
        body = [f"    {line}" for line in (*symbols, *lines)]
        self.lines += [f"MM_INLINE {head}", "{", *body, "}", ""]

    def _argument_types(self) -> list[str]:
        names = [loop.name for loop in self.loops] or ["none"]
        types = [
            "typedef struct {",
            *(f"    {kind} *b{number};" for number, kind in enumerate(self._pointed_to())),
            *(f"    int64_t s_{symbol};" for symbol in self.symbols),
            "} mm_args;",
            "",
            "typedef struct {",
            *(f"    int64_t {name};" for name in names),
            "} mm_at;",
        ]
        if self.dialect is Dialect.CUDA:
            return types
        return [
            *types,
            "",
            "MM_INLINE mm_args mm_arguments(void *const *mm_buffers, const int64_t *mm_scalars)",
            "{",
            "    mm_args g;",
            *(f"    g.b{number} = mm_buffers[{number}];" for number in range(len(self._types))),
            *(f"    g.s_{name} = mm_scalars[{n}];" for n, name in enumerate(self.symbols)),
            "    return g;",
            "}",
        ]

    def _pointed_to(self) -> list[str]:
        """Returns the type of an element of each buffer, const for those that are read."""
        read = [f"const {kind}" for kind in self._types[: self._input_count]]
        return read + self._types[self._input_count :]

    def entry(self) -> list[str]:
        """Returns the entry function of a CUDA kernel, which stands behind everything else."""
        pointers = enumerate(self._pointed_to())
        params = [f"{kind} *__restrict__ b{number}" for number, kind in pointers]
        params += [f"long long s_{symbol}" for symbol in self.symbols]
        names = [f"b{number}" for number in range(len(self._types))]
        names += [f"s_{symbol}" for symbol in self.symbols]
        head = 'extern "C" __global__ void __launch_bounds__(MM_THREADS, MM_BLOCKS) mm_kernel'
        body = [f"const mm_args g = {{{', '.join(names)}}};", "mm_run(g);"]
        return function(head, params, body)


def _words(lines: Iterable[str]) -> set[str]:
    """Returns the names in some text."""
    return {word for line in lines for word in re.findall(r"\w+", line)}


def symbol_names(sizes: Iterable[Size | Dim]) -> list[str]:
    """Returns the names in sizes, sorted."""
    names = {s.name for size in sizes if isinstance(size, Dim) for s in size.parameters}
    return sorted(names)


def template_source(
    text: Text,
    group: FusionGroup,
    name: str,
    files: Sequence[str],
    launch: Launch | None = None,
    shared: Sequence[str] = (),
) -> KernelSource:
    """Returns the kernel that joins generated text and hand-written files.

    Args:
        text: The generated text.
        group: What the kernel computes.
        name: Its readable name.
        files: The hand-written text, by its place in the kernel folder.
        launch: How many threads run it, for CUDA.
        shared: Text in front of all, which other kernels have, too.
    """
    generated = "\n".join(text.lines)
    parts = [*shared, *([OWN] if shared else []), generated, *map(kernel_text.read, files)]
    if text.dialect is Dialect.CUDA:
        parts.append("\n".join([*text.entry(), ""]))
    symbols = tuple(text.symbols)
    return KernelSource(
        name,
        text.dialect,
        "\n".join(parts),
        "mm_kernel",
        text.buffer_count,
        len(symbols),
        launch or Launch(),
        symbols=symbols,
        reading=Reading(group, group.inputs, text.parts(), generated),
    )
