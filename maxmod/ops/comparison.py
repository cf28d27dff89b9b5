"""Elementwise comparison, logic of bool tensors, and choice by a condition."""

from __future__ import annotations

from maxmod.dtype import DType
from maxmod.errors import DTypeError, OperandError
from maxmod.interpreters.operands import promote_operands, strong
from maxmod.op import Kind, Op, Operands, function, op
from maxmod.op.rules import broadcast_type, expect_same_dtype, is_bool, predicate
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import ArrayModule
from maxmod.values.tensor_type import TensorType

__all__ = [
    "equal",
    "greater",
    "greater_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "not_equal",
    "where",
]

E = Kind.ELEMENTWISE
PROMOTED = Operands.PROMOTED


def _comparison(op: Op, lhs: TensorType, rhs: TensorType) -> TensorType:
    expect_same_dtype(op, lhs, rhs)
    return broadcast_type(op, DType.bool, lhs, rhs)


@op(E, _comparison, operands=PROMOTED, scalar="({0} == {1})")
def equal(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs == rhs, elementwise with broadcasting.

    Args:
        lhs: Tensor or number, any dtype.
        rhs: Tensor or number, any dtype; one of the two must be a tensor.

    Returns:
        bool, the broadcast shape. NaN equals nothing, not even itself.

    Raises:
        ValueError: If dtypes cannot be promoted, or shapes or devices differ.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([1.0, float("nan")])
        >>> F.equal(x, x).to_numpy().tolist()
        [True, False]
    """
    return xp.equal(lhs, rhs)


@op(E, _comparison, operands=PROMOTED, scalar="({0} != {1})")
def not_equal(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs != rhs, elementwise with broadcasting.

    Args:
        lhs: Tensor or number, any dtype.
        rhs: Tensor or number, any dtype; one of the two must be a tensor.

    Returns:
        bool, the broadcast shape. NaN differs from everything.

    Raises:
        ValueError: If dtypes cannot be promoted, or shapes or devices differ.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.not_equal(Tensor([1, 2, 0], dtype=DType.int64), 0).to_numpy().tolist()
        [True, True, False]
    """
    return xp.not_equal(lhs, rhs)


@op(E, _comparison, operands=PROMOTED, scalar="({0} > {1})")
def greater(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs > rhs, elementwise with broadcasting.

    Args:
        lhs: Tensor or number, any dtype.
        rhs: Tensor or number, any dtype; one of the two must be a tensor.

    Returns:
        bool, the broadcast shape; False where either is NaN. For less, swap the two.

    Raises:
        ValueError: If dtypes cannot be promoted, or shapes or devices differ.

    Example:
        >>> from maxmod import DType
        >>> from maxmod import functional as F
        >>> position = F.arange(3, dtype=DType.int64)
        >>> F.greater(F.unsqueeze(position, 1), position).to_numpy().tolist()
        [[False, False, False], [True, False, False], [True, True, False]]
    """
    return xp.greater(lhs, rhs)


@op(E, _comparison, operands=PROMOTED, scalar="({0} >= {1})")
def greater_equal(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs >= rhs, elementwise with broadcasting.

    Args:
        lhs: Tensor or number, any dtype.
        rhs: Tensor or number, any dtype; one of the two must be a tensor.

    Returns:
        bool, the broadcast shape; False where either is NaN. For less or equal, swap the two.

    Raises:
        ValueError: If dtypes cannot be promoted, or shapes or devices differ.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.greater_equal(2, Tensor([1.0, 2.0, float("nan")])).to_numpy().tolist()
        [True, True, False]
    """
    return xp.greater_equal(lhs, rhs)


@op(E, predicate(is_bool), operands=PROMOTED, scalar="({0} && {1})")
def logical_and(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs and rhs, elementwise with broadcasting; the operator is `&`.

    Args:
        lhs: bool tensor, or a Python bool.
        rhs: bool tensor, or a Python bool; one of the two must be a tensor.

    Returns:
        bool, the broadcast shape.

    Raises:
        ValueError: If a tensor is not bool, or shapes or devices differ.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([-1.0, 0.5, 3.0])
        >>> F.logical_and(x > 0, x < 1).to_numpy().tolist()
        [False, True, False]
    """
    return xp.logical_and(lhs, rhs)


@op(E, predicate(is_bool), operands=PROMOTED, scalar="({0} || {1})")
def logical_or(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """lhs or rhs, elementwise with broadcasting; the operator is `|`.

    Args:
        lhs: bool tensor, or a Python bool.
        rhs: bool tensor, or a Python bool; one of the two must be a tensor.

    Returns:
        bool, the broadcast shape.

    Raises:
        ValueError: If a tensor is not bool, or shapes or devices differ.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([-1.0, 0.5, 3.0])
        >>> F.logical_or(x < 0, x > 1).to_numpy().tolist()
        [True, False, True]
    """
    return xp.logical_or(lhs, rhs)


@op(E, predicate(is_bool), operands=PROMOTED, scalar="({0} != {1})")
def logical_xor(xp: ArrayModule, lhs: TensorLike, rhs: TensorLike) -> Tensor:
    """Exactly one of lhs and rhs, elementwise with broadcasting; the operator is `^`.

    Args:
        lhs: bool tensor, or a Python bool.
        rhs: bool tensor, or a Python bool; one of the two must be a tensor.

    Returns:
        bool, the broadcast shape.

    Raises:
        ValueError: If a tensor is not bool, or shapes or devices differ.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> flags = Tensor([True, False], dtype=DType.bool)
        >>> F.logical_xor(flags, True).to_numpy().tolist()
        [False, True]
    """
    return xp.logical_xor(lhs, rhs)


@op(E, predicate(is_bool), scalar="(!{0})")
def logical_not(xp: ArrayModule, x: Tensor) -> Tensor:
    """not x, elementwise; the operator is `~`.

    Args:
        x: bool tensor.

    Returns:
        The type of x.

    Raises:
        ValueError: If the dtype is not bool: compare first (`x == 0`); bits are not flipped.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.logical_not(Tensor([1.0, -1.0]) > 0).to_numpy().tolist()
        [False, True]
    """
    return xp.logical_not(x)


def _selected(op: Op, condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if condition.dtype is not DType.bool:
        raise DTypeError(
            f"where: condition has an unsupported dtype: expected bool, got {condition.short()}. "
            "Hint: compare it first, for example x != 0."
        )
    if x.dtype is not y.dtype:
        raise DTypeError(f"where: x and y must have the same dtype: {x.short()}, {y.short()}.")
    return broadcast_type(op, x.dtype, condition, x, y)


@op(E, _selected, scalar="({0} ? {1} : {2})")
def select(xp: ArrayModule, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition is true, else y; x and y of one dtype."""
    return xp.where(condition, x, y)


@function
def where(
    condition: TensorLike | None = None,
    x: TensorLike | None = None,
    y: TensorLike | None = None,
    *,
    cond: TensorLike | None = None,
) -> Tensor:
    """Elements of x where the condition is true, else of y; all three broadcast.

    Args:
        condition: bool tensor.
        x: Tensor or number.
        y: Tensor or number; at least one of x and y is a tensor.
        cond: Another name of `condition`.

    Returns:
        The promoted dtype of x and y, the broadcast shape of all three.

    Raises:
        ValueError: If the condition is not bool, or shapes or dtypes do not fit.
        TypeError: If x and y are both numbers, or the condition is not a tensor.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([-1.0, 2.0])
        >>> F.where(x > 0, x, 0).to_numpy().tolist()
        [0.0, 2.0]
        >>> rows = Tensor([[True], [False]], dtype=DType.bool)
        >>> F.where(rows, x, -x).to_numpy().tolist()
        [[-1.0, 2.0], [1.0, -2.0]]
    """
    if (condition is None) == (cond is None):
        raise OperandError("where: exactly one of condition and cond must be given.")
    condition = strong("where", cond if condition is None else condition)
    x, y = promote_operands("where", (x, y))
    return select(condition, x, y)
