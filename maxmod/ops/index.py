"""Ops that read positions from a tensor: gather and its relatives."""

from __future__ import annotations

from typing import Any

import numpy as np

from maxmod.errors import DTypeError, SliceError
from maxmod.op import Kind, Op, op
from maxmod.rules import normalize_axis
from maxmod.tensor import Tensor
from maxmod.tensor_type import TensorType


def _gather_axis(op: Op, input: TensorType, indices: TensorType, *, axis: Any) -> dict[str, Any]:
    return {"axis": normalize_axis(op.name, axis, input.rank)}


def _expect_indices(op: Op, indices: TensorType) -> None:
    if not indices.dtype.is_integral():
        raise DTypeError(
            f"{op.name}: indices have an unsupported dtype: expected integers, got "
            f"{indices.short()}."
        )


def _gathered(op: Op, input: TensorType, indices: TensorType, *, axis: int) -> TensorType:
    _expect_indices(op, indices)
    return input.with_sizes((*input.sizes[:axis], *indices.sizes, *input.sizes[axis + 1 :]))


@op(Kind.INDEX, _gathered, prepare=_gather_axis)
def gather(xp: Any, input: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Elements of an axis at given positions (NumPy's `take`).

    Args:
        input: Tensor of any dtype.
        indices: Integer tensor; negative positions count from the end.
        axis: The axis of `input` that they point into.

    Returns:
        `input.shape[:axis] + indices.shape + input.shape[axis + 1:]`, the dtype of `input`.

    Raises:
        ValueError: If the indices are floats.
        IndexError: If the axis, or on the host a position, is out of range.
    """
    _check_range(xp, indices, input.shape[axis], "gather")
    return xp.take(input, indices.astype(np.int64), axis=axis)


def _check_range(xp: Any, indices: Any, size: int, name: str) -> None:
    """On the host, refuses positions outside the axis; a GPU would have to wait for the answer."""
    if xp is not np or indices.size == 0:
        return
    low, high = int(indices.min()), int(indices.max())
    if low < -size or high >= size:
        wrong = low if low < -size else high
        raise SliceError(f"{name}: position {wrong} out of range for an axis of size {size}.")
