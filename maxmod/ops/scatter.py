"""Ops that write at positions read from a tensor: scatter, and its combining forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import DTypeError, ShapeError, SliceError
from maxmod.op import Kind, Op, TypeRule, op
from maxmod.op.rules import Accepts, expect_dtype, is_any, is_numeric, normalize_axis
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule
from maxmod.values.plain import Attrs
from maxmod.values.shape import format_sizes
from maxmod.values.tensor_type import TensorType

__all__ = [
    "scatter",
    "scatter_add",
    "scatter_max",
    "scatter_min",
    "scatter_mul",
    "scatter_nd",
    "scatter_nd_add",
    "scatter_nd_max",
    "scatter_nd_min",
    "scatter_nd_mul",
]

# ---- type rules --------------------------------------------------------------------------------


def _expect_operands(
    op: Op, accepts: Accepts, input: TensorType, updates: TensorType, indices: TensorType
) -> None:
    expect_dtype(op, accepts, input)
    if updates.dtype is not input.dtype:
        raise DTypeError(
            f"{op.name}: input and updates must have the same dtype: {input.short()}, "
            f"{updates.short()}. Hint: the order is (input, updates, indices)."
        )
    if indices.dtype not in (DType.int32, DType.int64):
        raise DTypeError(
            f"{op.name}: indices have an unsupported dtype: expected int32 or int64, got "
            f"{indices.short()}. Hint: the order is (input, updates, indices)."
        )


def _axis(
    op: Op, input: TensorType, updates: TensorType, indices: TensorType, *, axis: object
) -> Attrs:
    return {"axis": normalize_axis(op.name, axis, input.rank)}


def _scattered(accepts: Accepts) -> TypeRule:
    """The input's type, for indices and updates of one shape that fits it off the axis."""

    def same_as_input(
        op: Op, input: TensorType, updates: TensorType, indices: TensorType, *, axis: int
    ) -> TensorType:
        _expect_operands(op, accepts, input, updates, indices)
        shown = (
            f"input is {input.short()}, updates is {updates.short()}, indices is {indices.short()}"
        )
        if input.rank != indices.rank or updates.sizes != indices.sizes:
            raise ShapeError(
                f"{op.name}: all three must have one rank, updates and indices one shape: {shown}."
            )
        for at, (size, count) in enumerate(zip(input.sizes, indices.sizes, strict=True)):
            known = isinstance(size, int) and isinstance(count, int)
            if at != axis and known and count > size:
                raise ShapeError(
                    f"{op.name}: indices are larger than input on axis {at}, which is not the "
                    f"axis they point into: {shown}."
                )
        return input

    return same_as_input


def _scattered_nd(accepts: Accepts) -> TypeRule:
    """The input's type, for indices [*Q, k] and updates [*Q, *input.shape[k:]]."""

    def same_as_input(
        op: Op, input: TensorType, updates: TensorType, indices: TensorType
    ) -> TensorType:
        _expect_operands(op, accepts, input, updates, indices)
        count = indices.sizes[-1] if indices.rank else None
        if not isinstance(count, int):
            raise ShapeError(
                f"{op.name}: the last axis of indices must have a known size, got "
                f"{indices.short()}."
            )
        if count > input.rank:
            raise ShapeError(
                f"{op.name}: indices name {count} axes, input has {input.rank}: input is "
                f"{input.short()}, indices is {indices.short()}."
            )
        expected = (*indices.sizes[:-1], *input.sizes[count:])
        if updates.sizes != expected:
            raise ShapeError(
                f"{op.name}: updates: expected {format_sizes(expected)}, got {updates.short()}: "
                f"input is {input.short()}, indices is {indices.short()}."
            )
        return input

    return same_as_input


# ---- the work ----------------------------------------------------------------------------------


