"""The public reductions: axes, None, errors; cumsum; the integer mean."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_close, interpreted, numbers, tensor, wide

from maxmod import DType, Tensor
from maxmod import functional as F
from maxmod.errors import AxisError
from maxmod.runtime.compiled import compile_function

REDUCTIONS = [F.sum, F.mean, F.prod, F.max, F.min, F.argmax, F.argmin]


@pytest.mark.parametrize("fn", REDUCTIONS)
def test_the_axis_stays_with_size_one(fn):
    x = tensor(numbers(np.random.default_rng(0), DType.float32, (2, 3, 4)))
    assert fn(x).shape == [2, 3, 1]
    assert fn(x, axis=0).shape == [1, 3, 4]
    assert fn(x, axis=-2).shape == [2, 1, 4]
    assert fn(x, axis=np.int64(1)).shape == [2, 1, 4]


@pytest.mark.parametrize("fn", REDUCTIONS)
def test_axis_none_flattens(fn):
    array = numbers(np.random.default_rng(1), DType.float32, (2, 3))
    result = fn(tensor(array), axis=None)
    assert result.shape == [1]
    assert_close(result, getattr(np, fn.__name__)(wide(array)).reshape(1), length=6)
    assert fn(Tensor(2.0), axis=None).shape == [1]


@pytest.mark.parametrize("fn", REDUCTIONS)
@pytest.mark.parametrize("axis", [2, -3])
def test_axis_out_of_range(fn, axis):
    with pytest.raises(ValueError, match=rf"Invalid axis={axis} for input x.rank=2"):
        fn(Tensor.ones([2, 2]), axis=axis)


@pytest.mark.parametrize("fn", REDUCTIONS)
def test_scalars_have_no_axis(fn):
    with pytest.raises(ValueError, match="x.rank=0"):
        fn(Tensor(1.0))


@pytest.mark.parametrize("fn", REDUCTIONS)
def test_weak_operands_and_bad_axes_are_type_errors(fn):
    with pytest.raises(TypeError, match=": expected a Tensor, got"):
        fn([1.0, 2.0])
    with pytest.raises(TypeError, match="axis: expected an int"):
        fn(Tensor.ones([2]), axis=1.5)


@pytest.mark.parametrize("fn", [F.max, F.min, F.argmax, F.argmin])
def test_empty_axis_without_identity(fn):
    with pytest.raises(ValueError, match="is empty"):
        fn(Tensor.ones([2, 0]))


def test_empty_axis_with_identity():
    x = Tensor.ones([2, 0])
    assert F.sum(x).to_numpy().tolist() == [[0], [0]]
    assert F.prod(x).to_numpy().tolist() == [[1], [1]]
    assert np.isnan(F.mean(x).to_numpy()).all()


def test_two_tensors_are_compared_elementwise():
    x = Tensor([-1.0, 2.0])
    assert F.max(x, 0).to_numpy().tolist() == [0.0, 2.0]
    assert F.min(0, x).to_numpy().tolist() == [-1.0, 0.0]
    with pytest.raises(ValueError, match="either a second tensor or an axis"):
        F.max(x, x, axis=0)
    with pytest.raises(TypeError):
        F.max(x=x)  # positional-only


def test_ties_give_the_first_position():
    x = Tensor([3.0, 7.0, 7.0, 3.0])
    assert F.argmax(x).item() == 1
    assert F.argmin(x).item() == 0
    assert F.argmax(x).dtype is DType.int64


def test_nan_wins():
    x = Tensor([1.0, float("nan"), 3.0])
    assert np.isnan(F.max(x).item())
    assert np.isnan(F.min(x).item())
    assert F.argmax(x).item() == F.argmin(x).item() == 1


@pytest.mark.parametrize("dtype", [DType.int8, DType.int64, DType.uint8, DType.uint64])
def test_integer_mean_is_truncated_and_does_not_wrap(dtype):
    signed = dtype.is_signed_integral()
    x = Tensor([[100, 101], [-7 if signed else 7, 0]], dtype=dtype)
    assert F.mean(x).dtype is dtype
    assert F.mean(x).to_numpy().tolist() == [[100], [-3 if signed else 3]]


def test_integer_sums_are_not_widened():
    x = Tensor([100, 100], dtype=DType.int8)
    assert F.sum(x).dtype is DType.int8
    assert F.sum(x).item() == -56


def test_long_sum_of_half_floats_is_accumulated_in_float32():
    x = Tensor.ones([4096], dtype=DType.float16) * 1.0
    assert F.sum(x).item() == 4096
    assert F.mean(x.cast(DType.bfloat16)).item() == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 3, 6]),
        ({"exclusive": True}, [0, 1, 3]),
        ({"reverse": True}, [6, 5, 3]),
        ({"exclusive": True, "reverse": True}, [5, 3, 0]),
    ],
)
def test_cumsum(options, expected):
    x = Tensor([1, 2, 3], dtype=DType.int32)
    assert F.cumsum(x, **options).to_numpy().tolist() == expected


def test_exclusive_cumsum_keeps_infinities_apart():
    x = Tensor([1.0, float("inf"), 2.0, float("nan")])
    result = F.cumsum(x, exclusive=True).to_numpy()
    np.testing.assert_array_equal(result, [0, 1, np.inf, np.inf])


def test_cumsum_of_an_empty_axis_and_bad_axes():
    assert F.cumsum(Tensor.ones([2, 0]), exclusive=True).shape == [2, 0]
    with pytest.raises(AxisError, match="cumsum: Invalid axis=1"):
        F.cumsum(Tensor.ones([2]), axis=1)


@pytest.mark.parametrize("values", [[-(2**63), 0], [-(2**63)], [-(2**63), 1, 1], [-7, 0]])
def test_mean_of_the_smallest_integer(values):
    """Its size has no positive number; the mean is still rounded toward zero."""
    x = Tensor(values, dtype=DType.int64)
    total = sum(values)
    expected = -(-total // len(values))
    assert F.mean(x).to_numpy().tolist() == [expected]
    (found,) = interpreted(F.mean, [x.type], x)
    assert found.to_numpy().tolist() == [expected]
    model = compile_function(F.mean, [x.type], name="mean", parameters={})
    assert model(x).to_numpy().tolist() == [expected]
