"""Ops without operands: constants, fills, ranges."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np

from maxmod.dtype import DType, exact_integers, storage_dtype
from maxmod.errors import ArgumentError, DTypeError, LazyError, OperandError
from maxmod.op import Kind, Op, function, op
from maxmod.op.rules import created, expect_int
from maxmod.ops.arithmetic import add, div, floor_div, maximum, mul, negate, sub
from maxmod.ops.control_flow.late_sizes import declare_size
from maxmod.ops.elementwise import ceil, cos
from maxmod.ops.shape import rebind
from maxmod.ops.split_concat import stack
from maxmod.tensor import Tensor
from maxmod.tensor.default_context import resolve
from maxmod.tensor.exchange import DLPackArray
from maxmod.tensor.literal import is_scalar, literal_array, weak_scalar
from maxmod.values.array import ArrayModule, StorageDType
from maxmod.values.device import CPU_REF, DeviceLike, DeviceRef
from maxmod.values.dim import Dim, DimLike, Size, as_size
from maxmod.values.plain import Attrs, Numbers, Scalar
from maxmod.values.shape import ShapeLike, Sizes, as_sizes, is_static
from maxmod.values.tensor_type import TensorType

__all__ = [
    "arange",
    "constant",
    "constant_external",
    "full",
    "full_like",
    "hann_window",
    "ones",
    "ones_like",
    "shape_to_tensor",
    "zeros",
    "zeros_like",
]

S = Kind.SOURCE


Bound = int | float | np.generic | Dim | Tensor  # of a range


def _checked_fill(
    op: Op, *, shape: object, value: object, dtype: object, device: DeviceRef
) -> Attrs:
    sizes = as_sizes(shape, "full: shape")
    if is_scalar(value):
        value = literal_array(value, dtype).astype(_python_kind(dtype)).item()
    elif isinstance(value, Dim):
        value = as_size(value)
    else:
        raise OperandError(f"full: value: expected a number, got {type(value).__name__}.")
    return {"shape": sizes, "value": value, "dtype": dtype, "device": device}


def _python_kind(dtype: DType) -> StorageDType | type[np.float64]:
    return np.float64 if dtype.is_float() else storage_dtype(dtype)


@op(S, created, prepare=_checked_fill, scalar="{value}", name="full")
def full_source(
    xp: ArrayModule, *, shape: Sizes, value: Scalar | Dim, dtype: DType, device: DeviceRef
) -> Tensor:
    """A tensor filled with one number."""
    return xp.full(shape, value, dtype=storage_dtype(dtype))


def full(
    shape: ShapeLike,
    value: Scalar | Dim,
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
) -> Tensor:
    """A tensor filled with one number.

    Args:
        shape: Sizes; `[]` gives a scalar.
        value: A number that the dtype holds.
        dtype: Element type; the default dtype if it is not given.
        device: Where to put it; the default device if it is not given.

    Returns:
        Tensor of the shape `shape`.

    Raises:
        ValueError: If the dtype does not hold the number.
        TypeError: If `value` is not a number, or `shape` a single int.

    Example:
        >>> from maxmod import DType
        >>> from maxmod import functional as F
        >>> F.full([2, 2], 7, dtype=DType.int32).to_numpy().tolist()
        [[7, 7], [7, 7]]
    """
    return Tensor.full(shape, value, dtype=dtype, device=device)


@function
def constant(
    value: Numbers | DLPackArray, dtype: DType | None = None, device: DeviceLike | None = None
) -> Tensor:
    """A tensor of a number, a nested sequence of numbers, or an array.

    Args:
        value: A number or rectangular nested sequence takes `dtype` (default: the default dtype);
            an array keeps its own.
        dtype: Element type.
        device: Where to put it; the default device if it is not given, but a tensor stays where it
            is.

    Returns:
        Tensor with the shape of the nesting or of the array.

    Raises:
        ValueError: If a literal is not rectangular or does not fit, or an array has another dtype.
        TypeError: If a leaf is not a number.

    Example:
        >>> import numpy as np
        >>> from maxmod import functional as F
        >>> F.constant([[1, 2], [3, 4]])  # literals take the default dtype
        Tensor([[1 2]
                [3 4]], shape=[2, 2], dtype=DType.float32, device=Device(type=cpu,id=0))
        >>> F.constant(np.array([1, 2])).dtype
        int64
    """
    if is_scalar(value) and not isinstance(value, np.generic):
        dtype, ref = resolve(dtype, device)
        return full_source(shape=(), value=value, dtype=dtype, device=ref)
    if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
        value = value.copy(order="C")
    return Tensor(value, dtype=dtype, device=device)


@function
def constant_external(name: str, type: TensorType) -> Tensor:
    """A tensor of a type whose data is given when a graph is loaded.

    Args:
        name: The name under which the data will be looked up.
        type: Dtype, shape and device.

    Returns:
        Tensor of that type, without data.

    Raises:
        TypeError: When its data is accessed: it has none. Also if `type` is not a TensorType.

    Example:
        >>> from maxmod import CPU, DType, TensorType
        >>> from maxmod import functional as F
        >>> weight = F.constant_external("w", TensorType(DType.float32, [2, 3], CPU()))
        >>> weight.shape, weight.real
        ([Dim(2), Dim(3)], False)
    """
    if not isinstance(type, TensorType):
        raise OperandError(f"constant_external: type: expected a TensorType, got {type!r}.")

    def missing() -> NoReturn:
        raise LazyError(f"constant_external: the data of {name!r} is not known outside a graph.")

    return Tensor.deferred(missing, type)


@function
def full_like(x: Tensor | TensorType, value: Scalar) -> Tensor:
    """A tensor filled with a number, like another one.

    Args:
        x: Tensor or TensorType, whose shape, dtype and device are taken.
        value: A number that the dtype holds.

    Returns:
        Tensor of the type of x.

    Raises:
        ValueError: If the dtype does not hold the number.
        TypeError: If x is neither a tensor nor a type.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.full_like(Tensor([1.0, 2.0]), -1).to_numpy().tolist()
        [-1.0, -1.0]
    """
    return Tensor.full_like(x, value)


@function
def zeros_like(x: Tensor | TensorType) -> Tensor:
    """Zeros with the shape, dtype and device of a tensor or type.

    Args:
        x: Tensor or TensorType.

    Returns:
        Tensor of the type of x.

    Raises:
        TypeError: If x is neither a tensor nor a type.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.zeros_like(Tensor([[1, 2]], dtype=DType.int8)).type
        TensorType(dtype=int8, shape=[Dim(1), Dim(2)], device=cpu:0)
    """
    return Tensor.zeros_like(x)


@function
def ones_like(x: Tensor | TensorType) -> Tensor:
    """Ones with the shape, dtype and device of a tensor or type.

    Args:
        x: Tensor or TensorType.

    Returns:
        Tensor of the type of x.

    Raises:
        TypeError: If x is neither a tensor nor a type.

    Example:
        >>> from maxmod import CPU, DType, TensorType
        >>> from maxmod import functional as F
        >>> F.ones_like(TensorType(DType.float32, [2], CPU())).to_numpy().tolist()
        [1.0, 1.0]
    """
    return Tensor.ones_like(x)


@function
def zeros(
    shape: ShapeLike, *, dtype: DType | None = None, device: DeviceLike | None = None
) -> Tensor:
    """A tensor of zeros.

    Args:
        shape: Sizes; `[]` gives a scalar.
        dtype: Element type; the default dtype if it is not given.
        device: Where to put it; the default device if it is not given.

    Returns:
        Tensor of the shape `shape`.

    Raises:
        TypeError: If `shape` is a single int.

    Example:
        >>> from maxmod import DType
        >>> from maxmod import functional as F
        >>> F.zeros([2, 3], dtype=DType.int32).type
        TensorType(dtype=int32, shape=[Dim(2), Dim(3)], device=cpu:0)
    """
    return Tensor.zeros(shape, dtype=dtype, device=device)


@function
def ones(
    shape: ShapeLike, *, dtype: DType | None = None, device: DeviceLike | None = None
) -> Tensor:
    """A tensor of ones.

    Args:
        shape: Sizes; `[]` gives a scalar.
        dtype: Element type; the default dtype if it is not given.
        device: Where to put it; the default device if it is not given.

    Returns:
        Tensor of the shape `shape`.

    Raises:
        TypeError: If `shape` is a single int.

    Example:
        >>> from maxmod import DType
        >>> from maxmod import functional as F
        >>> F.ones([2], dtype=DType.bool).to_numpy().tolist()
        [True, True]
    """
    return Tensor.ones(shape, dtype=dtype, device=device)


def _counted(op: Op, *, count: Size, dtype: DType, device: DeviceRef) -> TensorType:
    if dtype is DType.bool or (isinstance(count, int) and count < 0):
        raise DTypeError(f"{op.name}: cannot count {count} elements in {dtype!r}.")
    return TensorType.of(dtype, (count,), device)


@op(S, _counted, scalar="{index}")
def iota(xp: ArrayModule, *, count: Size, dtype: DType, device: DeviceRef) -> Tensor:
    """The integers 0, 1, ... count - 1 in a dtype."""
    if dtype.is_float() and dtype.size_in_bits < 32:
        return xp.arange(count, dtype=np.float32).astype(storage_dtype(dtype))
    return xp.arange(count, dtype=storage_dtype(dtype))


@function
def arange(
    start: Bound,
    stop: Bound | None = None,
    step: Bound = 1,
    out_dim: DimLike | None = None,
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
) -> Tensor:
    """The numbers start, start + step, ... below stop (above, for a negative step).

    Args:
        start: First number; a number, a Dim, which may be symbolic while tracing, or a tensor
            with one element. Alone, it is the stop, and the start is 0.
        stop: End, not included, of the same kinds.
        step: Difference, not 0.
        out_dim: The size of the result; required with tensors, must agree otherwise.
        dtype: Element type; the default dtype is a float.
        device: Where to put it.

    Returns:
        Rank 1, of max(0, ceil((stop - start) / step)) elements.

    Raises:
        ValueError: If the step is 0, a bound does not fit the dtype, out_dim disagrees, or a
            bound is a tensor and out_dim is missing.

    Example:
        >>> from maxmod import DType
        >>> from maxmod import functional as F
        >>> F.arange(0, 5, 2, dtype=DType.int32).to_numpy().tolist()
        [0, 2, 4]
    """
    if stop is None:
        start, stop = 0, start
    dtype, ref = resolve(dtype, device)
    if dtype is DType.bool:
        raise DTypeError("arange: dtype: expected a number type, got bool.")
    if out_dim is None and any(isinstance(value, Tensor) for value in (start, stop, step)):
        raise ArgumentError("arange: a tensor as bound needs out_dim.")
    first, last, step = (_number(value, dtype) for value in (start, stop, step))
    if isinstance(step, Dim) or (not isinstance(step, Tensor) and step == 0):
        raise ArgumentError(f"arange: step: expected a number other than 0, got {step}.")
    traced = any(isinstance(value, Tensor) for value in (first, last, step))
    count = as_size(out_dim) if traced else _count(first, last, step)
    if isinstance(count, int) and count > exact_integers(DType.int64)[1]:
        raise ArgumentError(
            f"arange: {count} elements from {start} to {stop}: no size is so large."
        )
    if traced:
        declare_size(count, _counted_steps(first, last, step, dtype), "arange: out_dim")
    # Positions are counted in a wide type and rounded once.
    row = iota(count=count, dtype=_position_dtype(dtype), device=ref)
    row = mul(row, _factor(step, row)) if isinstance(step, Tensor) or step != 1 else row
    row = add(row, _factor(first, row)) if isinstance(first, (Tensor, Dim)) or first != 0 else row
    if out_dim is not None and as_size(out_dim) != count:
        row = rebind(row, (out_dim,), message="arange: out_dim differs from the length.")
    return row.cast(dtype)


def _counted_steps(start: Bound, stop: Bound, step: Bound, dtype: DType) -> Tensor:
    """The number of elements as a tensor, for bounds that are known when the graph runs."""
    wide = DType.float64 if dtype.is_float() else DType.int64
    like = Tensor.full((), 0, dtype=wide, device=CPU_REF)
    first, last, by = (add(like, _factor(value, like)) for value in (start, stop, step))
    if dtype.is_float():
        count = ceil(div(sub(last, first), by))
    else:
        count = negate(floor_div(sub(first, last), by))
    return maximum(count, 0).cast(DType.int64)


def _position_dtype(dtype: DType) -> DType:
    if dtype.is_float():
        return DType.float64
    return DType.uint64 if dtype is DType.uint64 else DType.int64


def _factor(value: Bound, row: Tensor) -> Tensor | Scalar:
    """Brings a bound to the type of the row."""
    if isinstance(value, Dim):
        return full_source(shape=(), value=value, dtype=row.dtype, device=row.type.device)
    if isinstance(value, Tensor):
        return value.to(row.type.device).cast(row.dtype)
    return value


def _number(value: object, dtype: DType) -> Bound:
    if isinstance(value, Tensor):
        if any(size != 1 for size in value.sizes):
            raise ArgumentError(f"arange: a bound must be one number, got {value.type.short()}.")
        if value._value is not None:  # known when the graph runs
            return value
        value = value.item()
    if isinstance(value, Dim):
        value = as_size(value)
    if isinstance(value, Dim):
        return value
    if not is_scalar(value):
        raise OperandError(f"arange: expected a number or Dim, got {type(value).__name__}.")
    try:
        return weak_scalar(value, dtype)
    except DTypeError as error:
        raise DTypeError(f"arange: {error}") from None


def _count(start: Any, stop: Any, step: Any) -> Size:
    if not any(isinstance(bound, Dim) for bound in (start, stop)):
        if all(isinstance(bound, int) for bound in (start, stop, step)):
            return max(0, -((start - stop) // step))
        if not all(math.isfinite(bound) for bound in (start, stop, step)):
            raise ArgumentError(f"arange: expected finite bounds, got {start}, {stop}, {step}.")
        return max(0, math.ceil((stop - start) / step))
    if not all(isinstance(bound, (int, Dim)) for bound in (start, stop, step)):
        raise ArgumentError("arange: with a Dim, the other bounds must be integers.")
    if step == 1:
        return as_size(stop - start)
    return as_size((stop - start + (step - 1 if step > 0 else step + 1)) // step)


@function
def hann_window(
    window_length: int,
    device: DeviceLike | None = None,
    periodic: bool = True,
    dtype: DType | None = None,
) -> Tensor:
    """The Hann window 0.5 - 0.5 cos(2 pi k / n), k = 0, 1, ... window_length - 1.

    Args:
        window_length: Number of elements; 1 gives [1].
        device: Where to put it; the default device if it is not given.
        periodic: n is the length (one period of a longer signal), else the length - 1.
        dtype: A float type; the default dtype if it is not given.

    Returns:
        Tensor [window_length], computed in float64 and rounded once.

    Raises:
        TypeError: If the length is not an int.
        ValueError: If the length is negative or larger than the integers that the dtype holds
            exactly, or the dtype is not a float.

    Source: F. J. Harris, On the use of windows for harmonic analysis, Proc. IEEE 66 (1978).

    Example:
        >>> from maxmod import functional as F
        >>> F.hann_window(4).to_numpy().tolist()
        [0.0, 0.5, 1.0, 0.5]
        >>> F.hann_window(5, periodic=False).to_numpy().tolist()
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    length = expect_int("hann_window", window_length, "window_length")
    dtype, ref = resolve(dtype, device)
    if not dtype.is_float():
        raise DTypeError(f"hann_window: dtype: expected a float type, got {dtype!r}.")
    if length < 0:
        raise ArgumentError(f"hann_window: window_length must not be negative, got {length}.")
    if length == 1:
        return Tensor.ones((1,), dtype=dtype, device=ref)
    _number(length, dtype)
    turn = 2 * math.pi / max(1, length if periodic else length - 1)
    row = iota(count=length, dtype=DType.float64, device=ref)
    return sub(0.5, mul(cos(mul(row, turn)), 0.5)).cast(dtype)


@function
def shape_to_tensor(shape: ShapeLike) -> Tensor:
    """The sizes of a shape as a tensor; of a traced tensor, those of each call.

    Args:
        shape: A Shape or a sequence of sizes.

    Returns:
        int64 [rank], on the host.

    Raises:
        TypeError: If `shape` is not a sequence of sizes.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.shape_to_tensor(Tensor.zeros([2, 3]).shape).to_numpy().tolist()
        [2, 3]
    """
    sizes = as_sizes(shape, "shape_to_tensor: shape")
    if is_static(sizes):
        return Tensor(list(sizes), dtype=DType.int64, device=CPU_REF)
    return stack([Tensor.from_dim(size) for size in sizes])