def _positions(xp: ArrayModule, name: str, indices: Array, size: int) -> Array:
    """Positions counted from the front; the host rejects those out of range."""
    # A GPU would have to wait for the answer.
    if xp is np and indices.size:
        low, high = int(indices.min()), int(indices.max())
        if low < -size or high >= size:
            wrong = low if low < -size else high
            raise SliceError(f"{name}: position {wrong} out of range for an axis of size {size}.")
    wide = indices.astype(np.int64)
    return xp.where(wide < 0, wide + size, wide)


def _flat_on_axis(
    xp: ArrayModule, name: str, shape: Sequence[int], indices: Array, axis: int
) -> Array:
    """Row-major position in the input of each update, for indices along one axis."""
    flat = _positions(xp, name, indices, shape[axis]) * math.prod(shape[axis + 1 :])
    for at, count in enumerate(indices.shape):
        if at == axis:
            continue
        if count > shape[at]:
            raise ShapeError(
                f"{name}: {count} indices on axis {at}, which has the size {shape[at]}."
            )
        step = math.prod(shape[at + 1 :])
        others = [1] * len(shape)
        others[at] = count
        flat = flat + xp.arange(count, dtype=np.int64).reshape(others) * step
    return flat.reshape(-1)


def _flat_nd(xp: ArrayModule, name: str, shape: Sequence[int], indices: Array) -> Array:
    """Row-major position in the input of each element of the updates, for scatter_nd."""
    count = indices.shape[-1]
    row = xp.zeros(indices.shape[:-1], dtype=np.int64)
    for axis in range(count):
        row = row * shape[axis] + _positions(xp, name, indices[..., axis], shape[axis])
    inner = math.prod(shape[count:])
    return (row.reshape(-1, 1) * inner + xp.arange(inner, dtype=np.int64)).reshape(-1)


def _replace(xp: ArrayModule, input: Array, flat: Array, updates: Array) -> Array:
    result = input.copy().reshape(-1)
    result[flat] = updates.reshape(-1)
    return result.reshape(input.shape)


def _combine(xp: ArrayModule, function: str, input: Array, flat: Array, updates: Array) -> Array:
    """Joins each update with the element at its position; equal positions accumulate."""
    result = input.copy().reshape(-1)
    values = updates.reshape(-1)
    combine = getattr(xp, function)
    if xp is np:
        combine.at(result, flat, values)
    elif values.size:
        # Atomics support few dtypes, and the order of their sums changes between runs.
        places, totals = _combine_equal(xp, combine, flat, values)
        result[places] = combine(result[places], totals)
    return result.reshape(input.shape)


