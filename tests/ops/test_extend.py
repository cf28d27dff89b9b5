"""pad, tile, repeat_interleave against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import ALL, assert_close, interpreted, numbers, tensor, wide
from hypothesis import given
from hypothesis import strategies as st

from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    data=st.data(),
    mode=st.sampled_from(["constant", "reflect", "edge"]),
)
def test_pad_follows_numpy(shape, data, mode):
    width = st.integers(0, 6)
    pairs = [(data.draw(width), data.draw(width)) for _ in shape]
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    result = F.pad(tensor(x), [n for pair in pairs for n in pair], mode=mode)
    np.testing.assert_array_equal(result.to_numpy(), np.pad(x, pairs, mode=mode))


@pytest.mark.parametrize("dtype", ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad_takes_every_dtype(dtype, mode):
    x = numbers(np.random.default_rng(0), dtype, (3, 2))
    result = F.pad(tensor(x), [1, 2, 0, 1], mode=mode)
    assert_close(result, np.pad(wide(x), [(1, 2), (0, 1)], mode=mode))


def test_pad_value():
    assert F.pad(Tensor([1.0]), [1, 0], value=-2.5).to_numpy().tolist() == [-2.5, 1.0]
    flag = Tensor([False], dtype=DType.bool)
    assert F.pad(flag, [1, 0], value=True).to_numpy().tolist() == [True, False]
    nan = F.pad(Tensor([1.0]), [0, 1], value=float("nan")).to_numpy()
    assert np.isnan(nan[1])
    with pytest.raises(ValueError, match="Can't promote python float"):
        F.pad(Tensor([1], dtype=DType.int32), [1, 0], value=0.5)
    with pytest.raises(ValueError, match="It would lose precision"):
        F.pad(Tensor([1], dtype=DType.int8), [1, 0], value=300)


def test_pad_of_nothing_returns_the_operand():
    x = Tensor([1.0])
    assert F.pad(x, [0, 0]) is x
    assert F.pad(Tensor(1.0), []).shape == []


def test_pad_refuses_bad_arguments():
    x = Tensor([[1.0]])
    for error in (ValueError, AssertionError):
        with pytest.raises(error, match="expected 4 numbers"):
            F.pad(x, [1, 1])
    with pytest.raises(ValueError, match="must not be negative"):
        F.pad(x, [1, -1, 0, 0])
    with pytest.raises(ValueError, match="expected one of constant, reflect, edge, got 'wrap'"):
        F.pad(x, [1, 1, 0, 0], mode="wrap")
    with pytest.raises(ValueError, match="is empty"):
        F.pad(Tensor.ones([0]), [1, 0], mode="edge")
    with pytest.raises(TypeError, match="paddings: expected an int"):
        F.pad(x, [1.0, 1, 0, 0])
    with pytest.raises(TypeError, match=": expected a Tensor, got"):
        F.pad(np.ones(1), [1, 1])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=3))
def test_tile_follows_numpy(axes):
    x = np.arange(np.prod([n for n, _ in axes], dtype=int)).reshape([n for n, _ in axes])
    repeats = [r for _, r in axes]
    result = F.tile(tensor(x), repeats).to_numpy()
    np.testing.assert_array_equal(result, np.tile(x, repeats))


def test_tile_refuses_bad_arguments():
    for repeats in ([2], [2, 0], [1, 1, 1], [-1, 2]):
        with pytest.raises(ValueError, match="expected 2 numbers above 0"):
            F.tile(Tensor.ones([2, 3]), repeats)
    with pytest.raises(TypeError):
        F.tile([1.0], [2])


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("repeats", [1, 3])
def test_repeat_interleave(axis, repeats):
    x = np.arange(6).reshape(2, 3)
    result = F.repeat_interleave(tensor(x), repeats, axis=axis).to_numpy()
    np.testing.assert_array_equal(result, np.repeat(x, repeats, axis=axis))


@pytest.mark.parametrize(("repeats", "axis"), [([2, 0, 1], 1), ([0, 3], 0), ([0, 0], -2)])
def test_repeat_interleave_with_a_tensor(repeats, axis, device):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    counts = tensor(np.array(repeats)).to(device)
    for out_dim in (sum(repeats), "n"):
        result = F.repeat_interleave(tensor(x).to(device), counts, axis=axis, out_dim=out_dim)
        expected = np.repeat(x, repeats, axis=axis)
        assert result.shape == list(expected.shape)
        np.testing.assert_array_equal(result.to(CPU()).to_numpy(), expected)


def test_repeat_interleave_refuses_bad_arguments():
    x, counts = Tensor.ones([3]), Tensor([1, 2, 3], dtype=DType.int64)
    with pytest.raises(ValueError, match="expected an int that is not negative, got -1"):
        F.repeat_interleave(x, -1)
    with pytest.raises(ValueError, match="axis=1"):
        F.repeat_interleave(x, 2, axis=1)
    with pytest.raises(ValueError, match="needs out_dim"):
        F.repeat_interleave(x, counts, axis=0)
    with pytest.raises(ValueError, match="add up to 6, out_dim is 7"):
        F.repeat_interleave(x, counts, axis=0, out_dim=7)
    with pytest.raises(ValueError, match=r"expected int64\[3\]"):
        F.repeat_interleave(x, counts.cast(DType.int32), axis=0, out_dim=6)
    with pytest.raises(ValueError, match=r"expected int64\[3\]"):
        F.repeat_interleave(x, Tensor([1], dtype=DType.int64), axis=0, out_dim=1)


def test_named_sizes():
    """Each function gives the same in a graph whose first axis has a name."""
    functions = [
        lambda x: F.pad(x, [1, 2, 0, 1]),
        lambda x: F.pad(x, [1, 2, 0, 1], mode="reflect"),
        lambda x: F.pad(x, [3, 0, 2, 1], mode="edge"),
        lambda x: F.tile(x, [2, 3]),
        lambda x: F.repeat_interleave(x, 2, axis=0),
        lambda x: F.repeat_interleave(x, 3),
    ]
    x = tensor(np.arange(8, dtype=np.float32).reshape(4, 2))
    for fn in functions:
        (result,) = interpreted(fn, [TensorType(DType.float32, ["n", 2], CPU())], x)
        np.testing.assert_array_equal(result.to_numpy(), fn(x).to_numpy())


def test_repeat_interleave_with_a_traced_tensor():
    types = [TensorType(DType.float32, ["n"], CPU()), TensorType(DType.int64, ["n"], CPU())]
    x, counts = Tensor([1.0, 2.0]), Tensor([2, 1], dtype=DType.int64)
    (result,) = interpreted(
        lambda x, c: F.repeat_interleave(x, c, axis=0, out_dim=3), types, x, counts
    )
    assert result.to_numpy().tolist() == [1.0, 1.0, 2.0]
