"""`Array`: a tensor with the operators, properties and indexing of the array API standard."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from numpy.typing import DTypeLike

from maxmod.array_api import indexing
from maxmod.array_api.dtypes import (
    Accepts,
    common_dtype,
    expect,
    is_bits,
    is_bool,
    is_number,
    number,
    weak_dtype,
)
from maxmod.array_api.operators import Operators, dispatch
from maxmod.backends.devices import Device
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, AxisError, OperandError
from maxmod.ops.shape import transpose
from maxmod.tensor import Tensor
from maxmod.values.array import Subscript
from maxmod.values.device import CPU_REF, DeviceLike

TensorFunction = Callable[..., Tensor]  # an op of maxmod

VERSION = "2024.12"


class Array(Operators):
    """An array of the standard: a wrapper around a `Tensor`, which it shares and never changes.

    A store (`x[0] = 1`, `x += 1`) lets the array refer to a new tensor; nothing else sees it.

    Args:
        tensor: The tensor; may be a symbolic one of a trace.

    Example:
        >>> from maxmod import array_api as xp
        >>> x = xp.asarray([[1, 2, 3], [4, 5, 6]])
        >>> x[1, :-5:-1]
        Array([6 5 4], shape=[3], dtype=DType.int64, device=Device(type=cpu,id=0))
    """

    __slots__ = ()

    def __init__(self, tensor: Tensor) -> None:
        if not isinstance(tensor, Tensor):
            raise OperandError(
                f"Array: expected a Tensor, got {type(tensor).__name__}. Hint: asarray takes data."
            )
        self.tensor = tensor

    def __tensorvalue__(self) -> Tensor:
        return self.tensor

    def __array_namespace__(self, /, *, api_version: str | None = None) -> Any:
        if api_version not in (None, "2021.12", "2022.12", "2023.12", VERSION):
            raise ArgumentError(f"__array_namespace__: there is no version {api_version!r} here.")
        return sys.modules["maxmod.array_api"]

    # ---- properties ------------------------------------------------------------------------

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.tensor.dtype

    @property
    def device(self) -> Device:
        """Where the data lives."""
        return self.tensor.device

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The sizes; None for one that is not known while tracing."""
        return tuple(size if isinstance(size, int) else None for size in self.tensor.sizes)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.tensor.rank

    @property
    def size(self) -> int | None:
        """The number of elements; None if a size is not known."""
        return None if None in self.shape else self.tensor.num_elements()

    @property
    def T(self) -> Array:  # noqa: N802
        """The transpose of a matrix; `ValueError` for another rank than 2."""
        if self.ndim != 2:
            raise AxisError(f"T: expected two axes, got {self.ndim}. Hint: permute_dims.")
        return Array(transpose(self.tensor, 0, 1))

    @property
    def mT(self) -> Array:  # noqa: N802
        """The transposes of the matrices in the last two axes."""
        return dispatch("matrix_transpose", self)

    # ---- data ------------------------------------------------------------------------------

    def to_device(self, device: DeviceLike, /, *, stream: object = None) -> Array:
        """Returns the array on another device; on the same device, the array itself."""
        if stream is not None:
            raise ArgumentError("to_device: stream: only None is supported.")
        moved = self.tensor.to(device)
        return self if moved is self.tensor else Array(moved)

    def __dlpack__(
        self,
        /,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        options = {"stream": stream, "max_version": max_version, "copy": copy}
        source = self.tensor
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            if tuple(dl_device) != (1, 0) or copy is False:
                raise BufferError(f"__dlpack__: the data cannot be given on {dl_device}.")
            source = source.to(CPU_REF)
        return source.__dlpack__(**{k: v for k, v in options.items() if v is not None})

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.__dlpack_device__()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Any:
        return self.tensor.__array__(dtype, copy)

    def _only(self, kind: str) -> Any:
        if self.ndim != 0:
            raise OperandError(f"{kind}(): expected an array without axes, got {self.ndim} axes.")
        return self.tensor.item()

    def __bool__(self) -> bool:
        return bool(self._only("bool"))

    def __int__(self) -> int:
        return int(self._only("int"))

    def __float__(self) -> float:
        return float(self._only("float"))

    def __complex__(self) -> complex:
        return complex(self._only("complex"))

    def __index__(self) -> int:
        if not self.dtype.is_integral():
            raise OperandError(f"index(): expected an integer array, got {self.dtype!r}.")
        return self._only("index")

    def __len__(self) -> int:
        size = self.shape[0] if self.ndim else None
        if size is None:
            raise OperandError("len(): an array without axes, or of unknown size, has no length.")
        return size

    def __iter__(self) -> Any:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, key: Subscript, /) -> Array:
        return Array(indexing.get(self.tensor, _bare(key)))

    def __setitem__(self, key: Subscript, value: Array | bool | float, /) -> None:
        source = _assignable("x[key] = value", self.tensor, value)
        self.tensor = indexing.put(self.tensor, _bare(key), source)

    def __repr__(self) -> str:
        return "Array" + repr(self.tensor).removeprefix("Tensor").replace("\n ", "\n")


