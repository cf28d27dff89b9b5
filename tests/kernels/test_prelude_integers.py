"""Integer functions and conversions of both preludes, against Python's unlimited integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from prelude_runner import Runner

Array = np.ndarray[Any, Any]
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = (*SIGNED, *UNSIGNED)


def operands(dtype: str) -> tuple[Array, Array]:
    """Returns pairs of all extreme numbers, and random ones of every size."""
    info = np.iinfo(dtype)
    edges = {info.min, info.min + 1, -7, -3, -2, -1, 0, 1, 2, 3, 7, info.max - 1, info.max}
    points = np.array(sorted(e for e in edges if info.min <= e <= info.max), dtype)
    rng = np.random.default_rng(5)
    wide = rng.integers(info.min, info.max, (2, 2000), dtype, endpoint=True)
    small = rng.integers(0 if info.min == 0 else -20, 20, (2, 2000)).astype(dtype)
    x = np.concatenate([np.repeat(points, points.size), wide[0], small[0], wide[1]])
    y = np.concatenate([np.tile(points, points.size), wide[1], small[1], small[0]])
    return x, y


def _power(x: int, y: int, modulus: int) -> int:
    if y >= 0:
        return pow(x, y, modulus)
    return {1: 1, -1: -1 if y % 2 else 1}.get(x, 0)


BINARY: dict[str, Callable[[int, int, int], int]] = {
    "floor_div": lambda x, y, _: x // y if y else 0,
    "mod": lambda x, y, _: x % y if y else 0,
    "pow": _power,
    "max": lambda x, y, _: max(x, y),
    "min": lambda x, y, _: min(x, y),
    "left_shift": lambda x, y, _: x << y if 0 <= y < 64 else 0,
    "right_shift": lambda x, y, _: x >> min(y if y >= 0 else 64, 64),
}
UNARY: dict[str, Callable[[int], int]] = {"abs": abs, "relu": lambda x: max(x, 0)}


def _wrapped(values: list[int], dtype: str) -> Array:
    bits = np.iinfo(dtype).bits
    return np.array([v % 2**bits for v in values], f"uint{bits}").view(dtype)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_functions(runner: Runner, dtype: str) -> None:
    x, y = operands(dtype)
    names = [*BINARY, *UNARY]
    results = [np.empty_like(x) for _ in names]
    nan = np.ones(x.size, np.bool_)
    calls = [f"{name}(a0[i], a1[i])" for name in BINARY] + [f"{name}(a0[i])" for name in UNARY]
    statements = [f"a{k + 2}[i] = mm_{call};" for k, call in enumerate(calls)]
    statements.append(f"a{len(names) + 2}[i] = mm_is_nan(a0[i]) || mm_is_inf(a0[i]);")
    runner(statements, [x, y, *results, nan])
    modulus = 2 ** np.iinfo(dtype).bits
    pairs = list(zip(x.tolist(), y.tolist(), strict=True))
    for name, got in zip(names, results, strict=True):
        if name in BINARY:
            want = [BINARY[name](a, b, modulus) for a, b in pairs]
        else:
            want = [UNARY[name](a) for a in x.tolist()]
        np.testing.assert_array_equal(got, _wrapped(want, dtype), err_msg=name)
    assert not nan.any()


def test_bools(runner: Runner) -> None:
    x = np.array([0, 0, 1, 1], np.bool_)
    y = np.array([0, 1, 0, 1], np.bool_)
    results = [np.empty_like(x) for _ in range(3)]
    statements = [
        "a2[i] = mm_max(a0[i] != 0, a1[i] != 0);",
        "a3[i] = mm_min(a0[i] != 0, a1[i] != 0);",
        "a4[i] = mm_cast_bool(a0[i]);",
    ]
    runner(statements, [x, y, *results])
    np.testing.assert_array_equal(results[0], x | y)
    np.testing.assert_array_equal(results[1], x & y)
    np.testing.assert_array_equal(results[2], x)


WIDE = (*INTEGERS, "bool", "float32", "float64")


def _source(dtype: str, count: int = 1000) -> Array:
    """Returns numbers of a type; floats in the range of all targets."""
    if dtype == "bool":
        return np.resize([False, True], count)
    if dtype in INTEGERS:
        return np.resize(operands(dtype)[0], count)
    x = np.random.default_rng(6).uniform(0, 127, count).astype(dtype)
    x[:3] = [0.0, -0.0, 0.5]
    return x


def test_conversions(runner: Runner) -> None:
    """Every wide type to every other."""
    sources = {dtype: _source(dtype) for dtype in WIDE}
    arrays = list(sources.values())
    statements = []
    for k, _ in enumerate(WIDE):
        for target in WIDE:
            statements.append(f"a{len(arrays)}[i] = mm_cast_{target}(a{k}[i]);")
            arrays.append(np.empty(arrays[0].size, target))
    runner(statements, arrays)
    results = iter(arrays[len(WIDE) :])
    for dtype, x in sources.items():
        for target in WIDE:
            want = x.astype(target)
            np.testing.assert_array_equal(next(results), want, err_msg=f"{dtype} to {target}")


def test_nan_is_true(runner: Runner) -> None:
    x = np.array([np.nan, np.inf, 0.0, 1e-45], np.float32)
    y = np.empty(4, np.bool_)
    runner(["a1[i] = mm_cast_bool(a0[i]);"], [x, y])
    assert y.tolist() == [True, True, False, True]


@pytest.mark.parametrize("seed", [0, 1, 2**40 + 17, 2**64 - 1])
def test_philox(runner: Runner, seed: int) -> None:
    """The words of NumPy's generator of the same name, in any order."""
    count = 1000
    index = np.random.default_rng(7).permutation(count).astype(np.int64)
    words = np.empty(count, np.uint64)
    runner([f"a1[i] = mm_philox({seed}ull, a0[i]);"], [index, words])
    want = np.random.Philox(key=seed).random_raw(count)
    np.testing.assert_array_equal(words, want[index])
