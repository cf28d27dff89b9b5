"""Softmax and the normalisations: special rows, rounding order, arguments."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import HALVES, assert_close, narrow, numbers, tensor, values, wide

from maxmod import DType, Tensor
from maxmod import functional as F


def _softmax(x):
    with np.errstate(all="ignore"):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("dtype", [DType.float32, DType.float64, *HALVES], ids=lambda d: d.name)
def test_special_rows(dtype):
    inf, nan = np.inf, np.nan
    rows = [[1, -inf, 2], [inf, 1, 2], [-inf, -inf, -inf], [nan, 1, 2], [inf, inf, 1], [9, 9, 9]]
    array = narrow(rows, dtype)
    assert_close(F.softmax(tensor(array)), _softmax(wide(array)), length=3)
    with np.errstate(all="ignore"):
        expected = np.log(_softmax(wide(array)))
    assert_close(F.logsoftmax(tensor(array)), expected, length=3)


def test_softmax_of_large_numbers_does_not_overflow():
    x = Tensor([1e4, 1e4 - 1])
    assert_close(F.softmax(x), _softmax(np.array([1e4, 1e4 - 1])), length=2)
    assert np.isfinite(F.logsoftmax(Tensor([0.0, -1e4])).to_numpy()).all()


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_softmax_of_nothing(shape):
    assert F.softmax(Tensor.ones(shape)).shape == list(shape)
    assert F.logsoftmax(Tensor.ones(shape)).shape == list(shape)


def test_softmax_arguments():
    assert_close(F.softmax(value=Tensor([[1.0], [1.0]]), axis=0), np.full((2, 1), 0.5))
    with pytest.raises(ValueError, match="Invalid axis=2"):
        F.softmax(Tensor([1.0]), axis=2)


def _llama(x, weight, epsilon, offset, early, dtype):
    """RMS norm in float64, rounded to `dtype` where the op rounds."""
    scaled = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon)
    if not early:
        scaled = narrow(scaled, dtype).astype(np.float64)
    return scaled * (weight + offset)


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
@pytest.mark.parametrize("early", [False, True])
def test_rms_norm_rounds_before_or_after_the_weight(dtype, early):
    rng = np.random.default_rng(0)
    x, weight = numbers(rng, dtype, (50, 64)), numbers(rng, dtype, (64,))
    result = F.rms_norm(tensor(x), tensor(weight), 1e-6, 0.5, multiply_before_cast=early)
    expected = narrow(_llama(wide(x), wide(weight), 1e-6, 0.5, early, dtype), dtype)
    other = narrow(_llama(wide(x), wide(weight), 1e-6, 0.5, not early, dtype), dtype)
    # Rounding in float32 before may flip a few ties; the other order differs in many places.
    assert np.mean(values(result) != expected) < 0.01
    assert np.mean(values(result) != other) > 0.1


def test_norms_refuse_bad_arguments():
    x, row = Tensor.ones([2, 3]), Tensor.ones([3])
    for bad in (Tensor.ones([2]), Tensor.ones([1, 3]), Tensor(1.0)):
        with pytest.raises(ValueError, match="Could not apply weight"):
            F.rms_norm(x, bad, 1e-6)
        with pytest.raises(ValueError, match="Could not apply beta"):
            F.layer_norm(x, row, bad, 1e-6)
    with pytest.raises(ValueError, match="Could not apply gamma"):
        F.layer_norm(Tensor(1.0), row, row, 1e-6)
    for epsilon in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="epsilon: expected a positive number"):
            F.layer_norm(input=x, gamma=row, beta=row, epsilon=epsilon)
    with pytest.raises(ValueError, match="same dtype"):
        F.rms_norm(x, row.cast(DType.float64), 1e-6)


def test_layer_norm_promotes():
    x, row = Tensor.ones([2, 3], dtype=DType.bfloat16), Tensor.ones([3])
    assert F.layer_norm(x, row, row, 1e-5).dtype is DType.float32


def _group_norm(x, gamma, beta, groups, epsilon):
    rows = x.reshape(x.shape[0], groups, -1)
    centered = rows - rows.mean(axis=-1, keepdims=True)
    scaled = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + epsilon)
    shape = (-1, *[1] * (x.ndim - 2))
    return scaled.reshape(x.shape) * gamma.reshape(shape) + beta.reshape(shape)


@pytest.mark.parametrize("dtype", [DType.float32, DType.float64, *HALVES], ids=lambda d: d.name)
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (1, 6, 3, 4), (0, 6, 2)])
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_group_norm(dtype, shape, groups):
    rng = np.random.default_rng(0)
    arrays = [numbers(rng, dtype, s) for s in (shape, (6,), (6,))]
    result = F.group_norm(*[tensor(a) for a in arrays], num_groups=groups, epsilon=1e-3)
    if shape[0] == 0:
        assert result.shape == list(shape)
        return
    expected = _group_norm(*[wide(a) for a in arrays], groups, 1e-3)
    assert_close(result, expected, length=arrays[0].size)


def test_group_norm_refuses_bad_arguments():
    x, row = Tensor.ones([2, 6, 4]), Tensor.ones([6])
    with pytest.raises(ValueError, match="cannot be divided into 4 groups"):
        F.group_norm(x, row, row, 4, 1e-5)
    with pytest.raises(ValueError, match=r"expected input \[batch, channels"):
        F.group_norm(row, row, row, 1, 1e-5)
    with pytest.raises(ValueError, match="gamma: expected"):
        F.group_norm(x, Tensor.ones([4]), row, 2, 1e-5)
    with pytest.raises(ValueError, match="epsilon"):
        F.group_norm(x, row, row, 2, 0.0)
    with pytest.raises(ValueError, match="unsupported dtype"):
        F.group_norm(x.cast(DType.int32), row, row, 2, 1e-5)
    with pytest.raises(TypeError, match="num_groups"):
        F.group_norm(x, row, row, 2.0, 1e-5)
