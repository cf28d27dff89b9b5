"""Row kernels: every length, every way to share a row among threads, every order of threads."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from cuda_function import CudaFunction, build
from cuda_programs import ROWS, row_types, softmax
from helpers import HALVES, assert_close, narrow, numbers, tensor, wide

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType

# One thread for a row, a part of a warp, a warp with and without vectors, a block, a loop.
SIZES = (1, 2, 3, 8, 31, 100, 768, 1023, 1024, 1025, 4097, 33000)
ORDERS = (0, 2, 3)  # in step; each warp as far as it can; the same from the last


@functools.cache
def _static(name: str) -> dict[int, CudaFunction]:
    fn, _, kinds = ROWS[name]
    sizes = SIZES if name in ("softmax", "layer_norm") else (1, 31, 768, 1025)
    made = {size: CudaFunction(fn, *row_types(kinds, 5, size, DType.float32)) for size in sizes}
    build([*made.values()])
    return made


@functools.cache
def _symbolic() -> dict[str, CudaFunction]:
    made = {
        name: CudaFunction(fn, *row_types(kinds, "rows", "size", DType.float32))
        for name, (fn, _, kinds) in ROWS.items()
    }
    build([*made.values()])
    return made


def _check(
    function: CudaFunction,
    name: str,
    rows: int,
    size: int,
    order: int,
    dtype: DType = DType.float32,
) -> None:
    _, oracle, kinds = ROWS[name]
    rng = np.random.default_rng(size)
    shapes = {"r": (rows, size), "w": (size,)}
    arrays = [numbers(rng, dtype, shapes[kind]) for kind in kinds]
    expected = oracle(*[wide(array) for array in arrays])
    expected = expected if isinstance(expected, list) else [expected]
    for found, wanted in zip(function(*arrays, order=order), expected, strict=True):
        # Numbers of size 3 are added; the rounding error is relative to them.
        assert_close(tensor(found), wanted, length=size + 8, scale=3.0 if name == "sum" else None)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ROWS)
def test_static_sizes(name: str, order: int) -> None:
    for size, function in _static(name).items():
        _check(function, name, 5, size, order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ROWS)
def test_symbolic_sizes(name: str, order: int) -> None:
    """One kernel for all sizes, falling and rising; the last is too long for shared memory."""
    for rows, size in [(5, 768), (1, 3), (3, 1), (37, 64), (2, 1025), (1, 11000), (3, 128)]:
        _check(_symbolic()[name], name, rows, size, order)


def test_values_kept_across_three_loops_do_not_share_memory() -> None:
    """exp(x) is read in the last loop, as are the weights that the second one keeps."""
    types = row_types("r", "rows", "size", DType.float32)
    function = CudaFunction(lambda x: F.softmax(F.exp(x)) + F.exp(x), *types)
    for rows, size in [(2, 1), (3, 31), (2, 768), (1, 1025)]:
        x = np.random.default_rng(size).normal(size=(rows, size)).astype(np.float32)
        (found,) = function(x, order=2)
        e = np.exp(x.astype(np.float64))
        assert_close(tensor(found), softmax(e) + e, ulps=2)


def test_no_rows() -> None:
    x = np.zeros((0, 7), np.float32)
    (found,) = _symbolic()["softmax"](x)
    assert found.shape == (0, 7)


def test_empty_rows_give_the_start_value() -> None:
    (found,) = _symbolic()["sum"](np.zeros((3, 0), np.float32))
    assert found.tolist() == [[0.0], [0.0], [0.0]]


@functools.cache
def _halves() -> dict[tuple[DType, str, int], CudaFunction]:
    made = {}
    for dtype in HALVES:
        for name in ("softmax", "layer_norm"):
            for size in (7, 768, 2048):
                types = row_types(ROWS[name][2], 3, size, dtype)
                made[dtype, name, size] = CudaFunction(ROWS[name][0], *types)
    build([*made.values()])
    return made


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
def test_half_types(dtype: DType) -> None:
    for (kind, name, size), function in _halves().items():
        if kind is dtype:
            _check(function, name, 3, size, 2, dtype)


@functools.cache
def _reductions() -> dict[tuple[str, DType, int], CudaFunction]:
    made = {}
    for name, fn in (("sum", F.sum), ("prod", F.prod), ("max", F.max), ("min", F.min)):
        for dtype in (DType.int8, DType.uint8, DType.int32, DType.uint64, DType.float64):
            for size in (17, 1280):
                made[name, dtype, size] = CudaFunction(
                    lambda x, fn=fn: fn(x), TensorType(dtype, [4, size], CPU_REF)
                )
    for name, fn in (("max", F.max), ("min", F.min)):
        made[name, DType.bool, 17] = CudaFunction(
            lambda x, fn=fn: fn(x), TensorType(DType.bool, [4, 17], CPU_REF)
        )
    build([*made.values()])
    return made


def test_reductions_of_other_types() -> None:
    """Integers wrap as they do in NumPy, and bool is a separate type."""
    rng = np.random.default_rng(11)
    for (name, dtype, size), function in _reductions().items():
        x = numbers(rng, dtype, (4, size), 0.99, 1.01)
        oracle = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min}[name]
        kind = {} if name in ("max", "min") else {"dtype": x.dtype}
        with np.errstate(all="ignore"):
            expected = oracle(x, axis=-1, keepdims=True, **kind)
        for order in ORDERS:
            assert_close(tensor(function(x, order=order)[0]), expected, length=size)


def test_nan_wins_in_extremes() -> None:
    for size in (5, 768, 1280):
        x = np.zeros((3, size), np.float32)
        x[1, size // 2] = np.nan
        function = CudaFunction(lambda x: F.max(x), TensorType(DType.float32, x.shape, CPU_REF))
        assert np.isnan(function(x)[0]).ravel().tolist() == [False, True, False]


def test_infinities_in_softmax() -> None:
    x = np.array([[0, -np.inf, -np.inf], [-np.inf, 0, 0], [np.nan, 0, 1]], np.float32)
    function = CudaFunction(lambda x: F.softmax(x), TensorType(DType.float32, (3, 3), CPU_REF))
    (found,) = function(x)
    np.testing.assert_allclose(found[:2], [[1, 0, 0], [0, 0.5, 0.5]])
    assert np.isnan(found[2]).all()


def test_the_result_does_not_depend_on_the_schedule() -> None:
    """Partial results are joined in one order: every schedule gives the same bits."""
    x = narrow(np.random.default_rng(5).uniform(-1, 1, (6, 5000)), DType.float32)
    function = CudaFunction(lambda x: F.sum(x), TensorType(DType.float32, (6, 5000), CPU_REF))
    results = {function(x, order=order)[0].tobytes() for order in (0, 1, 2, 3, 7, 8)}
    assert len(results) == 1


def test_views_and_broadcasts_in_rows() -> None:
    """A transposed, sliced operand, and one number for each row."""

    def program(x: Any, scale: Any) -> Any:
        return F.softmax(x.permute([0, 2, 1])[:, :, 1:] * scale.reshape([2, 1, 1]))

    types = [TensorType(DType.float32, s, CPU_REF) for s in ([2, 40, 7], [2])]
    function = CudaFunction(program, *types)
    rng = np.random.default_rng(1)
    x, scale = numbers(rng, DType.float32, (2, 40, 7)), numbers(rng, DType.float32, (2,))
    expected = softmax(wide(x).transpose(0, 2, 1)[:, :, 1:] * wide(scale)[:, None, None])
    for order in ORDERS:
        assert_close(tensor(function(x, scale, order=order)[0]), expected, length=48)
