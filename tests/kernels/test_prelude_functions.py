"""The functions of floats of both preludes, against float64, in units of the last place."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from prelude_runner import RUNNERS, Runner

Array = np.ndarray[Any, Any]
TINY = float(np.finfo(np.float32).tiny)

_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x)))


def _gelu_tanh(x: Array) -> Array:
    return x * _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


class Function(NamedTuple):
    """One function: its reference, and its largest error in units of the last place."""

    reference: Callable[[Array], Array]
    ulp: float


# The host's bounds; functions of CUDA run on the C library here and are closer.
FUNCTIONS = {
    "exp": Function(np.exp, 1.1),
    "log": Function(np.log, 1.1),
    "log1p": Function(np.log1p, 1.6),
    "sqrt": Function(np.sqrt, 0.51),
    "rsqrt": Function(lambda x: 1 / np.sqrt(x), 1.5),
    "sin": Function(np.sin, 2.0),
    "cos": Function(np.cos, 2.0),
    "tanh": Function(np.tanh, 2.7),
    "atanh": Function(np.arctanh, 2.2),
    "acos": Function(lambda x: np.arccos(np.clip(x, -1, 1)), 1.5),
    "tan": Function(np.tan, 1.5),
    "asin": Function(np.arcsin, 1.5),
    "atan": Function(np.arctan, 1.5),
    "sinh": Function(np.sinh, 2.5),
    "cosh": Function(np.cosh, 2.5),
    "asinh": Function(np.arcsinh, 2.5),
    "acosh": Function(np.arccosh, 2.5),
    "expm1": Function(np.expm1, 1.5),
    "log2": Function(np.log2, 1.5),
    "log10": Function(np.log10, 2.0),
    "erf": Function(_erf, 1.5),
    "floor": Function(np.floor, 0),
    "ceil": Function(np.ceil, 0),
    "trunc": Function(np.trunc, 0),
    "round": Function(np.rint, 0),
    "abs": Function(np.abs, 0),
    "relu": Function(lambda x: np.maximum(x, 0), 0),
    "sigmoid": Function(_sigmoid, 3.6),
    "silu": Function(lambda x: x * _sigmoid(x), 4.0),
    "gelu_none": Function(lambda x: x * 0.5 * _erfc(-x * math.sqrt(0.5)), 6.5),
    # The rounded argument of the exponential decides: 2^-24 of up to 103 is 100 units.
    "gelu_tanh": Function(_gelu_tanh, 200.0),
    "gelu_quick": Function(lambda x: x * _sigmoid(1.702 * x), 100.0),
}


def arguments(dtype: str, seed: int = 0) -> Array:
    """Returns floats of every size, many of ordinary size, and everything special."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << 32, 30000, dtype=np.uint32).view(np.float32)
    ordinary = rng.uniform(-20, 20, 20000).astype(np.float32)
    small = rng.uniform(-1.1, 1.1, 20000).astype(np.float32)
    falling = rng.uniform(-115, -80, 5000).astype(np.float32)  # where exponentials become 0
    limits = [87.3, 87.33654, 87.4, 88.0, 88.72283, 88.72284, 88.8, 103.9, 104.0, 0.9, 9.02, 10.0]
    limits += [0.5, 1.0, 1.5, 2.5, 3.5, 2.0**23 - 0.5, 2.0**23, 2.0**24, 1e5, 1e30, 4 / 3, 2 / 3]
    special = [0.0, math.inf, math.nan, TINY, TINY / 2, 2.0**-149, 3.4e38, math.pi, math.pi / 2]
    points = np.array(limits + special, np.float32)
    points = np.concatenate([points, np.nextafter(points, 1e9), np.nextafter(points, 0)])
    payload = np.array([0x7FC00123, 0xFFC001FF, 0x7F800001], np.uint32).view(np.float32)
    values = np.concatenate([bits, ordinary, small, falling, points, -points, payload])
    with np.errstate(invalid="ignore"):  # signalling NaN
        return values.astype(dtype)


@functools.cache
def _results(dialect: str, kind: str) -> tuple[Array, dict[str, Array]]:
    """Runs all functions once in a dialect, on float32 or float64."""
    names = [*FUNCTIONS]
    x = arguments(kind)
    results = [np.empty_like(x) for _ in names]
    statements = [f"a{k + 1}[i] = mm_{name}(a0[i]);" for k, name in enumerate(names)]
    RUNNERS[dialect](statements, [x, *results])
    return x, dict(zip(names, results, strict=True))


