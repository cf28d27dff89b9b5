"""Matrices: products and bands."""

from __future__ import annotations

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, ShapeError
from maxmod.interpreters.operands import promote_operands, strong
from maxmod.op import Kind, Operands, function, op
from maxmod.op.rules import contracted, expect_int
from maxmod.ops.arithmetic import add, mul, sub
from maxmod.ops.comparison import greater_equal, logical_and, where
from maxmod.ops.create import iota
from maxmod.ops.shape import broadcast_to, unsqueeze
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import ArrayModule
from maxmod.values.dim import Size

__all__ = ["band_part", "matmul", "outer"]


@op(Kind.CONTRACT, contracted, operands=Operands.STRONG_PROMOTED, is_product=True)
def matmul(xp: ArrayModule, lhs: Tensor, rhs: Tensor) -> Tensor:
    """Matrix product over the last axis of lhs and the second to last of rhs.

    Args:
        lhs: Tensor [..., m, k], or [k], which counts as one row that is dropped from the result.
        rhs: Tensor [..., k, n], or [k], which counts as one column.

    Returns:
        [..., m, n] in the promoted dtype; leading axes broadcast. Half types accumulate in
        float32.

    Raises:
        ValueError: If inner sizes differ, leading axes do not broadcast, or a rank is 0.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x, y = Tensor([[1.0, 2.0]]), Tensor([[3.0], [4.0]])
        >>> F.matmul(x, y).to_numpy().tolist()
        [[11.0]]
    """
    return xp.matmul(lhs, rhs)


@function
def outer(lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Product of every element of one vector with every element of another.

    Args:
        lhs: Tensor [m], numeric dtype, or an array.
        rhs: Tensor [n], or an array; one of the two must be a tensor.

    Returns:
        [m, n] in the promoted dtype.

    Raises:
        ValueError: If an operand is not of rank 1, or dtypes cannot be promoted.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.outer(Tensor([1.0, 2.0]), Tensor([3.0, 4.0, 5.0])).to_numpy().tolist()
        [[3.0, 4.0, 5.0], [6.0, 8.0, 10.0]]
    """
    lhs, rhs = promote_operands("outer", (lhs, rhs))
    if lhs.rank != 1 or rhs.rank != 1:
        raise ShapeError(f"outer: expected rank 1, got {lhs.type.short()} and {rhs.type.short()}.")
    return mul(unsqueeze(lhs, 1), unsqueeze(rhs, 0))


@function
def band_part(
    x: Tensor, num_lower: int | None = None, num_upper: int | None = None, exclude: bool = False
) -> Tensor:
    """Keeps a band around the diagonal of each matrix in the last two axes, zeros elsewhere.

    Args:
        x: Tensor [..., m, n] of any dtype.
        num_lower: Number of diagonals kept below the main one; None or -1 keeps all.
        num_upper: Number of diagonals kept above it; None or -1 keeps all.
        exclude: Zero the band and keep the rest.

    Returns:
        The type of x. `band_part(x, None, 0)` is the lower triangle.

    Raises:
        ValueError: If the rank is below 2, or a number is below -1 or not below a known size.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.band_part(Tensor.ones([2, 3]), None, 0).to_numpy().tolist()
        [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    """
    x = strong("band_part", x)
    if x.rank < 2:
        raise ShapeError(f"band_part: expected at least two axes, got {x.type.short()}.")
    rows, columns = x.sizes[-2:]
    lower = _diagonals("num_lower", num_lower, rows)
    upper = _diagonals("num_upper", num_upper, columns)
    zero = Tensor.full((), 0, dtype=x.dtype, device=x.type.device)
    if lower is None and upper is None:
        return broadcast_to(zero, x.sizes) if exclude else x
    row = unsqueeze(iota(count=rows, dtype=DType.int64, device=x.type.device), 1)
    column = iota(count=columns, dtype=DType.int64, device=x.type.device)
    below = sub(row, column)
    keep = None if lower is None else greater_equal(lower, below)
    if upper is not None:
        near = greater_equal(add(below, upper), 0)
        keep = near if keep is None else logical_and(keep, near)
    return where(keep, zero, x) if exclude else where(keep, x, zero)


def _diagonals(name: str, number: object, size: Size) -> int | None:
    if number is None:
        return None
    number = expect_int("band_part", number, name)
    if number < -1 or (isinstance(size, int) and number >= size):
        raise ArgumentError(f"band_part: {name}: expected -1 to {size} - 1, got {number}.")
    return None if number == -1 else number
