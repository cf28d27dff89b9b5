"""Calls a function of `maxmod.array_api` and of array-api-strict, and compares what they give.

array-api-strict is the reference implementation of the standard, on NumPy.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

from maxmod import array_api as xp
from maxmod.dtype import DType
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF

strict.set_array_api_strict_flags(api_version="2024.12")

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
SIGNED = INTEGERS[:4]
FLOATS = ("float32", "float64")
NUMERIC = (*INTEGERS, *FLOATS)
ALL = ("bool", *NUMERIC)
COMMON = ("bool", "int8", "int64", "uint8", "uint64", *FLOATS)  # where all would be slow
SHAPES: list[tuple[int, ...]] = [(), (1,), (5,), (0,), (3, 4), (2, 0, 3), (2, 3, 4), (1, 3, 1)]
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-7, 1e30]
REFUSED = (TypeError, ValueError, IndexError)


def numbers(dtype: str, shape: tuple[int, ...] = (5,), seed: int = 0) -> np.ndarray[Any, Any]:
    """Returns random elements with equal ones among them."""
    rng = np.random.default_rng([seed, *shape])
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape), np.bool_)
    if dtype in FLOATS:
        return np.asarray(np.round(rng.uniform(-4, 4, shape), 1), dtype)
    return np.asarray(rng.integers(0 if dtype[0] == "u" else -5, 6, shape), dtype)


def ours(value: Any) -> Any:
    """Replaces NumPy arrays and dtypes in an argument by ours."""
    return _replaced(value, lambda a: xp.asarray(a, device=CPU_REF), lambda d: DType[d.name])


def theirs(value: Any) -> Any:
    """Replaces NumPy arrays and dtypes in an argument by those of the oracle."""
    return _replaced(value, strict.asarray, lambda d: getattr(strict, d.name))


def _replaced(value: Any, array: Callable[..., Any], dtype: Callable[..., Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(item, array, dtype) for item in value)
    if isinstance(value, np.dtype):
        return dtype(value)
    return array(value) if isinstance(value, np.ndarray) else value


def numpy_of(x: Any) -> np.ndarray[Any, Any]:
    """Returns the data of an array of either library."""
    return np.from_dlpack(x) if isinstance(x, xp.Array) else np.from_dlpack(x).copy()


def assert_same(found: Any, wanted: Any) -> None:
    """Compares results: structure, dtype, shape, values."""
    if isinstance(wanted, (list, tuple)):
        assert isinstance(found, (list, tuple)) and len(found) == len(wanted)
        assert getattr(found, "_fields", None) == getattr(wanted, "_fields", None)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
        return
    if not isinstance(found, xp.Array):
        assert found == wanted or str(wanted).rpartition(".")[2] == found.name
        return
    assert found.dtype.name == str(wanted.dtype).rpartition(".")[2]
    assert found.shape == wanted.shape
    one, other = numpy_of(found), numpy_of(wanted)
    if found.dtype.is_float():
        eps = float(np.finfo(one.dtype).eps)
        np.testing.assert_allclose(one, other, rtol=64 * eps, atol=8 * eps)
        zeros = (other == 0) & (one == 0)
        np.testing.assert_array_equal(np.signbit(one[zeros]), np.signbit(other[zeros]))
    else:
        np.testing.assert_array_equal(one, other)


def _call(space: Any, name: str, args: Any, kwargs: Any) -> Any:
    with np.errstate(all="ignore"):
        return operator.attrgetter(name)(space)(*args, **kwargs)


def check(name: str, *args: Any, **kwargs: Any) -> Any:
    """Calls a function of both namespaces and compares; both must refuse, if one does."""
    values = [theirs(arg) for arg in args], {k: theirs(v) for k, v in kwargs.items()}
    try:
        wanted = _call(strict, name, *values)
    except REFUSED as error:
        return refused(name, *args, error=error, **kwargs)
    found = _call(xp, name, [ours(arg) for arg in args], {k: ours(v) for k, v in kwargs.items()})
    assert_same(found, wanted)
    return found


def refused(name: str, *args: Any, error: Any = "", **kwargs: Any) -> None:
    """Asserts that a call raises; `error` says why it must."""
    mine = [ours(arg) for arg in args], {k: ours(v) for k, v in kwargs.items()}
    try:
        result = _call(xp, name, *mine)
    except REFUSED:
        return
    pytest.fail(f"{name} gave {result!r} for {args}, {kwargs}, but must raise: {error}")


def tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Returns a tensor on the host."""
    return Tensor(np.ascontiguousarray(array).reshape(array.shape), device=CPU_REF.to_device())
