"""Lowering: from a fusion group to scalar instructions over loop variables.

Values are computed on demand: an output asks for its operands at the same position, a view changes
the position, a broadcast drops axes, and an external value ends in a load from a contiguous buffer
at an affine index. An op that looks positions up makes one more variable of that index: the scalar
that it read. What does not depend on the row loop of a row group is computed once per row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ParamSpec, TypeVar

from maxmod.compiler.groups.group import FusionGroup
from maxmod.compiler.groups.instructions import (
    Apply,
    Instruction,
    Load,
    Lowered,
    Memo,
    Position,
    Reduction,
    Store,
    Wanted,
    needed,
    operands,
)
from maxmod.dtype import DType, compute_dtype
from maxmod.op import Kind, ir
from maxmod.op.affine import (
    Index,
    Indirect,
    Loop,
    SplitNeeded,
    Unfusable,
    broadcast_indices,
    flat_index,
    is_below,
    lowest,
    merge_loops,
    of_loop,
    room_above,
    split_loop,
)
from maxmod.values.dim import Size, as_size

MAX_SPLITS = 16
P = ParamSpec("P")
T = TypeVar("T")


def attempt(lowering: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Unfusable:
    """Returns what a group is lowered to, or the reason why it cannot be a kernel.

    Args:
        lowering: `lower`, or a function that lowers groups with a template.
        *args: Its arguments.
        **kwargs: Its arguments.
    """
    try:
        return lowering(*args, **kwargs)
    except Unfusable as error:
        return error


class Attempts:
    """Which groups can be lowered, and why others cannot, found once for equal layers."""

    def __init__(self) -> None:
        self._refusals: dict[tuple[object, ...], Unfusable | None] = {}

    def is_kernel(self, group: FusionGroup) -> bool:
        """True if a group without a template can be lowered."""
        return self.refusal(group, lower, group) is None

    def refusal(
        self, group: FusionGroup, lowering: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> Unfusable | None:
        """Returns why a group cannot be lowered; None if it can.

        Args:
            group: The group, which decides the result.
            lowering: As for `attempt`.
            *args: Its arguments.
            **kwargs: Its arguments.
        """
        key = group.key()
        if key not in self._refusals:
            found = attempt(lowering, *args, **kwargs)
            self._refusals[key] = found if isinstance(found, Unfusable) else None
        return self._refusals[key]


def lower(group: FusionGroup) -> Lowered:
    """Lowers a group, splitting loops where reshapes need it, then merging what steps evenly.

    Raises:
        Unfusable: If a position cannot be expressed.
    """
    loops = [Loop(f"x{axis}", size) for axis, size in enumerate(group.domain)]
    row = loops.pop() if group.is_row else None
    start = [of_loop(loop) for loop in loops]
    for _ in range(MAX_SPLITS):
        try:
            lowered = Lowering(group, loops, row, start).run()
        except SplitNeeded as split:
            if split.loop is row:
                raise Unfusable(f"the row would be split: {split}") from None
            loops, start = split_loops(loops, start, split)
            continue
        return _merge(lowered)
    raise Unfusable("too many loops would be needed")


def split_loops(
    loops: Sequence[Loop], start: Sequence[Index], split: SplitNeeded
) -> tuple[list[Loop], list[Index]]:
    """Replaces a loop by two, in the loops and in positions computed from them."""
    high, low, whole = split_loop(split.loop, split.inner)
    new = [part for loop in loops for part in ((high, low) if loop == split.loop else (loop,))]
    return new, [index.substituted({split.loop: whole}) for index in start]


def _merge(lowered: Lowered) -> Lowered:
    accesses = [i.what.index for i in lowered.instructions if isinstance(i.what, Load)]
    accesses += [
        i.what.index
        for i in lowered.instructions
        if isinstance(i.what, Apply) and i.what.index is not None
    ]
    accesses += [store.index for store in lowered.stores]
    lowered.loops, rewrite = merge_loops(lowered.loops, accesses)
    for instruction in lowered.instructions:
        what = instruction.what
        index = what.index if isinstance(what, (Load, Apply)) else None
        if index is not None:
            instruction.what = replace(what, index=rewrite(index))
    for store in lowered.stores:
        store.index = rewrite(store.index)
    return lowered


def _check_in_place(lowered: Lowered) -> None:
    """Refuses kernels that would read what they have overwritten, or cannot check where to store
    and what to look up before they store anything.

    Raises:
        Unfusable: If it is so.
    """
    written = {store.buffer: store.index for store in lowered.stores}
    for instruction in lowered.instructions:
        what = instruction.what
        if not isinstance(what, Load) or what.buffer not in written:
            continue
        # Threads may do a row twice; an element is read and written by one thread.
        if lowered.row is not None or what.index != written[what.buffer]:
            raise Unfusable("it reads the buffer that it overwrites")
    if written and lowered.group.targets:
        for number in needed(lowered.instructions, lowered.positions):
            if isinstance(lowered.instructions[number].what, Reduction):
                raise Unfusable("it looks up what it stores at positions that it finds out late")
    loops = [*lowered.loops, *([lowered.row] if lowered.row else [])]
    varying = set[int]().union(*map(lowered.varying, loops))
    for number in needed(lowered.instructions, lowered.store_positions):
        is_reduction = isinstance(lowered.instructions[number].what, Reduction)
        if number in varying or is_reduction:
            raise Unfusable("it stores at positions that the kernel finds out late")


class _NotMadeYet(Exception):
    """A position is data that has no instruction yet."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__()
        self.wanted = wanted


