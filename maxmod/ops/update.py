"""Updates: the functional form of stores into a buffer, which compiled graphs run in place."""

from __future__ import annotations

from typing import Any

from maxmod.dim import Sizes, format_sizes
from maxmod.errors import DTypeError, ShapeError
from maxmod.op import Kind, Op, op
from maxmod.ops.shape import basic_slice
from maxmod.tensor import Tensor
from maxmod.tensor_type import TensorType


def _updated(op: Op, x: TensorType, source: TensorType, **bounds: Sizes) -> TensorType:
    wanted = basic_slice.op.infer(op, x, **bounds)  # type: ignore[attr-defined]
    if source.dtype is not x.dtype:
        raise DTypeError(f"{op.name}: expected {x.dtype!r}, got {source.short()}.")
    if source.sizes != wanted.sizes:
        raise ShapeError(
            f"{op.name}: the source must have the shape of the slice: expected "
            f"{format_sizes(wanted.sizes)}, got {source.short()}."
        )
    return x


def _assign(x: Any, source: Any, starts: Sizes, stops: Sizes, steps: Sizes) -> None:
    for size, start, stop in zip(x.shape, starts, stops, strict=True):
        if not 0 <= start <= stop <= size:
            raise ShapeError(f"update_slice: {start}:{stop} is out of range for size {size}.")
    x[tuple(slice(*bounds) for bounds in zip(starts, stops, steps, strict=True))] = source


@op(Kind.INDEX, _updated, assign=_assign)
def update_slice(
    xp: Any, x: Tensor, source: Tensor, starts: Sizes, stops: Sizes, steps: Sizes
) -> Tensor:
    """A copy of x in which one slice is replaced; bounds are counted from 0 on every axis.

    Args:
        x: Tensor of any dtype.
        source: Tensor of the same dtype and of the shape of the slice.
        starts: First position on each axis.
        stops: End on each axis, not included.
        steps: Distance on each axis, above 0.

    Returns:
        The type of x.
    """
    result = x.copy()
    _assign(result, source, starts, stops, steps)
    return result
