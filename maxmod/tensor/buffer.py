"""`Buffer`: concrete memory on a device, with the element type but without operators.

Eager tensors wrap one (`Tensor.driver_tensor`); programs use it to fill memory in place, to view
its bytes, and to hand data to other libraries.
"""

from __future__ import annotations

import contextlib
import math
import os
from typing import Any, TypeAlias

import numpy as np

from maxmod import backends
from maxmod.backends.devices import Device, DeviceStream, device_of
from maxmod.dtype import DType, storage_dtype
from maxmod.errors import ArgumentError, ExchangeError, OperandError, SliceError
from maxmod.tensor.exchange import Storage, import_array
from maxmod.values.array import Array, HostArray, Subscript
from maxmod.values.device import CPU_REF, DeviceLike, DeviceRef
from maxmod.values.narrow import narrowed
from maxmod.values.plain import Scalar
from maxmod.values.shape import ShapeLike, as_sizes
from maxmod.values.tensor_type import TensorType

# As in MAX, memory of a file that is only read may be written to: the system copies the pages.
_MMAP_MODES = {"copyonwrite": "c", "readonly": "c", "readwrite": "r+"}
_MMAP_SHORT = {"c": "c", "r": "c", "r+": "r+"}


BufferDevice: TypeAlias = "DeviceLike | DeviceStream"
"""Where a buffer goes: a device, or a stream of one."""


