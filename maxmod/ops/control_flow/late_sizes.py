"""Sizes that are known only when a graph runs: a name gets its value from a number in the data."""

from __future__ import annotations

from maxmod.dtype import DType
from maxmod.errors import ShapeError, SliceError
from maxmod.op import Kind, Op, op
from maxmod.ops.context import active_trace
from maxmod.tensor import Tensor
from maxmod.values.array import ArrayModule
from maxmod.values.dim import Size, SymbolicDim
from maxmod.values.tensor_type import TensorType


def _bound(op: Op, count: TensorType, *, size: Size, reason: str) -> TensorType:
    if count.dtype is not DType.int64 or count.sizes:
        raise ShapeError(f"{reason}: the size {size}: expected int64[], got {count.short()}.")
    return count


@op(Kind.OPAQUE, _bound, binds="size")
def bind_size(xp: ArrayModule, count: Tensor, size: Size, reason: str) -> Tensor:
    """The number itself, which is the value of the name `size` from then on.

    A name that has a value already must have the same one.

    Args:
        count: int64 scalar.
        size: The name.
        reason: What the error says.

    Raises:
        ValueError: If the name has another value.
    """
    expect_size(int(count), reason)
    if int(count) != size:
        raise ShapeError(f"{reason} is {size}, but the data says {int(count)}.")
    return count


def expect_size(count: int, reason: str) -> None:
    """Refuses a negative size, which stands for bounds that are out of range."""
    if count < 0:
        raise SliceError(
            f"{reason} is negative: the bounds that it comes from are out of range. Hint: bounds "
            "are not clipped."
        )


def declare_size(size: Size, count: Tensor, reason: str) -> None:
    """In a trace, binds a symbolic `size` to the value of an integer tensor with one element.

    Args:
        size: The declared size; a number is left to be checked by the op that uses it.
        count: int64 with one element.
        reason: The declaration, for errors: `nonzero: out_dim`.
    """
    if isinstance(size, SymbolicDim) and active_trace() is not None:
        bind_size(count.cast(DType.int64).reshape(()), size=size, reason=reason)
