"""Type rules: the result types of an op for given operand types, and its type errors.

A rule is `rule(op, *types, **attrs) -> TensorType` (or a tuple of types). It is the only place
where an op checks dtypes and shapes, so eager calls, traces and the graph verifier agree. Rules are
named by their result.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, AxisError, DTypeError, OperandError, ShapeError
from maxmod.values.device import DeviceRef
from maxmod.values.dim import Size, StaticDim
from maxmod.values.plain import Attrs
from maxmod.values.shape import Sizes, broadcast, format_sizes, is_static, product
from maxmod.values.tensor_type import TensorType

if TYPE_CHECKING:
    from maxmod.op.record import Op, TypeRule

Accepts = Callable[[DType], bool]


# Which dtypes an op accepts.
def is_float(dtype: DType) -> bool:
    """Floating point only."""
    return dtype.is_float()


def is_numeric(dtype: DType) -> bool:
    """Everything but bool."""
    return dtype is not DType.bool


def is_signed(dtype: DType) -> bool:
    """Floats and signed integers."""
    return dtype.kind in ("signed", "float")


def is_integral(dtype: DType) -> bool:
    """Signed and unsigned integers."""
    return dtype.is_integral()


def is_bool(dtype: DType) -> bool:
    """Bool only."""
    return dtype is DType.bool


def is_any(dtype: DType) -> bool:
    """Every dtype."""
    return True


def expect_dtype(op: Op, accepts: Accepts, *types: TensorType) -> None:
    """Raises `DTypeError` unless every operand's dtype is accepted."""
    for name, operand in zip(_names(op, len(types)), types, strict=True):
        if not accepts(operand.dtype):
            wanted = (accepts.__doc__ or "").rstrip(".").lower()
            raise DTypeError(
                f"{op.label}: {name} has an unsupported dtype: expected {wanted}, got "
                f"{operand.short()}.{_dtype_hint(accepts, operand.dtype)}"
            )


def _names(op: Op, count: int) -> list[str]:
    if op.signature.variadic:
        return [f"{op.signature.tensor_names[0]}[{i}]" for i in range(count)]
    return list(op.signature.tensor_names[:count])


def _dtype_hint(accepts: Accepts, dtype: DType) -> str:
    if accepts is is_float:
        return " Hint: cast it to a float type first, there is no automatic conversion."
    if accepts is is_numeric:
        return " Hint: x.cast(DType.int32) makes 0 and 1 of bools."
    if accepts is is_bool:
        return " Hint: compare it first, for example x != 0; these ops are logical, not bitwise."
    return ""


def normalize_axis(op_name: str, axis: object, rank: int, what: str = "axis") -> int:
    """Returns `axis` counted from the front.

    Raises:
        AxisError: If it is outside `-rank <= axis < rank`.
        TypeError: If it is not an integer.
    """
    if not isinstance(axis, int):
        axis = expect_int(op_name, axis, what)
    if not -rank <= axis < rank:
        raise AxisError(
            f"{op_name}: Invalid {what}={axis} for input x.rank={rank}: expected a value in "
            f"[{-rank}, {rank - 1}]."
            if rank
            else f"{op_name}: Invalid {what}={axis} for input x.rank=0: a scalar has no axes."
        )
    return axis + rank if axis < 0 else axis


def expect_int(op_name: str, value: Any, what: str) -> int:
    """Returns a static integer argument (int, NumPy integer or known Dim) as an int.

    Raises:
        TypeError: If it is not an integer, or is a symbolic size.
    """
    if isinstance(value, StaticDim):
        return value.dim
    try:
        return operator.index(value)
    except TypeError:
        shown = value if isinstance(value, (str, float)) else type(value).__name__
        raise OperandError(f"{op_name}: {what}: expected an int, got {shown!r}.") from None


# Elementwise.
def elementwise(accepts: Accepts) -> TypeRule:
    """Same type as the one operand, for accepted dtypes."""

    def same_as_first(op: Op, x: TensorType, **attrs: object) -> TensorType:
        expect_dtype(op, accepts, x)
        return x

    return same_as_first


def predicate(accepts: Accepts) -> TypeRule:
    """Bool of the broadcast shape of all operands."""

    def bool_of_broadcast(op: Op, *types: TensorType, **attrs: object) -> TensorType:
        expect_dtype(op, accepts, *types)
        return broadcast_type(op, DType.bool, *types)

    return bool_of_broadcast


def broadcasting(accepts: Accepts) -> TypeRule:
    """The common dtype of the operands, and their broadcast shape."""

    def common_dtype_of_broadcast(op: Op, *types: TensorType, **attrs: object) -> TensorType:
        expect_dtype(op, accepts, *types)
        expect_same_dtype(op, *types)
        return broadcast_type(op, types[0].dtype, *types)

    return common_dtype_of_broadcast


def broadcast_type(op: Op, dtype: DType, *types: TensorType) -> TensorType:
    """Returns a type with the broadcast shape of all operands."""
    try:
        sizes = broadcast(*(t.sizes for t in types))
    except ShapeError:
        listed = ", ".join(f"{n} is {t.short()}" for n, t in zip(_names(op, len(types)), types))
        raise ShapeError(
            f"{op.label}: shapes are neither equivalent nor broadcastable: {listed}."
            f"{_broadcast_hint(types)}"
        ) from None
    return TensorType.of(dtype, sizes, types[0].device)


