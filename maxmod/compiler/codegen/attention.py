"""Attention: its parts, and the text before `kernels/host/attention.h`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maxmod.compiler.choose_kernels import LONGEST_HEAD
from maxmod.compiler.codegen.element import (
    ElementLowering,
    Text,
    index_sizes,
    position_through_views,
    symbol_names,
    template_source,
)
from maxmod.compiler.codegen.masks import mask_test
from maxmod.compiler.groups.group import Attention, FusionGroup
from maxmod.compiler.groups.instructions import Load
from maxmod.compiler.groups.lower import MAX_SPLITS, split_loops
from maxmod.dtype import DType, compute_dtype
from maxmod.kernel.source import KernelSource
from maxmod.op import ir
from maxmod.op.affine import Index, Loop, SplitNeeded, Unfusable, broadcast_indices, of_loop


@dataclass(frozen=True, slots=True)
class LoweredAttention:
    """Everything that the text needs, in terms of loops over batch axes, i, j, d and e.

    Attributes:
        loops: Loops over batch axes and heads.
        i: The loop over queries.
        j: The loop over keys.
        d: The loop over a query or key.
        e: The loop over a value.
        q: An element of a query: instructions, and which of them.
        k: An element of a key.
        v: An element of a value.
        logit: The instructions applied to a score.
        out: Where an element of the result goes.
    """

    loops: list[Loop]
    i: Loop
    j: Loop
    d: Loop
    e: Loop
    q: tuple[ElementLowering, int]
    k: tuple[ElementLowering, int]
    v: tuple[ElementLowering, int]
    logit: tuple[ElementLowering, int]
    out: Index

    @property
    def depth(self) -> int:
        """The length of a key."""
        assert isinstance(self.d.extent, int)
        return self.d.extent

    @property
    def width(self) -> int:
        """The length of a value."""
        assert isinstance(self.e.extent, int)
        return self.e.extent

    def symbols(self) -> list[str]:
        """Returns the names of the sizes that the text mentions."""
        parts = (self.q, self.k, self.v, self.logit)
        sizes = [size for lowering, _ in parts for size in lowering.sizes()]
        sizes += [loop.extent for loop in (*self.loops, self.i, self.j)]
        return symbol_names([*sizes, *index_sizes(self.out)])

    def write(self, text: Text, group: FusionGroup, attention: Attention) -> None:
        """Adds the functions that both dialects need."""
        text.count("mm_queries", (self.i.extent,))
        text.count("mm_keys", (self.j.extent,))
        text.function("mm_q", ", int64_t i, int64_t d", *self.q)
        text.function("mm_k", ", int64_t j, int64_t d", *self.k)
        text.function("mm_v", ", int64_t j, int64_t e", *self.v)
        text.function("mm_score", ", int64_t i, int64_t j, float given", *self.logit)
        limits = ", int64_t i0, int64_t i1, int64_t j0, int64_t j1"
        test = mask_test(*self.logit, self.i, self.j)
        text.raw("bool", "mm_is_masked", limits, text.with_pointers(test))
        # Storing does the conversions to the result.
        result = ElementLowering(group, "to", given=attention.mixed.output)
        made = result.value(attention.mixed.output, ())
        store = (len(group.inputs), self.out, made, group.outputs[0])
        text.store("mm_out", ", int64_t i, int64_t e, float given", result, [store])


def lower_attention(group: FusionGroup, attention: Attention) -> LoweredAttention:
    """Lowers every part of an attention group.

    Raises:
        Unfusable: If a part is read at positions that cannot be expressed.
    """
    *batch, queries, keys = attention.mixed.inputs[0].type.sizes
    if attention.mixed.output.type.sizes[:-2] != tuple(batch):
        raise Unfusable("the values have batch axes that the weights lack")
    loops = [Loop(f"x{axis}", size) for axis, size in enumerate(batch)]
    start = [of_loop(loop) for loop in loops]
    for _ in range(MAX_SPLITS):
        try:
            return _lower(group, attention, loops, start, Loop("i", queries), Loop("j", keys))
        except SplitNeeded as split:
            if split.loop not in loops:
                raise Unfusable(f"an inner loop would be split: {split}") from None
            loops, start = split_loops(loops, start, split)
    raise Unfusable("too many loops would be needed")


def _lower(
    group: FusionGroup,
    attention: Attention,
    loops: list[Loop],
    start: Sequence[Index],
    i: Loop,
    j: Loop,
) -> LoweredAttention:
    rows, columns = of_loop(i), of_loop(j)
    queries, keys = attention.scores.inputs
    values = attention.mixed.inputs[1]
    depth, width = _head_size(queries), _head_size(values)
    logit = ElementLowering(group, "ts", given=attention.scores.output)
    number = logit.value(attention.logits, (*start, rows, columns))
    if logit.given_position[-2:] != (rows, columns):
        raise Unfusable("the scores are read in another order")
    batch = logit.given_position[:-2]
    if any(index.factor(i) != 0 or index.factor(j) != 0 for index in batch):
        raise Unfusable("queries or keys of several heads are mixed")
    if compute_dtype(attention.logits.type.dtype) is not DType.float32:
        raise Unfusable("only float32 sums are supported")
    d, e = Loop("d", depth), Loop("e", width)
    out = position_through_views(
        group, attention.mixed.output, group.outputs[0], (*start, rows, of_loop(e))
    )
    return LoweredAttention(
        loops,
        i,
        j,
        d,
        e,
        _operand(group, "tq", queries, batch, (rows, of_loop(d))),
        _operand(group, "tk", keys, batch, (of_loop(d), columns)),
        _operand(group, "tv", values, start, (columns, of_loop(e))),
        (logit, number),
        out,
    )


def _head_size(value: ir.Value) -> int:
    size = value.type.sizes[-1]
    if not isinstance(size, int):
        raise Unfusable("the size of a head is not known")
    if not 0 < size <= LONGEST_HEAD:
        raise Unfusable("the heads are empty or very large")
    return size


def _operand(
    group: FusionGroup,
    prefix: str,
    value: ir.Value,
    batch: Sequence[Index],
    inner: Sequence[Index],
) -> tuple[ElementLowering, int]:
    lowering = ElementLowering(group, prefix)
    outer = broadcast_indices(list(batch), value.type.sizes[:-2])
    return lowering, lowering.value(value, (*outer, *inner))


def emit_attention(group: FusionGroup, attention: Attention, name: str) -> KernelSource:
    """Returns the host kernel of an attention group."""
    lowered = lower_attention(group, attention)
    text = Text(group, lowered.loops, lowered.symbols())
    text.define("MM_DEPTH", lowered.depth)
    text.define("MM_VALUES", lowered.width)
    text.define("MM_KEYS_INNER", int(_is_inner(*lowered.k, lowered.j)))
    text.lines.append("")
    text.count("mm_batches", (loop.extent for loop in lowered.loops))
    text.place()
    lowered.write(text, group, attention)
    return template_source(text, group, name, ("host/tile.h", "host/attention.h"))


def _is_inner(lowering: ElementLowering, number: int, loop: Loop) -> bool:
    """True if neighbours along a loop are neighbours in memory, in every load."""
    loads = lowering.loads(lowering.needed(number))
    return (
        bool(loads)
        and all(_factor(load, loop) in (0, 1) for load in loads)
        and any(_factor(load, loop) == 1 for load in loads)
    )


def _factor(load: Load, loop: Loop) -> object:
    return load.index.factor(loop)
