"""Index expressions: affine functions of loop variables, with sizes that may be symbolic.

A variable is a loop variable, or an indirect one: an integer that the kernel reads or computes.

A view never moves data in a kernel: it changes the index at which its operand is read. Indices stay
affine through permute, broadcast and slice. Through reshape they stay affine where the loop
variables line up with the axes; where one variable straddles two axes, `SplitNeeded` asks the
planner to split that loop, and only what cannot be split ends in a division. A flip gives factors
below 0; the other factors are sizes or products of them, and never are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maxmod.values.dim import AlgebraicDim, Size, as_dim, as_size
from maxmod.values.shape import Sizes, product


class Unfusable(Exception):
    """An index cannot be expressed; the planner keeps the value out of the group."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop variable that runs from 0 to `extent` - 1."""

    name: str
    extent: Size


@dataclass(frozen=True, slots=True)
class Indirect:
    """A data-dependent index: instruction `number` of the kernel, from 0 to `extent` - 1."""

    number: int
    extent: Size

    @property
    def name(self) -> str:
        """The C variable of the instruction."""
        return f"t{self.number}"


Variable = Loop | Indirect


class SplitNeeded(Exception):
    """Asks to replace loop `loop` by two loops of `extent // inner` and `inner` steps."""

    def __init__(self, loop: Loop, inner: Size) -> None:
        super().__init__(f"{loop.name} by {inner}")
        self.loop = loop
        self.inner = inner


@dataclass(frozen=True, slots=True)
class Index:
    """`const + sum(factor * variable)`; `terms` holds (variable, factor), factors other than 0."""

    terms: tuple[tuple[Variable, Size], ...] = ()
    const: Size = 0

    def __add__(self, other: Index) -> Index:
        factors = dict(self.terms)
        for loop, factor in other.terms:
            factors[loop] = as_size(factors.get(loop, 0) + factor)
        terms = tuple((loop, factor) for loop, factor in factors.items() if factor != 0)
        return Index(terms, as_size(self.const + other.const))

    @property
    def data(self) -> tuple[int, ...]:
        """The instructions that compute its indirect variables."""
        return tuple(v.number for v, _ in self.terms if isinstance(v, Indirect))

    def scaled(self, factor: Size) -> Index:
        """Returns the index times a size."""
        if factor == 0:
            return ZERO
        terms = tuple((loop, as_size(f * factor)) for loop, f in self.terms)
        return Index(terms, as_size(self.const * factor))

    def factor(self, loop: Loop) -> Size:
        """Returns the factor of a loop variable, 0 if it does not occur."""
        for variable, factor in self.terms:
            if variable == loop:
                return factor
        return 0

    def substituted(self, values: dict[Loop, Index]) -> Index:
        """Returns the index with loop variables replaced."""
        result = Index((), self.const)
        for variable, factor in self.terms:
            new = values.get(variable) if isinstance(variable, Loop) else None
            result = result + (Index(((variable, 1),)) if new is None else new).scaled(factor)
        return result

    def render(self, size: Callable[[Size], str]) -> str:
        """Returns the C expression; `size` renders a size."""
        parts: list[str] = []
        for loop, factor in self.terms:
            parts.append(loop.name if factor == 1 else f"{loop.name} * {size(factor)}")
        if self.const != 0 or not parts:
            parts.append(size(self.const))
        return " + ".join(parts)


Read = Callable[[int, Sequence[Index], Size], Index]
"""Gives an element of an operand, by its number, as a position on an axis of a size."""

ZERO = Index()


def of_loop(loop: Loop) -> Index:
    """Returns the index that is the loop variable itself; a loop of one step is always 0."""
    return ZERO if loop.extent == 1 else Index(((loop, 1),))


def flat_index(indices: Sequence[Index], sizes: Sizes) -> Index:
    """Returns the row-major position of an element of a contiguous array."""
    flat = ZERO
    stride: Size = 1
    for index, size in zip(reversed(indices), reversed(sizes), strict=True):
        flat = flat + index.scaled(stride)
        stride = as_size(stride * size)
    return flat


