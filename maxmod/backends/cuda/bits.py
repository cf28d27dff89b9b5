"""Types that CuPy has no dtype for: 8-bit floats and smaller, kept as bytes.

An array of such a dtype is a `uint8` array of a subclass, one for each dtype, by which ops
recognise it. Views and kernels work on the bytes; everything else runs on the host, which is
correct but slow: the fast way to use such weights is a compiled model.
"""

from __future__ import annotations

import numpy as np

from maxmod.dtype import DType, storage_dtype
from maxmod.op import Kind, Op
from maxmod.values.array import Array, ArrayModule, StorageDType

_CLASSES: dict[tuple[type, DType], type] = {}
_MOVES = (Kind.VIEW, Kind.INDEX)


def is_narrow(dtype: DType) -> bool:
    """True for types that are kept as bytes on a GPU."""
    return dtype.is_float() and dtype.size_in_bits <= 8


def device_dtype(dtype: DType) -> StorageDType:
    """Returns the dtype of a CuPy array that holds elements of a type."""
    return np.dtype(np.uint8) if is_narrow(dtype) else storage_dtype(dtype)


def marked(xp: ArrayModule, array: Array, dtype: DType) -> Array:
    """Returns an array as one of a dtype: itself, or its bytes in the class of the dtype."""
    if not is_narrow(dtype):
        return array
    key = (xp.ndarray, dtype)
    if key not in _CLASSES:
        _CLASSES[key] = type(f"{dtype.name}_array", (xp.ndarray,), {"narrow_dtype": dtype})
    return array.view(type=_CLASSES[key])  # type: ignore[call-arg]  # CuPy and NumPy know it


def narrow_dtype(array: Array) -> DType | None:
    """Returns the dtype of an array that is kept as bytes; None for other arrays."""
    return getattr(array, "narrow_dtype", None)


def moves_bytes(op: Op) -> bool:
    """True for ops that only move elements, so that they may run on bytes."""
    return op.kind in _MOVES and not op.meaning.upcasts and op.meaning.fills is None
