"""Exchange of memory with NumPy, CuPy, torch and JAX through DLPack.

NumPy cannot export or import bfloat16 and the narrow floats; they travel as raw integers of the
same width and are viewed as what they are on our side.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from maxmod import backends
from maxmod.backends.devices import device_of
from maxmod.device import CPU_REF, DeviceRef
from maxmod.dtype import DType, storage_dtype
from maxmod.errors import ArgumentError, OperandError
from maxmod.tensor_type import TensorType

_CUDA_KINDS = (2, 13)  # kDLCUDA and kDLCUDAManaged of DLPack; NumPy reads the host kinds


@runtime_checkable
class DLPackArray(Protocol):
    """Anything that speaks DLPack: NumPy, CuPy, torch, JAX arrays, `Tensor`, `Buffer`."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __dlpack_device__(self) -> Any: ...


class Storage:
    """A storage array and its type; abstract, `Buffer` is the only kind.

    Attributes:
        array: NumPy or CuPy array.
        type: Dtype, shape and device.
    """

    __slots__ = ("array", "type")
    array: Any
    type: TensorType


def import_array(array: Any) -> tuple[Any, TensorType]:
    """Returns the storage array and type of a foreign array, sharing memory where possible.

    Raises:
        ValueError: If a NumPy array is not C-contiguous, or the array is on an accelerator that
            cannot be used.
        TypeError: If the object does not speak DLPack.
    """
    if isinstance(array, Storage):
        return array.array, array.type
    if isinstance(array, np.generic):
        array = np.asarray(array)
    if isinstance(array, np.ndarray):
        return _import_numpy(array)
    if not isinstance(array, DLPackArray):
        raise OperandError(
            f"from_dlpack: expected an array that speaks DLPack, got {type(array).__name__}."
        )
    kind, index = array.__dlpack_device__()
    if int(kind) in _CUDA_KINDS:
        ref = DeviceRef.GPU(int(index))
        device_of(ref)  # says why, if there is no accelerator
        xp = backends.get(ref).xp
        data: Any = array if isinstance(array, xp.ndarray) else xp.from_dlpack(array)
        shape = tuple(data.shape)
        data = xp.ascontiguousarray(data).reshape(shape)
        return data, TensorType.of(DType.from_numpy(data.dtype), shape, ref)
    return _import_numpy(_host_array(array))


def _import_numpy(array: np.ndarray[Any, Any]) -> tuple[Any, TensorType]:
    dtype = DType.from_numpy(array.dtype)
    if not array.flags.c_contiguous:
        raise ArgumentError(
            f"from_dlpack: expected a C-contiguous array, got strides {array.strides} for shape "
            f"{array.shape}. Hint: numpy.ascontiguousarray copies it."
        )
    data = array if array.flags.writeable else array.copy()
    return data, TensorType.of(dtype, tuple(data.shape), CPU_REF)


def _host_array(array: Any) -> np.ndarray[Any, Any]:
    name = str(getattr(array, "dtype", "")).rpartition(".")[2]
    if hasattr(array, "view") and (name == "bfloat16" or name.startswith("float8")):
        target = storage_dtype(DType[name])
        raw = _raw_view(array, target.itemsize)
        return np.from_dlpack(raw).view(target)
    return np.from_dlpack(array)


def _raw_view(array: Any, itemsize: int) -> Any:
    """Views a torch or JAX array of a narrow float as unsigned integers of its width."""
    name = "uint16" if itemsize == 2 else "uint8"
    if type(array).__module__.startswith("torch"):
        import torch

        return array.detach().view(torch.int16 if itemsize == 2 else torch.uint8)
    return array.view(name)


def export_dlpack(data: Any, type: TensorType, **options: Any) -> Any:
    """Returns the DLPack capsule of a storage array.

    Raises:
        BufferError: For dtypes that the array library cannot export (bfloat16 through NumPy).
    """
    if isinstance(data, np.ndarray):
        options.pop("stream", None)
        if data.dtype.kind == "V" or type.dtype.is_float8():
            raise BufferError(
                f"__dlpack__: NumPy cannot export {type.dtype!r}. Hint: cast to float32 first."
            )
    return data.__dlpack__(**options)
