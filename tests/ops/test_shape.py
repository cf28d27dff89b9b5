"""The public functions that change shapes: results, and every refusal."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import interpreted, tensor
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from maxmod import CPU, Dim, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.runtime.compiled import compile_function
from maxmod.values.device import CPU_REF
from maxmod.values.shape import Shape


def _grid(*shape):
    return Tensor.wrap(
        np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape),
        TensorType.of(DType.float32, shape, CPU_REF),
    )


# ---- reshape and its relatives -----------------------------------------------------------------


@pytest.mark.parametrize("shape", [[4, 6], (-1,), [2, -1], [Dim(24)], np.array([3, 8]).tolist()])
def test_reshape(shape):
    x = _grid(2, 3, 4)
    expected = x.to_numpy().reshape([int(s) for s in shape])
    np.testing.assert_array_equal(F.reshape(x, shape).to_numpy(), expected)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([-1, -1], "at most one size may be -1"),
        ([0, -1], "ambiguous with a size of 0"),
        ([5, 5], "element counts differ"),
        ([7, -1], "element counts differ"),
        ([-2, 12], "must not be negative"),
    ],
)
def test_reshape_refuses(shape, message):
    with pytest.raises(ValueError, match=message):
        F.reshape(_grid(2, 3, 4), shape)


def test_reshape_needs_an_iterable():
    with pytest.raises(TypeError, match="expected an iterable of sizes"):
        F.reshape(_grid(4), 4)


def test_flatten():
    x = _grid(2, 3, 4)
    assert F.flatten(x).shape == [24]
    assert F.flatten(x, 1).shape == [2, 12]
    assert F.flatten(x, 0, -2).shape == [6, 4]
    assert F.flatten(Tensor(1.0)).shape == [1]
    with pytest.raises(IndexError, match="start_dim=3"):
        F.flatten(x, 3)
    with pytest.raises(ValueError, match="lies after"):
        F.flatten(x, 2, 1)


def test_squeeze_and_unsqueeze():
    x = _grid(1, 3)
    assert F.squeeze(x, 0).shape == [3]
    assert F.squeeze(x, -2).shape == [3]
    assert F.unsqueeze(x, 2).shape == [1, 3, 1]
    assert F.unsqueeze(x, -3).shape == [1, 1, 3]
    with pytest.raises(ValueError, match="has size 3, not 1"):
        F.squeeze(x, 1)
    with pytest.raises(IndexError, match="axis=2"):
        F.squeeze(x, 2)
    for axis in (3, -4):
        with pytest.raises(ValueError, match=f"axis={axis}"):
            F.unsqueeze(x, axis)


def test_flip():
    x = tensor(np.arange(24).reshape(2, 3, 4))
    for axis in (None, 0, -1, (0, 2), [1], (), (-1, 0, 1)):
        np.testing.assert_array_equal(F.flip(x, axis).to_numpy(), np.flip(x.to_numpy(), axis))
        assert F.flip(x, axis).to_numpy().flags.c_contiguous
    assert F.flip(Tensor(3.0)).item() == 3
    assert F.flip(x, axis=np.int64(1))[0, 0, 0].item() == 8
    with pytest.raises(IndexError, match="flip: Invalid axis=3"):
        F.flip(x, (0, 3))
    with pytest.raises(ValueError, match=r"flip: axis: an axis occurs twice in \[0, 0\]"):
        F.flip(x, (0, -3))
    with pytest.raises(TypeError, match="flip: axis"):
        F.flip(x, "0")


def test_permute_and_transpose():
    x = _grid(2, 3, 4)
    np.testing.assert_array_equal(
        F.permute(x, [2, -3, 1]).to_numpy(), x.to_numpy().transpose(2, 0, 1)
    )
    np.testing.assert_array_equal(F.transpose(x, 0, -1).to_numpy(), x.to_numpy().swapaxes(0, -1))
    np.testing.assert_array_equal(x.T.to_numpy(), x.to_numpy().swapaxes(-1, -2))
    with pytest.raises(ValueError, match="expected 3 axes"):
        F.permute(x, [0, 1])
    with pytest.raises(IndexError, match="axis=3"):
        F.permute(x, [0, 1, 3])
    with pytest.raises(ValueError, match="occurs twice"):
        F.permute(x, [0, 1, -2])
    with pytest.raises(IndexError, match="axis_2=3"):
        F.transpose(x, 0, 3)


def test_transpose_of_scalars_and_rows():
    scalar = Tensor(1.0)
    assert F.transpose(scalar, -1, 0).shape == []
    assert scalar.T.shape == []
    with pytest.raises(IndexError):
        F.transpose(scalar, 1, 0)
    with pytest.raises(IndexError):
        _ = Tensor([1.0]).T


# ---- broadcasting ------------------------------------------------------------------------------


def test_broadcast_to():
    x = _grid(3, 1)
    np.testing.assert_array_equal(
        F.broadcast_to(x, [2, 3, 4]).to_numpy(), np.broadcast_to(x.to_numpy(), (2, 3, 4))
    )
    for shape in ([3], [2, 4], [3, -1], [4, 1]):
        with pytest.raises(ValueError, match="must be either 1 or equal"):
            F.broadcast_to(x, shape)
    with pytest.raises(TypeError, match=": expected a Tensor, got"):
        F.broadcast_to(1.0, [2])


def test_broadcast_to_a_tensor_of_sizes():
    sizes = Tensor([2, 3], dtype=DType.int64)
    assert F.broadcast_to(Tensor(1.0), sizes, out_dims=["n", 3]).shape == [2, 3]
    with pytest.raises(ValueError, match="needs out_dims"):
        F.broadcast_to(Tensor(1.0), sizes)


@given(arrays.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=4))
def test_broadcasting_follows_numpy(shapes):
    x, y = (np.ones(shape, np.float32) for shape in shapes.input_shapes)
    assert (tensor(x) + tensor(y)).shape == list(shapes.result_shape)


@given(st.lists(st.integers(0, 3), max_size=3), st.lists(st.integers(0, 3), max_size=3))
def test_broadcasting_refuses_the_shapes_that_numpy_refuses(first, second):
    x, y = np.ones(first, np.float32), np.ones(second, np.float32)
    try:
        expected = list(np.broadcast_shapes(tuple(first), tuple(second)))
    except ValueError:
        with pytest.raises(ValueError, match="neither equivalent nor broadcastable"):
            tensor(x) + tensor(y)
    else:
        assert (tensor(x) + tensor(y)).shape == expected


# ---- splitting and joining ---------------------------------------------------------------------


def test_split():
    x = _grid(5, 2)
    for pieces in (F.split(x, [2, 0, 3]), F.split(x, split_sizes=(2, 0, 3))):
        assert [p.shape for p in pieces] == [[2, 2], [0, 2], [3, 2]]
        np.testing.assert_array_equal(pieces[2].to_numpy(), x.to_numpy()[2:])
    assert [p.shape[0] for p in F.split(x, 2)] == [2, 2, 1]
    assert [p.shape[1] for p in x.split(1, axis=-1)] == [1, 1]
    assert F.split(x, []) == []
    for sizes in ([2, 2], [6, -1], [2, 4]):
        with pytest.raises(ValueError, match="add up to the axis"):
            F.split(x, sizes)
    with pytest.raises(ValueError, match="expected a positive size"):
        F.split(x, 0)
    with pytest.raises(IndexError, match="axis=2"):
        F.split(x, 1, axis=2)
    with pytest.raises(TypeError, match="sizes: expected an int"):
        F.split(x, [2.5, 2.5])


def test_chunk():
    x = _grid(6, 2)
    assert [p.shape for p in F.chunk(x, 3)] == [[2, 2]] * 3
    with pytest.raises(ValueError, match="6 elements on axis 0 cannot be cut into 4"):
        F.chunk(x, 4)
    with pytest.raises(ValueError):
        F.chunk(x, 0)
    with pytest.raises(ValueError):
        F.chunk(Tensor(1.0), 1)
    for error in (ValueError, IndexError):
        with pytest.raises(error):
            F.chunk(x, 2, axis=5)


def test_concat():
    x = _grid(2, 3)
    joined = F.concat([x, _grid(2, 1)], axis=1)
    np.testing.assert_array_equal(joined.to_numpy()[:, 3:], _grid(2, 1).to_numpy())
    assert joined.shape == [2, 4]
    for other in (DType.float64, DType.bfloat16, DType.int32, DType.bool):
        with pytest.raises(ValueError, match=r"one dtype: .*Hint: F.concat\(\[x, y.cast\(x.dtype"):
            F.concat([x, x.cast(other)])
    assert F.concat([x, x.cast(DType.float64).cast(x.dtype)]).dtype is x.dtype
    with pytest.raises(ValueError, match="at least one tensor"):
        F.concat([])
    with pytest.raises(ValueError, match="equal sizes outside axis 0"):
        F.concat([x, _grid(2, 2)])
    with pytest.raises(ValueError, match="equal sizes"):
        F.concat([x, _grid(3)])
    with pytest.raises(IndexError):
        F.concat([x, x], axis=2)
    with pytest.raises(TypeError):
        F.concat([x, np.ones((2, 3), np.float32)])


def test_stack():
    x = _grid(2, 3)
    assert F.stack([x, x]).shape == [2, 2, 3]
    assert F.stack([x, x], axis=-1).shape == [2, 3, 2]
    assert F.stack(values=(x,), axis=2).shape == [2, 3, 1]
    with pytest.raises(ValueError, match="at least one tensor"):
        F.stack([])
    with pytest.raises(ValueError, match="one shape and dtype"):
        F.stack([x, x.cast(DType.float64)])
    with pytest.raises(ValueError, match="one shape and dtype"):
        F.stack([x, x.T])
    with pytest.raises(IndexError):
        F.stack([x], axis=3)
    with pytest.raises(TypeError):
        F.stack([x, 1.0])


# ---- complex numbers, devices, assertions ------------------------------------------------------


def test_interleaved_complex():
    x = _grid(2, 4)
    pairs = F.as_interleaved_complex(x)
    assert pairs.shape == [2, 2, 2]
    np.testing.assert_array_equal(pairs.to_numpy(), x.to_numpy().reshape(2, 2, 2))
    with pytest.raises(ValueError, match="odd"):
        F.as_interleaved_complex(_grid(3))
    with pytest.raises(ValueError):
        F.as_interleaved_complex(Tensor(1.0))
    with pytest.raises(TypeError, match="symbolic"):
        interpreted(F.as_interleaved_complex, [TensorType(DType.float32, ["n"], CPU())], _grid(4))


def test_complex_mul():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 1, 2)), rng.normal(size=(4, 2))
    product = (a[..., 0] + 1j * a[..., 1]) * (b[..., 0] + 1j * b[..., 1])
    result = F.complex_mul(tensor(a), tensor(b)).to_numpy()
    np.testing.assert_allclose(result[..., 0] + 1j * result[..., 1], product, rtol=1e-14)
    for bad in (Tensor(1.0), _grid(2, 3)):
        with pytest.raises(ValueError, match=r"expected \[..., 2\]"):
            F.complex_mul(_grid(4, 2), bad)
    with pytest.raises(TypeError):
        F.complex_mul(_grid(4, 2), np.ones(2))


def test_transfer_to(emulated_accelerator):
    x = Tensor([1.0], device=CPU())
    moved = F.transfer_to(x, emulated_accelerator)
    assert moved.device == emulated_accelerator
    assert F.transfer_to(moved, emulated_accelerator) is moved
    assert F.transfer_to(moved, CPU()).to_numpy().tolist() == [1.0]
    with pytest.raises(TypeError, match="expected a Device"):
        F.transfer_to(x, "gpu")


def test_rebind():
    x = _grid(2, 3)
    assert F.rebind(x, [2, 3]).shape == [2, 3]
    assert F.rebind(x, ["a", 3]).shape == [2, 3]
    with pytest.raises(ValueError, match=r"cannot have the shape \[2,4\]. Wrong."):
        F.rebind(x, [2, 4], "Wrong.")
    with pytest.raises(ValueError):
        F.rebind(x, [2])


def test_rebind_is_checked_when_a_graph_runs():
    types = [TensorType(DType.float32, ["n", 3], CPU()), TensorType(DType.float32, ["m", 3], CPU())]

    def add(x, y):
        return x + F.rebind(y, ["n", 3])

    (result,) = interpreted(add, types, _grid(2, 3), _grid(2, 3))
    np.testing.assert_array_equal(result.to_numpy(), 2 * _grid(2, 3).to_numpy())
    with pytest.raises(ValueError, match=r"rebind: expected \[2,3\], got \[4,3\]"):
        interpreted(add, types, _grid(2, 3), _grid(4, 3))


def test_shape_to_tensor():
    sizes = F.shape_to_tensor(_grid(2, 3).shape)
    assert sizes.dtype is DType.int64
    assert sizes.to_numpy().tolist() == [2, 3]
    assert F.shape_to_tensor([]).shape == [0]
    assert (Tensor([1, 1], dtype=DType.int64) + Shape([4, 5])).to_numpy().tolist() == [5, 6]
    type = TensorType(DType.float32, ["n", 3], CPU())
    (traced,) = interpreted(lambda x: F.shape_to_tensor(x.shape), [type], _grid(2, 3))
    assert traced.to_numpy().tolist() == [2, 3]


def test_tile_by_sizes_that_are_names():
    def fn(x, like):
        rows, _ = like.shape
        return F.tile(x, [rows, Dim(2)]) + 0 * F.tile(like, [1, 2])[:, :4]

    model = compile_function(
        fn,
        [TensorType(DType.float32, shape, CPU_REF) for shape in ([1, 2], ["batch", 2])],
        name="f",
        parameters={},
    )
    assert [t.short() for t in model.out_layouts] == ["float32[batch,4]"]
    x = np.array([[1, 2]], np.float32)
    for batch in (3, 1, 0):
        found = model(x, np.zeros((batch, 2), np.float32))
        np.testing.assert_array_equal(found.to_numpy(), np.tile(x, [batch, 2]))
    with pytest.raises(ValueError, match="not known outside of a trace"):
        F.tile(Tensor([[1.0]]), ["batch", 1])


def test_repeat_no_times():
    x = tensor(np.arange(6).reshape(2, 3))
    assert F.repeat_interleave(x, 0).shape == [0]
    assert F.repeat_interleave(x, 0, axis=1).shape == [2, 0]
    with pytest.raises(ValueError, match="expected an int that is not negative, got -1"):
        F.repeat_interleave(x, -1)