def _bare(key: Subscript) -> Subscript:
    """Replaces arrays in a key by their tensors."""
    if isinstance(key, tuple):
        return tuple(map(_bare, key))
    return key.tensor if isinstance(key, Array) else key


# ---- operands ----------------------------------------------------------------------------------


def tensor_of(name: str, x: object) -> Tensor:
    """Returns the tensor of an array; `TypeError` for anything else."""
    if not isinstance(x, Array):
        raise OperandError(f"{name}: expected an array, got {type(x).__name__}.")
    return x.tensor


def operand(name: str, x: object, accepts: Accepts) -> Tensor:
    """Returns the tensor of an array whose dtype the function takes."""
    tensor = tensor_of(name, x)
    expect(name, accepts, tensor.dtype)
    return tensor


def arrays(name: str, x1: object, x2: object, accepts: Accepts) -> tuple[Tensor, Tensor]:
    """Brings two arrays to their common dtype."""
    first, second = operand(name, x1, accepts), operand(name, x2, accepts)
    dtype = common_dtype(name, first.dtype, second.dtype)
    return first.cast(dtype), second.cast(dtype)


def operands(name: str, x1: object, x2: object, accepts: Accepts) -> tuple[Tensor, Tensor]:
    """Brings two arrays, or an array and a Python number, to their common dtype."""
    if is_number(x1) and is_number(x2):
        raise OperandError(f"{name}: at least one operand must be an array.")
    if is_number(x1):
        second = operand(name, x2, accepts)
        return number(x1, weak_dtype(name, x1, second.dtype), second.type.device), second
    first = operand(name, x1, accepts)
    if is_number(x2):
        return first, number(x2, weak_dtype(name, x2, first.dtype), first.type.device)
    return arrays(name, x1, x2, accepts)


def _assignable(name: str, x: Tensor, value: Any) -> Tensor:
    """Brings a value that is stored into x to its dtype."""
    if is_number(value):
        return number(value, weak_dtype(name, value, x.dtype), x.type.device)
    source = tensor_of(name, value)
    if common_dtype(name, x.dtype, source.dtype) is not x.dtype:
        raise OperandError(f"{name}: {source.dtype!r} does not fit into an array of {x.dtype!r}.")
    return source.cast(x.dtype)


def unary(op: TensorFunction, x: object, accepts: Accepts, name: str = "") -> Array:
    """Applies an op to an array; errors call it by its name or by another one."""
    return Array(op(operand(name or op.__name__, x, accepts)))


def binary(op: TensorFunction, x1: object, x2: object, accepts: Accepts, name: str = "") -> Array:
    """Applies an op to two operands of one dtype."""
    return Array(op(*operands(name or op.__name__, x1, x2, accepts)))


def bits(op: TensorFunction, logical: TensorFunction, x1: object, x2: object) -> Array:
    """Applies an op on bits, which is a logical one for bools."""
    first, second = operands(op.__name__, x1, x2, is_bits)
    return Array(logical(first, second) if is_bool(first.dtype) else op(first, second))
