"""Products of the main namespace, and the `linalg` extension."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from array_api.both import (
    COMMON,
    FLOATS,
    NUMERIC,
    assert_same,
    check,
    numbers,
    numpy_of,
    ours,
    theirs,
)

from maxmod import array_api as xp

PAIRS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((3,), (3,)),
    ((2, 3), (3, 4)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 2)),
    ((2, 3), (2, 3)),
    ((), (3,)),
]


def _symmetric(dtype: str, shape: tuple[int, ...] = (4, 4)) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(1).normal(size=shape).astype(dtype)
    return x @ np.swapaxes(x, -1, -2) + 2 * np.eye(shape[-1], dtype=dtype)


def test_matmul() -> None:
    for dtype in COMMON:
        for one, other in PAIRS:
            for name in ("matmul", "linalg.matmul"):
                check(name, numbers(dtype, one), numbers(dtype, other))
    check("matmul", numbers("int8", (2, 3)), numbers("int32", (3, 2)))
    with pytest.raises(TypeError, match="expected an array"):
        xp.matmul(ours(numbers("int8", (2, 3))), 2)  # type: ignore[arg-type]


def test_vecdot() -> None:
    for dtype in COMMON:
        check("vecdot", numbers(dtype, (3, 4)), numbers(dtype, (4,)))
        check("vecdot", numbers(dtype, (3, 4)), numbers(dtype, (3, 4)), axis=-2)
    check("vecdot", numbers("float64", (2, 1, 4)), numbers("float64", (3, 4)))
    check("vecdot", numbers("float64", (4,)), numbers("float64", (3,)))


def test_tensordot() -> None:
    x, y = numbers("float64", (2, 3, 4)), numbers("float64", (3, 4, 5))
    for axes in [2, ((1, 2), (0, 1)), ((2,), (1,)), ((-1,), (-2,)), ((), ()), 0, 3, ((0,), (0,))]:
        check("tensordot", x, y, axes=axes)
    check("tensordot", numbers("int8", (2, 3)), numbers("int16", (3,)), axes=1)


def test_transpose_and_outer() -> None:
    for name in ("matrix_transpose", "linalg.matrix_transpose"):
        check(name, numbers("int8", (2, 3, 4)))
        check(name, numbers("int8", (3,)))
    for dtype in NUMERIC:
        check("linalg.outer", numbers(dtype, (3,)), numbers(dtype, (4,)))
    check("linalg.outer", numbers("int8", (3, 1)), numbers("int8", (4,)))


def test_cross() -> None:
    for dtype in ("int32", *FLOATS):
        check("linalg.cross", numbers(dtype, (3,)), numbers(dtype, (3,), 1))
        check("linalg.cross", numbers(dtype, (2, 3)), numbers(dtype, (2, 3), 1))
        check("linalg.cross", numbers(dtype, (3, 2)), numbers(dtype, (3, 2), 1), axis=-2)
        check("linalg.cross", numbers(dtype, (4, 1, 3)), numbers(dtype, (2, 3), 1))
    check("linalg.cross", numbers("float64", (2,)), numbers("float64", (2,)))


def test_diagonals() -> None:
    for shape in [(3, 3), (2, 4), (2, 4, 3), (0, 3)]:
        for offset in (-3, -1, 0, 1, 2, 5):
            for dtype in COMMON:
                check("linalg.diagonal", numbers(dtype, shape), offset=offset)
            for dtype in NUMERIC:
                check("linalg.trace", numbers(dtype, shape), offset=offset)
    check("linalg.trace", numbers("int8", (3, 3)), dtype=np.dtype("float64"))
    check("linalg.diagonal", numbers("int8", (3,)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_vector_norm(dtype: str) -> None:
    x = numbers(dtype, (2, 3, 4))
    for order in (2, 1, 0, math.inf, -math.inf, 3, 0.5, -1.0):
        for axis in (None, 0, -1, (0, 2)):
            for keepdims in (False, True):
                if order == -1.0:
                    check("linalg.vector_norm", np.abs(x) + 1, ord=order, axis=axis)
                else:
                    check("linalg.vector_norm", x, ord=order, axis=axis, keepdims=keepdims)
    check("linalg.vector_norm", numbers("int8"))


@pytest.mark.parametrize("dtype", FLOATS)
def test_matrix_norm(dtype: str) -> None:
    x = numbers(dtype, (2, 3, 4))
    for order in ("fro", 1, -1, math.inf, -math.inf, 2, "nuc"):
        for keepdims in (False, True):
            check("linalg.matrix_norm", x, ord=order, keepdims=keepdims)
    check("linalg.matrix_norm", _symmetric(dtype), ord=-2)
    with pytest.raises(ValueError, match="ord"):
        xp.linalg.matrix_norm(ours(x), ord=7)


def test_matrix_power() -> None:
    x = numbers("float64", (2, 3, 3))
    for n in (0, 1, 2, 5):
        check("linalg.matrix_power", x, n)
    check("linalg.matrix_power", _symmetric("float64"), -2)
    check("linalg.matrix_power", numbers("float64", (2, 3)), 2)


@pytest.mark.parametrize("dtype", FLOATS)
def test_solvers(dtype: str) -> None:
    x = _symmetric(dtype)
    for name in ("cholesky", "det", "eigvalsh", "inv", "pinv", "slogdet", "svdvals", "matrix_rank"):
        check(f"linalg.{name}", x)
        check(f"linalg.{name}", np.stack([x, 2 * x]))
    check("linalg.cholesky", x, upper=True)
    check("linalg.solve", x, numbers(dtype, (4,)))
    check("linalg.solve", x, numbers(dtype, (4, 2)))
    check("linalg.pinv", numbers(dtype, (3, 2)), rtol=1e-3)
    check("linalg.matrix_rank", np.ones((3, 3), dtype), rtol=1e-3)
    check("linalg.inv", numbers("int8", (3, 3)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_decompositions(dtype: str) -> None:
    """By what they must satisfy: signs of vectors are free."""
    x = numbers(dtype, (2, 4, 3))
    for full in (False, True):
        u, s, vh = xp.linalg.svd(ours(x), full_matrices=full)
        product = xp.matmul(u[..., :3] * s[..., None, :], vh[..., :3, :])
        np.testing.assert_allclose(numpy_of(product), x, atol=1e-4)
        q, r = xp.linalg.qr(ours(x), mode="complete" if full else "reduced")
        np.testing.assert_allclose(numpy_of(q @ r), x, atol=1e-4)
        assert q.shape == ((2, 4, 4) if full else (2, 4, 3))
    square = _symmetric(dtype)
    values, vectors = xp.linalg.eigh(ours(square))
    left = numpy_of(ours(square) @ vectors)
    np.testing.assert_allclose(left, numpy_of(vectors * values), atol=1e-3)
    wanted = strict.linalg.eigvalsh(theirs(square))
    assert_same(xp.linalg.eigh(ours(square)).eigenvalues, wanted)
    assert xp.linalg.svd(ours(x)).U.shape == (2, 4, 4)
    assert xp.linalg.slogdet(ours(square)).sign.shape == ()
    with pytest.raises(ValueError, match="mode"):
        xp.linalg.qr(ours(x), mode="full")
