"""Ops that reverse the order of elements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from maxmod.errors import ShapeError
from maxmod.op import Kind, Op, op
from maxmod.op.affine import Index, reversed_index
from maxmod.op.rules import normalize_axis
from maxmod.tensor import Tensor
from maxmod.values.array import ArrayModule
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

__all__ = ["flip"]


def _axes(op: Op, x: TensorType, *, axis: object) -> Attrs:
    if axis is None:
        return {"axis": tuple(range(x.rank))}
    if isinstance(axis, str) or not isinstance(axis, Iterable):
        return {"axis": (normalize_axis(op.name, axis, x.rank),)}
    axes = [normalize_axis(op.name, one, x.rank) for one in axis]
    if len(set(axes)) != len(axes):
        raise ShapeError(f"flip: axis: an axis occurs twice in {axes}.")
    return {"axis": tuple(sorted(axes))}


def _same(op: Op, x: TensorType, *, axis: Sequence[int]) -> TensorType:
    return x


def _flipped_view(
    indices: Sequence[Index], x: TensorType, out: TensorType, *, axis: Sequence[int]
) -> list[Index]:
    return [
        reversed_index(index, size) if number in axis else index
        for number, (index, size) in enumerate(zip(indices, x.sizes, strict=True))
    ]


@op(Kind.VIEW, _same, prepare=_axes, view=_flipped_view)
def flip(xp: ArrayModule, x: Tensor, axis: int | Iterable[int] | None = None) -> Tensor:
    """The elements in reverse order along one or several axes: `x[::-1]`.

    Args:
        x: Tensor of any dtype.
        axis: An axis or a sequence of them; None for all.

    Returns:
        The type of x.

    Raises:
        ValueError: If an axis occurs twice.
        IndexError: If an axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> F.flip(x).to_numpy().tolist(), F.flip(x, -1).to_numpy().tolist()
        ([[4.0, 3.0], [2.0, 1.0]], [[2.0, 1.0], [4.0, 3.0]])
    """
    if not axis:
        return x
    # A copy: other libraries do not take memory with strides below 0.
    return xp.ascontiguousarray(xp.flip(x, axis)).reshape(x.shape)
