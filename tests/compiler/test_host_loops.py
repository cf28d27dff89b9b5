"""Loops of host kernels: tiles of columns, blocks of float16, rows longer than a block, shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import maxmod.functional as F
from maxmod import DeviceRef, DType, Module, Tensor, TensorType

Array = np.ndarray[Any, Any]
Build = Callable[..., Any]


class _Function(Module[..., Any]):
    def __init__(self, build: Build) -> None:
        super().__init__()
        self.build = build

    def forward(self, *args: Tensor) -> Any:
        return self.build(*args)


def compiled(build: Build, *arrays: Array, sizes: tuple[Any, ...] | None = None) -> list[Array]:
    """Runs a function as one host kernel; `sizes` are those of its only argument."""
    tensors = [Tensor.from_dlpack(array) for array in arrays]
    types = [TensorType(t.dtype, sizes or t.shape, DeviceRef.CPU()) for t in tensors]
    model = _Function(build).compile(*types)
    if model.kernels:  # else there is no compiler, and ops run one by one
        assert len(model.kernels) == 1
    found = model(*tensors)
    return [np.from_dlpack(tensor) for tensor in (found if isinstance(found, list) else [found])]


def numbers(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 3).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.float64])
@pytest.mark.parametrize("shape", [(3, 37, 131), (1, 16, 128), (2, 300, 1)], ids=str)
def test_columns_and_rows_in_one_kernel(shape: tuple[int, ...], dtype: Any) -> None:
    x, y = numbers(*shape, dtype=dtype), numbers(shape[0], shape[2], shape[1], dtype=dtype, seed=1)
    (got,) = compiled(lambda x, y: F.transpose(x, 1, 2) + y, x, y)
    np.testing.assert_array_equal(got, x.transpose(0, 2, 1) + y)


def test_columns_of_unknown_sizes() -> None:
    x = numbers(45, 150)
    (got,) = compiled(lambda x: F.transpose(x, 0, 1) * 2, x, sizes=("rows", "columns"))
    np.testing.assert_array_equal(got, x.T * 2)


def test_columns_of_a_part_backwards() -> None:
    x = numbers(70, 40)
    (got,) = compiled(lambda x: F.transpose(x[5:, 3:37], 0, 1)[:, ::-1] + 1, x)
    np.testing.assert_array_equal(got, x[5:, 3:37].T[:, ::-1] + 1)


def test_every_float16_there_and_back() -> None:
    codes = np.arange(1 << 16, dtype=np.uint16).view(np.float16)[:-1]  # an odd number of them
    (wide,) = compiled(lambda x: F.cast(x, DType.float32), codes)
    np.testing.assert_array_equal(wide, codes.astype(np.float32))
    (narrow,) = compiled(lambda x: F.cast(x, DType.float16), wide)
    np.testing.assert_array_equal(narrow, codes)


@pytest.mark.parametrize("dtype", [DType.float16, DType.bfloat16], ids=lambda dtype: dtype.name)
def test_halves_are_rounded_once_to_the_nearest(dtype: DType) -> None:
    bits = np.random.default_rng(2).integers(0, 1 << 32, 50001, dtype=np.uint32)
    middle = np.arange(0, 1 << 31, 1 << 12, dtype=np.uint32)  # ties of both, among others
    x = np.concatenate([bits, middle]).view(np.float32)
    x = x[~np.isnan(x)]
    (got,) = compiled(lambda x: F.cast(F.cast(x, dtype), DType.float32), x)
    with np.errstate(over="ignore"):
        want = x.astype(np.float16).astype(np.float32)
    if dtype is DType.bfloat16:
        codes = x.view(np.uint32).astype(np.uint64)
        codes = (codes + 0x7FFF + (codes >> 16 & 1)) >> 16 << 16
        want = codes.astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("width", [1, 7, 512, 513, 1500, 9001])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_softmax_of_rows_of_any_length(width: int, dtype: Any) -> None:
    x = numbers(3, width, dtype=dtype)
    x[1, ::3] = -np.inf
    x[1, -1] = -90  # of a longer row, a share that is subnormal in float32
    (got,) = compiled(F.softmax, x)
    wide = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    want = wide / wide.sum(-1, keepdims=True)
    tolerance = 2e-6 if dtype is np.float32 else 1e-3
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize("row", [[1, 2, np.nan], [1, np.inf, 2], [-np.inf, -np.inf, -np.inf]])
def test_softmax_of_rows_without_a_share_is_nan(row: list[float]) -> None:
    x = np.array([row, [0.5, 1, 2]], np.float32)
    (got,) = compiled(F.softmax, x)
    assert np.isnan(got[0]).all()
    assert abs(got[1].sum() - 1) < 1e-6


def test_shares_of_tiny_and_huge_wholes() -> None:
    x = np.array([[-100, -101, -99.5], [88, 80, 70], [88.7, 88.7, 88.7], [-200, 0, 60]], np.float32)
    (got,) = compiled(lambda x: F.exp(x) / F.sum(F.exp(x), axis=-1), x)
    powers = np.exp(x.astype(np.float64)).astype(np.float32)
    with np.errstate(over="ignore"):
        want = powers / powers.sum(-1, keepdims=True, dtype=np.float32)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-44)
    np.testing.assert_array_equal(got[2], 0)  # finite numbers over an infinite sum


def test_normed_rows_of_float16_that_follow_each_other() -> None:
    x, weight = numbers(9, 1100, dtype=np.float16), numbers(1100, dtype=np.float16, seed=1)
    (got,) = compiled(lambda x, w: F.rms_norm(x, w, 1e-5), x, weight)
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-3)
