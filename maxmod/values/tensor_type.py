"""`TensorType` and `BufferType`: dtype, shape and device of a value, without its data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from maxmod.dtype import DType, dtype_hint
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.dim import Size, SymbolicDim
from maxmod.values.shape import FixedShape, Shape, ShapeLike, Sizes, as_sizes, format_sizes, product

TensorOrType: TypeAlias = Any
"""A tensor; or its type, in what a function is compiled for.

It stands in structures that are filled with types to compile, and with tensors to call. The code
that reads one knows which; a union would have to be taken apart at every use.
"""


class Type:
    """Base of the types that a traced function can take."""

    __slots__ = ()

    @classmethod
    def __class_getitem__(cls, item: object) -> type:
        return cls


class TensorType(Type):
    """The type of a tensor: dtype, shape and device, without data.

    Args:
        dtype: Element type.
        shape: Sizes: ints, names of symbolic dimensions (`"batch"`) or Dims.
        device: A `Device` or `DeviceRef`.

    Raises:
        TypeError: If `shape` is not an iterable of sizes, or a static size is negative.

    Example:
        >>> from maxmod import CPU, DType, TensorType
        >>> x = TensorType(DType.float32, ["batch", 768], CPU())
        >>> x.short(), x.rank, x.nbytes
        ('float32[batch,768]', 2, Dim('batch') * Dim(3072))
        >>> x == TensorType(DType.float32, ["batch", 768], CPU())
        True
    """

    __slots__ = ("_device", "_dtype", "_hash", "_sizes")

    def __init__(self, dtype: DType, shape: ShapeLike, device: DeviceLike) -> None:
        if not isinstance(dtype, DType):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"{type(self).__name__}: dtype: expected a DType, got {dtype!r}. "
                f"{dtype_hint(dtype)}"
            )
        sizes = as_sizes(shape, f"{type(self).__name__}: shape")
        for size in sizes:
            if isinstance(size, int) and size < 0:
                raise TypeError(
                    f"{type(self).__name__}: shape: static sizes must not be negative, got "
                    f"{format_sizes(sizes)}."
                )
        self._dtype = dtype
        self._sizes = sizes
        self._device = DeviceRef.from_device(device)
        self._hash = hash((type(self).__name__, dtype, sizes, self._device))

    @classmethod
    def of(cls, dtype: DType, sizes: Sizes, device: DeviceRef) -> TensorType:
        """Makes a type without checking its parts (the fast way, inside maxmod).

        Args:
            dtype: Element type.
            sizes: The shape; known sizes are plain ints.
            device: The reference of the device.

        Returns:
            The type.
        """
        self = object.__new__(cls)
        self._dtype = dtype
        self._sizes = sizes
        self._device = device
        self._hash = hash((cls.__name__, dtype, sizes, device))
        return self

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self._dtype

    @property
    def shape(self) -> Shape:
        """The shape, a list of Dims that cannot be changed; `list(x.shape)` is a copy that can."""
        return FixedShape(self._sizes)

    @property
    def sizes(self) -> Sizes:
        """The shape as a tuple; known sizes are plain ints."""
        return self._sizes

    @property
    def device(self) -> DeviceRef:
        """Where the value lives."""
        return self._device

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self._sizes)

    def num_elements(self) -> int:
        """The number of elements, 1 for rank 0.

        Returns:
            An int.

        Raises:
            RuntimeError: If a size is symbolic.
        """
        count = product(self._sizes)
        if not isinstance(count, int):
            raise RuntimeError(f"num_elements: the shape {format_sizes(self._sizes)} is symbolic.")
        return count

    @property
    def nbytes(self) -> Size:
        """Bytes of the data; symbolic if the shape is."""
        return product((*self._sizes, self._dtype.size_in_bytes))

    def cast(self, dtype: DType) -> TensorType:
        """The same type with another dtype.

        Args:
            dtype: The dtype.

        Returns:
            A type of the same class.
        """
        return type(self).of(dtype, self._sizes, self._device)

    def with_sizes(self, sizes: Sizes) -> TensorType:
        """The same type with another shape.

        Args:
            sizes: The shape; known sizes are plain ints.

        Returns:
            A type of the same class.
        """
        return type(self).of(self._dtype, sizes, self._device)

    @property
    def parameters(self) -> Iterator[SymbolicDim]:
        """Iterates over the symbolic dimensions of the shape, repeats included."""
        return self.shape.parameters

    def as_tensor(self) -> TensorType:
        """The read-only type with the same parts."""
        if type(self) is TensorType:
            return self
        return TensorType.of(self._dtype, self._sizes, self._device)

    def as_buffer(self) -> BufferType:
        """The mutable type with the same parts."""
        return BufferType.of(self._dtype, self._sizes, self._device)  # type: ignore[return-value]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            type(other) is type(self)
            and self._hash == other._hash
            and self._dtype is other._dtype
            and self._sizes == other._sizes
            and self._device == other._device
        )

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(dtype={self._dtype!r}, shape={self.shape!r}, "
            f"device={self._device!r})"
        )

    def short(self) -> str:
        """Returns `float32[batch,768]`, with the device unless it is the host."""
        where = "" if self._device.is_cpu() else f"@{self._device}"
        return f"{self._dtype!r}{format_sizes(self._sizes)}{where}"


class BufferType(TensorType):
    """The type of a tensor that the callee may change in place.

    No other argument of the call may share its memory.

    Args:
        dtype: Element type.
        shape: Sizes: ints, names of symbolic dimensions (`"batch"`) or Dims.
        device: A `Device` or `DeviceRef`.

    Raises:
        TypeError: As for `TensorType`.

    Example:
        >>> from maxmod import CPU, BufferType, DType, Module, Tensor, TensorType
        >>> from maxmod import functional as F
        >>> class Add(Module):
        ...     def forward(self, total, x):
        ...         F.buffer_store(total, total + x)
        >>> row = [DType.float32, [2], CPU()]
        >>> add = Add().compile(BufferType(*row), TensorType(*row))
        >>> total = Tensor([0.0, 0.0])
        >>> add(total, Tensor([1.0, 2.0]))
        >>> total.to_numpy().tolist()
        [1.0, 2.0]
    """

    __slots__ = ()

    def as_buffer(self) -> BufferType:
        return self
