"""Contractions: matrix products."""

from __future__ import annotations

from typing import Any

from maxmod.errors import ShapeError
from maxmod.op import Kind, Operands, function, op
from maxmod.operands import promote_operands
from maxmod.ops.elementwise import mul
from maxmod.ops.shape import unsqueeze
from maxmod.rules import contracted
from maxmod.tensor import Tensor


@op(Kind.CONTRACT, contracted, operands=Operands.STRONG_PROMOTED, library="matmul")
def matmul(xp: Any, lhs: Tensor, rhs: Tensor) -> Tensor:
    """Matrix product over the last axis of lhs and the second to last of rhs.

    Args:
        lhs: Tensor [..., m, k], or [k], which counts as one row that is dropped from the result.
        rhs: Tensor [..., k, n], or [k], which counts as one column.

    Returns:
        [..., m, n] in the promoted dtype; leading axes broadcast. Half types accumulate in
        float32.

    Raises:
        ValueError: If inner sizes differ, leading axes do not broadcast, or a rank is 0.
        TypeError: If an operand is not a tensor.
    """
    return xp.matmul(lhs, rhs)


@function
def outer(lhs: Any, rhs: Any) -> Tensor:
    """Product of every element of lhs with every element of rhs: [m] and [n] give [m, n].

    Raises:
        ValueError: If an operand is not of rank 1.
    """
    lhs, rhs = promote_operands("outer", (lhs, rhs))
    if lhs.rank != 1 or rhs.rank != 1:
        raise ShapeError(f"outer: expected rank 1, got {lhs.type.short()} and {rhs.type.short()}.")
    return mul(unsqueeze(lhs, 1), unsqueeze(rhs, 0))
