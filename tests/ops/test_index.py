"""gather, gather_nd, nonzero, masked_scatter."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import interpreted, tensor
from hypothesis import given
from hypothesis import strategies as st

from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F

F32 = DType.float32
I64 = DType.int64


def _grid(*shape):
    return tensor(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))


def _ints(values):
    return tensor(np.array(values, dtype=np.int64))


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    count=st.lists(st.integers(0, 3), max_size=2),
    data=st.data(),
)
def test_gather_is_take(shape, count, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    total = int(np.prod(count))
    flat = data.draw(st.lists(st.integers(-size, size - 1), min_size=total, max_size=total))
    indices = np.array(flat, dtype=np.int64).reshape(count)
    x = _grid(*shape)
    result = F.gather(x, tensor(indices), axis)
    np.testing.assert_array_equal(result.to_numpy(), np.take(x.to_numpy(), indices, axis))


def test_gather_refuses_bad_arguments():
    x = _grid(3, 2)
    with pytest.raises(TypeError, match="axis"):
        F.gather(x, _ints([0]))
    with pytest.raises(IndexError, match="axis=2"):
        F.gather(x, _ints([0]), axis=2)
    with pytest.raises(IndexError):
        F.gather(Tensor(1.0), _ints([0]), axis=0)
    with pytest.raises(ValueError, match="expected integers"):
        F.gather(x, Tensor([0.0]), axis=0)
    for position in (3, -4):
        with pytest.raises(IndexError, match=f"position {position} out of range"):
            F.gather(x, _ints([0, position]), axis=0)
    with pytest.raises(TypeError):
        F.gather(x, [0], axis=0)


def test_gather_nd_refuses_bad_arguments():
    x = _grid(2, 3)
    for indices, batch, message in [
        (_ints([[0, 0, 0]]), 0, "more axes than input has"),
        (_ints([[0, 0]]), 1, "more axes than input has"),
        (_ints([[0]]), -1, "batch_dims must lie in"),
        (_ints([[0]]), 2, "batch_dims must lie in"),
        (_ints([[0], [0], [0]]), 1, "batch axes differ"),
        (Tensor([[0.0]]), 0, "expected integers"),
        (_ints(0), 0, "last axis of indices"),
    ]:
        with pytest.raises(ValueError, match=message):
            F.gather_nd(x, indices, batch)
    with pytest.raises(IndexError, match="position 3 out of range"):
        F.gather_nd(x, _ints([[0, 3]]))
    with pytest.raises(ValueError, match="known size"):
        interpreted(
            F.gather_nd, [TensorType(F32, [2, 3], CPU()), TensorType(I64, ["n"], CPU())], x, x
        )


def test_nonzero(device):
    array = np.array([[1.0, 0.0], [np.nan, -0.0], [0.0, 2.0]], np.float32)
    x = tensor(array).to(device)
    for out_dim in ("n", 3):
        result = F.nonzero(x, out_dim)
        assert result.dtype is I64
        assert result.shape == [3, 2]
        np.testing.assert_array_equal(result.to(CPU()).to_numpy(), np.argwhere(array))
    assert F.nonzero(Tensor.zeros([4]), "n").shape == [0, 1]
    mask = Tensor([True, False, True], dtype=DType.bool)
    assert F.nonzero(mask, "n").to_numpy().tolist() == [[0], [2]]
    with pytest.raises(ValueError, match="out_dim is 2, but 3 elements"):
        F.nonzero(x, 2)
    with pytest.raises(ValueError, match="scalar"):
        F.nonzero(Tensor(1.0), "n")
    with pytest.raises(TypeError):
        F.nonzero(x)


@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_masked_scatter(bits):
    mask = np.array(bits).reshape(2, 3)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    updates = -np.arange(1, mask.sum() + 1, dtype=np.float32)
    expected = x.copy()
    expected[mask] = updates
    for given_mask in (mask, tensor(mask)):
        for out_dim in ("n", int(mask.sum())):
            result = F.masked_scatter(tensor(x), given_mask, tensor(updates), out_dim)
            np.testing.assert_array_equal(result.to_numpy(), expected)
    types = [
        TensorType(F32, ["a", 3], CPU()),
        TensorType(DType.bool, ["a", 3], CPU()),
        TensorType(F32, [len(updates)], CPU()),
    ]
    (traced,) = interpreted(
        lambda a, m, u: F.masked_scatter(a, m, u, "n"), types, *map(tensor, (x, mask, updates))
    )
    np.testing.assert_array_equal(traced.to_numpy(), expected)


def test_masked_scatter_broadcasts_the_mask():
    x = F.masked_scatter(Tensor.zeros([2, 2]), np.array([True, False]), Tensor([[5.0], [6.0]]), 2)
    assert x.to_numpy().tolist() == [[5.0, 0.0], [6.0, 0.0]]
    everything = F.masked_scatter(Tensor.zeros([2]), True, Tensor([1.0, 2.0]), "n")
    assert everything.to_numpy().tolist() == [1.0, 2.0]


def test_masked_scatter_refuses_bad_arguments():
    x, mask, updates = (
        Tensor.zeros([3]),
        Tensor([True, False, True], dtype=DType.bool),
        Tensor([1.0, 2.0]),
    )
    with pytest.raises(ValueError, match="same dtype"):
        F.masked_scatter(x, mask, updates.cast(DType.float64), 2)
    with pytest.raises(ValueError, match="2 elements of the mask are true, out_dim is 3"):
        F.masked_scatter(x, mask, updates, 3)
    with pytest.raises(ValueError, match="updates .3. has 3 elements"):
        F.masked_scatter(x, mask, Tensor.ones([3]), "n")
    with pytest.raises(ValueError, match="mask: expected bool"):
        F.masked_scatter(x, x, updates, 2)
    with pytest.raises(ValueError, match="1 or equal"):
        F.masked_scatter(x, Tensor([True, True], dtype=DType.bool), updates, 2)
