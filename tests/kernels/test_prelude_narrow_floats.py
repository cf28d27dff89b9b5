"""Narrow floats of both preludes: every code, and rounding bit for bit as in ml_dtypes."""

from __future__ import annotations

import functools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from prelude_runner import RUNNERS

from maxmod.values.narrow import narrowed

Array = np.ndarray[Any, Any]
HALVES = ("float16", "bfloat16")
NARROW = (
    *HALVES,
    "float8_e5m2",
    "float8_e4m3fn",
    "float8_e5m2fnuz",
    "float8_e4m3fnuz",
    "float8_e8m0fnu",
    "float6_e3m2fn",
    "float6_e2m3fn",
    "float4_e2m1fn",
)
BITS = {"float6_e3m2fn": 6, "float6_e2m3fn": 6, "float4_e2m1fn": 4}


def storage(name: str) -> np.dtype[Any]:
    """Returns the dtype of a narrow float."""
    return np.dtype(np.float16 if name == "float16" else getattr(ml_dtypes, name))


def codes(name: str) -> Array:
    """Returns every code, as unsigned integers."""
    dtype = storage(name)
    bits = BITS.get(name, 8 * dtype.itemsize)
    return np.arange(1 << bits).astype(f"uint{8 * dtype.itemsize}")


def values(name: str) -> Array:
    """Returns the values of all codes as float32."""
    return codes(name).view(storage(name)).astype(np.float32)


def inputs(name: str) -> Array:
    """Returns all values, what lies half way between neighbours, and the floats next to both."""
    exact = np.unique(values(name)[np.isfinite(values(name))])
    middle = ((exact[:-1].astype(np.float64) + exact[1:]) / 2).astype(np.float32)
    beyond = exact[-1] * np.array([1.01, 1.03, 1.0625, 1.125, 1.25, 1.5, 2, 4], np.float64)
    points = np.concatenate([exact, middle, np.minimum(beyond, 3.4e38).astype(np.float32)])
    below, above = np.nextafter(points, np.float32(-4e38)), np.nextafter(points, np.float32(4e38))
    return np.concatenate([points, below, above, -points, -below, -above])


@functools.cache
def every_input(dtype: str) -> Array:
    """Returns the inputs of all formats, and random numbers of every size."""
    if dtype == "int64":
        rng = np.random.default_rng(9)
        integers = rng.integers(-(2**62), 2**62, 1000)
        # Half way between neighbours of bfloat16 up to a bit that float32 or float64 lacks.
        halves = (rng.integers(128, 256, 1000) * 2 + 1) << rng.integers(0, 54, 1000)
        near = np.concatenate([halves - 1, halves, halves + 1])
        return np.concatenate([np.arange(-300, 300), integers, near, -near])
    with np.errstate(all="ignore"):
        parts = [inputs(name) for name in NARROW]
        rng = np.random.default_rng(8)
        parts.append(rng.integers(0, 1 << 32, 50000, dtype=np.uint32).view(np.float32))
        parts.append(rng.standard_normal(20000).astype(np.float32))
        special = np.array([0, np.inf, np.nan, 2.0**-149, 2.0**-126, 3.4e38], np.float32)
        x = np.concatenate([*parts, special, -special])
        if dtype == "float32":
            return x
        x = x[:: 5 if x.size > 10**6 else 1].astype(np.float64)
        return np.concatenate([x, x * (1 + 2.0**-40), x * (1 - 2.0**-40), [1e300, -1e-300, 1e39]])


@functools.cache
def _codes_of_all(count: int = 1 << 16) -> dict[str, Array]:
    """Returns arrays of one length with every code, by format."""
    return {name: np.resize(codes(name), count) for name in NARROW}


@functools.cache
def _from_codes(dialect: str, statement: str, result: str) -> dict[str, Array]:
    """Applies a statement to every code of every format; one kernel does all."""
    arrays = _codes_of_all()
    outputs = [np.empty(1 << 16, result or arrays[name].dtype) for name in NARROW]
    count = len(NARROW)
    texts = [
        f"a{count + k}[i] = {statement.format(name=name, x=f'a{k}[i]')};"
        for k, name in enumerate(NARROW)
    ]
    RUNNERS[dialect](texts, [*arrays.values(), *outputs])
    return dict(zip(NARROW, outputs, strict=True))


