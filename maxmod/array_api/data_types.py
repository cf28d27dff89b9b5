"""Functions on dtypes, and what the namespace offers."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from maxmod import backends
from maxmod.array_api.array import Array, tensor_of
from maxmod.array_api.creation import copied
from maxmod.array_api.dtypes import (
    DEFAULT_FLOAT,
    DEFAULT_INTEGER,
    KINDS,
    common_dtype,
    common_dtype_of,
    expect_dtype,
    is_number,
    weak_dtype,
)
from maxmod.array_api.indexing import broadcast_sizes
from maxmod.array_api.operators import function
from maxmod.backends.devices import CPU, Accelerator, Device
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, OperandError
from maxmod.tensor.default_context import defaults
from maxmod.values.device import DeviceLike


@dataclass(frozen=True, slots=True)
class finfo_object:  # noqa: N801
    """Limits of a float dtype."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True, slots=True)
class iinfo_object:  # noqa: N801
    """Limits of an integer dtype."""

    bits: int
    max: int
    min: int
    dtype: DType


def _dtype_of(x: DType | Array) -> DType:
    return x.dtype if isinstance(x, Array) else x


@function
def finfo(type: DType | Array, /) -> finfo_object:
    """Limits of a float dtype."""
    dtype = _dtype_of(type)
    found = DType.finfo(dtype)
    numbers = (float(found.eps), float(found.max), float(found.min), float(found.smallest_normal))
    return finfo_object(found.bits, *numbers, dtype)


@function
def iinfo(type: DType | Array, /) -> iinfo_object:
    """Limits of an integer dtype."""
    dtype = _dtype_of(type)
    if not dtype.is_integral():
        raise OperandError(f"iinfo: expected an integer dtype, got {dtype!r}.")
    found = np.iinfo(dtype.to_numpy())
    return iinfo_object(found.bits, int(found.max), int(found.min), dtype)


@function
def isdtype(dtype: DType, kind: DType | str | tuple[Any, ...]) -> bool:
    """True if a dtype is of a kind: a dtype, one of the names of the standard, or several."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, one) for one in kind)
    if isinstance(kind, DType):
        return dtype is kind
    if kind not in KINDS:
        raise ArgumentError(f"isdtype: kind: expected one of {', '.join(KINDS)}, got {kind!r}.")
    return dtype in KINDS[kind]


@function
def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype of a result of these arrays, dtypes and Python numbers."""
    found = [_dtype_of(x) for x in arrays_and_dtypes if not is_number(x)]
    if not found:
        raise ArgumentError("result_type: expected at least one array or dtype.")
    dtype = common_dtype_of("result_type", found)
    for x in arrays_and_dtypes:
        if is_number(x):
            weak_dtype("result_type", x, dtype)
    return dtype


@function
def can_cast(from_: DType | Array, to: DType, /) -> bool:
    """True if promotion of `from_` together with `to` gives `to`."""
    try:
        return common_dtype("can_cast", _dtype_of(from_), to) is to
    except OperandError:
        return False


@function
def astype(
    x: Array, dtype: DType, /, *, copy: bool = True, device: DeviceLike | None = None
) -> Array:
    """The array in another dtype; with the same one and `copy=False`, the array itself."""
    tensor = tensor_of("astype", x)
    made = tensor.cast(expect_dtype("astype", dtype))
    made = made if device is None else made.to(device)
    if made is not tensor:
        return Array(made)
    return Array(copied(tensor)) if copy else x


@function
def broadcast_to(x: Array, /, shape: tuple[int, ...]) -> Array:
    """The array with axes of size 1 repeated, and leading axes added."""
    return Array(tensor_of("broadcast_to", x).broadcast_to(shape))


@function
def broadcast_arrays(*arrays: Array) -> list[Array]:
    """The arrays in the shape that they broadcast to."""
    tensors = [tensor_of("broadcast_arrays", array) for array in arrays]
    shape = broadcast_sizes([tensor.sizes for tensor in tensors])
    return [Array(tensor.broadcast_to(shape)) for tensor in tensors]


# ---- inspection --------------------------------------------------------------------------------


class Info:
    """What `__array_namespace_info__` returns."""

    def capabilities(self) -> dict[str, Any]:
        """Boolean indexing and data-dependent shapes work, outside traces."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Device:
        """The device of a new array."""
        return defaults()[1]

    def default_dtypes(self, *, device: DeviceLike | None = None) -> dict[str, DType]:
        """The dtypes of new arrays; there is none for complex numbers."""
        return {
            "real floating": DEFAULT_FLOAT,
            "integral": DEFAULT_INTEGER,
            "indexing": DEFAULT_INTEGER,
        }

    def dtypes(
        self, *, device: DeviceLike | None = None, kind: str | tuple[str, ...] | None = None
    ) -> dict[str, DType]:
        """The dtypes of the standard by name; complex ones do not exist."""
        kinds = ("bool", "numeric") if kind is None else kind
        listed = (kinds,) if isinstance(kinds, str) else kinds
        unknown = [one for one in listed if one not in KINDS]
        if unknown:
            raise ArgumentError(f"dtypes: kind: expected one of {', '.join(KINDS)}, got {unknown}.")
        return {dtype.name: dtype for one in listed for dtype in KINDS[one]}

    def devices(self) -> list[Device]:
        """The host and the accelerators."""
        return [CPU(), *[Accelerator(index) for index in range(backends.accelerator_count())]]


@functools.cache
def _info() -> Info:
    return Info()


def __array_namespace_info__() -> Info:  # noqa: N807
    """What the namespace offers: devices, dtypes, capabilities."""
    return _info()