class Lowering:
    """State of one attempt to lower a group with given loops."""

    def __init__(
        self, group: FusionGroup, loops: list[Loop], row: Loop | None, start: list[Index]
    ) -> None:
        self.group = group
        self.loops = loops
        self.row = row
        self.outer = tuple(start)
        self.position = (*start, of_loop(row)) if row is not None else tuple(start)
        self.producers = {value: node for node in group.nodes for value in node.outputs}
        self.inputs = {value: number for number, value in enumerate(group.reads)}
        self.instructions: list[Instruction] = []
        self.memo: Memo = {}
        self.positions: dict[Position, int] = {}
        self.room: list[Size] = []

    def run(self) -> Lowered:
        outputs = self.group.outputs
        count = len(self.inputs)
        for number, value in enumerate(outputs, count):
            if value in self.group.targets:  # read through the pointer through which it is written
                self.inputs[self.group.targets[value]] = number
        stores: list[Store] = []
        for number, value in enumerate(outputs, count):
            scalar, flat = self._stored(value)
            stores.append(Store(number, flat, scalar, value.type.dtype))
        buffers = [value.type.dtype for value in (*self.group.reads, *outputs)]
        lowered = Lowered(
            list(self.loops),
            self.row,
            self.instructions,
            stores,
            buffers,
            count,
            self.room,
            self.group,
            self.memo,
        )
        _check_in_place(lowered)
        return lowered

    def _stored(self, value: ir.Value) -> tuple[int, Index]:
        """Returns the instruction that gives an output, and where it goes."""
        node = self.producers[value]
        if node.op.meaning.assign is None or value not in self.group.targets:
            position = self._output_position(value)
            return self.value(value, position), flat_index(position, value.type.sizes)
        source = node.inputs[1]
        position = self._output_position(source)
        target = None
        while target is None:
            try:
                target = self._looked_up(node, position)
            except _NotMadeYet as needed_first:
                self.value(*needed_first.wanted)
        for index, size in zip(target, value.type.sizes, strict=True):
            self.room += [room_above(index, size), as_size(lowest(index) + 1)]
        if any(isinstance(size, int) and size < 1 for size in self.room):
            raise Unfusable("it stores out of range")
        return self.value(source, position), flat_index(target, value.type.sizes)

    def _output_position(self, value: ir.Value) -> tuple[Index, ...]:
        sizes = value.type.sizes
        if sizes == self.group.domain:
            return self.position
        if self.row is not None and sizes == (*self.group.domain[:-1], 1):
            return (*self.outer, Index())
        raise Unfusable(f"an output of shape {sizes} in the domain {self.group.domain}")

    def value(self, value: ir.Value, position: tuple[Index, ...]) -> int:
        """Returns the instruction that gives `value` at `position`.

        Operands are made before what reads them, the first of them first. A stack of what is
        wanted takes the place of recursion: chains are longer than what Python can nest.
        """
        stack: list[tuple[Wanted, list[Wanted] | None]] = [((value, position), None)]
        while stack:
            wanted, sources = stack[-1]
            if sources is None:
                if wanted in self.memo:
                    stack.pop()
                    continue
                try:
                    sources = self._sources(*wanted)
                except _NotMadeYet as needed_first:
                    stack.append((needed_first.wanted, None))
                    continue
                stack[-1] = wanted, sources
                missing = [source for source in sources if source not in self.memo]
                if missing:
                    stack += [(source, None) for source in reversed(missing)]
                    continue
            stack.pop()
            self.memo[wanted] = self._make(*wanted, [self.memo[source] for source in sources])
        return self.memo[value, position]

    def _sources(self, value: ir.Value, position: tuple[Index, ...]) -> list[Wanted]:
        """Returns the values that a value is made of, each with the position where it is read."""
        if value in self.inputs:
            return []
        node = self.producers[value]
        kind = node.op.kind
        if kind is Kind.VIEW:
            (x,) = node.inputs
            assert node.op.lowering.view is not None
            return [
                (x, tuple(node.op.lowering.view(list(position), x.type, value.type, **node.kwargs)))
            ]
        if kind is Kind.INDEX:
            return [(node.inputs[0], tuple(self._looked_up(node, position)))]
        if kind is Kind.REDUCE:
            if self.row is None or position[:-1] != self.outer or position[-1] != Index():
                raise Unfusable(f"{node.op.name} is read at another row")
            return [(node.inputs[0], self.position)]
        return [(x, tuple(broadcast_indices(position, x.type.sizes))) for x in node.inputs]

    def _make(self, value: ir.Value, position: tuple[Index, ...], args: Sequence[int]) -> int:
        """Returns the instruction that makes a value from those of its sources."""
        dtype = value.type.dtype
        if value in self.inputs:
            flat = flat_index(position, value.type.sizes)
            return self.append(Load(self.inputs[value], flat, dtype), dtype)
        node = self.producers[value]
        kind = node.op.kind
        if kind is Kind.VIEW or kind is Kind.INDEX:
            return args[0]
        if kind is Kind.SOURCE:
            flat = flat_index(position, value.type.sizes)
            uses_index = "{index}" in (node.op.lowering.scalar or "")
            return self.append(Apply(node.op, (), node.attrs, flat if uses_index else None), dtype)
        if kind is Kind.REDUCE:
            level = self.instructions[args[0]].level + 1
            what = Reduction(node.op, args[0])
            self.instructions.append(Instruction(what, compute_dtype(dtype), False, level))
            return len(self.instructions) - 1
        return self.append(Apply(node.op, tuple(args), node.attrs), dtype)

    def _looked_up(self, node: ir.Node, position: Sequence[Index]) -> Sequence[Index]:
        """Returns the position in the first operand that an op finds in the others."""
        assert node.op.lowering.position is not None
        read = functools.partial(self._read, node)
        types = [x.type for x in node.inputs]
        return node.op.lowering.position(list(position), read, *types, **node.kwargs)

    def _read(self, node: ir.Node, number: int, position: Sequence[Index], size: Size) -> Index:
        """Returns an element of an operand as a position on an axis."""
        is_store = node.op.meaning.assign is not None
        index = self._counted(node.inputs[number], tuple(position))
        if index is not None and is_below(index, size):
            return index
        wanted = node.inputs[number], tuple(position)
        if wanted not in self.memo:
            raise _NotMadeYet(wanted)
        what = Position(self.memo[wanted], size, is_store)
        found = self.positions.get(what)
        if found is None:
            found = self.positions[what] = self.append(what, DType.int64)
        return Index(((Indirect(found, size), 1),))

    def _counted(self, value: ir.Value, position: tuple[Index, ...]) -> Index | None:
        """Returns the number that a value is, if it only counts along an axis."""
        node = self.producers.get(value)
        while node is not None and node.op.lowering.view is not None:
            (x,) = node.inputs
            position = tuple(
                node.op.lowering.view(list(position), x.type, value.type, **node.kwargs)
            )
            value, node = x, self.producers.get(x)
        dtype = value.type.dtype
        if (
            node is None
            or node.op.lowering.scalar != "{index}"
            or dtype not in (DType.int32, DType.int64)
        ):
            return None
        return flat_index(position, value.type.sizes)

    def append(self, what: Load | Apply | Position, dtype: DType) -> int:
        """Adds an instruction, whose operands already exist, and returns its number."""
        needed = [self.instructions[number] for number in operands(what)]
        index = None if isinstance(what, Position) else what.index
        in_row = self.row is not None and index is not None and index.factor(self.row) != 0
        in_row = in_row or any(instruction.in_row for instruction in needed)
        level = max((instruction.level for instruction in needed), default=0)
        self.instructions.append(Instruction(what, compute_dtype(dtype), in_row, level))
        return len(self.instructions) - 1
