"""Plans for cuBLAS, run by an emulation that reads raw memory column by column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulated_cuda import EmulatedCudaBackend, emulated_cuda

from maxmod.backends.cuda_matmul import Batch, Gemm, Layout, Operand, plan

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture
def backend() -> Iterator[EmulatedCudaBackend]:
    with emulated_cuda() as (_, found):
        yield found


def _random(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(abs(hash(shape)) % 1000)
    return rng.integers(-4, 5, shape).astype(dtype)  # small integers: products are exact


def _heads(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[batch, seq, heads, size] as [batch, heads, seq, size], as attention does it."""
    return x.transpose(0, 2, 1, 3)


# Operands as NumPy views; the number of cuBLAS calls that they take, 0 where one is copied first.
CASES: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]] = {
    "plain": (_random((5, 7)), _random((7, 3)), 1),
    "weight transposed": (_random((5, 7)), _random((3, 7)).T, 1),
    "both transposed": (_random((7, 5)).T, _random((3, 7)).T, 1),
    "column slice": (_random((5, 20))[:, 4:11], _random((7, 9))[:, 2:5], 1),
    "one row": (_random((1, 7)), _random((3, 7)).T, 1),
    "one column": (_random((5, 7)), _random((7, 1)), 1),
    "one of each": (_random((1, 1)), _random((1, 1)), 1),
    "outer product": (_random((5, 1)), _random((1, 3)), 1),
    "a column as left": (_random((7, 4))[:, 1:2].T, _random((7, 3)), 1),
    "linear on a batch": (_random((2, 4, 5, 7)), _random((3, 7)).T, 1),
    "linear on one sequence": (_random((2, 5, 7)), _random((7, 3)), 1),
    "batch": (_random((4, 5, 7)), _random((4, 7, 3)), 1),
    "batch, transposed": (_random((4, 5, 7)), _random((4, 3, 7)).transpose(0, 2, 1), 1),
    "left broadcasts": (_random((5, 7)), _random((4, 7, 3)), 1),
    "right broadcasts": (_random((4, 7, 5)).transpose(0, 2, 1), _random((7, 3)), 1),
    "axis broadcasts": (_random((2, 1, 5, 7)), _random((2, 3, 7, 4)), 2),
    "two axes merge": (_random((2, 3, 5, 7)), _random((2, 3, 7, 4)), 1),
    "scores": (
        _heads(_random((2, 5, 3, 8))),
        _heads(_random((2, 6, 3, 8))).transpose(0, 1, 3, 2),
        2,
    ),
    "mixed": (_random((2, 3, 5, 6)), _heads(_random((2, 6, 3, 8))), 2),
    "grouped heads": (
        _heads(_random((2, 5, 6, 8))).reshape(2, 3, 2, 5, 8),
        _heads(_random((2, 6, 3, 8)))[:, :, None].transpose(0, 1, 2, 4, 3),
        4,
    ),
    "steps in both directions": (_random((10, 14))[::2, ::2], _random((7, 3)), 0),
    "one number for a row": (np.broadcast_to(_random((5, 1)), (5, 7)), _random((7, 3)), 0),
    "every row the same": (np.broadcast_to(_random((7,)), (5, 7)), _random((7, 3)), 0),
}


def _device_view(backend: EmulatedCudaBackend, array: np.ndarray[Any, Any], dtype: Any) -> Any:
    """Returns the same view on device memory, of another dtype."""
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    moved = backend.xp.asarray(base.view(np.ndarray)).astype(dtype)
    first = (array.ctypes.data - base.ctypes.data) // array.itemsize
    steps = [step // array.itemsize * moved.itemsize for step in array.strides]
    flat = moved.reshape(-1)[first:]
    return np.lib.stride_tricks.as_strided(flat, array.shape, steps, subok=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_products(
    backend: EmulatedCudaBackend, monkeypatch: pytest.MonkeyPatch, name: str, dtype: Any
) -> None:
    left, right, calls = CASES[name]
    lhs, rhs = (_device_view(backend, array, np.dtype(dtype)) for array in (left, right))
    if calls:  # the memory is read where it lies
        monkeypatch.setattr(backend.xp, "ascontiguousarray", None, raising=False)
    expected = np.matmul(left.astype(np.float64), right.astype(np.float64))
    out = backend.xp.empty(expected.shape, np.dtype(dtype))
    backend.contract(lhs, rhs, out)
    np.testing.assert_array_equal(np.asarray(out).astype(np.float64), expected)


def _layout(array: np.ndarray[Any, Any]) -> Layout:
    return Layout(array.shape, tuple(step // array.itemsize for step in array.strides))


@pytest.mark.parametrize("name", CASES)
def test_calls(name: str) -> None:
    left, right, calls = CASES[name]
    gemm = plan(_layout(left), _layout(right), _layout(np.matmul(left, right)))
    assert (0 if gemm is None else len(gemm.offsets)) == calls


def test_a_linear_layer_is_one_product_of_many_rows() -> None:
    """x [2, 4, 5, 7] @ W.T: all 40 rows at once, W read as it lies."""
    left, right, _ = CASES["linear on a batch"]
    gemm = plan(_layout(left), _layout(right), _layout(np.matmul(left, right)))
    no_batch = Batch(1, 0, 0, 0)
    assert gemm == Gemm(40, 3, 7, Operand(0, 7), Operand(1, 7), 3, no_batch, ((0, 0, 0),))


def test_empty_products(backend: EmulatedCudaBackend) -> None:
    xp = backend.xp
    for m, k, n in [(0, 3, 2), (2, 3, 0), (2, 0, 3)]:
        out = xp.full((m, n), 9, np.float32)
        backend.contract(xp.ones((m, k), np.float32), xp.ones((k, n), np.float32), out)
        assert out.tolist() == np.zeros((m, n)).tolist()


def test_integers_are_multiplied_by_cupy(backend: EmulatedCudaBackend) -> None:
    x = backend.xp.asarray(np.arange(6, dtype=np.int32).reshape(2, 3))
    out = backend.xp.empty((2, 2), np.int32)
    backend.contract(x, x.T, out)
    assert out.tolist() == [[5, 14], [14, 50]]
