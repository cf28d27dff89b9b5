"""CUDA C: what pointwise and row kernels share. Vectors, index types, the text of one step.

A *span* is a run of neighbouring elements along one loop that a thread handles together: `width`
elements, read and written as one vector of up to 16 bytes where a buffer is contiguous. Kernels
rely on buffers being aligned to 16 bytes; whether all positions in them are too is decided here,
or by a condition on symbolic sizes that the kernel evaluates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from maxmod.compiler.codegen.emit import (
    block,
    index_text,
    loaded,
    size_text,
    statement,
    storage_type,
    stored_text,
    symbols_of,
)
from maxmod.compiler.groups.instructions import Apply, Load, Lowered, Store
from maxmod.op.affine import Index, Loop
from maxmod.values.dim import AlgebraicDim, Size
from maxmod.values.shape import product

VECTOR_NBYTES = 16  # the widest access of one thread
MAX_WIDTH = 8  # elements of a span; more would only lengthen the code of one-byte types
INT32_LIMIT = 1 << 30  # half of the range, so that a stride can be added before the comparison

NOTHING: Mapping[int, str] = MappingProxyType({})

VECTORS = """\
template <int N, typename T>
static __device__ __forceinline__ mm_vector<T, N> mm_read(const T *mm_at)
{
    return *reinterpret_cast<const mm_vector<T, N> *>(mm_at);
}