class Buffer(Storage):
    """Concrete memory on a device (`driver.Buffer`, in older code `driver.Tensor`).

    Args:
        dtype: Element type. Or a NumPy array, which is copied if it is not contiguous; then the
            next argument is the device.
        shape: Sizes. The elements are not initialised.
        device: A `Device`, `DeviceRef` or `DeviceStream`; the host by default.
        stream: Another name of `device`.
        pinned: Host memory that is page-locked, for faster copies to and from an accelerator.
            Whatever the device, the buffer is on the host then. Without an accelerator it is
            ordinary memory: there is nothing to lock it for.

    Raises:
        ValueError: If a size is negative, or the device does not exist.
        TypeError: If an argument is of the wrong kind.

    Example:
        >>> from maxmod import Buffer, DType
        >>> buffer = Buffer.zeros([2, 3], DType.int32)
        >>> buffer[0, 1] = 7
        >>> buffer.to_numpy().tolist()
        [[0, 7, 0], [0, 0, 0]]
    """

    __slots__ = ("_stream", "pinned")
    _stream: DeviceStream | None
    pinned: bool

    def __init__(
        self,
        dtype: DType,
        shape: Any = None,
        device: BufferDevice | None = None,
        pinned: bool = False,
        *,
        stream: DeviceStream | None = None,
    ) -> None:
        place = device if stream is None else stream
        if isinstance(dtype, np.ndarray):
            made = Buffer.from_numpy(dtype).to(_place(shape if shape is not None else place))
        elif isinstance(dtype, DType):
            made = _allocate(dtype, _sizes(shape, "Buffer: shape"), place, pinned)
        else:
            raise OperandError(
                f"Buffer: dtype: expected a DType or a NumPy array, got {dtype!r}. Hint: "
                "Buffer.zeros takes the shape first, Buffer takes the dtype first."
            )
        self.array, self.type, self._stream = made.array, made.type, made._stream
        self.pinned = made.pinned

    @staticmethod
    def wrap(array: Array, type: TensorType, stream: DeviceStream | None = None) -> Buffer:
        """Makes a buffer of a storage array and its type, sharing memory.

        Args:
            array: An array of NumPy or CuPy.
            type: Its dtype, shape and device.
            stream: The stream that it belongs to; that of the device by default.

        Returns:
            The buffer.
        """
        self = object.__new__(Buffer)
        self.array = array
        self.type = type
        self._stream = stream
        self.pinned = False
        return self

    # ---- construction ----------------------------------------------------------------------

    @staticmethod
    def from_numpy(array: HostArray) -> Buffer:
        """Makes a buffer of a NumPy array.

        Args:
            array: The array.

        Returns:
            A buffer on the host, which shares the memory if it is contiguous and can be written to.

        Example:
            >>> import numpy as np
            >>> from maxmod import Buffer
            >>> array = np.zeros(2, np.float32)
            >>> buffer = Buffer.from_numpy(array)
            >>> buffer[0] = 7
            >>> array.tolist()
            [7.0, 0.0]
        """
        return Buffer.wrap(*import_array(np.ascontiguousarray(array).reshape(array.shape)))

    @staticmethod
    def from_dlpack(array: Any, *, copy: bool | None = None) -> Buffer:
        """Makes a buffer of any array that speaks DLPack.

        Args:
            array: Read-only NumPy arrays are copied, and those that NumPy itself took over by
                DLPack, which may be read-only for whoever made them. Others are shared.
            copy: True copies; only for buffers and NumPy arrays. False forbids a copy.

        Returns:
            The buffer; another buffer is returned as it is.

        Raises:
            ValueError: If the array is not contiguous, `copy` is given for another producer, or
                `copy` is False and the array must be copied (also a BufferError).
            TypeError: If the object does not speak DLPack.

        Example:
            >>> import numpy as np
            >>> from maxmod import Buffer
            >>> array = np.zeros(2, np.float32)
            >>> shared, own = Buffer.from_dlpack(array), Buffer.from_dlpack(array, copy=True)
            >>> array[0] = 7
            >>> shared[0].item(), own[0].item()
            (7.0, 0.0)
        """
        if isinstance(array, Buffer):
            return array.copy() if copy else array
        if copy is not None and not isinstance(array, np.ndarray):
            raise ArgumentError(
                "Buffer.from_dlpack: copy: only buffers and NumPy arrays take it, got "
                f"{type(array).__name__}."
            )
        foreign = _is_from_dlpack(array)
        if copy is False and (foreign or not array.flags.writeable):
            raise ExchangeError(
                "Buffer.from_dlpack: a read-only array, or one made by numpy.from_dlpack, needs a "
                "copy; copy is False."
            )
        made = Buffer.wrap(*import_array(array))
        return made.copy() if copy or foreign else made

    @staticmethod
    def zeros(
        shape: ShapeLike, dtype: DType, device: BufferDevice | None = None, pinned: bool = False
    ) -> Buffer:
        """Makes a buffer of zeros.

        Args:
            shape: Sizes.
            dtype: Element type.
            device: A `Device`, `DeviceRef` or `DeviceStream`; the host by default.
            pinned: As for `Buffer`.

        Returns:
            The buffer.

        Example:
            >>> from maxmod import DType, Buffer
            >>> Buffer.zeros([2, 3], DType.int8)
            maxmod.driver.Buffer(DType.int8, (2, 3), Device(type=cpu,id=0))
        """
        made = Buffer(dtype, shape, device, pinned)
        made.array[...] = 0
        return made

    @staticmethod
    def scalar(value: Scalar, dtype: DType, device: BufferDevice | None = None) -> Buffer:
        """Makes a buffer of rank 0.

        Args:
            value: A number.
            dtype: Element type; the number is converted as NumPy does.
            device: A `Device`, `DeviceRef` or `DeviceStream`; the host by default.

        Returns:
            The buffer.

        Raises:
            ValueError: If `value` is not a number.

        Example:
            >>> from maxmod import DType, Buffer
            >>> Buffer.scalar(3, DType.int64).item()
            3
        """
        host = narrowed(np.array(value), storage_dtype(dtype))
        if host.ndim != 0:
            raise ArgumentError(f"Buffer.scalar: expected a number, got shape {host.shape}.")
        return Buffer.wrap(host, TensorType(dtype, (), CPU_REF)).to(_place(device))

    @staticmethod
    def mmap(
        filename: str | os.PathLike[str],
        dtype: DType,
        shape: ShapeLike,
        mode: str = "copyonwrite",
        offset: int = 0,
    ) -> Buffer:
        """Makes a buffer of a file that is mapped into memory; nothing is read until it is used.

        Args:
            filename: Path of the file.
            dtype: Element type.
            shape: Sizes; the file may be longer.
            mode: `"copyonwrite"` keeps writes in memory and off the file, and so does
                `"readonly"`, as in MAX; `"readwrite"` writes them to the file. NumPy's short forms
                `c`, `r` and `r+` are accepted.
            offset: First byte.

        Returns:
            A buffer on the host.

        Raises:
            ValueError: If the mode is unknown or the file is too short.
            OSError: If the file cannot be opened.

        Example:
            >>> import numpy as np
            >>> from maxmod import DType, Buffer
            >>> import pathlib, tempfile
            >>> path = pathlib.Path(tempfile.mkdtemp()) / "raw"
            >>> _ = path.write_bytes(np.arange(6, dtype=np.float32).tobytes())
            >>> Buffer.mmap(path, DType.float32, [2], offset=16).to_numpy().tolist()
            [4.0, 5.0]
        """
        short = _MMAP_MODES.get(mode) or _MMAP_SHORT.get(mode)
        if short is None:
            listed = ", ".join(map(repr, _MMAP_MODES))
            raise ArgumentError(f"Buffer.mmap: mode: expected one of {listed}, got {mode!r}.")
        sizes = _sizes(shape, "Buffer.mmap: shape")
        storage = storage_dtype(dtype)
        count = math.prod(sizes)
        needed = offset + count * storage.itemsize
        found = os.stat(filename).st_size
        if offset < 0 or found < needed:
            raise ArgumentError(
                f"Buffer.mmap: {os.fspath(filename)}: expected at least {needed} bytes from "
                f"offset {offset}, got a file of {found} bytes."
            )
        if count:
            array = np.asarray(np.memmap(filename, storage, short, offset, sizes))  # type: ignore[call-overload]
        else:  # nothing can be mapped
            array = np.empty(sizes, storage)
        return Buffer.wrap(array, TensorType.of(dtype, sizes, CPU_REF))

    # ---- properties ------------------------------------------------------------------------

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
    def stream(self) -> DeviceStream:
        """The stream the buffer was made on."""
        return self._stream or self.device.default_stream

    @property
    def is_contiguous(self) -> bool:
        """True if the elements are in row-major order without gaps."""
        return bool(self.array.flags.c_contiguous)

    @property
    def is_host(self) -> bool:
        """True on the host."""
        return self.type.device.is_cpu()

    # ---- data ------------------------------------------------------------------------------

    def item(self) -> Any:
        """Returns the only element of a buffer, of any rank, as a Python number or bool.

        Returns:
            A bool, int or float.

        Raises:
            ValueError: If there is not exactly one element.
        """
        if self.num_elements != 1:
            raise ArgumentError(f"Buffer.item: expected one element, got {self.type.short()}.")
        value = self.to_numpy().reshape(())
        if self.dtype is DType.bool:
            return bool(value)
        return float(value) if self.dtype.is_float() else int(value)

    def to(self, device: Any) -> Any:
        """Returns the buffer on a device or stream: itself if it is already there.

        Args:
            device: A `Device`, `DeviceRef` or `DeviceStream`; or a list of them.

        Returns:
            A buffer; a list of buffers for a list.

        Raises:
            TypeError: If `device` is of another kind.
        """
        if isinstance(device, (list, tuple)):
            return [self.to(d) for d in device]
        ref, stream = _target(device)
        if ref == self.type.device and (stream is None or stream == self.stream):
            return self
        return self._moved(ref, stream)

    def copy(self, stream: DeviceStream | None = None) -> Buffer:
        """Returns a copy.

        Args:
            stream: Where to: a stream or device; where the buffer is by default.

        Returns:
            A contiguous buffer with separate memory.
        """
        ref, target = _target(self.device if stream is None else stream)
        return self._moved(ref, target)

    def _moved(self, ref: DeviceRef, stream: DeviceStream | None) -> Buffer:
        with _active(stream):
            if ref == self.type.device:
                array = self.array.copy()
            else:
                host = self.to_numpy()
                array = backends.get(ref).from_host(np.ascontiguousarray(host), ref.id)
                if array is host:  # a view of our own memory is not a copy
                    array = host.copy()
            array = array.reshape(self.shape)
        return Buffer.wrap(array, TensorType.of(self.dtype, self.type.sizes, ref), stream)

    def contiguous(self) -> Buffer:
        """Returns a contiguous copy, also of a buffer that is contiguous already."""
        return self.copy()

    def view(self, dtype: DType, shape: ShapeLike | None = None) -> Buffer:
        """Reinterprets the bytes; the last axis is rescaled unless a shape is given.

        Args:
            dtype: Element type of the view.
            shape: Its sizes.

        Returns:
            A buffer that shares the memory.

        Raises:
            ValueError: If the bytes of the last axis are not a whole number of elements, the shape
                has another number of elements, or the buffer is not contiguous.

        Example:
            >>> from maxmod import DType, Buffer
            >>> Buffer.zeros([2, 3], DType.float32).view(DType.uint8).shape
            (2, 12)
        """
        if not self.is_contiguous:
            raise ArgumentError(f"Buffer.view: {self.type.short()} is not contiguous.")
        try:
            array = self.array if shape is None else self.array.reshape(-1)
            array = array.view(storage_dtype(dtype))
            array = array if shape is None else array.reshape(_sizes(shape, "Buffer.view: shape"))
        except ValueError as error:
            raise ArgumentError(f"Buffer.view: {self.type.short()} as {dtype!r}: {error}") from None
        type = TensorType.of(dtype, tuple(array.shape), self.type.device)
        return Buffer.wrap(array, type, self._stream)

    def inplace_copy_from(self, source: Buffer) -> None:
        """Overwrites the elements with those of another buffer, which may be on another device.

        Args:
            source: Buffer of the same dtype and number of elements; it need not be contiguous.
                The buffer itself changes nothing.

        Raises:
            ValueError: If this buffer is not contiguous, or dtypes or element counts differ.

        Example:
            >>> import numpy as np
            >>> from maxmod import DType, Buffer
            >>> buffer = Buffer.zeros([2], DType.float32)
            >>> buffer.inplace_copy_from(Buffer.from_numpy(np.array([1, 2], np.float32)))
            >>> buffer.to_numpy().tolist()
            [1.0, 2.0]
        """
        if source is self:
            return
        if not self.is_contiguous:
            raise ArgumentError(
                f"Buffer.inplace_copy_from: {self.type.short()} is not contiguous. Hint: "
                "buffer[:, 0] = source stores to a part of a buffer."
            )
        if self.dtype is not source.dtype or self.num_elements != source.num_elements:
            raise ArgumentError(
                "Buffer.inplace_copy_from: expected the same dtype and number of elements, got "
                f"{self.type.short()} and {source.type.short()}."
            )
        self.array[...] = source.to(self.type.device).array.reshape(self.shape)

    def to_numpy(self) -> HostArray:
        """Returns the data on the host, shared if it is there already.

        bfloat16 and the 8-bit floats come with the dtypes of `ml_dtypes`.
        """
        return backends.get(self.type.device).to_host(self.array)

    def __getitem__(self, index: Subscript) -> Buffer:
        array = self.array[self._basic(index)]
        type = TensorType.of(self.dtype, tuple(array.shape), self.type.device)
        return Buffer.wrap(array, type, self._stream)

    def __setitem__(self, index: Subscript, value: Any) -> None:
        if isinstance(value, Buffer):
            value = value.to(self.type.device).array
        elif isinstance(value, np.ndarray):
            value = backends.get(self.type.device).from_host(value, self.type.device.id)
        place = self._basic(index)
        try:
            with np.errstate(over="ignore"):  # a float that is too large becomes an infinity
                self.array[place] = value
        except TypeError as error:
            raise OperandError(f"Buffer: store into {self.type.short()}: {error}.") from None
        except (ValueError, OverflowError) as error:
            raise ArgumentError(f"Buffer: store into {self.type.short()}: {error}.") from None

    def _basic(self, index: Subscript) -> tuple[Any, ...]:
        """Returns an index that NumPy takes: one int or slice for each axis.

        The dots at its end keep a result of rank 0 an array.
        """
        parts = index if isinstance(index, tuple) else (index,)
        for part in parts:
            if isinstance(part, bool) or not isinstance(part, (int, np.integer, slice)):
                raise OperandError(
                    f"Buffer: index: expected ints and slices, got {type(part).__name__}."
                )
        if self.rank == 0 and parts == (0,):  # the one element of a scalar
            return (...,)
        if len(parts) != self.rank:
            raise SliceError(
                f"Buffer: index: expected {self.rank} ints or slices for {self.type.short()}, got "
                f"{len(parts)}. Hint: `:` is a whole axis, as in buffer[0, :]."
            )
        for axis, (part, size) in enumerate(zip(parts, self.shape)):
            _check_bounds(part, axis, size)
        return (*parts, ...)

    def __repr__(self) -> str:
        return f"maxmod.driver.Buffer({self.dtype}, {self.shape}, {self.device})"


