"""Numbers in kernels: a literal is short, and a compiler reads exactly the number back."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import prelude_runner
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maxmod import DType
from maxmod.compiler.codegen.emit import C_TYPES, literal
from maxmod.dtype import storage_dtype

_LIBC = ctypes.CDLL(None)
_LIBC.strtof.restype = ctypes.c_float
_LIBC.strtod.restype = ctypes.c_double

FLOATS = [0.0, -0.0, 0.125, 0.1, -1.5, 1e-5, 1e16, 16777216.0, math.inf, -math.inf, math.nan]
FLOATS += [3.4028234663852886e38, 1.1754943508222875e-38, 1e-45, 1.401298464324817e-45, 1 / 3]
DOUBLES = [*FLOATS, 1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 1e300, math.pi]
INTEGERS = {
    dtype: [0, 1, np.iinfo(storage_dtype(dtype)).min, np.iinfo(storage_dtype(dtype)).max]
    for dtype in C_TYPES
    if dtype.is_integral()
}
VALUES: dict[DType, Sequence[Any]] = {
    **INTEGERS,
    DType.float32: FLOATS,
    DType.float64: DOUBLES,
    DType.bool: [True, False],
}


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (0.125, DType.float32, "0.125f"),
        (2, DType.float32, "2.0f"),
        (0.1, DType.float32, "0.1f"),
        (np.float32(1e-5).item(), DType.float32, "1e-05f"),
        (-1.5, DType.float32, "(-1.5f)"),
        (-0.0, DType.float32, "(-0.0f)"),
        (0.1, DType.float64, "0.1"),
        (math.inf, DType.float32, "INFINITY"),
        (-math.inf, DType.float64, "(double)-INFINITY"),
        (1e300, DType.float32, "INFINITY"),
        (math.nan, DType.float32, "NAN"),
        (-3, DType.int32, "(-3)"),
        (7, DType.int32, "7"),
        (7, DType.int64, "(int64_t)7"),
        (255, DType.uint8, "(uint8_t)255"),
        (2**31, DType.uint32, "(uint32_t)2147483648ull"),
        (True, DType.bool, "true"),
    ],
    ids=lambda value: value.name if isinstance(value, DType) else str(value),
)
def test_a_literal_is_the_shortest_text_of_a_number(
    value: float, dtype: DType, expected: str
) -> None:
    assert literal(value, dtype) == expected


def _parts(text: str, suffix: str) -> tuple[str, int]:
    """Returns the text of a finite float without brackets and suffix, and its number of digits."""
    text = text.strip("()")
    assert text.endswith(suffix)
    text = text.removesuffix(suffix)
    return text, len(re.sub(r"e.*|\D", "", text).strip("0"))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_c_reads_a_float_literal_as_the_same_float(number: float) -> None:
    text, digits = _parts(literal(number, DType.float32), "f")
    found = _LIBC.strtof(text.encode(), None)
    assert np.float32(found).tobytes() == np.float32(number).tobytes()
    assert digits <= 9


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_c_reads_a_double_literal_as_the_same_double(number: float) -> None:
    text, digits = _parts(literal(number, DType.float64), "")
    found = _LIBC.strtod(text.encode(), None)
    assert np.float64(found).tobytes() == np.float64(number).tobytes()
    assert digits <= 17


@pytest.mark.parametrize("dialect", prelude_runner.RUNNERS)
def test_compilers_read_literals_of_every_dtype(dialect: str) -> None:
    """Each number on its own and behind a minus, where two signs must not become one operator."""
    reason = prelude_runner.unavailable_reason(dialect)
    if reason:
        pytest.skip(reason)
    statements, arrays = [], []
    for number, (dtype, values) in enumerate(VALUES.items()):
        texts = ", ".join(literal(value, dtype) for value in values)
        kind = C_TYPES[dtype]
        statements.append(
            f"const {kind} table[] = {{{texts}}}; a{number}[i] = table[i % {len(values)}];"
        )
        arrays.append(np.zeros(64, storage_dtype(dtype)))
    negated = len(arrays)
    texts = ", ".join(f"-{literal(value, DType.float32)}" for value in FLOATS)
    statements.append(
        f"const float table[] = {{{texts}}}; a{negated}[i] = table[i % {len(FLOATS)}];"
    )
    arrays.append(np.zeros(64, np.float32))
    prelude_runner.RUNNERS[dialect](statements, arrays)
    wanted = [
        *(np.array(values, storage_dtype(dtype)) for dtype, values in VALUES.items()),
        -np.array(FLOATS, np.float32),
    ]
    for found, values in zip(arrays, wanted, strict=True):
        expected = np.resize(values, 64)
        np.testing.assert_array_equal(found, expected)
        if expected.dtype.kind == "f":
            is_number = ~np.isnan(expected)
            np.testing.assert_array_equal(
                np.signbit(found)[is_number], np.signbit(expected)[is_number]
            )
