"""`x[...]`: like NumPy where both accept an index; nothing is clipped."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import interpreted, tensor
from hypothesis import given
from hypothesis import strategies as st

from maxmod import CPU, Dim, DType, Tensor, TensorType
from maxmod import functional as F

F32, I64 = DType.float32, DType.int64


def _grid(*shape):
    return tensor(np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape))


def _scalar(value):
    return Tensor(value, dtype=I64, device=CPU())


def _backward(start, stop, step, size, as_negative):
    """From `stop - 1` down to `start`, whose bounds may be counted from the end."""
    if stop == 0:
        return slice(None, None, step) if size == 0 else slice(0, 0, step)
    first, last = stop - 1, start - 1
    if as_negative:
        first -= size
    return slice(first, None if last < 0 else last - size if as_negative else last, step)


@st.composite
def _shapes_and_indices(draw):
    shape = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    named = draw(st.integers(0, len(shape)))
    at_end = draw(st.booleans())
    axes = shape[len(shape) - named :] if at_end else shape[:named]
    items = []
    for size in axes:
        if size and draw(st.booleans()):
            items.append(draw(st.integers(-size, size - 1)))
            continue
        start, stop = sorted(draw(st.tuples(*[st.integers(0, size)] * 2)))
        step = draw(st.sampled_from([None, 1, 2, 3, -1, -2, -3]))
        as_negative = draw(st.booleans()) and start
        bounds = slice(start - size if as_negative and size else start, stop, step)
        if step is not None and step < 0:
            bounds = _backward(start, stop, step, size, draw(st.booleans()))
        items.append(bounds)
    if at_end:
        items = [Ellipsis, *items]
    for _ in range(draw(st.integers(0, 2))):
        items.insert(draw(st.integers(0, len(items))), None)
    return shape, tuple(items)


@given(_shapes_and_indices())
def test_indexing_follows_numpy(case):
    shape, index = case
    x = _grid(*shape)
    expected = x.to_numpy()[index]
    assert x[index].shape == list(expected.shape)
    np.testing.assert_array_equal(x[index].to_numpy(), expected)
    np.testing.assert_array_equal(F.slice_tensor(x, list(index)).to_numpy(), expected)


def test_dims_and_numpy_integers():
    x = _grid(5)
    start = Dim(1)
    assert x[start : start + 2].to_numpy().tolist() == [1, 2]
    assert x[Dim(4)].item() == 4
    assert x[np.int64(-1)].item() == 4
    assert x[np.int32(1) : np.int64(3)].shape == [2]


@pytest.mark.parametrize(
    "index",
    [
        slice(0, 1024),
        slice(4, None),
        slice(-5, None),
        slice(None, -4),
        slice(2, 1),
        slice(1, 2, -1),
        slice(3, None, -1),
        slice(None, -4, -1),
        slice(-4, None, -2),
        slice(None, None, 0),
        slice(None, None, 1.5),
        3,
        -4,
        (0, 0),
        (Ellipsis, Ellipsis),
    ],
)
def test_refused_with_value_error(index):
    with pytest.raises(ValueError, match="index: "):
        _grid(3)[index]


def test_bounds_at_the_ends():
    x = _grid(3)
    for index in (slice(0, 0), slice(3, None), slice(3, 3), slice(-3, -3)):
        assert x[index].shape == [0]
    assert x[-3:].shape == [3]


@pytest.mark.parametrize("index", ["a", 1.0, slice("a", None), slice(0, 2.0), np.ones(1)])
def test_refused_with_type_error(index):
    with pytest.raises(TypeError, match="index: "):
        _grid(3)[index]


def test_scalars():
    x = Tensor(5.0)
    assert x[...].item() == 5.0
    assert x[None].shape == [1]
    assert x[()].shape == []
    for index in (0, slice(None)):
        with pytest.raises(ValueError, match="too many items"):
            x[index]


def test_iteration_ends():
    rows = list(_grid(3, 2))
    assert [row.to_numpy().tolist() for row in rows] == [[0, 1], [2, 3], [4, 5]]
    a, b = Tensor([1.0, 2.0])
    assert (a.item(), b.item()) == (1.0, 2.0)
    with pytest.raises(ValueError):
        Tensor([1.0])[1]
    with pytest.raises(IndexError):
        Tensor([1.0])[1]


# ---- tensors as indices ------------------------------------------------------------------------


def test_tensor_indices():
    x = _grid(4, 3)
    one = _scalar(1)
    assert x[one].to_numpy().tolist() == [3, 4, 5]
    assert x[-1, one].item() == 10
    assert x[:, (slice(one, None), "n")].shape == [4, 2]
    assert x[(slice(one, one + 2), 2),].to_numpy().tolist() == [[3, 4, 5], [6, 7, 8]]
    assert x[..., (slice(0, 3, 2), 2)].shape == [4, 2]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (Tensor(1, dtype=DType.int32), "must be int64 on the host"),
        (Tensor(1.0), "must be int64 on the host"),
        ((None, _scalar(1)), "None cannot be combined with"),
        (slice(_scalar(1), None), "needs its size"),
        ((slice(0, 2), slice(_scalar(1), None)), "needs its size"),
        (_scalar(4), "out of range"),
    ],
)
def test_tensor_indices_that_are_refused(index, message):
    with pytest.raises(ValueError, match=message):
        _grid(4, 3)[index]


def test_declared_sizes_are_checked():
    with pytest.raises(ValueError, match="declared size is wrong"):
        _grid(4)[(slice(1, 3), 3),]


def test_tensor_index_on_another_device(emulated_accelerator):
    x = Tensor([1.0, 2.0], device=emulated_accelerator)
    assert x[_scalar(1)].device == emulated_accelerator
    with pytest.raises(ValueError, match="on the host"):
        x[_scalar(1).to(emulated_accelerator)]


@pytest.mark.parametrize("position", [0, 2, -3])
def test_tensor_indices_in_a_graph(position):
    types = [TensorType(F32, ["n", 5], CPU()), TensorType(I64, [], CPU())]
    x = _grid(4, 5)

    def pick(x, i):
        return [
            x[i],
            x[1:, i],
            x[i, i],
            x[0, (slice(i, None), 2)],
            x[:, (slice(i, None, 2), 1)],
            x[(slice(1, 3), 2), i],
        ]

    results = interpreted(pick, types, x, _scalar(position))
    a = x.to_numpy()
    i = position
    start = i % 5
    expected = [a[i], a[1:, i], a[i, i], a[0, start : start + 2], a[:, [start]], a[1:3, i]]
    for found, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(found.to_numpy(), wanted)


def test_declared_size_is_checked_when_the_graph_runs():
    types = [TensorType(F32, [4], CPU()), TensorType(I64, [], CPU())]
    with pytest.raises(IndexError, match="position 4 out of range"):
        interpreted(lambda x, i: x[(slice(i, None), 2),], types, _grid(4), _scalar(-1))


# ---- named sizes -------------------------------------------------------------------------------


def test_named_axes():
    x = _grid(4, 3)
    types = [TensorType(F32, ["n", 3], CPU())]

    def slices(x):
        n = x.shape[0]
        return [x[1:], x[:-1], x[::2], x[-1], x[2], x[None, n - 2 :], x[1 : n - 1, ..., None]]

    results = interpreted(slices, types, x)
    a = x.to_numpy()
    expected = [a[1:], a[:-1], a[::2], a[-1], a[2], a[None, 2:], a[1:3, ..., None]]
    for found, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(found.to_numpy(), wanted)


def test_named_axes_are_checked_when_the_graph_runs():
    types = [TensorType(F32, ["n"], CPU())]
    with pytest.raises(ValueError, match="out of range"):
        interpreted(lambda x: x[5], types, _grid(4))
    with pytest.raises(TypeError):
        interpreted(lambda x: x[1.5:], types, _grid(4))


def test_shape_of_a_named_slice():
    found = []

    def fn(x):
        found.append(x[1:-1].shape)
        return x[1:]

    interpreted(fn, [TensorType(F32, ["n"], CPU())], _grid(4))
    assert found == [[Dim("n") - 2]]