def _broadcast_hint(types: tuple[TensorType, ...]) -> str:
    if all(is_static(t.sizes) for t in types):
        return " Hint: sizes are aligned at the last axis and must be equal or 1."
    return " Hint: a symbolic size broadcasts with itself and 1 only; use rebind to assert more."


def expect_same_dtype(op: Op, *types: TensorType) -> None:
    """Raises `DTypeError` unless all operands have one dtype."""
    if any(t.dtype is not types[0].dtype for t in types):
        listed = ", ".join(f"{n} is {t.short()}" for n, t in zip(_names(op, len(types)), types))
        raise DTypeError(f"{op.label}: operands must have the same dtype: {listed}.")


# Reductions: the reduced axis stays, with size 1.
def axis_in_rank(op: Op, x: TensorType, *, axis: object, **attrs: object) -> Attrs:
    """Prepares an `axis` argument: counted from the front."""
    return {"axis": normalize_axis(op.label, axis, x.rank), **attrs}


def reduced(accepts: Accepts, dtype: DType | None = None, empty: bool = True) -> TypeRule:
    """The operand's type with size 1 on `axis` (and another dtype, for positions).

    Args:
        accepts: The dtypes that the op takes.
        dtype: The dtype of the result, if it is not the operand's.
        empty: Whether the reduction of no elements has a value.
    """

    def one_on_axis(op: Op, x: TensorType, *, axis: int, **attrs: object) -> TensorType:
        expect_dtype(op, accepts, x)
        if not empty and x.sizes[axis] == 0:
            raise ShapeError(f"{op.label}: axis {axis} of {x.short()} is empty and has no result.")
        sizes = (*x.sizes[:axis], 1, *x.sizes[axis + 1 :])
        return TensorType.of(dtype or x.dtype, sizes, x.device)

    return one_on_axis


def same_for_axis(accepts: Accepts) -> TypeRule:
    """The operand's type, for ops that work along `axis`."""

    def same_as_first(op: Op, x: TensorType, *, axis: int, **attrs: object) -> TensorType:
        expect_dtype(op, accepts, x)
        return x

    return same_as_first


# Contractions.
def contracted(op: Op, lhs: TensorType, rhs: TensorType) -> TensorType:
    """NumPy's matmul shape: batch axes broadcast, inner sizes must agree, rank 1 drops an axis."""
    expect_dtype(op, is_numeric, lhs, rhs)
    expect_same_dtype(op, lhs, rhs)
    for name, operand in (("lhs", lhs), ("rhs", rhs)):
        if operand.rank == 0:
            raise ShapeError(
                f"{op.label}: {name} must have at least one axis, got {operand.short()}."
            )
    inner_l = lhs.sizes[-1]
    inner_r = rhs.sizes[-2] if rhs.rank > 1 else rhs.sizes[0]
    if inner_l != inner_r:
        raise ShapeError(
            f"{op.label}: inner sizes differ: lhs is {lhs.short()}, rhs is {rhs.short()} "
            f"({inner_l} != {inner_r}).{_matmul_hint(lhs, rhs)}"
        )
    rows = lhs.sizes[-2:-1]
    columns = rhs.sizes[-1:] if rhs.rank > 1 else ()
    try:
        batch = broadcast(lhs.sizes[:-2], rhs.sizes[:-2])
    except ShapeError:
        raise ShapeError(
            f"{op.label}: batch axes are neither equivalent nor broadcastable: lhs is "
            f"{lhs.short()}, rhs is {rhs.short()}."
        ) from None
    return TensorType.of(lhs.dtype, (*batch, *rows, *columns), lhs.device)


def _matmul_hint(lhs: TensorType, rhs: TensorType) -> str:
    if rhs.rank > 1 and rhs.sizes[-1] == lhs.sizes[-1]:
        return " Hint: weights of Linear are stored as [out, in]; did you want rhs.T?"
    return ""


# Sources.
def created(
    op: Op, *, shape: Sizes, dtype: DType, device: DeviceRef, **attrs: object
) -> TensorType:
    """The type that the static arguments specify."""
    return TensorType(dtype, shape, device)


# Shapes.
def same_count(op: Op, x: TensorType, sizes: Sizes) -> None:
    """Raises `ShapeError` unless `sizes` holds as many elements as `x`."""
    if product(x.sizes) != product(sizes):
        raise ShapeError(
            f"{op.label}: element counts differ: x is {x.short()} ({product(x.sizes)} elements), "
            f"shape is {format_sizes(sizes)} ({product(sizes)} elements)."
        )


def expect_sizes_static(op: Op, what: str, *sizes: Size) -> None:
    """Raises `ArgumentError` if a size that must be known is symbolic."""
    for size in sizes:
        if not isinstance(size, int):
            raise ArgumentError(f"{op.label}: {what} must be known when tracing, got {size}.")
