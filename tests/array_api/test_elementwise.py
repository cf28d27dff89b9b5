"""Every elementwise function: values for every dtype, refusals, broadcasting, promotion."""

from __future__ import annotations

import inspect
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from array_api.both import (
    ALL,
    COMMON,
    FLOATS,
    INTEGERS,
    NUMERIC,
    REFUSED,
    SHAPES,
    SPECIAL,
    assert_same,
    check,
    numbers,
    numpy_of,
    ours,
    theirs,
)

from maxmod import array_api as xp
from maxmod.array_api import binary, elementwise

UNARY = sorted(
    name for name, fn in vars(elementwise).items() if name in xp.__all__ and inspect.isfunction(fn)
)
BINARY = sorted(
    name
    for name, fn in vars(binary).items()
    if name in xp.__all__ and inspect.isfunction(fn) and name not in ("clip", "where")
)
INT_POWER = "integers with negative exponents: not defined by the standard"
# What strict refuses because the standard does not define it, while we extend it on purpose.
WIDER = {"real": NUMERIC, "imag": NUMERIC}


def test_every_function_is_here() -> None:
    assert len(UNARY) == 38
    assert len(BINARY) == 28


@pytest.mark.parametrize("name", UNARY)
def test_one_operand(name: str) -> None:
    for dtype in ALL:
        for shape in SHAPES:
            x = numbers(dtype, shape)
            if dtype in WIDER.get(name, ()):
                wanted = np.zeros_like(x) if name == "imag" else x
                np.testing.assert_array_equal(numpy_of(getattr(xp, name)(ours(x))), wanted)
                continue
            check(name, x)
    for dtype in FLOATS:
        if name not in WIDER:
            check(name, np.array(SPECIAL, dtype))


def _second(name: str, dtype: str, shape: tuple[int, ...]) -> Any:
    y = numbers(dtype, shape, seed=1)
    if name == "pow" and dtype in INTEGERS:
        y = np.abs(y)  # INT_POWER
    if name.endswith("shift") and dtype in INTEGERS:
        y = np.abs(y)
    if name in ("floor_divide", "remainder") and dtype in INTEGERS:
        y = np.where(y == 0, 1, y).astype(dtype)
    return y


@pytest.mark.parametrize("name", BINARY)
def test_two_operands(name: str) -> None:
    for dtype in ALL:
        for shape in SHAPES:
            check(name, numbers(dtype, shape), _second(name, dtype, shape))
    pairs = [((3, 1), (1, 4)), ((), (2, 3)), ((2, 1, 3), (4, 1)), ((0, 1), (1, 3)), ((2,), (3,))]
    for one, other in pairs:
        for dtype in COMMON:
            check(name, numbers(dtype, one), _second(name, dtype, other))


@pytest.mark.parametrize("name", BINARY)
def test_special_values(name: str) -> None:
    for dtype in FLOATS:
        line = np.array(SPECIAL, dtype)
        if name == "floor_divide":  # infinities have a test of their own
            line = line[np.isfinite(line) | np.isnan(line)]
            check(name, line[:, None], line)
        else:
            check(name, line[:, None], line)


@pytest.mark.parametrize("name", BINARY)
def test_promotion(name: str) -> None:
    """All pairs of dtypes: the same result dtype, or a refusal."""
    for one in ALL:
        for other in ALL:
            check(name, numbers(one, (3,)), np.ones(3, other))


@pytest.mark.parametrize("name", BINARY)
def test_python_numbers(name: str) -> None:
    for dtype in ALL:
        x = numbers(dtype, (4,))
        y = _second(name, dtype, (4,))
        for value in (True, 2, 0.5):
            check(name, x, value)
            check(name, value, y)
        with pytest.raises(TypeError):
            getattr(xp, name)(ours(x), 1j)
    with pytest.raises(TypeError, match="at least one"):
        getattr(xp, name)(1, 2)


def test_python_numbers_take_the_dtype_of_the_other_operand() -> None:
    x = xp.asarray([0.0, 1.0], dtype=xp.float32)
    assert (x + 16777217).dtype is xp.float32  # rounded; an error for Tensor
    assert numpy_of(x + 16777217)[0] == np.float32(16777217)
    with pytest.raises(REFUSED):
        xp.asarray([1], dtype=xp.int8) + 300


