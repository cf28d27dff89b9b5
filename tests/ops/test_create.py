"""Creation functions: constants, fills, ranges, windows."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_close, interpreted, tensor
from hypothesis import given
from hypothesis import strategies as st

from maxmod import CPU, DType, Tensor, TensorType, default_dtype
from maxmod import functional as F

F32 = DType.float32
I32 = DType.int32


def test_fills():
    assert F.full([], 2.5).item() == 2.5
    assert F.full([2, 1], 3, dtype=I32).to_numpy().tolist() == [[3], [3]]
    assert F.zeros([0, 2]).shape == [0, 2]
    assert F.ones([2], dtype=DType.bool).to_numpy().tolist() == [True, True]
    x = Tensor([[1, 2]], dtype=DType.int16)
    for like in (x, x.type):
        assert F.full_like(like, 7).type == x.type
        assert F.zeros_like(like).to_numpy().tolist() == [[0, 0]]
        assert F.ones_like(like).dtype is DType.int16
    for fn in (F.zeros_like, F.ones_like, Tensor.range_like):
        with pytest.raises(TypeError, match="expected a Tensor or a TensorType, got ndarray"):
            fn(np.zeros(3))
    with pytest.raises(TypeError, match="iterable of sizes"):
        F.zeros(3)
    with pytest.raises(TypeError, match="must not be negative"):
        F.zeros([-1])
    with pytest.raises(ValueError, match="out of range"):
        F.full([1], 300, dtype=DType.int8)
    with pytest.raises(TypeError, match="expected a number"):
        F.full([1], "a")


def test_constant():
    assert F.constant(3, DType.int8, CPU()).dtype is DType.int8
    assert F.constant([1.5, 2.5]).to_numpy().tolist() == [1.5, 2.5]
    array = np.arange(6).reshape(2, 3)
    assert F.constant(array).dtype is DType.int64
    assert F.constant(array.T).to_numpy().tolist() == array.T.tolist()
    with pytest.raises(ValueError, match="DType must match input dtype"):
        F.constant(array, dtype=F32)


def test_constant_external():
    x = F.constant_external("w", TensorType(F32, [2], CPU()))
    assert x.shape == [2]
    assert not x.real
    with pytest.raises(TypeError, match="'w' is not known outside a graph"):
        x.to_numpy()
    with pytest.raises(TypeError, match="expected a TensorType"):
        F.constant_external("w", [2])


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-5, 5).filter(bool))
def test_arange_of_integers_follows_numpy(start, stop, step):
    expected = np.arange(start, stop, step)
    for fn in (F.arange, F.range, Tensor.arange):
        result = fn(start, stop, step, dtype=DType.int64)
        np.testing.assert_array_equal(result.to_numpy(), expected)
    np.testing.assert_array_equal(
        F.arange(start, stop, step, dtype=F32).to_numpy(), expected.astype(np.float32)
    )


@pytest.mark.parametrize("bounds", [(0, 1, 0.1), (0, 0.3, 0.1), (1, 0, -0.25), (0.5, 3), (2.0, 2)])
def test_arange_of_floats(bounds):
    result = F.arange(*bounds, dtype=DType.float64)
    expected = np.arange(*bounds)
    assert result.shape == [len(expected)]
    np.testing.assert_allclose(result.to_numpy(), expected, rtol=1e-15)


def test_arange_one_bound_and_default_dtype():
    assert Tensor.arange(4).dtype is F32
    assert F.arange(4).to_numpy().tolist() == [0, 1, 2, 3]
    assert F.arange(-100, 100, dtype=DType.int8).shape == [200]
    assert F.arange(2**63, 2**63 + 2, dtype=DType.uint64).to_numpy().tolist() == [2**63, 2**63 + 1]


def test_arange_rounds_once():
    x = F.arange(0, 2048, 8, dtype=DType.float16)
    np.testing.assert_array_equal(x.to_numpy(), np.arange(0, 2048, 8))


def test_arange_refuses():
    with pytest.raises(ValueError, match="value .1000. to dtype.bfloat16"):
        F.range(0, 1000, dtype=DType.bfloat16)
    with pytest.raises(ValueError, match="step: expected a number other than 0"):
        F.arange(0, 5, 0)
    with pytest.raises(ValueError, match="python float"):
        F.arange(0, 2.5, dtype=I32)
    with pytest.raises(ValueError, match="out_dim differs"):
        F.arange(0, 5, 2, 2, dtype=I32)
    with pytest.raises(ValueError, match="needs out_dim"):
        F.arange(Tensor(0, dtype=I32), 3, dtype=I32)
    with pytest.raises(ValueError, match="finite"):
        F.arange(0, float("inf"))
    with pytest.raises(ValueError, match="expected a number type"):
        F.arange(3, dtype=DType.bool)
    with pytest.raises(TypeError, match="number or Dim"):
        F.arange("3")


def test_arange_out_dim():
    assert F.arange(0, 5, 2, 3, dtype=I32).shape == [3]
    assert F.arange(0, 5, 2, "n", dtype=I32).shape == [3]
    bounds = [Tensor(v, dtype=I32) for v in (1, 7, 2)]
    assert F.arange(*bounds, out_dim=3, dtype=I32).to_numpy().tolist() == [1, 3, 5]


def test_arange_in_a_graph():
    types = [TensorType(F32, ["n", "m"], CPU()), TensorType(I32, [], CPU())]
    x, start = Tensor.zeros([5, 2]), Tensor(10, dtype=I32)

    def ranges(x, start):
        n, m = x.shape
        return [
            F.arange(0, n, dtype=I32),
            F.arange(m, n + 1, 2, dtype=I32),
            F.arange(start, start + 3, out_dim=3, dtype=I32),
            F.arange(n, 0, -2, dtype=F32),
        ]

    results = interpreted(ranges, types, x, start)
    assert [r.to_numpy().tolist() for r in results] == [
        [0, 1, 2, 3, 4],
        [2, 4],
        [10, 11, 12],
        [5, 3, 1],
    ]


def test_range_like():
    x = Tensor.range_like(TensorType(I32, [2, 3], CPU()))
    assert x.to_numpy().tolist() == [[0, 1, 2], [0, 1, 2]]
    with pytest.raises(IndexError):
        Tensor.range_like(Tensor(1.0))


@pytest.mark.parametrize("length", [0, 1, 2, 7, 16])
def test_hann_window(length):
    k = np.arange(length)
    for periodic in (True, False):
        n = length if periodic else length - 1
        expected = 0.5 - 0.5 * np.cos(2 * np.pi * k / n) if length > 1 else np.ones(length)
        result = F.hann_window(length, CPU(), periodic, F32)
        assert_close(result, expected, length=2)
        assert_close(
            F.hann_window(length, periodic=periodic, dtype=DType.float64), expected, length=2
        )


def test_hann_window_arguments():
    with default_dtype(DType.bfloat16):
        assert F.hann_window(4).dtype is DType.bfloat16
        with pytest.raises(ValueError, match="lose precision"):
            F.hann_window(1000)
    with pytest.raises(TypeError, match="window_length: expected an int"):
        F.hann_window(2.0)
    with pytest.raises(ValueError, match="must not be negative"):
        F.hann_window(-1)
    with pytest.raises(ValueError, match="float type"):
        F.hann_window(4, dtype=I32)


# ---- matrices ----------------------------------------------------------------------------------


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("lower", [None, -1, 0, 1, 2])
@pytest.mark.parametrize("upper", [None, -1, 0, 2])
def test_band_part(lower, upper, exclude):
    x = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
    row, column = np.indices((3, 4))
    keep = np.ones((3, 4), bool)
    if lower not in (None, -1):
        keep &= row - column <= lower
    if upper not in (None, -1):
        keep &= column - row <= upper
    expected = np.where(keep != exclude, x, 0)
    result = F.band_part(tensor(x), lower, upper, exclude)
    np.testing.assert_array_equal(result.to_numpy(), expected)
    (traced,) = interpreted(
        lambda x: F.band_part(x, lower, upper, exclude),
        [TensorType(F32, [2, "n", 4], CPU())],
        tensor(x),
    )
    np.testing.assert_array_equal(traced.to_numpy(), expected)


def test_band_part_arguments():
    x = Tensor.ones([2, 3])
    for options in ({"num_lower": -2}, {"num_lower": 2}, {"num_upper": 3}):
        with pytest.raises(ValueError, match="expected -1 to"):
            F.band_part(x, **options)
    with pytest.raises(ValueError, match="at least two axes"):
        F.band_part(Tensor.ones([3]))
    booleans = F.band_part(Tensor.ones([2, 2], dtype=DType.bool), None, 0)
    assert booleans.to_numpy().tolist() == [[True, False], [True, True]]


def test_outer():
    x, y = Tensor([1.0, 2.0]), Tensor([3.0, 4.0, 5.0])
    assert F.outer(x, y).to_numpy().tolist() == [[3, 4, 5], [6, 8, 10]]
    assert F.outer(x, np.array([1, 2])).dtype is F32
    with pytest.raises(ValueError, match="expected rank 1"):
        F.outer(x, 2.0)


def test_matmul_errors():
    x = Tensor.ones([2, 3])
    with pytest.raises(ValueError, match=r"inner sizes differ.*\(3 != 2\)"):
        F.matmul(x, x)
    with pytest.raises(ValueError, match="did you want rhs.T"):
        F.matmul(x, Tensor.ones([5, 3]))
    with pytest.raises(ValueError, match="at least one axis"):
        F.matmul(x, Tensor(1.0))
    with pytest.raises(ValueError, match="batch axes"):
        F.matmul(Tensor.ones([2, 2, 3]), Tensor.ones([4, 3, 2]))
    for weak in (2.0, np.ones((3, 2))):
        with pytest.raises(TypeError):
            x @ weak
    assert (x @ Tensor.ones([3], dtype=DType.float64)).dtype is DType.float64


def test_arange_bounds_are_single_numbers_and_sizes():
    pair = Tensor([1, 2], dtype=DType.int64)
    for bounds in ((pair, 5), (0, pair), (0, 5, pair)):
        with pytest.raises(ValueError, match=r"a bound must be one number, got int64\[2\]"):
            F.arange(*bounds, out_dim="n", dtype=DType.int64)
    for bounds in ((-(2**63), 2**63 - 1), (-1e300, 1e300)):
        dtype = DType.int64 if isinstance(bounds[0], int) else DType.float64
        with pytest.raises(ValueError, match="no size is so large"):
            F.arange(*bounds, dtype=dtype)
    for bounds in ((0, 2**63), (-(2**63) - 1, 0)):
        with pytest.raises(ValueError, match="Can't promote python int"):
            F.arange(*bounds, dtype=DType.int64)
