"""Products of vectors and matrices, by `matmul`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maxmod import functional as F
from maxmod.array_api.array import Array, arrays, tensor_of
from maxmod.array_api.dtypes import is_numeric
from maxmod.array_api.operators import function
from maxmod.errors import ShapeError
from maxmod.op.rules import normalize_axis
from maxmod.ops.shape import transpose
from maxmod.tensor import Tensor
from maxmod.values.shape import product


@function
def matmul(x1: Array, x2: Array, /) -> Array:
    """Matrix product; a vector counts as one row or column, other axes broadcast."""
    return Array(F.matmul(*arrays("matmul", x1, x2, is_numeric)))


@function
def matrix_transpose(x: Array, /) -> Array:
    """The matrices in the last two axes, transposed."""
    tensor = tensor_of("matrix_transpose", x)
    if tensor.rank < 2:
        raise ShapeError(f"matrix_transpose: expected a matrix, got {tensor.type.short()}.")
    return Array(transpose(tensor, -2, -1))


@function
def vecdot(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """Sum of the products along an axis; the other axes broadcast."""
    first, second = arrays("vecdot", x1, x2, is_numeric)
    rows = [
        _last(tensor, normalize_axis("vecdot", axis, tensor.rank)) for tensor in (first, second)
    ]
    if rows[0].sizes[-1] != rows[1].sizes[-1]:
        raise ShapeError(
            f"vecdot: axis {axis} differs: {first.type.short()}, {second.type.short()}."
        )
    total = F.sum(F.mul(*rows), axis=-1)
    return Array(F.squeeze(total, -1))


def _last(tensor: Tensor, axis: int) -> Tensor:
    """Moves an axis to the end."""
    return tensor.permute([*[a for a in range(tensor.rank) if a != axis], axis])


@function
def tensordot(
    x1: Array, x2: Array, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2
) -> Array:
    """Sum of products over several axes: the last ones of x1 with the first ones of x2, or pairs.

    Args:
        x1: Array of numbers.
        x2: Array of numbers.
        axes: How many axes, or the axes of x1 and those of x2 that belong together.
    """
    first, second = arrays("tensordot", x1, x2, is_numeric)
    left, right = _paired(first, second, axes)
    sizes = [first.sizes[a] for a in left]
    if sizes != [second.sizes[a] for a in right]:
        raise ShapeError(
            f"tensordot: axes {left} of {first.type.short()} and {right} of "
            f"{second.type.short()} differ in size."
        )
    free_left = [a for a in range(first.rank) if a not in left]
    free_right = [a for a in range(second.rank) if a not in right]
    rows = [first.sizes[a] for a in free_left]
    columns = [second.sizes[a] for a in free_right]
    lhs = first.permute([*free_left, *left]).reshape([product(rows), product(sizes)])
    rhs = second.permute([*right, *free_right]).reshape([product(sizes), product(columns)])
    return Array(F.matmul(lhs, rhs).reshape([*rows, *columns]))


def _paired(first: Tensor, second: Tensor, axes: Any) -> tuple[list[int], list[int]]:
    if isinstance(axes, int):
        if not 0 <= axes <= min(first.rank, second.rank):
            raise ShapeError(f"tensordot: axes={axes} does not fit the ranks of the operands.")
        return [*range(first.rank - axes, first.rank)], [*range(axes)]
    left = [normalize_axis("tensordot", axis, first.rank) for axis in axes[0]]
    right = [normalize_axis("tensordot", axis, second.rank) for axis in axes[1]]
    if len(left) != len(right):
        raise ShapeError(f"tensordot: {len(left)} axes cannot be paired with {len(right)}.")
    return left, right
