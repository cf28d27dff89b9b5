"""Exchange of memory with NumPy, CuPy, torch, JAX: DLPack, and `Buffer`, concrete memory.

NumPy cannot export or import bfloat16 and the narrow floats; they travel as raw integers of the
same width and are viewed as what they are on our side.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from maxmod import backends
from maxmod.backends.devices import Device, device_of
from maxmod.device import CPU_REF, DeviceRef
from maxmod.dim import as_sizes
from maxmod.dtype import DType, storage_dtype
from maxmod.errors import ArgumentError, OperandError
from maxmod.tensor_type import TensorType

_DL_CPU, _DL_CUDA, _DL_CUDA_HOST, _DL_MANAGED = 1, 2, 3, 13


@runtime_checkable
class DLPackArray(Protocol):
    """Anything that speaks DLPack: NumPy, CuPy, torch, JAX arrays, `Tensor`, `Buffer`."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __dlpack_device__(self) -> Any: ...


def import_array(array: Any) -> tuple[Any, TensorType]:
    """Returns the storage array and type of a foreign array, sharing memory where possible.

    Raises:
        ValueError: If a NumPy array is not C-contiguous.
        TypeError: If the object does not speak DLPack.
    """
    if isinstance(array, Buffer):
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
    if int(kind) in (_DL_CUDA, _DL_MANAGED):
        xp = backends.get(DeviceRef.GPU(index)).xp
        data = array if isinstance(array, xp.ndarray) else xp.from_dlpack(array)
        ref = DeviceRef.GPU(int(index))
        data = xp.ascontiguousarray(data)
        return data, TensorType.of(DType.from_numpy(data.dtype), tuple(data.shape), ref)
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


