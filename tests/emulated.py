"""An accelerator that is not there: NumPy arrays in a box that refuses to mix with host arrays.

CuPy arrays behave like NumPy arrays but never turn into them silently, and NumPy functions refuse
a mixture of both. `EmulatedArray` does the same, and also refuses a mixture of two devices, so that
code for accelerators is tested on a machine without one:

    previous = backends.replace(DeviceKind.GPU, EmulatedBackend(count=2))
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from maxmod.backends.base import Backend
from maxmod.dtype import storage_dtype
from maxmod.op import Op
from maxmod.values.device import DeviceKind
from maxmod.values.tensor_type import TensorType

# Attributes of a NumPy array that would hand out host memory, or that CuPy's lack.
_HOST_ONLY = ("data", "ctypes", "base", "tofile", "getfield", "resize", "setfield", "setflags")
# Functions of NumPy that CuPy lacks. Source: their public names, CuPy 14.2 and NumPy 2.4.
_NOT_IN_CUPY = (
    *("asmatrix", "block", "bmat", "einsum_path", "frompyfunc", "fromregex", "geomspace"),
    *("histogram_bin_edges", "insert", "isnat", "matrix_norm", "matvec", "multi_dot"),
    *("nanpercentile", "nanquantile", "nested_iters", "polyder", "polydiv", "polyint"),
    *("spacing", "svdvals", "unstack", "vecdot", "vecmat", "vector_norm"),
)
_FROM_HOST = ("array", "asarray", "ascontiguousarray")  # these copy host arrays, as in CuPy


class EmulatedArray(NDArrayOperatorsMixin):
    """An array of an emulated device."""

    __slots__ = ("_host", "index")

    def __init__(self, host: np.ndarray[Any, Any], index: int) -> None:
        self._host = host
        self.index = index

    @property
    def device(self) -> Any:
        """Like `cupy.ndarray.device`: its `id` is the number of the device."""
        return SimpleNamespace(id=self.index)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("An array of an accelerator was used as a NumPy array.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return _call(getattr(ufunc, method), inputs, kwargs, self.index)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _call(func, args, kwargs, self.index)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in _HOST_ONLY:
            raise AttributeError(f"Arrays of an accelerator have no attribute {name!r}.")
        value = getattr(self._host, name)
        if callable(value):
            return lambda *args, **kwargs: _call(value, args, kwargs, self.index)
        return _wrap(value, self.index)

    def __getitem__(self, key: Any) -> Any:
        return _call(self._host.__getitem__, (key,), {}, self.index)

    def __setitem__(self, key: Any, value: Any) -> None:
        _call(self._host.__setitem__, (key, value), {}, self.index)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __index__(self) -> int:
        return self._host.__index__()

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("Arrays of an emulated accelerator cannot be exported.")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.index)  # kDLCUDA

    def __repr__(self) -> str:
        return f"EmulatedArray({self._host!r}, index={self.index})"


def _wrap(value: Any, index: int) -> Any:
    """Boxes every array of a result; NumPy scalars become rank-0 arrays, as in CuPy."""
    if isinstance(value, (np.ndarray, np.generic)):
        return EmulatedArray(np.asarray(value), index)
    if isinstance(value, (tuple, list)) and any(isinstance(v, np.ndarray) for v in value):
        return type(value)([_wrap(v, index) for v in value])
    return value


def _unwrap(value: Any, index: int, from_host: bool = False) -> Any:
    if isinstance(value, EmulatedArray):
        if value.index != index:
            raise ValueError(f"Arrays of the devices {index} and {value.index} were mixed.")
        return value._host
    if isinstance(value, np.ndarray) and not from_host:
        raise TypeError("A NumPy array was mixed with arrays of an accelerator.")
    if isinstance(value, (tuple, list)):
        return type(value)([_unwrap(v, index, from_host) for v in value])
    if isinstance(value, dict):
        return {k: _unwrap(v, index, from_host) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(_unwrap(v, index) for v in (value.start, value.stop, value.step)))
    return value


def _call(
    function: Callable[..., Any], args: Any, kwargs: Any, index: int, from_host: bool = False
) -> Any:
    args = _unwrap(tuple(args), index, from_host)
    kwargs = _unwrap(dict(kwargs), index, from_host)
    result = function(*args, **kwargs)
    if from_host and isinstance(result, np.ndarray):
        result = _own(result)
    return _wrap(result, index)


def _own(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Copies to memory that nobody else holds."""
    return np.array(array, copy=True, order="C")


