"""Ops without operands: constants, fills, ranges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from maxmod.defaults import resolve
from maxmod.dim import Dim, Size, Sizes, as_size, as_sizes
from maxmod.dtype import DType, storage_dtype
from maxmod.errors import ArgumentError, DTypeError
from maxmod.literal import is_scalar, literal_array, weak_scalar
from maxmod.op import Kind, Op, function, op
from maxmod.ops.elementwise import add, mul
from maxmod.ops.shape import rebind
from maxmod.rules import created
from maxmod.tensor import Tensor
from maxmod.tensor_type import TensorType

S = Kind.SOURCE


def _checked_fill(op: Op, *, shape: Any, value: Any, dtype: Any, device: Any) -> dict[str, Any]:
    sizes = as_sizes(shape, "full: shape")
    if is_scalar(value):
        value = literal_array(value, dtype).astype(_python_kind(dtype)).item()
    elif isinstance(value, Dim):
        value = as_size(value)
    else:
        raise TypeError(f"full: value: expected a number, got {type(value).__name__}.")
    return {"shape": sizes, "value": value, "dtype": dtype, "device": device}


def _python_kind(dtype: DType) -> Any:
    return np.float64 if dtype.is_float() else storage_dtype(dtype)


@op(S, created, prepare=_checked_fill, name="full")
def full_source(xp: Any, *, shape: Sizes, value: Any, dtype: DType, device: Any) -> Tensor:
    """A tensor filled with one number."""
    return xp.full(shape, value, dtype=storage_dtype(dtype))


@function
def constant(value: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """A tensor of a number, a nested sequence of numbers, or an array.

    Args:
        value: A number or rectangular nested sequence takes `dtype` (default: the default dtype);
            an array keeps its own.
        dtype: Element type.
        device: Where to put it.

    Raises:
        ValueError: If a literal is not rectangular or does not fit, or an array has another dtype.
    """
    if is_scalar(value) and not isinstance(value, np.generic):
        dtype, ref = resolve(dtype, device)
        return full_source(shape=(), value=value, dtype=dtype, device=ref)
    return Tensor(value, dtype=dtype, device=device)


@function
def full_like(x: Any, value: Any) -> Tensor:
    """A tensor filled with a number, with the shape, dtype and device of a tensor or type."""
    return Tensor.full_like(x, value)


@function
def zeros_like(x: Any) -> Tensor:
    """Zeros with the shape, dtype and device of a tensor or type."""
    return Tensor.zeros_like(x)


@function
def ones_like(x: Any) -> Tensor:
    """Ones with the shape, dtype and device of a tensor or type."""
    return Tensor.ones_like(x)


@function
def zeros(shape: Iterable[Any], *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """A tensor of zeros."""
    return Tensor.zeros(shape, dtype=dtype, device=device)


@function
def ones(shape: Iterable[Any], *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """A tensor of ones."""
    return Tensor.ones(shape, dtype=dtype, device=device)


def _counted(op: Op, *, count: Size, dtype: DType, device: Any) -> TensorType:
    return TensorType.of(dtype, (count,), device)


@op(S, _counted)
def iota(xp: Any, *, count: Size, dtype: DType, device: Any) -> Tensor:
    """The integers 0, 1, ... count - 1 in a dtype."""
    if dtype.is_float() and dtype.size_in_bits < 32:
        return xp.arange(count, dtype=np.float32).astype(storage_dtype(dtype))
    return xp.arange(count, dtype=storage_dtype(dtype))


@function
def arange(
    start: Any,
    stop: Any,
    step: Any = 1,
    out_dim: Any = None,
    *,
    dtype: DType | None = None,
    device: Any = None,
) -> Tensor:
    """The numbers start, start + step, ... below stop (above, for a negative step).

    Args:
        start: First number; a number or Dim.
        stop: End, not included; a number or Dim, which may be symbolic while tracing.
        step: Difference, not 0.
        out_dim: The size of the result, where it cannot be worked out; must agree otherwise.
        dtype: Element type; the default dtype is a float.
        device: Where to put it.

    Returns:
        Rank 1, of max(0, ceil((stop - start) / step)) elements.

    Raises:
        ValueError: If the step is 0, a bound does not fit the dtype, or out_dim disagrees.
    """
    dtype, ref = resolve(dtype, device)
    bounds = [_number(value, dtype) for value in (start, stop, step)]
    if isinstance(bounds[2], Dim) or bounds[2] == 0:
        raise ArgumentError(f"arange: step: expected a number other than 0, got {step}.")
    count = _count(*bounds)
    if isinstance(count, int) and not isinstance(bounds[0], Dim):
        last = bounds[0] + (count - 1) * bounds[2] if count else bounds[0]
        _number(last, dtype)
    row = iota(count=count, dtype=_index_dtype(dtype), device=ref)
    if bounds[2] != 1:
        row = mul(row, bounds[2])
    if isinstance(bounds[0], Dim) or bounds[0] != 0:
        first = bounds[0]
        if isinstance(first, Dim):
            first = full_source(shape=(), value=first, dtype=row.dtype, device=ref)
        row = add(row, first)
    if out_dim is not None and as_size(out_dim) != count:
        row = rebind(row, (out_dim,), message="arange: out_dim differs from the length.")
    return row.cast(dtype)


def _index_dtype(dtype: DType) -> DType:
    """The dtype in which positions are counted: float64 for floats, so that nothing is rounded."""
    return DType.float64 if dtype.is_float() else dtype


def _number(value: Any, dtype: DType) -> Any:
    if isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, Dim):
        value = as_size(value)
    if isinstance(value, Dim):
        return value
    if not is_scalar(value):
        raise TypeError(f"arange: expected a number or Dim, got {type(value).__name__}.")
    try:
        return weak_scalar(value, dtype)
    except DTypeError as error:
        raise DTypeError(f"arange: {error}") from None


def _count(start: Any, stop: Any, step: Any) -> Size:
    if not any(isinstance(bound, Dim) for bound in (start, stop)):
        return max(0, -int((start - stop) // step))
    if not all(isinstance(bound, (int, Dim)) for bound in (start, stop, step)):
        raise ArgumentError("arange: beside a Dim, the other bounds must be integers.")
    if step == 1:
        return as_size(stop - start)
    return as_size((stop - start + (step - 1 if step > 0 else step + 1)) // step)