def test_result_type() -> None:
    for one in ALL:
        for other in ALL:
            check("result_type", np.dtype(one), np.dtype(other))
            check("result_type", np.dtype(one), np.ones(2, other))
            check("can_cast", np.dtype(one), np.dtype(other))
        for value in (True, 3, 0.5):
            check("result_type", np.dtype(one), value)
    check("result_type", np.dtype("int8"), np.dtype("uint8"), np.dtype("int32"))
    assert xp.result_type(xp.float32, xp.asarray([1.0]), 1) is xp.float32
    with pytest.raises(ValueError, match="at least one"):
        xp.result_type()
    with pytest.raises(TypeError):
        xp.result_type(xp.float32, 1j)


def test_clip() -> None:
    for dtype in NUMERIC:
        x = numbers(dtype, (3, 4))
        check("clip", x, 1, 3)
        check("clip", x, min=2)
        check("clip", x, max=np.asarray(2, dtype))
        check("clip", x, numbers(dtype, (4,)), np.full((3, 1), 6, dtype))
        check("clip", x)
    check("clip", np.array(SPECIAL), -1.0, 1.0)
    check("clip", np.array(SPECIAL), np.nan, None)


def test_where() -> None:
    condition = numbers("bool", (3, 4))
    for dtype in ALL:
        check("where", condition, numbers(dtype, (3, 4)), numbers(dtype, (4,), 1))
        check("where", condition[0], numbers(dtype, (3, 1)), numbers(dtype, (), 1))
    check("where", condition, numbers("int8", (4,)), numbers("uint8", (4,)))
    check("where", condition, numbers("float32", (4,)), 2)
    check("where", condition, True, numbers("bool", (4,)))
    check("where", numbers("int8"), numbers("int8"), numbers("int8"))


def test_neighbours_and_signs_are_exact() -> None:
    for dtype in FLOATS:
        line = np.array([*SPECIAL, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal], dtype)
        for name in ("nextafter", "copysign"):
            with np.errstate(all="ignore"):
                found = getattr(xp, name)(ours(line[:, None]), ours(line))
                wanted = getattr(strict, name)(theirs(line[:, None]), theirs(line))
            np.testing.assert_array_equal(numpy_of(found), numpy_of(wanted))
            np.testing.assert_array_equal(np.signbit(numpy_of(found)), np.signbit(numpy_of(wanted)))


def test_floor_divide_of_infinities() -> None:
    """By the table of the standard, from which NumPy differs."""
    x = np.array([np.inf, np.inf, -np.inf, -np.inf, 2.0, -2.0, 2.0, -2.0, np.inf, np.inf])
    y = np.array([2.0, -2.0, 2.0, -2.0, np.inf, np.inf, -np.inf, -np.inf, np.inf, -np.inf])
    found = numpy_of(xp.floor_divide(ours(x), ours(y)))
    wanted = [np.inf, -np.inf, -np.inf, np.inf, 0.0, -0.0, -0.0, 0.0, np.nan, np.nan]
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.signbit(found[4:8]), np.signbit(wanted[4:8]))


def test_floor_divide_is_exact() -> None:
    x, y = np.float32([4, 1, -4, 7e6]), np.float32([0.8, 0.1, 0.8, 0.7])
    wanted = [float(a) // float(b) for a, b in zip(x, y, strict=True)]
    assert numpy_of(xp.floor_divide(ours(x), ours(y))).tolist() == np.float32(wanted).tolist()


def test_extreme_integers() -> None:
    for dtype in INTEGERS:
        info = np.iinfo(dtype)
        x = np.array([info.min, info.min + 1, 0, 1, info.max - 1, info.max], dtype)
        for name in ("add", "subtract", "multiply", "maximum", "less", "bitwise_xor", "equal"):
            check(name, x[:, None], x)
        for name in ("abs", "negative", "bitwise_invert", "square", "sign", "isfinite"):
            if name != "negative" or dtype[0] != "u":
                check(name, x)
        shifts = np.arange(info.bits).astype(dtype)
        check("bitwise_left_shift", x[:, None], shifts)
        check("bitwise_right_shift", x[:, None], shifts)


def test_negative_of_unsigned_wraps() -> None:
    x = xp.asarray([0, 1, 255], dtype=xp.uint8)
    assert numpy_of(-x).tolist() == [0, 255, 1]


def test_same_results_as_the_oracle_are_recognised() -> None:
    """The comparison itself can fail."""
    one = xp.asarray([1.0, -0.0])
    with pytest.raises(AssertionError):
        assert_same(one, strict.asarray([1.0, 0.0], dtype=strict.float32))
    with pytest.raises(AssertionError):
        assert_same(one, strict.asarray([1.0, -0.0], dtype=strict.float64))
