"""`Tensor`: an array with a dtype, a shape and a device.

A tensor is *realized* (it holds a NumPy or CuPy array), *lazy* (declared under `F.lazy()`, made on
first use) or *symbolic* (a value of a graph that is being traced). Operators and methods are one
call each to the op of the same name, so that all three are the same code.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from maxmod import backends
from maxmod.backends.devices import Device, device_of
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, OperandError, TraceError
from maxmod.op import call, innermost
from maxmod.tensor.buffer import Buffer
from maxmod.tensor.constructors import Constructors
from maxmod.tensor.default_context import (
    resolve,
)
from maxmod.tensor.exchange import DLPackArray, Exchange, Storage, import_array
from maxmod.tensor.literal import is_literal, literal_array
from maxmod.tensor.methods import OpMethods
from maxmod.tensor.one_device import OneDevice
from maxmod.tensor.one_element import OneElement
from maxmod.tensor.operators import Operators
from maxmod.tensor.other_names import ForeignNames
from maxmod.tensor.printing import format_tensor
from maxmod.tensor.realization import Realization
from maxmod.values.array import Array, HostArray
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.plain import Scalar
from maxmod.values.shape import Shape, Sizes
from maxmod.values.tensor_type import TensorType


class Tensor(Constructors, Operators, OpMethods, OneElement, OneDevice, Exchange, ForeignNames):
    """A multi-dimensional array on a device.

    Operators work elementwise with broadcasting, `@` is the matrix product, `x[...]` takes ints,
    slices, None, `...`, lists, integer arrays and masks. Two dtypes have a common one only if it
    holds both exactly. A number or array of NumPy next to a tensor takes its dtype: integers must
    fit exactly, floats are rounded, and no float becomes an integer.

    Args:
        data: A number, a nested sequence of numbers, or any array that speaks DLPack (NumPy,
            PyTorch, CuPy, JAX), whose memory is shared where possible.
        dtype: Element type of a literal, the default dtype (float32 on the host) if not given; an
            array keeps its own, which must be equal if given.
        device: Where to put it; the default device if not given, but a tensor stays where it is.
        storage: A `driver.Buffer` to wrap, instead of `data`.

    Raises:
        TypeError: If neither or both of `data` and `storage` are given.
        ValueError: If `data` is an array of another dtype than `dtype`, or a literal is not
            rectangular or does not fit the dtype.

    Example:
        >>> import numpy as np
        >>> from maxmod import Tensor
        >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> x
        Tensor([[1 2]
                [3 4]], shape=[2, 2], dtype=DType.float32, device=Device(type=cpu,id=0))
        >>> x * 2 + Tensor([10.0, 20.0])
        Tensor([[12 24]
                [16 28]], shape=[2, 2], dtype=DType.float32, device=Device(type=cpu,id=0))
        >>> (x @ x)[0].to_numpy().tolist()
        [7.0, 10.0]
        >>> Tensor(np.arange(3)).dtype
        int64
    """

    __slots__ = ("__weakref__", "_alias", "_data", "_literal", "_thunk", "_type", "_value")
    __array_ufunc__ = None  # NumPy arrays on the left defer to our reflected operators

    _type: TensorType
    _data: Any  # the storage array, None while lazy or symbolic
    _value: Any  # the ir.Value while tracing
    _thunk: Callable[[], Array] | None  # makes the data of a lazy tensor
    _literal: Scalar | None  # the Python number, if this is a weak operand of an op
    _alias: Any  # the tensor whose memory this one views, or weak references to its views

    def __init__(
        self,
        data: Any = None,
        *,
        dtype: DType | None = None,
        device: DeviceLike | None = None,
        storage: Storage | None = None,
    ) -> None:
        if (data is None) == (storage is None):
            raise TypeError("Tensor: exactly one of data and storage must be given.")
        if storage is not None:
            if dtype is not None or device is not None:
                raise TypeError("Tensor: dtype and device go with data, not with storage.")
            self._set(storage.array, storage.type)
        elif is_literal(data):
            dtype, ref = resolve(dtype, device)
            host = literal_array(data, dtype)
            type = TensorType.of(dtype, host.shape, ref)
            self._thunk_or_data(lambda: backends.get(ref).from_host(host, ref.id), type)
        else:
            made = Tensor.from_dlpack(data)
            if dtype is not None and made.dtype is not dtype:
                raise ArgumentError(
                    f"Tensor: DType must match input dtype: data is {made.type.short()}, dtype is "
                    f"{dtype!r}. Hint: leave dtype out and cast() the result."
                )
            if device is not None or not isinstance(data, Tensor):
                made = made._placed(resolve(made.dtype, device)[1])
            self._set(made._data, made._type)
            self._value = made._value
            if made._thunk is not None:
                self._thunk = lambda: made.data

    def _thunk_or_data(self, make: Callable[[], Array], type: TensorType) -> None:
        """Makes the data, or notes how in a lazy block."""
        later = innermost().later(make)
        self._set(None if later else make(), type)
        self._thunk = later

    def _placed(self, ref: DeviceRef) -> Tensor:
        """Like `to`, but data is copied at once, also while tracing or in a lazy block."""
        if self._data is None or self._type._device == ref:
            return self.to(ref)
        host = backends.get(self._type._device).to_host(self._data)
        data = backends.get(ref).from_host(host, ref.id)
        return Tensor.wrap(data, TensorType.of(self._type.dtype, self._type.sizes, ref))

    def _set(self, data: Array | None, type: TensorType) -> None:
        self._data = data
        self._type = type
        self._value = None
        self._thunk = None
        self._literal = None
        self._alias = None

    @staticmethod
    def wrap(data: Array | None, type: TensorType) -> Tensor:
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
    def deferred(thunk: Callable[[], Array], type: TensorType) -> Tensor:
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
            self._data = backends.get(self._type.device).copy(self.data)
        for reference in self._alias if isinstance(self._alias, list) else ():
            view = reference()
            if view is not None and view._alias is self:
                view._data = backends.get(view._type.device).copy(view._data)
                view._alias = None
        self._alias = None

    # ---- construction ----------------------------------------------------------------------

    @classmethod
    def from_dlpack(cls, array: DLPackArray) -> Tensor:
        """Makes a tensor of any array that speaks DLPack, sharing memory where possible.

        Args:
            array: An array of NumPy, PyTorch, CuPy, JAX or another library. Read-only NumPy arrays
                are copied. NumPy arrays of the `ml_dtypes` types are accepted although NumPy cannot
                export them.

        Returns:
            Tensor of the dtype, shape and device of the array; a `Tensor` is returned unchanged.

        Raises:
            ValueError: If a NumPy array is not C-contiguous.
            TypeError: If the object does not speak DLPack.

        Example:
            >>> import numpy as np
            >>> from maxmod import Tensor
            >>> array = np.zeros(2, np.float32)
            >>> x = Tensor.from_dlpack(array)
            >>> array[0] = 7  # the memory is shared
            >>> x.to_numpy().tolist()
            [7.0, 0.0]
        """
        if isinstance(array, Tensor):
            return array
        data, type = import_array(array)
        return cls.wrap(data, type)

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
        """The shape, a list of `Dim`; `x.shape == [2, 3]` compares it with ints.

        Example:
            >>> from maxmod import Tensor
            >>> x = Tensor.zeros([2, 3])
            >>> x.shape, x.shape == [2, 3], int(x.shape[-1])
            ([Dim(2), Dim(3)], True, 3)
        """
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
        """Where the data lives.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([1.0]).device
            Device(type=cpu,id=0)
        """
        return device_of(self._type._device)

    @property
    def real(self) -> bool:
        """True once the data exists: not for tensors that are lazy, or values of a graph."""
        return self._data is not None

    @property
    def data(self) -> Array:
        """The storage array (NumPy or CuPy); makes it first if the tensor is lazy.

        Raises:
            TypeError: While tracing.
        """
        if self._data is None:
            self._realize()
        return self._data  # type: ignore[return-value]  # made just now

    @property
    def storage(self) -> Any:
        """The data as a `driver.Buffer`, or None if there is none yet."""
        return None if self._data is None else Buffer.wrap(self._data, self._type)

    @property
    def driver_tensor(self) -> Any:
        """The data as a `driver.Buffer`.

        Raises:
            TypeError: If the tensor is not realized.
        """
        if self._data is None:
            raise OperandError("driver_tensor: the tensor is not realized.")
        return self.storage

    @property
    def T(self) -> Tensor:  # noqa: N802
        """The tensor with its last two axes swapped; rank 0 is returned unchanged.

        Raises:
            IndexError: If the rank is 1.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor.zeros([5, 2, 3]).T.shape
            [Dim(5), Dim(3), Dim(2)]
        """
        return call("transpose", self, -2, -1) if self.rank != 0 else self

    def num_elements(self) -> int:
        """The number of elements; 1 for a scalar.

        Returns:
            An int.

        Raises:
            TypeError: If a size is symbolic.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor.zeros([2, 3]).num_elements()
            6
        """
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
    def realize(self) -> Realization[Tensor]:
        """A coroutine that makes the data and gives this tensor: `await x.realize`.

        Example:
            >>> from maxmod import Tensor
            >>> import asyncio
            >>> asyncio.run((Tensor([1.0]) + 1).realize).item()
            2.0
        """
        return Realization(self.materialize)

    def __await__(self) -> Generator[object, None, Tensor]:
        return self.materialize()
        yield  # makes this a generator; there is nothing to wait for

    def materialize(self) -> Tensor:
        """Makes the data if the tensor is lazy.

        Returns:
            The tensor itself.

        Raises:
            TypeError: While tracing, where there is no data, and in a `lazy` block.

        Example:
            >>> from maxmod import Tensor
            >>> from maxmod import functional as F
            >>> with F.lazy():
            ...     x = Tensor.ones([2])
            >>> x.real, x.materialize().real
            (False, True)
        """
        _ = self.data
        return self

    def _host(self) -> HostArray:
        return backends.get(self._type._device).to_host(self.data)

    def to_numpy(self) -> HostArray:
        """Returns the data on the host as a NumPy array, shared if it is there already.

        Returns:
            NumPy array of the same dtype and shape.

        Raises:
            ValueError: For bfloat16 and the narrow floats, which NumPy lacks; cast first.
            TypeError: While tracing.

        Example:
            >>> from maxmod import DType, Tensor
            >>> Tensor([1.0, 2.0], dtype=DType.bfloat16).cast(DType.float32).to_numpy().tolist()
            [1.0, 2.0]
        """
        if self.dtype is DType.bfloat16 or (self.dtype.is_float() and self.dtype.size_in_bits <= 8):
            raise ArgumentError(
                f"to_numpy: NumPy has no dtype for {self.dtype!r}. Hint: cast to DType.float32."
            )
        return self._host()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> HostArray:
        host = self._host()
        if copy is False and not self.device.is_host:
            raise ValueError("__array__: data of an accelerator cannot be given without a copy.")
        return np.array(host, dtype=dtype, copy=copy)

    def _exchanged(self) -> tuple[Array, TensorType]:
        return self.data, self._type

    def __copy__(self) -> Tensor:
        return self if self._data is None else Tensor.wrap(self._data, self._type)

    def __deepcopy__(self, memo: object) -> Tensor:
        return self

    def __repr__(self) -> str:
        return format_tensor(self._type, self._host() if self._data is not None else None)