def _found_index(values: Any, default: int) -> int:
    for value in values:
        if isinstance(value, EmulatedArray):
            return value.index
        if isinstance(value, (tuple, list)):
            inner = _found_index(value, -1)
            if inner >= 0:
                return inner
    return default


class EmulatedNumpy:
    """The array module of the emulated accelerator: NumPy's functions on boxed arrays."""

    ndarray = EmulatedArray

    def __init__(self, module: Any, backend: EmulatedBackend) -> None:
        self._module = module
        self._backend = backend

    def asnumpy(self, array: EmulatedArray) -> np.ndarray[Any, Any]:
        """Copies to the host, as `cupy.asnumpy`."""
        return self._backend.to_host(array)

    def __getattr__(self, name: str) -> Any:
        if name in _NOT_IN_CUPY:
            raise AttributeError(f"CuPy has no function {name!r}.")
        value = getattr(self._module, name)
        if isinstance(value, type(np)):  # linalg, fft
            return EmulatedNumpy(value, self._backend)
        if isinstance(value, type) or not callable(value):  # dtypes, constants
            return value

        def function(*args: Any, **kwargs: Any) -> Any:
            index = _found_index((*args, *kwargs.values()), self._backend.current)
            copies = name in _FROM_HOST and not any(isinstance(a, EmulatedArray) for a in args)
            return _call(value, args, kwargs, index, from_host=copies)

        return function


class EmulatedBackend(Backend):
    """Runs ops on boxed NumPy arrays.

    Args:
        count: Number of devices.
    """

    kind = DeviceKind.GPU
    api = "cuda"

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.current = 0
        self._xp = EmulatedNumpy(np, self)

    @property
    def xp(self) -> Any:
        return self._xp

    def device_count(self) -> int:
        return self.count

    def unavailable_reason(self) -> str:
        return "" if self.count else "It is emulated, with no devices."

    def from_host(self, array: np.ndarray[Any, Any], index: int) -> EmulatedArray:
        self.require(index)
        if not isinstance(array, np.ndarray):
            raise TypeError(f"from_host: expected a NumPy array, got {type(array).__name__}.")
        return EmulatedArray(_own(array), index)

    def to_host(self, array: EmulatedArray) -> np.ndarray[Any, Any]:
        if not isinstance(array, EmulatedArray):
            raise TypeError(f"to_host: expected an EmulatedArray, got {type(array).__name__}.")
        return _own(array._host)

    def empty(self, type: TensorType) -> EmulatedArray:
        self.require(type.device.id)
        return EmulatedArray(np.empty(type.sizes, storage_dtype(type.dtype)), type.device.id)

    def address(self, array: EmulatedArray) -> int:
        return array._host.ctypes.data

    def synchronize(self, index: int) -> None:
        assert 0 <= index < self.count

    def architecture(self, index: int) -> str:
        return "sm_90"

    def run(self, op: Op, arrays: Sequence[Any], attrs: dict[str, Any], types: Any) -> list[Any]:
        self.require(types[0].device.id)
        with self._device(types[0].device.id), np.errstate(all="ignore"):
            return super().run(op, arrays, attrs, types)

    @contextlib.contextmanager
    def _device(self, index: int) -> Iterator[None]:
        previous, self.current = self.current, index
        try:
            yield
        finally:
            self.current = previous
