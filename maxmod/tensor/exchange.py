"""Exchange of memory with NumPy, CuPy, torch and JAX through DLPack.

NumPy cannot export or import bfloat16 and the narrow floats; they travel as raw integers of the
same width and are viewed as what they are on our side.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from maxmod import backends
from maxmod.backends.devices import device_of
from maxmod.dtype import DType, storage_dtype
from maxmod.errors import ArgumentError, OperandError
from maxmod.values.array import Array, HostArray
from maxmod.values.device import CPU_REF, DeviceRef
from maxmod.values.tensor_type import TensorType

_CUDA_KINDS = (2, 13)  # kDLCUDA and kDLCUDAManaged of DLPack; NumPy reads the host kinds


@runtime_checkable
class DLPackArray(Protocol):
    """Anything that speaks DLPack: NumPy, CuPy, torch, JAX arrays, `Tensor`, `Buffer`."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __dlpack_device__(self) -> Any: ...


class Exchange:
    """How memory is handed to other libraries; `Tensor` and `Buffer` do it alike."""

    __slots__ = ()

    def _exchanged(self) -> tuple[Array, TensorType]:
        """Returns the storage array and its type."""
        raise NotImplementedError

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Returns a DLPack capsule, by which another library takes the memory without a copy.

        Args:
            stream: The stream that the consumer will use, on an accelerator.
            max_version: The newest version of DLPack that the consumer supports.
            dl_device: (kind, ordinal) of the device to export to.
            copy: True always copies, False never, None if it must be.

        Raises:
            BufferError: If that cannot be done.
        """
        options = {"stream": stream, "max_version": max_version, "dl_device": dl_device}
        given = {name: value for name, value in options.items() if value is not None}
        if copy is not None:
            given["copy"] = copy
        data, type = self._exchanged()
        return export_dlpack(data, type, **given)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Returns (kind, number) of the device: 1 for the host, 2 for CUDA."""
        device = self._exchanged()[1].device
        return (1, 0) if device.is_cpu() else (2, device.id)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The memory on an accelerator, for Numba, PyTorch, ...; `AttributeError` elsewhere."""
        data, type = self._exchanged()
        if type.device.is_cpu():
            raise AttributeError("__cuda_array_interface__: the data is on the host.")
        return data.__cuda_array_interface__  # type: ignore[attr-defined]  # CuPy's


class Storage(Exchange):
    """A storage array and its type; abstract, `Buffer` is the only kind.

    Attributes:
        array: NumPy or CuPy array.
        type: Dtype, shape and device.
    """

    __slots__ = ("array", "type")
    array: Array
    type: TensorType

    def _exchanged(self) -> tuple[Array, TensorType]:
        return self.array, self.type


def import_array(array: object) -> tuple[Array, TensorType]:
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
            f"{_hint(array)}"
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


def _hint(array: object) -> str:
    if isinstance(array, Iterable) and not isinstance(array, (str, bytes, Mapping)):
        return " Hint: Tensor(list(x)) takes numbers, F.stack(list(x)) tensors."
    return ""


def _import_numpy(array: HostArray) -> tuple[HostArray, TensorType]:
    dtype = DType.from_numpy(array.dtype)
    if not array.flags.c_contiguous:
        raise ArgumentError(
            f"from_dlpack: expected a C-contiguous array, got strides {array.strides} for shape "
            f"{array.shape}. Hint: numpy.ascontiguousarray copies it."
        )
    data = array if array.flags.writeable else array.copy()
    return data, TensorType.of(dtype, tuple(data.shape), CPU_REF)


def _host_array(array: Any) -> HostArray:
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


# Type codes of DLPack 1.1 (dlpack.h) for dtypes that NumPy lacks, and their place in a capsule:
# byte 20 of the tensor, which stands behind 32 bytes of version, owner and flags in new capsules.
_CODES = {
    DType.bfloat16: 4,
    DType.float8_e4m3fn: 10,
    DType.float8_e4m3fnuz: 11,
    DType.float8_e5m2: 12,
    DType.float8_e5m2fnuz: 13,
    DType.float8_e8m0fnu: 14,
}
_HOST = (1, 0)  # kDLCPU
_CAPSULES = {b"dltensor": 20, b"dltensor_versioned": 32 + 20}


def export_dlpack(data: Any, type: TensorType, **options: Any) -> object:
    """Returns the DLPack capsule of a storage array.

    bfloat16 and the 8-bit floats are exported with their dtype, although NumPy lacks them.

    Args:
        data: NumPy or CuPy array.
        type: Its type.
        **options: Of the protocol: `stream`, `max_version`, `dl_device`, `copy`.

    Raises:
        BufferError: If a copy is needed and forbidden, or the data cannot be brought to the device.
    """
    if isinstance(data, np.ndarray):
        options.pop("stream", None)  # work on the host is done
        place = options.get("dl_device") or _HOST
        if place[0] != _HOST[0]:  # NumPy before 2.4 raises a ValueError
            raise BufferError(f"__dlpack__: dl_device: data on the host cannot go to {place}.")
        if options.get("copy") and not options.get("dl_device"):
            options["dl_device"] = _HOST
        # Consumers before version 1 of DLPack cannot be told that memory must not be written.
        if not data.flags.writeable and (options.get("max_version") or (0, 0)) < (1, 0):
            if options.get("copy") is False:
                raise BufferError("__dlpack__: this memory is read-only, but copy is False.")
            data = data.copy()
    code = _CODES.get(type.dtype)
    if code is None:
        return data.__dlpack__(**options)
    raw = data.view(f"uint{8 * data.dtype.itemsize}")
    return _relabelled(raw.__dlpack__(**options), code)


def _relabelled(capsule: object, code: int) -> object:
    """Changes the type code of a capsule from unsigned integers to floats of the same width."""
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    is_valid = ctypes.pythonapi.PyCapsule_IsValid
    is_valid.restype, is_valid.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]
    for name, offset in _CAPSULES.items():
        if is_valid(capsule, name):
            ctypes.c_uint8.from_address(get_pointer(capsule, name) + offset).value = code
            return capsule
    raise BufferError("__dlpack__: the array library gave a capsule of an unknown kind.")