@functools.cache
def _from_numbers(dialect: str, statement: str, dtype: str, is_code: bool) -> dict[str, Array]:
    """Applies a statement to numbers for every format; one kernel does all."""
    x = every_input(dtype)
    outputs = [np.empty(x.size, codes(n).dtype if is_code else np.float32) for n in NARROW]
    texts = [
        f"a{k + 1}[i] = {statement.format(name=name, x='a0[i]')};" for k, name in enumerate(NARROW)
    ]
    RUNNERS[dialect](texts, [x, *outputs])
    return dict(zip(NARROW, outputs, strict=True))


def assert_same_codes(got: Array, want: Array, name: str) -> None:
    """Compares codes; NaN may have any payload."""
    dtype = storage(name)
    with np.errstate(invalid="ignore"):
        is_nan = np.isnan(want.view(dtype).astype(np.float32))
        np.testing.assert_array_equal(np.isnan(got.view(dtype).astype(np.float32)), is_nan)
    np.testing.assert_array_equal(got[~is_nan], want[~is_nan])


def nearest(x: Array, name: str) -> Array:
    """Rounds numbers once, by way of a float32 on the same side of every middle of two values.

    ml_dtypes rounds float32 right, and other numbers up to version 0.6 by way of the nearest one.
    """
    if name == "float8_e8m0fnu":
        return _nearest_power(x)
    if name == "float16":
        with np.errstate(all="ignore"):
            return x.astype(np.float16)  # NumPy rounds once
    with np.errstate(all="ignore"):
        near = x.astype(np.float32)
        distance = x.astype(np.longdouble) - near.astype(np.longdouble)
        towards = np.where(distance > 0, np.float32(np.inf), np.float32(-np.inf))
        beside = np.nextafter(near, towards)
        # x lies between the two, and the odd one is no middle between narrow floats.
        is_odd = near.view(np.uint32) % 2 == 1
        chosen = np.where((distance == 0) | np.isnan(distance) | is_odd, near, beside)
        return chosen.astype(storage(name))


def _nearest_power(x: Array) -> Array:
    """The nearest power of two, halves up, 2^-127 at least; NaN unless x is positive."""
    part, exponent = np.frexp(x.astype(np.longdouble))
    codes = np.maximum(exponent - (part < 0.75) + 127, 0)
    is_number = (x > 0) & np.isfinite(x) & (codes < 255)
    return np.where(is_number, codes, 255).astype(np.uint8).view(storage("float8_e8m0fnu"))


@pytest.mark.parametrize("name", NARROW)
def test_load(dialect: str, name: str) -> None:
    got = _from_codes(dialect, "mm_load_{name}({x})", "float32")[name]
    want = np.resize(values(name), got.size)
    np.testing.assert_array_equal(got, want)
    signed = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[signed]), np.signbit(want[signed]))


@pytest.mark.parametrize("name", NARROW)
def test_stored_values_stay(dialect: str, name: str) -> None:
    got = _from_codes(dialect, "mm_store_{name}(mm_load_{name}({x}))", "")[name]
    assert_same_codes(got, _codes_of_all()[name], name)


@pytest.mark.parametrize("name", NARROW)
def test_store(dialect: str, name: str) -> None:
    got = _from_numbers(dialect, "mm_store_{name}({x})", "float32", True)[name]
    with np.errstate(all="ignore"):
        want = nearest(every_input("float32"), name).view(got.dtype)
    assert_same_codes(got, want, name)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("name", NARROW)
def test_eager_cast(name: str, dtype: str) -> None:
    x = every_input(dtype)
    with np.errstate(all="ignore"):
        found = narrowed(x, storage(name))
    assert found.dtype == storage(name)
    with np.errstate(all="ignore"):
        want = nearest(x, name)
    unsigned = codes(name).dtype
    assert_same_codes(found.view(unsigned), want.view(unsigned), name)
    one = narrowed(np.array(x[3]), storage(name))
    assert (type(one), one.shape) == (np.ndarray, ())


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("name", NARROW)
def test_cast(dialect: str, name: str, dtype: str) -> None:
    """In the middle of a kernel, a cast gives the value, rounded once, as float."""
    got = _from_numbers(dialect, "mm_cast_{name}({x})", dtype, False)[name]
    with np.errstate(all="ignore"):
        want = nearest(every_input(dtype), name).astype(np.float32)
    np.testing.assert_array_equal(got, want)
