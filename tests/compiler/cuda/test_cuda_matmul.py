"""Plans for cuBLASLt, run by an emulation that reads raw memory column by column."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulated_cuda import EmulatedCudaBackend, emulated_cuda

from maxmod.backends.cuda import cublaslt
from maxmod.backends.cuda import libraries as cuda_libraries
from maxmod.backends.cuda.cublaslt import Matrix
from maxmod.backends.cuda.matmul import Batch, Gemm, Layout, Multiplier, Operand, plan
from maxmod.errors import LibraryError

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
    backend.cuda.products.calls.clear()
    backend.contract(lhs, rhs, out)
    np.testing.assert_array_equal(np.asarray(out).astype(np.float64), expected)
    assert len(backend.cuda.products.calls) == max(calls, 1)


@pytest.mark.parametrize("name", CASES)
def test_products_without_cublaslt(
    backend: EmulatedCudaBackend, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """CuPy's cuBLAS does them."""
    left, right, _ = CASES[name]
    monkeypatch.setattr(cublaslt, "load", lambda major: None)
    multiply = Multiplier(backend.xp, 0)
    lhs, rhs = (_device_view(backend, array, np.dtype(BFLOAT16)) for array in (left, right))
    expected = np.matmul(left.astype(np.float64), right.astype(np.float64))
    out = backend.xp.empty(expected.shape, BFLOAT16)
    backend.cuda.products.calls.clear()
    assert multiply(lhs, rhs, out)
    np.testing.assert_array_equal(np.asarray(out).astype(np.float64), expected)
    assert backend.cuda.products.calls == []
    assert not multiply(lhs, rhs, out, addend=out)


def test_a_shape_is_planned_once(backend: EmulatedCudaBackend) -> None:
    multiply = Multiplier(backend.xp, 0)
    products = backend.cuda.products
    before = products.queries
    x = backend.xp.asarray(_random((64, 64)))
    out = backend.xp.empty((64, 64), np.float32)
    for y in (x, x.copy(), x.copy()):
        multiply(x, y, out)
        np.testing.assert_array_equal(np.asarray(out), np.asarray(x) @ np.asarray(y))
    alignments = {array.ctypes.data & -array.ctypes.data for array in (x, y, out)}
    assert 1 <= products.queries - before <= 3, alignments
    again = products.queries
    multiply(x, y, out)
    assert products.queries == again
    multiply(x, y.T, out)
    assert products.queries == again + 1


def test_plans_are_destroyed(backend: EmulatedCudaBackend) -> None:
    products = backend.cuda.products
    before = set(products.live)
    multiply = Multiplier(backend.xp, 0)
    x = backend.xp.asarray(_random((4, 4)))
    multiply(x, x, x.copy())
    assert len(products.live) > len(before)
    del multiply
    assert set(products.live) == before


@pytest.mark.parametrize("alignment", [4, 8, 256])
def test_the_actual_alignment_is_promised_to_the_library(
    backend: EmulatedCudaBackend, alignment: int
) -> None:
    """An algorithm that loads 16 bytes at a time must not be chosen for less."""
    block = backend.xp.asarray(np.ones(600, np.float32))
    start = (-block.ctypes.data % 256 + alignment) // 4 % 256
    x = block[start : start + 64].reshape(8, 8)
    out = backend.xp.empty((8, 8), np.float32)
    backend.contract(x, x, out)
    assert out.tolist() == np.full((8, 8), 8.0).tolist()


def _gelu(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {"": lambda x: x, "relu": lambda x: np.maximum(x, 0), "gelu": _gelu}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16], ids=str)
@pytest.mark.parametrize("batched", [False, True], ids=["matrix", "batch"])
def test_epilogues(backend: EmulatedCudaBackend, dtype: Any, batched: bool) -> None:
    """Each part alone and together; what the library would not do is not asked of it."""
    multiply = Multiplier(backend.xp, 0)
    left, right = _random((2, 5, 7)), _random((2, 3, 7) if batched else (3, 7)).swapaxes(-1, -2)
    more = _random((3,)), _random((2, 5, 3))
    lhs, rhs, *added = (_device_view(backend, a, np.dtype(dtype)) for a in (left, right, *more))
    eps = float(ml_dtypes.finfo(dtype).eps)
    for has_bias, adds, activation in itertools.product((False, True), (False, True), ACTIVATIONS):
        if adds and activation:
            continue
        total = left.astype(np.float64) @ right
        total += (more[0] if has_bias else 0) + (more[1] if adds else 0)
        out = backend.xp.empty((2, 5, 3), np.dtype(dtype))
        bias, addend = added[0] if has_bias else None, added[1] if adds else None
        backend.cuda.products.calls.clear()
        assert multiply(lhs, rhs, out, bias, addend, activation)
        assert [call[-1] for call in backend.cuda.products.calls] == [adds]
        found = np.asarray(out).astype(np.float64)
        np.testing.assert_allclose(found, ACTIVATIONS[activation](total), rtol=eps, atol=1e-6)


