"""Products with a right operand for each batch on the host, and many rows, against float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.host import compiler as host_compiler
from maxmod.runtime.compiled import CompiledModel, compile_function

pytestmark = pytest.mark.skipif(
    bool(host_compiler.unavailable_reason()), reason=host_compiler.unavailable_reason() or "-"
)


def _normal(*shape: int) -> Any:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def _product(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


def _transposed(x: Tensor, w: Tensor) -> Tensor:
    return x @ w.T


def _of_heads(x: Tensor, w: Tensor) -> Tensor:
    """Heads between the positions and the depth, as attention has them."""
    return F.permute(x, [0, 2, 1, 3]) @ F.permute(w, [0, 2, 3, 1])


@cache
def _model(fn: Callable[..., Tensor], *shapes: tuple[Any, ...], dtype: Any = DType.float32) -> Any:
    types = [TensorType(dtype, shape, CPU()) for shape in shapes]
    model = compile_function(fn, types, name="f", parameters={})
    (kernel,) = model.kernels
    assert "mm_batch_task" in kernel.code
    return model


def _called(model: CompiledModel[..., Tensor], *arrays: Any, dtype: Any = DType.float32) -> Any:
    made = [Tensor(np.ascontiguousarray(array), device=CPU()) for array in arrays]
    tensors = [tensor.cast(dtype) for tensor in made]
    return model(*tensors).cast(DType.float32).to_numpy()


def _assert_close(found: Any, x: Any, right: Any, tolerance: float = 2e-6) -> None:
    expected = np.matmul(x, right, dtype=np.float64)
    sizes = np.matmul(np.abs(x), np.abs(right), dtype=np.float64)  # of the terms of each sum
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= tolerance * sizes + 1e-30).all()


# Batch, rows, depth, columns: single ones, none, primes, few and many rows, more than one part of
# the depth, and batches that threads take whole or together.
SIZES = (
    (3, 5, 16, 9),
    (1, 1, 1, 1),
    (2, 1, 64, 33),
    (7, 13, 31, 17),
    (5, 11, 300, 40),
    (3, 9, 1, 5),
    (8, 64, 65, 31),
    (3, 67, 131, 127),
    (2, 130, 520, 48),
    (64, 1, 32, 16),
    (0, 4, 8, 8),
    (3, 0, 8, 8),
    (3, 4, 8, 0),
    (3, 4, 0, 8),
)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sums(sizes: Sequence[int]) -> None:
    b, m, k, n = sizes
    x, w = _normal(b, m, k), _normal(b, k, n)
    plain = _model(_product, ("b", "m", "k"), ("b", "k", "n"))
    _assert_close(_called(plain, x, w), x, w)
    turned = _model(_transposed, ("b", "m", "k"), ("b", "n", "k"))
    _assert_close(_called(turned, x, w.swapaxes(1, 2)), x, w)


@pytest.mark.parametrize("dtype", [DType.bfloat16, DType.float16])
def test_halves(dtype: DType) -> None:
    model = _model(_transposed, ("b", "m", "k"), ("b", "n", "k"), dtype=dtype)
    for b, m, k, n in ((3, 2, 33, 20), (4, 21, 70, 19)):
        x, w = (Tensor(_normal(b, rows, k)).cast(dtype) for rows in (m, n))
        x, w = (tensor.cast(DType.float32).to_numpy() for tensor in (x, w))
        found = _called(model, x, w, dtype=dtype)
        _assert_close(found, x, w.swapaxes(1, 2), 0.01)


def test_heads_of_permuted_operands() -> None:
    model = _model(_of_heads, (2, "rows", 3, 16), (2, "keys", 3, 16))
    for rows, keys in ((1, 13), (11, 40), (30, 7)):
        x, w = _normal(2, rows, 3, 16), _normal(2, keys, 3, 16)
        found = _called(model, x, w)
        _assert_close(found, x.transpose(0, 2, 1, 3), w.transpose(0, 2, 3, 1))


BROADCAST = (
    ((2, 1, 7, 30), (1, 3, 30, 19)),
    ((7, 30), (3, 30, 19)),
    ((2, 12, 30), (1, 30, 19)),
)


@pytest.mark.parametrize("shapes", BROADCAST, ids=str)
def test_broadcast_batches_have_right_sums(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    x, w = (_normal(*shape) for shape in shapes)
    types = [TensorType(DType.float32, shape, CPU()) for shape in shapes]
    model = compile_function(_product, types, name="f", parameters={})
    assert [kernel.name for kernel in model.kernels] == ["matmul"]
    _assert_close(_called(model, x, w), x, w)


def test_epilogue_and_sums_are_one_kernel() -> None:
    def fn(x: Tensor, w: Tensor, bias: Tensor, other: Tensor) -> Tensor:
        return F.relu(x @ w + bias) * other

    shapes = ((4, 21, 33), (4, 33, 18), (18,), (4, 21, 18))
    x, w, bias, other = (_normal(*shape) for shape in shapes)
    model = _model(fn, *shapes)
    found = _called(model, x, w, bias, other)
    expected = np.maximum(np.matmul(x, w, dtype=np.float64) + bias, 0) * other
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_nan_and_infinity_stay_in_one_batch() -> None:
    x, w = _normal(3, 10, 17), _normal(3, 17, 9)
    x[0, 3, 5], w[2, 4, 1] = np.nan, np.inf
    model = _model(_product, ("b", "m", "k"), ("b", "k", "n"))
    with np.errstate(invalid="ignore"):
        expected = x @ w
        found = _called(model, x, w)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))


@pytest.mark.parametrize("rows", [1, 8, 9, 40])
def test_batches_have_the_sums_of_products_alone(rows: int) -> None:
    model = _model(_product, ("b", "m", "k"), ("b", "k", "n"))
    x, w = _normal(6, rows, 77), _normal(6, 77, 35)
    found = _called(model, x, w)
    for batch in range(6):
        alone = _called(model, x[batch : batch + 1], w[batch : batch + 1])
        np.testing.assert_array_equal(found[batch], alone[0])


# Where the last tiles of 6 rows share their rows, and parts of 120 and 480 rows end.
ROWS = (9, 10, 11, 12, 13, 17, 119, 120, 121, 125, 126, 127, 131, 241, 485, 486, 487, 607)


@pytest.mark.parametrize("columns", [37, 200])
def test_rows_at_the_ends_of_tiles_and_parts(columns: int) -> None:
    """From 24 rows on, 37 columns are multiplied by gemm_narrow.h, with the sums of gemm_many.h."""
    types = [TensorType(DType.float32, ("rows", 300), CPU())]
    w = _normal(300, columns)
    weight = Tensor(w, device=CPU())
    weights = {"w": weight}
    plain = compile_function(lambda x: x @ weight, types, name="f", parameters=weights)
    model = compile_function(lambda x: F.gelu(x @ weight), types, name="f", parameters=weights)
    x = _normal(max(ROWS), 300)
    sums, every = _called(plain, x), _called(model, x)
    _assert_close(sums, x, w)
    for rows in ROWS:
        np.testing.assert_array_equal(_called(plain, x[:rows]), sums[:rows])
        np.testing.assert_array_equal(_called(model, x[:rows]), every[:rows])


def test_rows_that_read_a_weight_by_columns_unpacked() -> None:
    """With wide vectors 32 rows of this depth are few, else 8: sums and one NaN on both sides."""
    types = [TensorType(DType.float32, (rows, 301), CPU()) for rows in ("rows", 37)]
    model = compile_function(lambda x, w: x @ w.T, types, name="f", parameters={})
    x, w = _normal(34, 301), _normal(37, 301)
    for rows in (7, 8, 9, 11, 13, 14, 16, 31, 32, 33, 34):
        _assert_close(_called(model, x[:rows], w), x[:rows], w.T)
    x[6, 300] = np.nan
    for rows in (9, 32, 33):
        found = np.isnan(_called(model, x[:rows], w))
        assert found[6].all() and found.sum() == 37


@pytest.mark.parametrize("depth", [1100, 1024])
def test_many_rows_of_a_deep_product_of_few_columns(depth: int) -> None:
    """From 8 tiles of each thread on, gemm_narrow.h adds one part of the depth after the other.

    The sums are those of gemm_many.h, which multiplies 100 rows.
    """
    types = [TensorType(DType.float32, (rows, depth), CPU()) for rows in ("rows", 37)]
    model = compile_function(lambda x, w: x @ w.T, types, name="f", parameters={})
    x, w = _normal(1003, depth), _normal(37, depth)
    sums = _called(model, x, w)
    _assert_close(sums, x, w.T)
    np.testing.assert_array_equal(_called(model, x[:100], w), sums[:100])
    x[700, depth - 1], w[5, 0] = np.nan, np.inf
    found = _called(model, x, w)
    assert np.isnan(found[700]).all()
    assert np.isinf(np.delete(found[:, 5], 700)).all()
    kept = np.delete(np.delete(found, 700, 0), 5, 1)
    np.testing.assert_array_equal(kept, np.delete(np.delete(sums, 700, 0), 5, 1))