def ulps(got: Array, want: Array) -> Array:
    """Returns the distance in units of the last place of float32, for denormal results too."""
    with np.errstate(all="ignore"):
        rounded = np.maximum(np.abs(want), TINY).astype(np.float32)
        return np.abs(got.astype(np.float64) - want) / np.spacing(rounded)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32(dialect: str, name: str) -> None:
    function = FUNCTIONS[name]
    x, results = _results(dialect, "float32")
    got = results[name]
    with np.errstate(all="ignore"):
        want = function.reference(x.astype(np.float64))
        overflows = np.abs(want) > float(np.finfo(np.float32).max)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(got[overflows], np.sign(want[overflows]) * np.inf)
    compared = ~overflows & ~np.isnan(want)
    error = ulps(got[compared], want[compared])
    worst = int(np.argmax(error))
    assert error[worst] <= function.ulp, f"{name}({x[compared][worst]!r}): {error[worst]:.2f} ulp"
    assert compared.sum() > 10000


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64(dialect: str, name: str) -> None:
    x, results = _results(dialect, "float64")
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name].reference(x)
    inside = (np.abs(x) < 1e5) | np.isnan(x)
    if name == "acos":  # the clamp to [-1, 1] is one of narrower types
        inside &= ~(np.abs(x) > 1)
    got, want = results[name][inside], want[inside]
    # The naive formulas of the references lose a few digits where results are tiny.
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("exp", [0, 0, math.inf, math.inf]),
        ("sigmoid", [0, 0, 1, 1]),
        ("silu", [math.nan, 0, 200, math.inf]),
        ("gelu_none", [math.nan, 0, 200, math.inf]),
        ("gelu_tanh", [math.nan, 0, 200, math.inf]),
        ("tanh", [-1, -1, 1, 1]),
        ("erf", [-1, -1, 1, 1]),
    ],
)
def test_limits(runner: Runner, name: str, want: list[float]) -> None:
    """What softmax and gates rely on: exact 0 and 1 far out. PyTorch has these NaN, too."""
    x = np.array([-np.inf, -200, 200, np.inf], np.float32)
    y = np.empty_like(x)
    runner([f"a1[i] = mm_{name}(a0[i]);"], [x, y])
    np.testing.assert_array_equal(y, np.float32(want))


def test_gelu_of_large_negative_numbers(runner: Runner) -> None:
    """Reference: Mills' ratio, 60 terms of its continued fraction, in float64."""
    a = np.arange(4, 13.9, 0.1).astype(np.float32)
    ratio = np.zeros(a.shape)
    for term in range(60, 0, -1):
        ratio = term / (a.astype(np.float64) + ratio)
    a64 = a.astype(np.float64)
    want = -a64 * np.exp(-a64 * a64 / 2) / math.sqrt(2 * math.pi) / (a64 + ratio)
    got = np.empty_like(a)
    runner(["a1[i] = mm_gelu_none(a0[i]);"], [-a, got])
    assert ulps(got, want).max() <= 6.5
    assert want.max() > -1e-41


def test_angles_next_to_multiples_of_half_pi(runner: Runner) -> None:
    """The hardest floats, of every size; math.sin and math.cos are exact to a unit of a double."""
    exponents = np.arange(-3, 105)
    rng = np.random.default_rng(9)
    m = rng.integers(1 << 23, 1 << 24, (400, 1)).astype(np.float64)
    x = np.concatenate([(m * 2.0**exponents).ravel(), [16367173.0 * 2.0**72, 2.0**49, 2.0**50]])
    x = np.concatenate([x, -x]).astype(np.float32)
    got = [np.empty_like(x), np.empty_like(x)]
    runner(["a1[i] = mm_sin(a0[i]);", "a2[i] = mm_cos(a0[i]);"], [x, *got])
    assert ulps(got[0], np.array([math.sin(v) for v in x.tolist()])).max() <= 2
    assert ulps(got[1], np.array([math.cos(v) for v in x.tolist()])).max() <= 2