def test_bias_and_addend_may_have_any_strides(backend: EmulatedCudaBackend) -> None:
    """A bias with gaps, an addend that is transposed: copied first. One that is not aligned is
    promised as it is.
    """
    x, bias, addend = _random((5, 7)), _random((14,))[::2], _random((7, 5)).T
    rhs, out = _random((7, 7)), backend.xp.empty((5, 7), np.float32)
    views = [_device_view(backend, array, np.float32) for array in (x, rhs, bias, addend)]
    multiply = Multiplier(backend.xp, 0)
    assert multiply(views[0], views[1], out, views[2], views[3])
    np.testing.assert_array_equal(np.asarray(out), x @ rhs + bias + addend)
    shifted = backend.xp.asarray(np.append(np.float32(0), addend))[1:].reshape(5, 7)
    assert multiply(views[0], views[1], out, None, shifted)
    np.testing.assert_array_equal(np.asarray(out), x @ rhs + addend)


@pytest.mark.parametrize("depth", [0, 7])
def test_epilogues_without_cublaslt(
    backend: EmulatedCudaBackend, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    """Also where there is nothing to multiply: ops after the product do them."""
    if depth:
        monkeypatch.setattr(cublaslt, "load", lambda major: None)
        monkeypatch.setattr(backend, "_multipliers", {})
    arrays = _random((2, 5, depth)), _random((depth, 3)), _random((3,)), _random((2, 5, 3))
    lhs, rhs, bias, addend = (backend.from_host(array, 0) for array in arrays)
    out = backend.xp.empty((2, 5, 3), np.float32)
    backend.contract(lhs, rhs, out, bias, addend, "gelu")
    total = arrays[0].astype(np.float64) @ arrays[1] + arrays[2] + arrays[3]
    np.testing.assert_allclose(np.asarray(out), _gelu(total), rtol=1e-5, atol=1e-6)


def test_a_failing_call_is_an_error(backend: EmulatedCudaBackend) -> None:
    with pytest.raises(LibraryError, match="cublasLtMatmul failed with status 13"):
        cublaslt.check(13, "cublasLtMatmul")


@pytest.mark.skipif(
    cuda_libraries.find("cublasLt") is None,
    reason="needs libcublasLt, not a GPU: pip install 'cuda-toolkit[cublas]'",
)
def test_the_library_takes_our_descriptors() -> None:
    """It checks types, sizes and names of attributes; only its handle needs a device."""
    library: Any = cublaslt.load(13)
    products: Any = type("Products", (), {"library": library, "lock": None})
    out = Matrix(16, 5, 16, 3, 80, 4)
    matrices = [Matrix(7, 16, 8, 3, 56, 16), Matrix(7, 5, 7, 3, 0, 16), out, out]
    for kind in (cublaslt.FLOAT32, cublaslt.FLOAT64, cublaslt.FLOAT16, cublaslt.BFLOAT16):
        for flags in itertools.product((False, True), (False, True), cublaslt.ACTIVATION_BITS):
            epilogue = cublaslt.Epilogue(*flags)
            planned = cublaslt.Plan(products, kind, (1, 0), matrices, epilogue)
            planned.prefer(1 << 20, [16, 16, 4, 4])
            with pytest.raises(LibraryError, match="MatmulDescSetAttribute failed with status 7"):
                planned._set("MatmulDesc", planned._operation, 8, ctypes.c_int32(4))


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


@pytest.mark.parametrize(
    "shapes", [((5, 7), (7,)), ((7,), (7, 3)), ((7,), (7,)), ((2, 5, 7), (7,))]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
def test_vectors(backend: EmulatedCudaBackend, shapes: Any, dtype: Any) -> None:
    lhs, rhs = (_random(shape, dtype) for shape in shapes)
    expected = np.asarray(lhs @ rhs)
    out = backend.from_host(np.zeros(expected.shape, dtype), 0)
    backend.contract(backend.from_host(lhs, 0), backend.from_host(rhs, 0), out)
    np.testing.assert_array_equal(backend.to_host(out), expected)


def test_integers_are_multiplied_by_cupy(backend: EmulatedCudaBackend) -> None:
    x = backend.xp.asarray(np.arange(6, dtype=np.int32).reshape(2, 3))
    out = backend.xp.empty((2, 2), np.int32)
    backend.contract(x, x.T, out)
    assert out.tolist() == [[5, 14], [14, 50]]