def _check_bounds(part: Any, axis: int, size: int) -> None:
    if isinstance(part, slice):
        try:
            part.indices(size)
        except (TypeError, ValueError) as error:
            raise SliceError(f"Buffer: index: axis {axis}: {error}.") from None
    elif not -size <= part < size:
        raise SliceError(f"Buffer: index: {part} is outside of axis {axis} of size {size}.")


def _place(device: BufferDevice | None) -> BufferDevice:
    return CPU_REF if device is None else device


def _target(device: object) -> tuple[DeviceRef, DeviceStream | None]:
    if isinstance(device, DeviceStream):
        return device.device.ref, device
    return DeviceRef.from_device(device), None


def _active(stream: DeviceStream | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if stream is None else stream.active()


def _sizes(shape: object, what: str) -> tuple[int, ...]:
    sizes = as_sizes(shape, what)
    if not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise ArgumentError(f"{what}: expected non-negative integer sizes, got {list(sizes)}.")
    return sizes  # type: ignore[return-value]


def _allocate(
    dtype: DType, sizes: tuple[int, ...], device: BufferDevice | None, pinned: bool
) -> Buffer:
    ref, stream = _target(_place(device))
    if pinned:
        host = backends.get(DeviceRef.GPU()).empty_pinned(sizes, storage_dtype(dtype))
        if host is not None:
            made = Buffer.wrap(host, TensorType(dtype, sizes, CPU_REF))
            made.pinned = True
            return made
        ref, stream = CPU_REF, None
    type = TensorType(dtype, sizes, ref)
    with _active(stream):
        made = Buffer.wrap(backends.get(ref).empty(type), type, stream)
    made.pinned = pinned
    return made


def _is_from_dlpack(array: object) -> bool:
    """True for a NumPy array that was made by `numpy.from_dlpack`: a capsule holds its memory."""
    return isinstance(array, np.ndarray) and type(array.base).__name__ == "PyCapsule"


def driver_tensor_type(buffer: Buffer) -> TensorType:
    """Returns dtype, shape and device of a buffer.

    Args:
        buffer: The buffer.

    Returns:
        Its type.

    Raises:
        TypeError: If it is not a `Buffer`.

    Example:
        >>> from maxmod import DType, Buffer
        >>> from maxmod.tensor import driver_tensor_type
        >>> driver_tensor_type(Buffer.zeros([2], DType.int32))
        TensorType(dtype=int32, shape=[Dim(2)], device=cpu:0)
    """
    if not isinstance(buffer, Buffer):
        raise OperandError(f"driver_tensor_type: expected a Buffer, got {type(buffer).__name__}.")
    return buffer.type