def through_reshape(indices: Sequence[Index], to: Sizes, source: Sizes) -> list[Index]:
    """Returns the index in `source` of the element at `indices` in shape `to`.

    Raises:
        SplitNeeded: If a loop must be split first.
        Unfusable: If the index is not affine, however loops are split.
    """
    result: list[Index] = []
    for target_axes, source_axes in matching_blocks(to, source):
        block_sizes = tuple(source[axis] for axis in source_axes)
        if any(_is_backward(indices[axis]) for axis in target_axes):
            _expect_signs([*block_sizes, *(to[axis] for axis in target_axes)])
        flat = flat_index([indices[a] for a in target_axes], tuple(to[a] for a in target_axes))
        result += _unflatten(flat, block_sizes)
    return result


def reversed_index(index: Index, size: Size) -> Index:
    """Returns the position counted from the other end of an axis.

    Raises:
        Unfusable: If the sign of a factor is not known.
    """
    _expect_signs([factor for _, factor in index.terms])
    return index.scaled(-1) + Index((), as_size(size - 1))


def _is_backward(index: Index) -> bool:
    return any(_is_negative(factor) for _, factor in index.terms)


def _is_negative(factor: Size) -> bool:
    """True for what is below 0 whatever the symbols are."""
    if isinstance(factor, AlgebraicDim):
        return all(number < 0 for _, number in factor.terms)
    return isinstance(factor, int) and factor < 0


def _expect_signs(factors: Sequence[Size]) -> None:
    for factor in factors:
        if isinstance(factor, AlgebraicDim) and len({n < 0 for _, n in factor.terms}) > 1:
            raise Unfusable(f"an axis is read backward, and the sign of {factor} is not known")


def broadcast_indices(indices: Sequence[Index], source: Sizes) -> list[Index]:
    """Returns the index in `source` of the element at `indices` of a broadcast shape."""
    offset = len(indices) - len(source)
    return [ZERO if size == 1 else indices[offset + axis] for axis, size in enumerate(source)]


def matching_blocks(first: Sizes, second: Sizes) -> list[tuple[list[int], list[int]]]:
    """Splits two shapes of equal element count into the smallest runs of equal products.

    Axes of size 1 are left in whichever run they fall into.
    """
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(first) or j < len(second):
        left: list[int] = []
        right: list[int] = []
        count_l: Size = 1
        count_r: Size = 1
        while True:
            if left and right and count_l == count_r:
                break
            grow_left = _is_smaller(count_l, count_r, bool(left), i < len(first), j < len(second))
            if grow_left and i < len(first):
                left.append(i)
                count_l = as_size(count_l * first[i])
                i += 1
            elif j < len(second):
                right.append(j)
                count_r = as_size(count_r * second[j])
                j += 1
            else:
                break
        blocks.append((left, right))
    return blocks


def _is_smaller(left: Size, right: Size, has_left: bool, more_l: bool, more_r: bool) -> bool:
    """Decides which side to extend: the smaller product, or the one that still can."""
    if not more_l or not more_r:
        return more_l
    if not has_left:
        return True
    if isinstance(left, int) and isinstance(right, int):
        return left < right
    # With symbolic dimensions, one product divides the other if the runs can meet at all.
    return left == 1 or (_divides(left, right) and left != right)


def _divides(divisor: Size, number: Size) -> bool:
    if isinstance(divisor, int) and isinstance(number, int):
        return divisor != 0 and number % divisor == 0
    if divisor == 0:
        return False
    quotient = as_dim(number) // as_dim(divisor)
    return as_size(quotient * as_dim(divisor)) == number and "//" not in str(quotient)


def _unflatten(flat: Index, sizes: Sizes) -> list[Index]:
    """Returns the index on each axis of the element at row-major position `flat`."""
    result: list[Index] = []
    for axis in range(len(sizes) - 1):
        stride = product(sizes[axis + 1 :])
        whole, flat = _divmod(flat, stride)
        result.append(whole)
    if sizes:
        result.append(flat)
    elif flat != ZERO:
        raise Unfusable("an element of a scalar at another position")
    return result


