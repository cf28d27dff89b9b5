"""Functions that make arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from maxmod import functional as F
from maxmod.array_api.array import Array, operand, tensor_of
from maxmod.array_api.dtypes import (
    DEFAULT_FLOAT,
    DEFAULT_INTEGER,
    common_dtype_of,
    expect_dtype,
    is_any,
    is_number,
    number,
    number_dtype,
    weak_dtype,
)
from maxmod.array_api.operators import function
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, OperandError
from maxmod.ops.context import active_trace
from maxmod.ops.create import arange as range_tensor
from maxmod.ops.create import iota
from maxmod.tensor import Tensor
from maxmod.tensor.default_context import resolve
from maxmod.tensor.literal import literal_array
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.dim import Size
from maxmod.values.shape import as_sizes

Shape: TypeAlias = int | Sequence[Size]


def copied(tensor: Tensor) -> Tensor:
    """Returns a tensor with separate memory; a traced tensor is a value anyway."""
    if active_trace() is not None:
        return tensor
    return Tensor.wrap(tensor.data.copy(), tensor.type)


def _sizes(shape: Shape) -> tuple[Any, ...]:
    return as_sizes((shape,) if isinstance(shape, int) else shape, "shape")


# ---- from data ---------------------------------------------------------------------------------


@function
def asarray(
    obj: object,
    /,
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
    copy: bool | None = None,
) -> Array:
    """Makes an array of data; a `Tensor` or `Array` is shared unless `copy` is true.

    Args:
        obj: An `Array`, a `Tensor`, a Python number, anything that speaks DLPack or the buffer
            protocol, or a nested sequence of these, which is stacked.
        dtype: Element type; of numbers bool, int64 (uint64 for large ones) or float32 by default.
            Numbers in a sequence with arrays take the dtype of the arrays.
        device: Where to put it.
        copy: True copies always, False never, None where it is needed.

    Raises:
        ValueError: If `copy` is False and a copy is needed.
    """
    dtype = None if dtype is None else expect_dtype("asarray", dtype)
    tensor = _shared(obj)
    if tensor is None:
        if copy is False:
            raise ArgumentError("asarray: numbers cannot become an array without a copy.")
        return Array(_literal(obj, dtype, device))
    made = tensor if dtype is None else tensor.cast(dtype)
    made = made if device is None else made.to(device)
    if copy is False and made is not tensor:
        raise ArgumentError("asarray: another dtype or device needs a copy, but copy is False.")
    if copy and made is tensor:
        made = copied(tensor)
    return obj if isinstance(obj, Array) and made is tensor else Array(made)


def _shared(obj: object) -> Tensor | None:
    """Returns the tensor of anything that has its data in memory already."""
    if isinstance(obj, Array):
        return obj.tensor
    if isinstance(obj, Tensor):
        return obj
    if isinstance(obj, (np.ndarray, np.generic)) or hasattr(obj, "__dlpack__"):
        return _imported(obj, None)
    if isinstance(obj, (bytes, bytearray, memoryview)) or hasattr(obj, "__buffer__"):
        return _imported(np.asarray(memoryview(obj)), None)  # type: ignore[arg-type]  # __buffer__
    return None


def _imported(obj: Any, copy: bool | None) -> Tensor:
    narrow = str(getattr(obj, "dtype", "")).rpartition(".")[2].startswith(("bfloat16", "float8"))
    if isinstance(obj, (np.ndarray, np.generic)):
        host: Any = np.asarray(obj)
    elif narrow or int(obj.__dlpack_device__()[0]) != 1:
        return Tensor.from_dlpack(obj)
    else:
        host = np.from_dlpack(obj)
    if not (host.flags.c_contiguous and host.flags.writeable):
        if copy is False:
            raise ArgumentError("from_dlpack: this memory cannot be shared, but copy is False.")
        host = host.copy(order="C")
    return Tensor.from_dlpack(host)


def _literal(obj: Any, dtype: DType | None, device: DeviceLike | None) -> Tensor:
    leaves = _leaves(obj)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if tensors:
        dtype = _joint_dtype(leaves, tensors) if dtype is None else dtype
        return _stacked(obj, dtype, tensors[0].device if device is None else device)
    if dtype is None:
        dtype = _leaf_dtype(leaves)
    if not dtype.is_float():
        obj = _whole(obj, dtype)
    if is_number(obj):
        return Tensor.full((), obj, dtype=dtype, device=device)
    dtype, ref = resolve(dtype, device)
    return Tensor.from_dlpack(literal_array(_listed(obj), dtype)).to(ref)


def _leaves(obj: object) -> list[Any]:
    if is_number(obj):
        return [obj]
    if isinstance(obj, Sequence) and not isinstance(obj, (str, bytes)):
        return [leaf for item in obj for leaf in _leaves(item)]
    shared = _shared(obj)
    if shared is None:
        raise OperandError(f"asarray: expected numbers or an array, got {type(obj).__name__}.")
    return [shared]


def _joint_dtype(leaves: list[Any], tensors: list[Tensor]) -> DType:
    dtype = common_dtype_of("asarray", [tensor.dtype for tensor in tensors])
    for leaf in leaves:
        if is_number(leaf):
            weak_dtype("asarray", leaf, dtype)
    return dtype


def _stacked(obj: Any, dtype: DType, device: DeviceLike) -> Tensor:
    """Returns a nested sequence of arrays and numbers as one tensor."""
    if is_number(obj):
        return number(obj if dtype.is_float() else _whole(obj, dtype), dtype, device)
    shared = _shared(obj)
    if shared is not None:
        return shared.cast(dtype).to(device)
    return F.stack([_stacked(item, dtype, device) for item in obj], 0)


def _leaf_dtype(leaves: list[Any]) -> DType:
    if not leaves:
        return DEFAULT_FLOAT
    dtypes = {number_dtype(leaf) for leaf in leaves}
    if DEFAULT_FLOAT in dtypes:
        return DEFAULT_FLOAT
    if DEFAULT_INTEGER in dtypes:
        return DType.uint64 if max(leaves) >= 2**63 else DEFAULT_INTEGER
    return DType.bool


def _listed(obj: Any) -> Any:
    return obj if is_number(obj) else [_listed(item) for item in obj]


def _whole(obj: Any, dtype: DType) -> Any:
    """Bools, or floats without their fractions: what a conversion to the dtype keeps of numbers."""
    if not is_number(obj):
        return [_whole(item, dtype) for item in obj]
    if dtype is DType.bool:
        return bool(obj)
    return int(obj) if isinstance(obj, float) and math.isfinite(obj) else obj


@function
def from_dlpack(
    x: object, /, *, device: DeviceLike | None = None, copy: bool | None = None
) -> Array:
    """Makes an array of an object that speaks DLPack, sharing its memory where possible.

    Raises:
        ValueError: If `copy` is False and a copy is needed.
    """
    if isinstance(x, Array):
        return asarray(x, device=device, copy=copy)
    if not hasattr(x, "__dlpack__"):
        raise OperandError(f"from_dlpack: {type(x).__name__} does not speak DLPack.")
    return asarray(_imported(x, copy), device=device, copy=copy)


# ---- filled ------------------------------------------------------------------------------------


@function
def full(
    shape: Shape,
    fill_value: bool | float,
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
) -> Array:
    """An array filled with a number or the value of a 0-d array, whose dtype is the default."""
    dtype = None if dtype is None else expect_dtype("full", dtype)
    filled = _shared(fill_value)
    if filled is not None and dtype is not None and _is_known(filled, dtype):
        device = filled.device if device is None else device
        fill_value, filled = _whole(filled.item(), dtype), None
    if filled is not None:
        return _filled(shape, filled, dtype, device)
    found = number_dtype(fill_value) if dtype is None else dtype
    if found.is_float():
        fill_value = float(fill_value)
    return Array(Tensor.full(_sizes(shape), fill_value, dtype=found, device=device))


def _is_known(value: Tensor, dtype: DType) -> bool:
    """True for a value on the host that is checked as a number is: whether an integer can be it."""
    is_here = value.rank == 0 and value.device.is_host and value.real and active_trace() is None
    return is_here and dtype.is_integral() and dtype is not DType.bool


def _filled(shape: Shape, value: Tensor, dtype: DType | None, device: DeviceLike | None) -> Array:
    if value.rank != 0:
        raise ArgumentError(
            f"full: fill_value: expected one number, got an array of {value.shape}."
        )
    value = value.cast(value.dtype if dtype is None else dtype)
    return Array((value if device is None else value.to(device)).broadcast_to(_sizes(shape)))


@function
def full_like(
    x: Array,
    /,
    fill_value: bool | float,
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
) -> Array:
    """An array filled with a number or the value of a 0-d array; shape and dtype are those of x."""
    like = tensor_of("full_like", x).type
    place = like.device if device is None else device
    return full(like.sizes, fill_value, dtype=dtype or like.dtype, device=place)


@function
def zeros(shape: Shape, *, dtype: DType | None = None, device: DeviceLike | None = None) -> Array:
    """Zeros, of float32 by default."""
    return full(shape, 0, dtype=dtype or DEFAULT_FLOAT, device=device)


@function
def zeros_like(
    x: Array, /, *, dtype: DType | None = None, device: DeviceLike | None = None
) -> Array:
    """Zeros with the shape of x."""
    return full_like(x, 0, dtype=dtype, device=device)


@function
def ones(shape: Shape, *, dtype: DType | None = None, device: DeviceLike | None = None) -> Array:
    """Ones, of float32 by default."""
    return full(shape, 1, dtype=dtype or DEFAULT_FLOAT, device=device)


@function
def ones_like(
    x: Array, /, *, dtype: DType | None = None, device: DeviceLike | None = None
) -> Array:
    """Ones with the shape of x."""
    return full_like(x, 1, dtype=dtype, device=device)


@function
def empty(shape: Shape, *, dtype: DType | None = None, device: DeviceLike | None = None) -> Array:
    """An array of any content, which is zeros here."""
    return zeros(shape, dtype=dtype, device=device)


@function
def empty_like(
    x: Array, /, *, dtype: DType | None = None, device: DeviceLike | None = None
) -> Array:
    """An array of any content with the shape of x."""
    return zeros_like(x, dtype=dtype, device=device)


# ---- ranges and grids --------------------------------------------------------------------------


@function
def arange(
    start: float,
    /,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
) -> Array:
    """The numbers start, start + step, ... before stop; int64 if all bounds are integers."""
    if stop is None:
        start, stop = 0, start
    bounds: list[Any] = [start, stop, step]
    whole = all(isinstance(bound, int) for bound in bounds)
    dtype = dtype or (DEFAULT_INTEGER if whole else DEFAULT_FLOAT)
    # Counted in a wide type, so that a bound that the dtype rounds does not change the length.
    counted = dtype if whole and dtype.is_integral() else DType.float64
    if not whole or counted is DType.float64:
        bounds = [float(bound) for bound in bounds]
    return Array(range_tensor(*bounds, dtype=counted, device=device).cast(dtype))


@function
def linspace(
    start: float,
    stop: float,
    /,
    num: int,
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
    endpoint: bool = True,
) -> Array:
    """`num` numbers at equal distances, from start to stop; the stop is the last one, or left out.

    Raises:
        ValueError: If `num` is negative.
    """
    if num < 0:
        raise ArgumentError(f"linspace: num must not be negative, got {num}.")
    dtype, ref = resolve(dtype or DEFAULT_FLOAT, device)
    start, stop = float(start), float(stop)
    parts = num - 1 if endpoint else num
    row = iota(count=num, dtype=DType.float64, device=ref)
    # The distance in halves, because that of the two largest floats is infinite.
    step = 2 * ((stop / 2 - start / 2) / parts) if parts > 0 else 0.0
    values = F.add(F.mul(row, step), start)
    if endpoint and num > 1:
        last = Tensor.full((), num - 1, dtype=DType.float64, device=ref)
        end = Tensor.full((), stop, dtype=DType.float64, device=ref)
        values = F.where(F.equal(row, last), end, values)
    if not dtype.is_float():
        values = F.floor(values)
    return Array(values.cast(dtype))


def _diagonal(rows: int, columns: int, device: DeviceRef) -> Tensor:
    """Column minus row, for each element of a matrix."""
    row = iota(count=rows, dtype=DType.int64, device=device)
    column = iota(count=columns, dtype=DType.int64, device=device)
    return F.sub(column, F.unsqueeze(row, 1))


@function
def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
) -> Array:
    """A matrix with ones on diagonal number k and zeros elsewhere."""
    dtype, ref = resolve(dtype or DEFAULT_FLOAT, device)
    distance = _diagonal(n_rows, n_rows if n_cols is None else n_cols, ref)
    return Array(F.equal(distance, k).cast(dtype))


@function
def tril(x: Array, /, *, k: int = 0) -> Array:
    """The matrices of x with zeros above diagonal number k."""
    return _triangle("tril", x, k)


@function
def triu(x: Array, /, *, k: int = 0) -> Array:
    """The matrices of x with zeros below diagonal number k."""
    return _triangle("triu", x, k)


def _triangle(name: str, x: Array, k: int) -> Array:
    tensor = operand(name, x, is_any)
    if tensor.rank < 2:
        raise ArgumentError(f"{name}: expected at least two axes, got {tensor.type.short()}.")
    distance = _diagonal(*tensor.sizes[-2:], tensor.type.device)  # type: ignore[arg-type]
    limit = Tensor.full((), k, dtype=DType.int64, device=tensor.type.device)
    pair = (limit, distance) if name == "tril" else (distance, limit)
    zero = Tensor.full((), 0, dtype=tensor.dtype, device=tensor.type.device)
    return Array(F.where(F.greater_equal(*pair), tensor, zero))


@function
def meshgrid(*arrays: Array, indexing: str = "xy") -> list[Array]:
    """Coordinates of the points of a grid, one array for each of the vectors.

    Args:
        *arrays: Vectors of one dtype.
        indexing: `"xy"` lets the first vector run along the second axis, `"ij"` along the first.
    """
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"meshgrid: indexing: expected 'xy' or 'ij', got {indexing!r}.")
    rows = [tensor_of("meshgrid", array) for array in arrays]
    if any(row.rank != 1 for row in rows):
        raise ArgumentError("meshgrid: expected vectors.")
    if rows:
        common_dtype_of("meshgrid", [row.dtype for row in rows])
    axes = list(range(len(rows)))
    if indexing == "xy" and len(rows) > 1:
        axes[:2] = [1, 0]
    shape: list[Any] = [1] * len(rows)
    for row, axis in zip(rows, axes, strict=True):
        shape[axis] = row.sizes[0]
    found = []
    for row, axis in zip(rows, axes, strict=True):
        line = [row.sizes[0] if a == axis else 1 for a in range(len(rows))]
        found.append(Array(row.reshape(line).broadcast_to(shape)))
    return found
