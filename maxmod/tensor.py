"""`Tensor`: an array with a dtype, a shape and a device.

A tensor is *realized* (it holds a NumPy or CuPy array), *lazy* (declared under `F.lazy()`, made on
first use) or *symbolic* (a value of a graph that is being traced). Operators and methods are one
call each to the op of the same name, so that all three are the same code.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np

from maxmod import backends
from maxmod.backends.devices import Device, device_of
from maxmod.buffer import Buffer, driver_tensor_type
from maxmod.defaults import (
    contextvar_context,
    default_device,
    default_dtype,
    defaults,
    defaults_like,
    resolve,
)
from maxmod.device import CPU_REF, DeviceLike, DeviceRef
from maxmod.dim import Shape, ShapeLike, Sizes, as_size, as_sizes
from maxmod.dtype import DType, storage_dtype
from maxmod.errors import ArgumentError, OperandError, SliceError, TraceError
from maxmod.foreign import ForeignNames
from maxmod.interop import Exchange, import_array
from maxmod.literal import is_scalar, literal_array
from maxmod.op import call
from maxmod.placement import OneDevice
from maxmod.printing import format_tensor
from maxmod.scalar import OneElement
from maxmod.tensor_type import TensorType

__all__ = [
    "Tensor",
    "TensorType",
    "contextvar_context",
    "default_device",
    "default_dtype",
    "defaults",
    "defaults_like",
    "driver_tensor_type",
]


class Tensor(OneElement, OneDevice, Exchange, ForeignNames):
    """A multi-dimensional array on a device.

    Args:
        data: A number, a nested sequence of numbers, or any array that speaks DLPack.
        dtype: Element type of a literal; an array keeps its own, which must be equal if given.
        device: Where to put it.
        storage: A `driver.Buffer` to wrap, instead of `data`.

    Raises:
        TypeError: If neither or both of `data` and `storage` are given.
        ValueError: If `data` is an array of another dtype than `dtype`, or a literal is not
            rectangular or does not fit the dtype.

    Example:
        >>> from maxmod import Tensor
        >>> (Tensor([[1.0, 2.0], [3.0, 4.0]]) * 2).to_numpy().tolist()
        [[2.0, 4.0], [6.0, 8.0]]
    """

    __slots__ = ("__weakref__", "_alias", "_data", "_literal", "_thunk", "_type", "_value")
    __array_ufunc__ = None  # NumPy arrays on the left defer to our reflected operators

    _type: TensorType
    _data: Any  # the storage array, None while lazy or symbolic
    _value: Any  # the ir.Value while tracing
    _thunk: Callable[[], Any] | None  # makes the data of a lazy tensor
    _literal: Any  # the Python number, if this is a weak operand of an op
    _alias: Any  # the tensor whose memory this one views, or weak references to its views

    def __init__(
        self,
        data: Any = None,
        *,
        dtype: DType | None = None,
        device: DeviceLike | None = None,
        storage: Any = None,
    ) -> None:
        if (data is None) == (storage is None):
            raise TypeError("Tensor: exactly one of data and storage must be given.")
        if storage is not None:
            if dtype is not None or device is not None:
                raise TypeError("Tensor: dtype and device go with data, not with storage.")
            self._set(storage.array, storage.type)
        elif is_scalar(data) or isinstance(data, (list, tuple)):
            dtype, ref = resolve(dtype, device)
            host = literal_array(data, dtype)
            self._set(backends.get(ref).from_host(host, ref.id), None, dtype, ref)
        else:
            made = Tensor.from_dlpack(data)
            if dtype is not None and made.dtype is not dtype:
                raise ArgumentError(
                    f"Tensor: DType must match input dtype: data is {made.type.short()}, dtype is "
                    f"{dtype!r}. Hint: leave dtype out and cast() the result."
                )
            if device is not None:
                made = made.to(device)
            self._set(made._data, made._type)

    def _set(self, data: Any, type: TensorType | None, dtype: Any = None, ref: Any = None) -> None:
        self._data = data
        self._type = type or TensorType.of(dtype, tuple(data.shape), ref)
        self._value = None
        self._thunk = None
        self._literal = None
        self._alias = None

    @staticmethod
    def wrap(data: Any, type: TensorType) -> Tensor:
        """Makes a realized tensor of a storage array and its type."""
        self = object.__new__(Tensor)
        self._data = data
        self._type = type
        self._value = None
        self._thunk = None
        self._literal = None
        self._alias = None
        return self

    @staticmethod
    def symbolic(value: Any) -> Tensor:
        """Makes the tensor of a graph value while tracing."""
        self = Tensor.wrap(None, value.type)
        self._value = value
        return self

    @staticmethod
    def deferred(thunk: Callable[[], Any], type: TensorType) -> Tensor:
        """Makes a lazy tensor; `thunk` returns its storage array when it is first needed."""
        self = Tensor.wrap(None, type)
        self._thunk = thunk
        return self

    def views(self, other: Tensor) -> None:
        """Notes that this tensor shares the memory of another one (the result of a view op)."""
        root = other
        while isinstance(root._alias, Tensor):
            root = root._alias
        self._alias = root
        if root._alias is None:
            root._alias = []
        elif len(root._alias) >= 64:
            root._alias = [reference for reference in root._alias if reference() is not None]
        root._alias.append(weakref.ref(self))

    def own(self) -> None:
        """Makes sure that no other tensor shares the memory, before it is changed in place.

        Ops give new tensors; that some of them share memory must not be seen. Arrays from outside
        (DLPack, NumPy) that share the memory do see the change.
        """
        if isinstance(self._alias, Tensor):
            self._data = self.data.copy()
        for reference in self._alias if isinstance(self._alias, list) else ():
            view = reference()
            if view is not None and view._alias is self:
                view._data = view._data.copy()
                view._alias = None
        self._alias = None

    # ---- construction ----------------------------------------------------------------------

    @classmethod
    def from_dlpack(cls, array: Any) -> Tensor:
        """Makes a tensor of any array that speaks DLPack, sharing memory where possible.

        A `Tensor` is returned unchanged. Read-only NumPy arrays are copied. NumPy arrays of the
        `ml_dtypes` types are accepted although NumPy cannot export them.

        Raises:
            ValueError: If a NumPy array is not C-contiguous.
            TypeError: If the object does not speak DLPack.
        """
        if isinstance(array, Tensor):
            return array
        data, type = import_array(array)
        return cls.wrap(data, type)

    @classmethod
    def constant(
        cls, value: Any, *, dtype: DType | None = None, device: DeviceLike | None = None
    ) -> Tensor:
        """Makes a tensor of a number, a nested sequence, or an array (which keeps its dtype)."""
        return call("constant", value=value, dtype=dtype, device=device)

    @classmethod
    def full(
        cls,
        shape: ShapeLike,
        value: Any,
        *,
        dtype: DType | None = None,
        device: DeviceLike | None = None,
    ) -> Tensor:
        """Makes a tensor of `shape` filled with a number."""
        dtype, ref = resolve(dtype, device)
        return call("full", shape=as_sizes(shape), value=value, dtype=dtype, device=ref)

    @classmethod
    def zeros(
        cls, shape: ShapeLike, *, dtype: DType | None = None, device: DeviceLike | None = None
    ) -> Tensor:
        """Makes a tensor of zeros."""
        return cls.full(shape, 0, dtype=dtype, device=device)

    @classmethod
    def ones(
        cls, shape: ShapeLike, *, dtype: DType | None = None, device: DeviceLike | None = None
    ) -> Tensor:
        """Makes a tensor of ones."""
        return cls.full(shape, 1, dtype=dtype, device=device)

    @classmethod
    def full_like(cls, like: Tensor | TensorType, value: Any) -> Tensor:
        """Makes a filled tensor with the shape, dtype and device of a tensor or type."""
        return cls.full(like.shape, value, dtype=like.dtype, device=like.device)

    @classmethod
    def zeros_like(cls, like: Tensor | TensorType) -> Tensor:
        """Makes zeros with the shape, dtype and device of a tensor or type."""
        return cls.full_like(like, 0)

    @classmethod
    def ones_like(cls, like: Tensor | TensorType) -> Tensor:
        """Makes ones with the shape, dtype and device of a tensor or type."""
        return cls.full_like(like, 1)

    @classmethod
    def arange(
        cls,
        start: Any = 0,
        stop: Any = None,
        step: Any = 1,
        out_dim: Any = None,
        *,
        dtype: DType | None = None,
        device: DeviceLike | None = None,
    ) -> Tensor:
        """Makes `start, start + step, ...` below `stop`; one positional argument is the stop.

        The dtype is the default dtype (a float), not an integer, unless it is given.
        """
        if stop is None:
            start, stop = 0, start
        return call("arange", start, stop, step, out_dim, dtype=dtype, device=device)

    @classmethod
    def range_like(cls, type: Tensor | TensorType) -> Tensor:
        """Makes `0..n-1` along the last axis, broadcast to the whole shape."""
        if type.rank == 0:
            raise SliceError("range_like: expected at least one axis, got rank 0.")
        row = cls.arange(0, type.shape[-1], dtype=type.dtype, device=type.device)
        return row.broadcast_to(type.shape)

    @classmethod
    def from_dim(cls, dim: Any) -> Tensor:
        """Makes an int64 scalar on the host of a size; symbolic sizes only while tracing."""
        return call("full", shape=(), value=as_size(dim), dtype=DType.int64, device=CPU_REF)

    # ---- properties ------------------------------------------------------------------------

    @property
    def type(self) -> TensorType:
        """Dtype, shape and device."""
        return self._type

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self._type._dtype

    @property
    def shape(self) -> Shape:
        """The shape, a list of `Dim`; `x.shape == [2, 3]` compares it with ints."""
        return self._type.shape

    @property
    def sizes(self) -> Sizes:
        """The shape as a tuple in which known sizes are plain ints."""
        return self._type._sizes

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self._type._sizes)

    @property
    def device(self) -> Device:
        """Where the data lives."""
        return device_of(self._type._device)

    @property
    def real(self) -> bool:
        """True once the data exists."""
        return self._data is not None

    @property
    def data(self) -> Any:
        """The storage array (NumPy or CuPy); makes it first if the tensor is lazy.

        Raises:
            TypeError: While tracing.
        """
        if self._data is None:
            self._realize()
        return self._data

    @property
    def storage(self) -> Any:
        """The data as a `driver.Buffer`, or None if there is none yet."""
        return None if self._data is None else Buffer.wrap(self._data, self._type)

    @property
    def driver_tensor(self) -> Any:
        """The data as a `driver.Buffer`; `TypeError` if the tensor is not realized."""
        if self._data is None:
            raise OperandError("driver_tensor: the tensor is not realized.")
        return self.storage

    @property
    def T(self) -> Tensor:  # noqa: N802
        """The tensor with its last two axes swapped; rank 0 is returned unchanged."""
        return call("transpose", self, -2, -1) if self.rank != 0 else self

    def num_elements(self) -> int:
        """The number of elements; `TypeError` if a size is symbolic."""
        count = 1
        for size in self._type._sizes:
            count *= int(size)
        return count

    # ---- data ------------------------------------------------------------------------------

    def _realize(self) -> None:
        if self._value is not None:
            raise TraceError(
                "Can't realize symbolic tensors in graph compilation: the value of "
                f"{self._type.short()} is not known while tracing. Hint: Python control flow, "
                "item(), float(), bool() and printing need data; F.where selects by data, F.cond "
                "and F.while_loop branch and repeat."
            )
        assert self._thunk is not None
        self._data = self._thunk()
        self._thunk = None

    @property
    def realize(self) -> Any:
        """An awaitable that gives this tensor once its data exists: the tensor itself."""
        return self

    def __await__(self) -> Generator[Any, None, Tensor]:
        return self.materialize()
        yield  # makes this a generator; there is nothing to wait for

    def materialize(self) -> Tensor:
        """Makes the data if the tensor is lazy; returns the tensor itself."""
        _ = self.data
        return self

    def _host(self) -> np.ndarray[Any, Any]:
        return backends.get(self._type._device).to_host(self.data)

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """Returns the data on the host as a NumPy array, shared if it is there already.

        Raises:
            ValueError: For bfloat16 and the narrow floats, which NumPy does not know; cast first.
        """
        if storage_dtype(self.dtype).kind == "V":
            raise ArgumentError(
                f"to_numpy: NumPy has no dtype for {self.dtype!r}. Hint: cast to DType.float32."
            )
        return self._host()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        host = self._host()
        if copy is False and not self.device.is_host:
            raise ValueError("__array__: data of an accelerator cannot be given without a copy.")
        return np.array(host, dtype=dtype, copy=copy)

    def _exchanged(self) -> tuple[Any, TensorType]:
        return self.data, self._type

    def to(self, device: DeviceLike) -> Tensor:
        """Returns the tensor on another device; on the same device, the tensor itself."""
        ref = DeviceRef.from_device(device)
        return self if ref == self._type._device else call("transfer_to", self, device=ref)

    def cast(self, dtype: DType) -> Tensor:
        """Returns the tensor with another dtype; with the same dtype, the tensor itself."""
        return self if dtype is self.dtype else call("cast", self, dtype=dtype)

    # ---- methods named like ops --------------------------------------------------------------

    def reshape(self, shape: ShapeLike) -> Tensor:
        """Returns the same elements in another shape; one size may be -1."""
        return call("reshape", self, shape=shape)

    def permute(self, dims: Iterable[int]) -> Tensor:
        """Returns the tensor with its axes in another order."""
        return call("permute", self, dims=dims)

    def transpose(self, dim1: int, dim2: int) -> Tensor:
        """Returns the tensor with two axes swapped."""
        return call("transpose", self, dim1, dim2)

    def broadcast_to(self, shape: ShapeLike) -> Tensor:
        """Returns the tensor repeated along axes of size 1 and new leading axes."""
        return call("broadcast_to", self, shape=shape)

    def squeeze(self, axis: int) -> Tensor:
        """Returns the tensor without an axis of size 1."""
        return call("squeeze", self, axis)

    def unsqueeze(self, axis: int) -> Tensor:
        """Returns the tensor with a new axis of size 1."""
        return call("unsqueeze", self, axis)

    def split(self, split_size_or_sections: Any, axis: int = 0) -> list[Tensor]:
        """Returns the pieces along an axis."""
        return call("split", self, split_size_or_sections, axis)

    def sum(self, axis: int | None = -1) -> Tensor:
        """Returns the sum along an axis, which stays with size 1."""
        return call("sum", self, axis)

    def mean(self, axis: int | None = -1) -> Tensor:
        """Returns the mean along an axis, which stays with size 1."""
        return call("mean", self, axis)

    def prod(self, axis: int | None = -1) -> Tensor:
        """Returns the product along an axis, which stays with size 1."""
        return call("prod", self, axis)

    def max(self, axis: int | None = -1) -> Tensor:
        """Returns the largest element along an axis, which stays with size 1."""
        return call("max", self, axis=axis)

    def min(self, axis: int | None = -1) -> Tensor:
        """Returns the smallest element along an axis, which stays with size 1."""
        return call("min", self, axis=axis)

    def argmax(self, axis: int | None = -1) -> Tensor:
        """Returns the position of the largest element along an axis, which stays with size 1."""
        return call("argmax", self, axis)

    def clip(self, *, min: Any = None, max: Any = None) -> Tensor:
        """Returns the elements bounded from below, then from above."""
        result = self if min is None else call("maximum", self, min)
        return result if max is None else call("minimum", result, max)

    # ---- operators -------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return call("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return call("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return call("sub", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return call("sub", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return call("mul", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return call("mul", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return call("div", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return call("div", other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return call("floor_div", self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return call("floor_div", other, self)

    def __mod__(self, other: Any) -> Tensor:
        return call("mod", self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return call("mod", other, self)

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return other // self, other % self

    def __pow__(self, other: Any) -> Tensor:
        return call("pow", self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return call("pow", other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return call("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return call("matmul", other, self)

    def __neg__(self) -> Tensor:
        return call("negate", self)

    def __abs__(self) -> Tensor:
        return call("abs", self)

    def __and__(self, other: Any) -> Tensor:
        return call("logical_and", self, other)

    def __rand__(self, other: Any) -> Tensor:
        return call("logical_and", other, self)

    def __or__(self, other: Any) -> Tensor:
        return call("logical_or", self, other)

    def __ror__(self, other: Any) -> Tensor:
        return call("logical_or", other, self)

    def __xor__(self, other: Any) -> Tensor:
        return call("logical_xor", self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return call("logical_xor", other, self)

    def __invert__(self) -> Tensor:
        return call("logical_not", self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return call("equal", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return call("not_equal", self, other)

    def __gt__(self, other: Any) -> Tensor:
        return call("greater", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return call("greater_equal", self, other)

    def __lt__(self, other: Any) -> Tensor:
        # As in the API we follow: the negation of >=, so NaN compares true.
        return call("logical_not", call("greater_equal", self, other))

    def __le__(self, other: Any) -> Tensor:
        return call("logical_not", call("greater", self, other))

    def __hash__(self) -> int:
        return id(self)

    def __getitem__(self, index: Any) -> Tensor:
        return call("slice_tensor", self, index)

    def __iter__(self) -> Iterator[Tensor]:
        return call("rows", self)

    def __setitem__(self, index: Any, value: Any) -> None:
        call("buffer_store_slice", self, value, index)

    def __copy__(self) -> Tensor:
        return self if self._data is None else Tensor.wrap(self._data, self._type)

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self

    def __repr__(self) -> str:
        return format_tensor(self._type, self._host() if self._data is not None else None)
