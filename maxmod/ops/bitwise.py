"""Elementwise ops on the bits of integers; the operators of `Tensor` (`&`, `~`) are logical."""

from __future__ import annotations

from maxmod.op import Kind, Operands, op
from maxmod.op.rules import broadcasting, elementwise, is_integral
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import ArrayModule

E = Kind.ELEMENTWISE
PROMOTED = Operands.PROMOTED


@op(E, broadcasting(is_integral), operands=PROMOTED, scalar="({0} & {1})")
def bitwise_and(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Bits set in both, elementwise with broadcasting."""
    return xp.bitwise_and(lhs, rhs)


@op(E, broadcasting(is_integral), operands=PROMOTED, scalar="({0} | {1})")
def bitwise_or(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Bits set in either, elementwise with broadcasting."""
    return xp.bitwise_or(lhs, rhs)


@op(E, broadcasting(is_integral), operands=PROMOTED, scalar="({0} ^ {1})")
def bitwise_xor(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Bits set in exactly one, elementwise with broadcasting."""
    return xp.bitwise_xor(lhs, rhs)


@op(E, elementwise(is_integral), scalar="(~{0})")
def bitwise_invert(xp: ArrayModule, x: Tensor) -> Tensor:
    """Every bit of x flipped, elementwise."""
    return xp.invert(x)


@op(E, broadcasting(is_integral), operands=PROMOTED, scalar="mm_left_shift({0}, {1})")
def bitwise_left_shift(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs * 2 ** rhs with the bits that fall out lost, elementwise with broadcasting.

    Where rhs is negative or not below the number of bits, the result is 0.
    """
    bits = 8 * lhs.dtype.itemsize
    inside = (rhs >= 0) & (rhs < bits)
    return xp.where(inside, xp.left_shift(lhs, xp.where(inside, rhs, 0)), 0).astype(lhs.dtype)


@op(E, broadcasting(is_integral), operands=PROMOTED, scalar="mm_right_shift({0}, {1})")
def bitwise_right_shift(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs / 2 ** rhs rounded down, elementwise with broadcasting; the sign is kept.

    Where rhs is negative or not below the number of bits, the result is 0, or -1 for lhs below 0.
    """
    last = 8 * lhs.dtype.itemsize - 1
    count = xp.where((rhs >= 0) & (rhs <= last), rhs, last)
    shifted = xp.right_shift(lhs, count.astype(lhs.dtype))
    return shifted if lhs.dtype.kind == "i" else xp.where(count == rhs, shifted, 0)