class Buffer:
    """Concrete memory on a device (`driver.Buffer`, in older code `driver.Tensor`).

    Args:
        dtype: Element type; or a NumPy array, then `shape` is the device.
        shape: Sizes.
        device: Where; the host by default.
        pinned: Accepted for compatibility.
    """

    __slots__ = ("array", "type")
    array: Any
    type: TensorType

    def __init__(
        self, dtype: Any, shape: Any = None, device: Any = None, pinned: bool = False
    ) -> None:
        if isinstance(dtype, np.ndarray):
            made = Buffer.from_numpy(dtype)
            made = made if shape is None and device is None else made.to(shape or device)
            self.array, self.type = made.array, made.type
            return
        ref = CPU_REF if device is None else DeviceRef.from_device(device)
        sizes = as_sizes(shape, "Buffer: shape")
        empty = np.empty(sizes, dtype=storage_dtype(dtype))  # type: ignore[arg-type]
        self.array = backends.get(ref).from_host(empty, ref.id)
        self.type = TensorType(dtype, sizes, ref)

    @staticmethod
    def wrap(array: Any, type: TensorType) -> Buffer:
        """Makes a buffer of a storage array and its type, sharing memory."""
        self = object.__new__(Buffer)
        self.array = array
        self.type = type
        return self

    @staticmethod
    def from_numpy(array: np.ndarray[Any, Any]) -> Buffer:
        """Makes a buffer of a NumPy array, made contiguous first."""
        return Buffer.wrap(*import_array(np.ascontiguousarray(array).reshape(array.shape)))

    @staticmethod
    def from_dlpack(array: Any, *, copy: bool | None = None) -> Buffer:
        """Makes a buffer of any array that speaks DLPack; another buffer is returned as it is."""
        if isinstance(array, Buffer):
            return array.copy() if copy else array
        if copy is not None and not isinstance(array, np.ndarray):
            raise ArgumentError("Buffer.from_dlpack: copy= is for NumPy arrays only.")
        made = Buffer.wrap(*import_array(array))
        return made.copy() if copy else made

    @staticmethod
    def zeros(shape: Any, dtype: DType, device: Any = None) -> Buffer:
        """Makes a buffer of zeros."""
        made = Buffer(dtype, shape, device)
        made.array[...] = 0
        return made

    @staticmethod
    def scalar(value: Any, dtype: DType, device: Any = None) -> Buffer:
        """Makes a buffer of rank 0."""
        made = Buffer(dtype, (), device)
        made.array[...] = value
        return made

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes as plain ints."""
        return tuple(self.array.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides in elements."""
        return tuple(s // self.array.dtype.itemsize for s in self.array.strides)

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return self.array.ndim

    @property
    def num_elements(self) -> int:
        """The number of elements."""
        return int(self.array.size)

    @property
    def element_size(self) -> int:
        """Bytes of one element."""
        return int(self.array.dtype.itemsize)

    @property
    def device(self) -> Device:
        """Where the memory is."""
        return device_of(self.type.device)

    @property
    def is_contiguous(self) -> bool:
        """True if the elements lie in row-major order without gaps."""
        return bool(self.array.flags.c_contiguous)

    @property
    def is_host(self) -> bool:
        """True on the host."""
        return self.type.device.is_cpu()

    @property
    def pinned(self) -> bool:
        """True if the memory is page-locked."""
        return False

    def item(self) -> Any:
        """Returns the value of a buffer of rank 0."""
        if self.rank != 0:
            raise ArgumentError(f"Buffer.item: expected rank 0, got {self.type.short()}.")
        return self.array.item()

    def to(self, device: Any) -> Any:
        """Returns the buffer on a device (itself, if it is there); a list for a list of devices."""
        if isinstance(device, (list, tuple)):
            return [self.to(d) for d in device]
        ref = DeviceRef.from_device(device)
        if ref == self.type.device:
            return self
        host = backends.get(self.type.device).to_host(self.array)
        moved = backends.get(ref).from_host(host, ref.id)
        return Buffer.wrap(moved, TensorType.of(self.dtype, self.type.sizes, ref))

    def copy(self, device: Any = None) -> Buffer:
        """Returns a copy, on another device if one is given."""
        copied = Buffer.wrap(self.array.copy(), self.type)
        return copied if device is None else copied.to(device)

    def contiguous(self) -> Buffer:
        """Returns a contiguous buffer: itself, or a copy."""
        return self if self.is_contiguous else self.copy()

    def view(self, dtype: DType, shape: Any = None) -> Buffer:
        """Reinterprets the bytes; the last axis is rescaled unless a shape is given."""
        try:
            array = self.array.view(storage_dtype(dtype))
            array = array if shape is None else array.reshape(as_sizes(shape))
        except ValueError as error:
            raise ArgumentError(f"Buffer.view: {self.type.short()} as {dtype!r}: {error}") from None
        return Buffer.wrap(array, TensorType.of(dtype, tuple(array.shape), self.type.device))

    def inplace_copy_from(self, source: Buffer) -> None:
        """Overwrites the elements with those of `source`."""
        if not (self.is_contiguous and source.is_contiguous):
            raise ArgumentError("Buffer.inplace_copy_from: both buffers must be contiguous.")
        if self.dtype is not source.dtype or self.num_elements != source.num_elements:
            raise ArgumentError(
                "Buffer.inplace_copy_from: expected the same dtype and number of elements, got "
                f"{self.type.short()} and {source.type.short()}."
            )
        self.array[...] = source.to(self.device).array.reshape(self.shape)

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """Returns the data on the host, shared if it is there already."""
        return backends.get(self.type.device).to_host(self.array)

    def __getitem__(self, index: Any) -> Buffer:
        array = self.array[index]
        if not isinstance(array, type(self.array)):  # NumPy gives a scalar for a full index
            index = index if isinstance(index, tuple) else (index,)
            array = self.array[(*index, ...)]
        return Buffer.wrap(array, TensorType.of(self.dtype, tuple(array.shape), self.type.device))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.array[index] = value.array if isinstance(value, Buffer) else value

    def __dlpack__(self, **options: Any) -> Any:
        return export_dlpack(self.array, self.type, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (_DL_CPU, 0) if self.is_host else (_DL_CUDA, self.type.device.id)

    def __repr__(self) -> str:
        return f"maxmod.driver.Buffer({self.dtype}, {self.shape}, {self.device})"