def _divmod(index: Index, divisor: Size) -> tuple[Index, Index]:
    """Divides an index that is known to be inside a shape by the stride of an axis.

    A loop that is read backward is divided as `extent - 1 - loop`, which runs from 0 too.
    """
    if divisor == 1:
        return index, ZERO
    whole, rest = ZERO, ZERO
    for loop, factor in index.terms:
        if _divides(divisor, factor):
            quotient = as_size(as_dim(factor) // as_dim(divisor))
            whole = whole + _from_0(loop, quotient)
        else:
            rest = rest + _from_0(loop, factor)
    start = lowest(index)
    if _divides(divisor, start):
        whole = whole + Index((), as_size(as_dim(start) // as_dim(divisor)))
    else:
        rest = rest + Index((), start)
    if is_below(rest, divisor):
        return whole, rest
    for loop, factor in rest.terms:
        if not isinstance(loop, Loop):
            continue
        step = as_size(-as_dim(factor)) if _is_negative(factor) else factor
        inner = as_size(as_dim(divisor) // as_dim(step)) if _divides(step, divisor) else 0
        if inner not in (0, 1) and _divides(inner, loop.extent) and inner != loop.extent:
            raise SplitNeeded(loop, inner)
    raise Unfusable(f"{index.render(str)} cannot be divided by {divisor}")


def _from_0(variable: Variable, factor: Size) -> Index:
    """Returns a term, shifted so that its smallest value is 0."""
    shift = as_size(as_dim(factor) * (1 - as_dim(variable.extent))) if _is_negative(factor) else 0
    return Index(((variable, factor),), shift)


def lowest(index: Index) -> Size:
    """Returns the smallest value of an index."""
    smallest = as_dim(index.const)
    for variable, factor in index.terms:
        if _is_negative(factor):
            smallest = smallest + (variable.extent - 1) * as_dim(factor)
    return as_size(smallest)


def is_below(index: Index, bound: Size) -> bool:
    """True if an index is certainly smaller than the bound."""
    room = room_above(index, bound)
    return isinstance(room, int) and room > 0


def room_above(index: Index, bound: Size) -> Size:
    """Returns the bound minus the largest value of an index."""
    highest = as_dim(index.const)
    for variable, factor in index.terms:
        if not _is_negative(factor):
            highest = highest + (variable.extent - 1) * as_dim(factor)
    return as_size(as_dim(bound) - highest)


def split_loop(loop: Loop, inner: Size) -> tuple[Loop, Loop, Index]:
    """Returns the two loops that replace one, and its index in terms of them."""
    outer_extent = as_size(as_dim(loop.extent) // as_dim(inner))
    high = Loop(f"{loop.name}h", outer_extent)
    low = Loop(f"{loop.name}l", inner)
    return high, low, of_loop(high).scaled(inner) + of_loop(low)


def merge_loops(
    loops: Sequence[Loop], accesses: Sequence[Index]
) -> tuple[list[Loop], Callable[[Index], Index]]:
    """Joins adjacent loops that every access steps through as if they were one.

    Returns:
        The remaining loops, and a function that rewrites an index in terms of them.
    """
    merged: list[list[Loop]] = []
    for loop in loops:
        if loop.extent == 1:
            continue
        if merged and all(
            access.factor(merged[-1][-1]) == as_size(access.factor(loop) * loop.extent)
            for access in accesses
        ):
            merged[-1].append(loop)
        else:
            merged.append([loop])
    values: dict[Loop, Index] = {}
    result: list[Loop] = []
    for number, run in enumerate(merged):
        joined = Loop(f"i{number}", product(loop.extent for loop in run))
        result.append(joined)
        # Every access steps evenly, so the last loop carries the joined variable.
        values.update((loop, ZERO) for loop in run)
        values[run[-1]] = of_loop(joined)
    return result, lambda index: index.substituted(values)