def test_angles_do_not_depend_on_neighbours(runner: Runner) -> None:
    rng = np.random.default_rng(10)
    x = rng.uniform(-9, 9, 64).astype(np.float32)
    mixed = x.copy()
    mixed[::3] = np.float32([1e30, np.inf, np.nan, 5e5] * 6)[:22]
    first, second = np.empty_like(x), np.empty_like(x)
    runner(["a1[i] = mm_sin(a0[i]);"], [x, first])
    runner(["a1[i] = mm_sin(a0[i]);"], [mixed, second])
    kept = np.arange(64) % 3 != 0
    np.testing.assert_array_equal(first[kept], second[kept])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_classes(runner: Runner, dtype: str) -> None:
    x = arguments(dtype, seed=1)
    nan = np.empty(x.size, np.bool_)
    inf = np.empty(x.size, np.bool_)
    runner(["a1[i] = mm_is_nan(a0[i]);", "a2[i] = mm_is_inf(a0[i]);"], [x, nan, inf])
    np.testing.assert_array_equal(nan, np.isnan(x))
    np.testing.assert_array_equal(inf, np.isinf(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_operands(runner: Runner, dtype: str) -> None:
    rng = np.random.default_rng(2)
    special = np.array([0.0, -0.0, 1, -1, 2, -2.5, 1e30, -1e-30, np.inf, -np.inf, np.nan], dtype)
    x = np.concatenate([np.repeat(special, special.size), rng.uniform(-9, 9, 5000)]).astype(dtype)
    y = np.concatenate([np.tile(special, special.size), rng.uniform(-9, 9, 5000)]).astype(dtype)
    names = ("max", "min", "floor_div", "mod")
    results = [np.empty_like(x) for _ in names]
    statements = [f"a{k + 2}[i] = mm_{name}(a0[i], a1[i]);" for k, name in enumerate(names)]
    runner(statements, [x, y, *results])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(results[0], np.maximum(x, y))
        np.testing.assert_array_equal(results[1], np.minimum(x, y))
        np.testing.assert_array_equal(results[2], np.floor(x / y))
        np.testing.assert_array_equal(results[3], np.remainder(x, y))
        np.testing.assert_array_equal(np.signbit(results[3]), np.signbit(np.remainder(x, y)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_library_functions_of_two_operands(runner: Runner, dtype: str) -> None:
    rng = np.random.default_rng(6)
    tiny = np.finfo(dtype).smallest_subnormal
    special = [0.0, 1, 2.5, 1e30, np.finfo(dtype).max, tiny, np.finfo(dtype).tiny, np.inf, np.nan]
    points = np.array([*special, *np.negative(special)], dtype)
    x = np.concatenate([np.repeat(points, points.size), rng.uniform(-9, 9, 5000)]).astype(dtype)
    y = np.concatenate([np.tile(points, points.size), rng.uniform(-9, 9, 5000)]).astype(dtype)
    names = ("copysign", "nextafter", "atan2", "hypot")
    results = [np.empty_like(x) for _ in names]
    sign = np.empty(x.size, np.bool_)
    statements = [f"a{k + 2}[i] = mm_{name}(a0[i], a1[i]);" for k, name in enumerate(names)]
    runner([*statements, "a6[i] = mm_signbit(a0[i]);"], [x, y, *results, sign])
    np.testing.assert_array_equal(sign, np.signbit(x))
    with np.errstate(all="ignore"):
        for got, want in zip(results[:2], (np.copysign(x, y), np.nextafter(x, y)), strict=True):
            np.testing.assert_array_equal(got, want)
            np.testing.assert_array_equal(np.signbit(got[want == 0]), np.signbit(want[want == 0]))
        for got, want in zip(results[2:], (np.arctan2(x, y), np.hypot(x, y)), strict=True):
            np.testing.assert_allclose(got, want, rtol=4 * np.finfo(dtype).eps, atol=2 * tiny)


def test_pow_float32(runner: Runner) -> None:
    rng = np.random.default_rng(3)
    special = [0.0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 2.5, 1e30, -1e30, 16777215.0, 1e-40]
    points = np.array([*special, np.inf, -np.inf, np.nan], np.float32)
    count = 20000
    x = np.abs(rng.integers(0, 0x7F800000, count, dtype=np.uint32).view(np.float32))
    y = rng.uniform(-20, 20, count).astype(np.float32) * rng.choice(np.float32([0.01, 1, 5]), count)
    x = np.concatenate([x, rng.uniform(0.5, 2, count), np.repeat(points, points.size)])
    y = np.concatenate([y, rng.uniform(-150, 150, count), np.tile(points, points.size)])
    x, y = x.astype(np.float32), y.astype(np.float32)
    got = np.empty_like(x)
    runner(["a2[i] = mm_pow(a0[i], a1[i]);"], [x, y, got])
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64))
        rounded = want.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(rounded))
    finite = np.isfinite(rounded)
    assert ulps(got[finite], want[finite]).max() <= 1.0
    np.testing.assert_array_equal(np.signbit(got[finite]), np.signbit(want[finite]))


def test_pow_float64(runner: Runner) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.uniform(0, 5, 2000), rng.uniform(-9, 9, 2000)
    got = np.empty_like(x)
    runner(["a2[i] = mm_pow(a0[i], a1[i]);"], [x, y, got])
    np.testing.assert_allclose(got, np.power(x, y), rtol=1e-14)
