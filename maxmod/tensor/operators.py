"""Python operators on tensors: each calls its op."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from maxmod.op import call
from maxmod.tensor import era
from maxmod.tensor.like import TensorLike
from maxmod.values.array import Subscript


class Operators:
    """The part of `Tensor` that implements `x + y`, `x[i]`, `x == y` and the like."""

    __slots__ = ()

    def __add__(self, other: TensorLike) -> Self:
        return call("add", self, other)

    def __radd__(self, other: TensorLike) -> Self:
        return call("add", other, self)

    def __sub__(self, other: TensorLike) -> Self:
        return call("sub", self, other)

    def __rsub__(self, other: TensorLike) -> Self:
        return call("sub", other, self)

    def __mul__(self, other: TensorLike) -> Self:
        return call("mul", self, other)

    def __rmul__(self, other: TensorLike) -> Self:
        return call("mul", other, self)

    def __truediv__(self, other: TensorLike) -> Self:
        return call("div", self, other)

    def __rtruediv__(self, other: TensorLike) -> Self:
        return call("div", other, self)

    def __floordiv__(self, other: TensorLike) -> Self:
        return call("floor_div", self, other)

    def __rfloordiv__(self, other: TensorLike) -> Self:
        return call("floor_div", other, self)

    def __mod__(self, other: TensorLike) -> Self:
        return call("mod", self, other)

    def __rmod__(self, other: TensorLike) -> Self:
        return call("mod", other, self)

    def __divmod__(self, other: TensorLike) -> tuple[Self, Self]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Self, Self]:
        return other // self, other % self

    def __pow__(self, other: TensorLike) -> Self:
        return call("pow", self, other)

    def __rpow__(self, other: TensorLike) -> Self:
        return call("pow", other, self)

    def __matmul__(self, other: TensorLike) -> Self:
        return call("matmul", self, other)

    def __rmatmul__(self, other: TensorLike) -> Self:
        return call("matmul", other, self)

    def __neg__(self) -> Self:
        return call("negate", self)

    def __abs__(self) -> Self:
        return call("abs", self)

    def __and__(self, other: TensorLike) -> Self:
        return call("logical_and", self, other)

    def __rand__(self, other: TensorLike) -> Self:
        return call("logical_and", other, self)

    def __or__(self, other: TensorLike) -> Self:
        return call("logical_or", self, other)

    def __ror__(self, other: TensorLike) -> Self:
        return call("logical_or", other, self)

    def __xor__(self, other: TensorLike) -> Self:
        return call("logical_xor", self, other)

    def __rxor__(self, other: TensorLike) -> Self:
        return call("logical_xor", other, self)

    def __invert__(self) -> Self:
        return call("logical_not", self)

    def __eq__(self, other: object) -> Self:  # type: ignore[override]
        return call("equal", self, other)

    def __ne__(self, other: object) -> Self:  # type: ignore[override]
        return call("not_equal", self, other)

    def __gt__(self, other: TensorLike) -> Self:
        return call("greater", self, other)

    def __ge__(self, other: TensorLike) -> Self:
        return call("greater_equal", self, other)

    def __lt__(self, other: TensorLike) -> Self:
        # As in the API we follow: the negation of >=, so NaN compares true.
        return call("logical_not", call("greater_equal", self, other))

    def __le__(self, other: TensorLike) -> Self:
        return call("logical_not", call("greater", self, other))

    def __hash__(self) -> int:
        return id(self)

    def __getitem__(self, index: Subscript) -> Self:
        return call("slice_tensor", self, _as_items(index))

    def __len__(self) -> int:
        return call("count_rows", self)

    def __iter__(self) -> Iterator[Self]:
        return call("rows", self)

    def __setitem__(self, index: Subscript, value: TensorLike) -> None:
        call("set_item", self, _as_items(index), value)


def _as_items(index: Subscript) -> Subscript:
    """A list holds positions, as in NumPy; with slices, or in a script for MAX, it is a tuple."""
    if type(index) is not list or era.current() is not None:
        return index
    return index if any(map(_is_for_axes, index)) else (index,)


def _is_for_axes(part: object) -> bool:
    """True for None, `...`, slices, and pairs of a slice and its size."""
    if isinstance(part, (tuple, list)):
        return any(isinstance(item, slice) for item in part)
    return part is None or part is ... or isinstance(part, slice)