template <int N, typename T>
static __device__ __forceinline__ void mm_write(T *mm_at, const mm_vector<T, N> &mm_elements)
{
    *reinterpret_cast<mm_vector<T, N> *>(mm_at) = mm_elements;
}
"""

# The own division of compilers for 64 bits is a call of about 100 instructions. Numbers mostly
# fit into 32 bits; for larger ones, estimates in float, which are always a little too small (the
# four roundings add up to less than 4e-7), leave a millionth of the rest each time.
QUOTIENT = """\
static __device__ __forceinline__ int64_t mm_quotient(int64_t mm_a, int64_t mm_b)
{
    if (((mm_a | mm_b) >> 32) == 0)
        return (uint32_t)mm_a / (uint32_t)mm_b;
    const float mm_inverse = __fdividef(0.999999f, (float)mm_b);
    int64_t mm_whole = 0;
    while (mm_a >= mm_b) {
        int64_t mm_part = (int64_t)((float)mm_a * mm_inverse);
        mm_part = mm_part > 0 ? mm_part : 1;
        mm_whole += mm_part;
        mm_a -= mm_part * mm_b;
    }
    return mm_whole;
}
"""


# ---- arguments -----------------------------------------------------------------------------------


def parameters(lowered: Lowered) -> list[str]:
    """Returns the parameters of a kernel: inputs, outputs, symbolic sizes."""
    found: list[str] = []
    for number, dtype in enumerate(lowered.buffers):
        const = "const " if number < lowered.input_count else ""
        found.append(f"{const}{storage_type(dtype)} *__restrict__ b{number}")
    return found + [f"long long s_{name}" for name in symbols_of(lowered)]


def arguments(lowered: Lowered) -> str:
    """Returns the names of the parameters, to pass them on."""
    names = [f"b{number}" for number in range(len(lowered.buffers))]
    return ", ".join(names + [f"s_{name}" for name in symbols_of(lowered)])


# ---- index types ---------------------------------------------------------------------------------


def accesses(lowered: Lowered) -> Iterator[tuple[int, Index]]:
    """Yields (bytes of an element, position) of every read and write."""
    for instruction in lowered.instructions:
        if isinstance(instruction.what, Load):
            yield instruction.what.stored.size_in_bytes, instruction.what.index
    for store in lowered.stores:
        yield store.stored.size_in_bytes, store.index


def index_type(lowered: Lowered) -> str:
    """Returns `int` where every position is known to fit, else `int64_t`."""
    loops = [*lowered.loops, *([lowered.row] if lowered.row else [])]
    counts: list[Size] = [product(loop.extent for loop in loops)]
    indices = [index for _, index in accesses(lowered)]
    indices += [
        i.what.index
        for i in lowered.instructions
        if isinstance(i.what, Apply) and i.what.index is not None
    ]
    counts += [_highest(index) for index in indices]
    fits = all(isinstance(count, int) and count < INT32_LIMIT for count in counts)
    return "int" if fits else "int64_t"


def _highest(index: Index) -> Size:
    """Returns a bound of the absolute position, or a symbolic size if it is not known."""
    if not isinstance(index.const, int):
        return index.const
    highest = abs(index.const)
    for loop, factor in index.terms:
        if not isinstance(factor, int) or not isinstance(loop.extent, int):
            return factor if not isinstance(factor, int) else loop.extent
        highest += abs(factor) * (loop.extent - 1)
    return highest


def loop_variables(extents: Sequence[tuple[str, str]], kind: str, counter: str) -> list[str]:
    """Recovers loop variables from one counter, the last one running fastest.

    Args:
        extents: Name and number of steps of each loop.
        kind: C type of the variables.
        counter: The counter.
    """
    if not extents:
        return []
    if len(extents) == 1:
        return [f"const {kind} {extents[0][0]} = {counter};"]
    lines = [f"{kind} mm_rest = {counter};"]
    for number, (name, extent) in enumerate(reversed(extents[1:])):
        if kind == "int":
            lines += [f"const int {name} = mm_rest % {extent};", f"mm_rest /= {extent};"]
            continue
        whole = f"mm_q{number}"
        lines.append(f"const int64_t {whole} = mm_quotient(mm_rest, {extent});")
        lines.append(f"const int64_t {name} = mm_rest - {whole} * {extent};")
        lines.append(f"mm_rest = {whole};")
    return [*lines, f"const {kind} {extents[0][0]} = mm_rest;"]


def named_extents(loops: Sequence[Loop]) -> list[tuple[str, str]]:
    """Returns the name and the number of steps of each loop, as text."""
    return [(loop.name, size_text(loop.extent)) for loop in loops]


def count_text(loops: Sequence[Loop], kind: str) -> str:
    """Returns the number of steps of nested loops."""
    total = product(loop.extent for loop in loops)
    return size_text(total) if kind == "int" else f"(int64_t){size_text(total)}"


# ---- vectors -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Width:
    """How many elements a span has.

    Attributes:
        elements: The number; 1 means that nothing is read or written as a vector.
        conditions: What symbolic sizes must fulfil, as C text; without it, `elements` is 1.
    """

    elements: int
    conditions: tuple[str, ...] = ()


def span_width(lowered: Lowered, loop: Loop, needs_whole: bool) -> Width:
    """Chooses how many neighbouring elements along a loop a thread handles.

    Args:
        lowered: The kernel.
        loop: The loop.
        needs_whole: True if the steps of the loop must be a multiple of the width.
    """
    varies = lowered.varying(loop)
    contiguous = [
        (size, index)
        for size, index in accesses(lowered)
        if index.factor(loop) == 1 and varies.isdisjoint(index.data)
    ]
    if not contiguous:
        return Width(1)
    sizes: list[Size] = [loop.extent] if needs_whole else []
    for _, index in contiguous:
        sizes += [factor for other, factor in index.terms if other != loop]
        sizes.append(index.const)
    if not needs_whole and isinstance(loop.extent, int) and loop.extent < MAX_WIDTH:
        return Width(1)
    elements = min(VECTOR_NBYTES // max(size for size, _ in contiguous), MAX_WIDTH)
    while elements > 1:
        conditions = [multiple_of(size, elements) for size in sizes]
        if "false" not in conditions:
            return Width(elements, tuple(dict.fromkeys(c for c in conditions if c != "true")))
        elements //= 2
    return Width(1)


def multiple_of(size: Size, width: int) -> str:
    """Returns `true`, `false` or the condition under which a size is a multiple of the width."""
    if isinstance(size, int):
        return "true" if size % width == 0 else "false"
    if isinstance(size, AlgebraicDim) and all(factor % width == 0 for _, factor in size.terms):
        return "true"
    return f"{size_text(size)} % {width} == 0"


# ---- spans ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """The neighbouring elements that a thread handles together.

    Attributes:
        lowered: The kernel.
        loop: The loop over them; the first of them is at `mm_i`.
        kind: C type of positions.
        elements: Their number, which is `V` in the text; 1 without a `V`.
    """

    lowered: Lowered
    loop: Loop
    kind: str
    elements: int

    @property
    def is_vector(self) -> bool:
        """True if there is a loop over the elements of the span."""
        return self.elements > 1

    def lines(
        self,
        numbers: Sequence[int],
        stores: Sequence[Store],
        given: Mapping[int, str] = NOTHING,
        then: Sequence[str] = (),
    ) -> list[str]:
        """Returns the text of a span.

        Args:
            numbers: Instructions to compute for each element, in order.
            stores: What to write, of those instructions.
            given: Text of the instructions that are known already.
            then: Statements after the instructions.
        """
        before: list[str] = []
        body: list[str] = []
        after: list[str] = []
        positions: list[Index] = []
        varies = self.lowered.varying(self.loop) if self.is_vector else set[int]()
        for number in numbers:
            what = self.lowered.instructions[number].what
            if number in given:
                text = given[number]
            elif isinstance(what, Load) and self._is_contiguous(what.index, varies):
                kind = storage_type(what.stored)
                place = f"b{what.buffer} + {self._start(what.index)}"
                before.append(f"const mm_vector<{kind}, V> v{number} = mm_read<V>({place});")
                text = loaded(what.stored, f"v{number}.v[mm_k]")
            else:
                index = what.index if isinstance(what, (Load, Apply)) else None
                positions += [] if index is None else [index]
                text = ""  # that of the op
            body += statement(self.lowered.instructions, number, text)
        body += then
        for store in stores:
            value = stored_text(self.lowered, store)
            only = "if (blockIdx.x == 0) " if store.by_one_block else ""
            if self._is_contiguous(store.index, varies):
                out = f"o{store.buffer}"
                before.append(f"mm_vector<{storage_type(store.stored)}, V> {out};")
                body.append(f"{out}.v[mm_k] = {value};")
                after.append(
                    f"{only}mm_write(b{store.buffer} + {self._start(store.index)}, {out});"
                )
            else:
                positions.append(store.index)
                body.append(f"{only}b{store.buffer}[{index_text(store.index)}] = {value};")
        return self._assembled(before, body, after, positions)

    def needs_position(
        self, numbers: Sequence[int], stores: Sequence[Store], given: Mapping[int, str] = NOTHING
    ) -> bool:
        """Returns whether the text of a span mentions where in the loop it is."""
        whats = [self.lowered.instructions[n].what for n in numbers if n not in given]
        indices = [what.index for what in whats if isinstance(what, (Load, Apply))]
        indices += [store.index for store in stores]
        return any(index is not None and index.factor(self.loop) != 0 for index in indices)

    def _assembled(
        self, before: list[str], body: list[str], after: list[str], positions: list[Index]
    ) -> list[str]:
        is_used = any(index.factor(self.loop) != 0 for index in positions)
        if not self.is_vector:
            first = [f"const {self.kind} {self.loop.name} = mm_i;"] if is_used else []
            return [*first, *body]
        first = [f"const {self.kind} {self.loop.name} = mm_i + mm_k;"] if is_used else []
        inner = block("for (int mm_k = 0; mm_k < V; mm_k++)", [*first, *body])
        return [*before, "#pragma unroll", *inner, *after]

    def _is_contiguous(self, index: Index, varies: set[int]) -> bool:
        is_step = self.is_vector and index.factor(self.loop) == 1
        return is_step and varies.isdisjoint(index.data)

    def _start(self, index: Index) -> str:
        """Returns the position of the first element."""
        first = Index(((Loop("mm_i", self.loop.extent), 1),))
        return index_text(index.substituted({self.loop: first}))
