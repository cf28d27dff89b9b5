"""Rounding to bfloat16 and narrower floats once, whatever version of ml_dtypes is installed.

Up to 0.6 it takes float64 and integers to float32 first, which rounds twice, and denormal numbers
to the wrong power of two in float8_e8m0fnu. Version 0.7.0 does neither, and takes more than a
second to import (measured in December 2026), so that it is not installed with maxmod.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maxmod.values.array import HostArray, StorageDType


def narrowed(x: Any, dtype: StorageDType) -> Any:
    """`x.astype(dtype)` for an array of NumPy, rounded once to the nearest, ties to even.

    Args:
        x: Numbers of any dtype; arrays of other libraries are converted by their own `astype`.
        dtype: A dtype of NumPy or ml_dtypes.
    """
    if not _is_of_numpy(x) or dtype.isbuiltin == 1:
        return x.astype(dtype)  # NumPy rounds once
    array: HostArray = np.asarray(x)
    if array.dtype == np.float64 or (array.dtype.kind in "iu" and array.dtype.itemsize >= 4):
        array = _rounded_to_odd(array)
    if dtype.name == "float8_e8m0fnu":
        return _powers_of_two(array, dtype)
    return array.astype(dtype)


def _is_of_numpy(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic)


def _rounded_to_odd(x: HostArray) -> HostArray:
    """Returns float32 numbers that round to fewer bits as x does.

    Towards zero, with the last bit set if anything was lost.
    """
    exact = x.astype(np.float64) if x.dtype.kind == "f" else _exact(x)
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = exact.astype(np.float32)
        error = nearest.astype(np.float64) - exact
    lost = (error < 0) | (error > 0)  # neither for NaN and infinities
    beyond = lost & ((error > 0) == (exact > 0))
    bits = (nearest.view(np.uint32) - beyond.astype(np.uint32)) | lost
    return np.asarray(bits).view(np.float32)  # arrays without axes have become scalars


def _exact(x: HostArray) -> HostArray:
    """Returns float64 numbers for integers; of what they cannot hold, only whether it is 0."""
    if x.dtype.itemsize < 8:
        return x.astype(np.float64)
    negative = x < 0
    bits = x.astype(np.uint64)
    size = np.where(negative, 0 - bits, bits)
    rest = (size & np.uint64(0x7FF)) != 0
    kept = (size & ~np.uint64(0x7FF)) | rest.astype(np.uint64) << np.uint64(11)
    result = np.where(size >> np.uint64(53) != 0, kept, size).astype(np.float64)
    return np.where(negative, -result, result)


def _powers_of_two(x: HostArray, dtype: StorageDType) -> HostArray:
    """The nearest power of two, halves up, 2^-127 at least; NaN unless x is positive."""
    bits = x.astype(np.float32).view(np.uint32)
    normal = (bits + np.uint32(0x400000)) >> np.uint32(23)
    code = np.where(bits < 0x00800000, bits >= 0x00600000, normal)
    is_positive = bits - np.uint32(1) < 0x7F800000
    return np.asarray(np.where(is_positive, code, 255), np.uint8).view(dtype)