def _combine_equal(
    xp: ArrayModule, combine: Callable[..., Array], flat: Array, values: Array
) -> tuple[Array, Array]:
    """Returns the distinct positions, and the values of each joined in pairs of pairs."""
    order = xp.argsort(flat, kind="stable")
    keys, values = flat[order], values[order]
    reach = 1  # values[i] combines the elements i .. i + reach - 1 with the same key
    while reach < keys.size:
        same = keys[reach:] == keys[:-reach]
        if not bool(same.any()):
            break
        joined = xp.where(same, combine(values[:-reach], values[reach:]), values[:-reach])
        values = xp.concatenate([joined, values[-reach:]])
        reach *= 2
    first = xp.ones(keys.shape, dtype=np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    return keys[first], values[first]


# ---- along one axis ----------------------------------------------------------------------------


@op(Kind.INDEX, _scattered(is_any), prepare=_axis)
def scatter(
    xp: ArrayModule, input: Tensor, updates: Tensor, indices: Tensor, axis: int = -1
) -> Tensor:
    """A copy of `input` in which elements along an axis are replaced.

    ``out[i][indices[i][j]] = updates[i][j]`` for axis 1 of two. Note the order of the arguments.

    Args:
        input: Tensor of any dtype, at least one axis.
        updates: Tensor with the dtype of `input`.
        indices: int32 or int64 tensor with the shape of `updates`; negative positions count from
            the end. Off the axis it may be smaller than `input`, not larger.
        axis: The axis that the indices point into.

    Returns:
        The type of `input`. Where two updates have one position, either may win.

    Raises:
        ValueError: If dtypes, ranks or shapes do not fit, or the axis lies outside the rank.
        IndexError: If, on the host, a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x, rows = Tensor([1.0, 2.0, 3.0]), Tensor([2, 0], dtype=DType.int64)
        >>> F.scatter(x, Tensor([8.0, 9.0]), rows).to_numpy().tolist()
        [9.0, 2.0, 8.0]
    """
    flat = _flat_on_axis(xp, "scatter", input.shape, indices, axis)
    return _replace(xp, input, flat, updates)


@op(Kind.INDEX, _scattered(is_numeric), prepare=_axis, upcasts=True)
def scatter_add(
    xp: ArrayModule, input: Tensor, updates: Tensor, indices: Tensor, axis: int = -1
) -> Tensor:
    """Adds updates to elements along an axis; see `scatter`.

    Args:
        input: Tensor of a numeric dtype, at least one axis.
        updates: Tensor with the dtype of `input`.
        indices: int32 or int64 tensor with the shape of `updates`; negative positions count from
            the end. Off the axis it may be smaller than `input`, not larger.
        axis: The axis that the indices point into.

    Returns:
        The type of `input`. Updates of one position add up, in a fixed order.

    Raises:
        ValueError: If dtypes, ranks or shapes do not fit, or the axis lies outside the rank.
        IndexError: If, on the host, a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x, places = Tensor([1.0, 2.0, 3.0]), Tensor([1, 1], dtype=DType.int64)
        >>> F.scatter_add(x, Tensor([8.0, 9.0]), places).to_numpy().tolist()
        [1.0, 19.0, 3.0]
    """
    flat = _flat_on_axis(xp, "scatter_add", input.shape, indices, axis)
    return _combine(xp, "add", input, flat, updates)


@op(Kind.INDEX, _scattered(is_any), prepare=_axis, upcasts=True)
def scatter_max(
    xp: ArrayModule, input: Tensor, updates: Tensor, indices: Tensor, axis: int = -1
) -> Tensor:
    """Keeps the larger of elements and updates along an axis; see `scatter`.

    Args:
        input: Tensor of any dtype, at least one axis.
        updates: Tensor with the dtype of `input`.
        indices: int32 or int64 tensor with the shape of `updates`; negative positions count from
            the end. Off the axis it may be smaller than `input`, not larger.
        axis: The axis that the indices point into.

    Returns:
        The type of `input`. The largest of all updates of one position counts; NaN wins.

    Raises:
        ValueError: If dtypes, ranks or shapes do not fit, or the axis lies outside the rank.
        IndexError: If, on the host, a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x, places = Tensor([[1.0, 5.0]]), Tensor([[0, 0]], dtype=DType.int64)
        >>> F.scatter_max(x, Tensor([[3.0, 2.0]]), places).to_numpy().tolist()
        [[3.0, 5.0]]
    """
    flat = _flat_on_axis(xp, "scatter_max", input.shape, indices, axis)
    return _combine(xp, "maximum", input, flat, updates)


@op(Kind.INDEX, _scattered(is_any), prepare=_axis, upcasts=True)
def scatter_min(
    xp: ArrayModule, input: Tensor, updates: Tensor, indices: Tensor, axis: int = -1
) -> Tensor:
    """Keeps the smaller of elements and updates along an axis; see `scatter`.

    Args:
        input: Tensor of any dtype, at least one axis.
        updates: Tensor with the dtype of `input`.
        indices: int32 or int64 tensor with the shape of `updates`; negative positions count from
            the end. Off the axis it may be smaller than `input`, not larger.
        axis: The axis that the indices point into.

    Returns:
        The type of `input`. The smallest of all updates of one position counts; NaN wins.

    Raises:
        ValueError: If dtypes, ranks or shapes do not fit, or the axis lies outside the rank.
        IndexError: If, on the host, a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x, places = Tensor([[1.0, 5.0]]), Tensor([[1, 1]], dtype=DType.int64)
        >>> F.scatter_min(x, Tensor([[3.0, 2.0]]), places).to_numpy().tolist()
        [[1.0, 2.0]]
    """
    flat = _flat_on_axis(xp, "scatter_min", input.shape, indices, axis)
    return _combine(xp, "minimum", input, flat, updates)


@op(Kind.INDEX, _scattered(is_numeric), prepare=_axis, upcasts=True)
def scatter_mul(
    xp: ArrayModule, input: Tensor, updates: Tensor, indices: Tensor, axis: int = -1
) -> Tensor:
    """Multiplies elements along an axis by updates; see `scatter`.

    Args:
        input: Tensor of a numeric dtype, at least one axis.
        updates: Tensor with the dtype of `input`.
        indices: int32 or int64 tensor with the shape of `updates`; negative positions count from
            the end. Off the axis it may be smaller than `input`, not larger.
        axis: The axis that the indices point into.

    Returns:
        The type of `input`. Updates of one position are multiplied, in a fixed order.

    Raises:
        ValueError: If dtypes, ranks or shapes do not fit, or the axis lies outside the rank.
        IndexError: If, on the host, a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x, rows = Tensor([[1.0, 2.0], [3.0, 4.0]]), Tensor([[-1, 0]], dtype=DType.int64)
        >>> F.scatter_mul(x, Tensor([[10.0, 10.0]]), rows, axis=0).to_numpy().tolist()
        [[1.0, 20.0], [30.0, 4.0]]
    """
    flat = _flat_on_axis(xp, "scatter_mul", input.shape, indices, axis)
    return _combine(xp, "multiply", input, flat, updates)


# ---- slices ------------------------------------------------------------------------------------


@op(Kind.INDEX, _scattered_nd(is_any))
def scatter_nd(xp: ArrayModule, input: Tensor, updates: Tensor, indices: Tensor) -> Tensor:
    """A copy of `input` in which slices are replaced: ``out[indices[q]] = updates[q]``.

    Args:
        input: Tensor of any dtype.
        updates: Tensor [*Q, *input.shape[k:]] with the dtype of `input`.
        indices: int32 or int64 tensor [*Q, k]; each row names an element of the first k axes of
            `input`, negative positions count from the end.

    Returns:
        The type of `input`. Where two updates have one position, either may win.

    Raises:
        ValueError: If dtypes or shapes do not fit, or k is not known or larger than the rank.
        IndexError: If, on the host, a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x, rows = Tensor([[1.0], [2.0]]), Tensor([[1]], dtype=DType.int64)
        >>> F.scatter_nd(x, Tensor([[9.0]]), rows).to_numpy().tolist()
        [[1.0], [9.0]]
    """
    return _replace(xp, input, _flat_nd(xp, "scatter_nd", input.shape, indices), updates)


@op(Kind.INDEX, _scattered_nd(is_numeric), upcasts=True)
def scatter_nd_add(xp: ArrayModule, input: Tensor, updates: Tensor, indices: Tensor) -> Tensor:
    """Adds updates to slices; see `scatter_nd`.

    Args:
        input: Tensor of a numeric dtype.
        updates: Tensor [*Q, *input.shape[k:]] with the dtype of `input`.
        indices: int32 or int64 tensor [*Q, k]; each row names an element of the first k axes of
            `input`, negative positions count from the end.

    Returns:
        The type of `input`. Updates of one position add up, in a fixed order.

    Raises:
        ValueError: If dtypes or shapes do not fit, or k is not known or larger than the rank.
        IndexError: If, on the host, a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x, rows = Tensor.zeros([3, 2]), Tensor([[1], [1]], dtype=DType.int64)
        >>> F.scatter_nd_add(x, Tensor([[1.0, 2.0], [3.0, 4.0]]), rows).to_numpy().tolist()
        [[0.0, 0.0], [4.0, 6.0], [0.0, 0.0]]
    """
    flat = _flat_nd(xp, "scatter_nd_add", input.shape, indices)
    return _combine(xp, "add", input, flat, updates)


@op(Kind.INDEX, _scattered_nd(is_any), upcasts=True)
def scatter_nd_max(xp: ArrayModule, input: Tensor, updates: Tensor, indices: Tensor) -> Tensor:
    """Keeps the larger of slices and updates, elementwise; see `scatter_nd`.

    Args:
        input: Tensor of any dtype.
        updates: Tensor [*Q, *input.shape[k:]] with the dtype of `input`.
        indices: int32 or int64 tensor [*Q, k]; each row names an element of the first k axes of
            `input`, negative positions count from the end.

    Returns:
        The type of `input`. The largest of all updates of one position counts; NaN wins.

    Raises:
        ValueError: If dtypes or shapes do not fit, or k is not known or larger than the rank.
        IndexError: If, on the host, a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x, places = Tensor([[1.0, 5.0]]), Tensor([[0, 0], [0, 1]], dtype=DType.int64)
        >>> F.scatter_nd_max(x, Tensor([3.0, 3.0]), places).to_numpy().tolist()
        [[3.0, 5.0]]
    """
    flat = _flat_nd(xp, "scatter_nd_max", input.shape, indices)
    return _combine(xp, "maximum", input, flat, updates)


@op(Kind.INDEX, _scattered_nd(is_any), upcasts=True)
def scatter_nd_min(xp: ArrayModule, input: Tensor, updates: Tensor, indices: Tensor) -> Tensor:
    """Keeps the smaller of slices and updates, elementwise; see `scatter_nd`.

    Args:
        input: Tensor of any dtype.
        updates: Tensor [*Q, *input.shape[k:]] with the dtype of `input`.
        indices: int32 or int64 tensor [*Q, k]; each row names an element of the first k axes of
            `input`, negative positions count from the end.

    Returns:
        The type of `input`. The smallest of all updates of one position counts; NaN wins.

    Raises:
        ValueError: If dtypes or shapes do not fit, or k is not known or larger than the rank.
        IndexError: If, on the host, a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x, places = Tensor([[1.0, 5.0]]), Tensor([[0, 0], [0, 1]], dtype=DType.int64)
        >>> F.scatter_nd_min(x, Tensor([3.0, 3.0]), places).to_numpy().tolist()
        [[1.0, 3.0]]
    """
    flat = _flat_nd(xp, "scatter_nd_min", input.shape, indices)
    return _combine(xp, "minimum", input, flat, updates)


@op(Kind.INDEX, _scattered_nd(is_numeric), upcasts=True)
def scatter_nd_mul(xp: ArrayModule, input: Tensor, updates: Tensor, indices: Tensor) -> Tensor:
    """Multiplies slices by updates; see `scatter_nd`.

    Args:
        input: Tensor of a numeric dtype.
        updates: Tensor [*Q, *input.shape[k:]] with the dtype of `input`.
        indices: int32 or int64 tensor [*Q, k]; each row names an element of the first k axes of
            `input`, negative positions count from the end.

    Returns:
        The type of `input`. Updates of one position are multiplied, in a fixed order.

    Raises:
        ValueError: If dtypes or shapes do not fit, or k is not known or larger than the rank.
        IndexError: If, on the host, a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> x, rows = Tensor([[1.0, 2.0], [3.0, 4.0]]), Tensor([[-1]], dtype=DType.int64)
        >>> F.scatter_nd_mul(x, Tensor([[10.0, 100.0]]), rows).to_numpy().tolist()
        [[1.0, 2.0], [30.0, 400.0]]
    """
    flat = _flat_nd(xp, "scatter_nd_mul", input.shape, indices)
    return _combine(xp, "multiply", input, flat, updates)
