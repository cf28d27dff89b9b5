"""Rules of `maxmod.functional` that its tables of samples do not state: names, forms, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from api.proving import named, proves

import maxmod
from maxmod import CPU, BufferType, DeviceRef, Dim, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.graph import ConvInputLayout, FilterLayout, Graph, InterpolationMode, ops
from maxmod.runtime.compiled import compile_function

X = Tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
I = Tensor([[1, 2, 3]], dtype=DType.int32)  # noqa: E741
B = Tensor([True, False], dtype=DType.bool)


def listed(x: Any) -> Any:
    """The elements of a tensor, or of a list of tensors."""
    return [listed(t) for t in x] if isinstance(x, list) else x.to_numpy().tolist()


def compiled(fn: Callable[..., Any], *args: Tensor) -> Any:
    """The result of the compiled function."""
    types = [TensorType(a.dtype, [f"d{i}" for i in range(a.rank)], a.device) for a in args]
    return compile_function(fn, types, name="case", parameters={})(*args)


FLOAT_FUNCTIONS = named("F", "exp log log1p sqrt rsqrt sin cos tanh atanh erf acos")


@proves(*FLOAT_FUNCTIONS)
def functions_of_floats_refuse_integers() -> None:
    for name in FLOAT_FUNCTIONS:
        fn = getattr(F, name.removeprefix("F."))
        assert fn(X).type == X.type
        assert fn(Tensor.zeros([0, 2])).shape == [0, 2]
        with pytest.raises(ValueError, match="float"):
            fn(I)
        with pytest.raises(TypeError, match=": expected a Tensor, got"):
            fn(1.0)
    assert np.isnan(F.log(Tensor(-1.0)).item())
    assert F.acos(Tensor([2.0, -2.0])).to_numpy().tolist() == pytest.approx([0, np.pi])


@proves("F.abs", "F.negate", "F.floor", "F.trunc", "F.round", "F.ceil", "F.relu")
def signs_and_rounding() -> None:
    assert listed(F.abs(I - 2)) == [[1, 0, 1]]
    assert listed(F.negate(I)) == [[-1, -2, -3]]
    for wrong in (B, I.cast(DType.uint8)):
        with pytest.raises(ValueError):
            F.negate(wrong)
    half = Tensor([2.5, -2.5, 0.5, 1.5])
    assert listed(F.round(half)) == [2, -2, 0, 2]
    assert listed(F.floor(half)) == [2, -3, 0, 1]
    assert listed(F.trunc(half)) == [2, -2, 0, 1]
    assert listed(F.ceil(half)) == [3, -2, 1, 2]
    assert listed(F.relu(X)) == [[1, 0, 3], [4, 5, 0]]
    assert listed(F.relu(I - 2)) == [[0, 0, 1]]
    assert np.isnan(F.relu(Tensor(float("nan"))).item())


@proves("F.gelu", "F.sigmoid", "F.silu")
def activations() -> None:
    x = np.array([-1.5, 0.0, 2.0])
    quick = x / (1 + np.exp(-1.702 * x))
    assert F.gelu(Tensor(x), approximate="quick").to_numpy() == pytest.approx(quick)
    with pytest.raises(ValueError, match="Invalid approximation method"):
        F.gelu(X, approximate="exact")
    half = Tensor(x.astype(np.float16))
    wanted = (x.astype(np.float32) / (1 + np.exp(-x.astype(np.float32)))).astype(np.float16)
    assert F.silu(half).dtype is DType.float16
    np.testing.assert_allclose(F.silu(half).to_numpy(), wanted, rtol=1e-3)
    np.testing.assert_allclose(F.sigmoid(Tensor(x)).to_numpy(), 1 / (1 + np.exp(-x)))


@proves("F.is_nan", "F.is_inf", "F.logical_not")
def predicates() -> None:
    x = Tensor([float("nan"), float("inf"), -float("inf"), 1.0])
    assert listed(F.is_nan(x)) == [True, False, False, False]
    assert listed(F.is_inf(x)) == [False, True, True, False]
    assert listed(F.is_nan(I)) == listed(F.is_inf(I)) == [[False, False, False]]
    assert listed(F.logical_not(B)) == [False, True]
    with pytest.raises(ValueError):
        F.logical_not(I)


@proves("F.cast")
def casts() -> None:
    assert listed(F.cast(Tensor([1.9, -1.9]), DType.int32)) == [1, -1]
    assert listed(F.cast(Tensor([300, -1], dtype=DType.int32), DType.uint8)) == [44, 255]
    assert listed(F.cast(Tensor([0.0, 0.5]), DType.bool)) == [False, True]
    assert listed(F.cast(B, DType.float32)) == [1, 0]
    assert F.cast(X, DType.bfloat16).dtype is DType.bfloat16


@proves("F.softmax", "F.logsoftmax")
def softmax_along_any_axis() -> None:
    for axis in (-1, 0, 1, -2):
        found = F.softmax(value=X, axis=axis).to_numpy()
        assert found.sum(axis) == pytest.approx(np.ones(found.shape[1 - axis % 2]))
        np.testing.assert_allclose(F.logsoftmax(X, axis).to_numpy(), np.log(found), atol=1e-6)
    with pytest.raises(ValueError):
        F.softmax(X, 2)
    with pytest.raises(ValueError):
        F.softmax(I)


@proves("F.add", "F.sub", "F.mul", "F.div", "F.mod", "F.pow", "F.floor_div")
def arithmetic() -> None:
    one = Tensor([7, -7], dtype=DType.int32)
    assert F.div(one, 2).dtype is DType.float64
    assert listed(F.div(one, 2)) == [3.5, -3.5]
    assert listed(F.floor_div(one, 2)) == [3, -4]
    assert F.floor_div(one, 2).dtype is DType.int32
    assert listed(F.mod(one, 4)) == [3, 1]
    assert listed(F.pow(one, 2)) == [49, 49]
    assert listed(F.pow(X[0], 2)) == [1, 4, 9]
    assert listed(F.div(Tensor([1.0, 0.0]), 0)) == [
        float("inf"),
        pytest.approx(np.nan, nan_ok=True),
    ]
    assert listed(F.add(Tensor([127], dtype=DType.int8), 1)) == [-128]
    assert listed(F.mul(Tensor([2], dtype=DType.uint8), 200)) == [144]
    assert listed(F.sub(1, X[0])) == [0, 3, -2]
    for fn in (F.add, F.sub, F.mul):
        with pytest.raises(ValueError):
            fn(B, B)
        with pytest.raises(TypeError, match="expected at least one Tensor, got"):
            fn(1, 2)
    for fn in (F.pow, F.div):
        with pytest.raises(ValueError, match="Can't promote python float"):
            fn(one, 0.5)
    with pytest.raises(ValueError, match="neither equivalent nor broadcastable"):
        F.add(X, Tensor([1.0, 2.0]))


@proves("F.equal", "F.not_equal", "F.greater", "F.greater_equal")
def comparisons() -> None:
    nan = Tensor([float("nan"), 1.0])
    assert listed(F.equal(nan, nan)) == [False, True]
    assert listed(F.not_equal(nan, nan)) == [True, False]
    assert listed(F.greater(nan, 0.5)) == [False, True]
    assert listed(F.greater_equal(nan, 1)) == [False, True]
    assert F.equal(X, Tensor([[1.0], [4.0]])).shape == [2, 3]
    for missing in ("less", "less_equal"):
        assert not hasattr(F, missing)


@proves("F.logical_and", "F.logical_or", "F.logical_xor")
def logic() -> None:
    other = Tensor([True, True], dtype=DType.bool)
    assert listed(F.logical_and(B, other)) == [True, False]
    assert listed(F.logical_or(B, False)) == [True, False]
    assert listed(F.logical_xor(B, 1)) == [False, True]
    for fn in (F.logical_and, F.logical_or, F.logical_xor):
        with pytest.raises(ValueError):
            fn(I, I)


@proves("F.max", "F.min", "F.elementwise_max", "F.elementwise_min", "F.prod", "F.sum", "F.mean")
def reductions() -> None:
    assert listed(F.max(X)) == [[3], [5]]
    assert listed(F.max(X, 0)) == [[1, 0, 3], [4, 5, 0]]
    assert listed(F.min(X, axis=0)) == [[1, -2, -6]]
    with pytest.raises(ValueError):
        F.max(X, X, axis=0)
    assert listed(F.elementwise_max(X, 2)) == listed(F.max(X, 2))
    assert listed(F.elementwise_min(X, 2)) == listed(F.min(X, 2))
    assert np.isnan(F.max(Tensor([1.0, float("nan")])).item())
    for fn in (F.sum, F.mean, F.prod, F.max, F.min):
        assert fn(X, axis=None).shape == [1]
        assert fn(I).dtype is DType.int32
        with pytest.raises(ValueError, match=r"Invalid axis=2 for input x.rank=2"):
            fn(X, axis=2)
        with pytest.raises(ValueError):
            fn(Tensor(1.0))
    assert F.mean(Tensor([3, -4], dtype=DType.int32)).item() == 0
    assert F.sum(Tensor([200, 100], dtype=DType.uint8)).item() == 44


@proves("F.argmax", "F.argmin", "F.cumsum")
def positions_and_running_sums() -> None:
    ties = Tensor([3.0, 1.0, 3.0, 1.0])
    assert F.argmax(ties).type == TensorType(DType.int64, [1], CPU())
    assert (F.argmax(ties).item(), F.argmin(ties).item()) == (0, 1)
    assert F.argmax(X, axis=None).item() == 4
    row = Tensor([1.0, 2.0, 3.0])
    assert listed(F.cumsum(row, exclusive=True)) == [0, 1, 3]
    assert listed(F.cumsum(row, reverse=True)) == [6, 5, 3]
    assert listed(F.cumsum(row, exclusive=True, reverse=True)) == [5, 3, 0]
    with pytest.raises(ValueError):
        F.cumsum(row, 1)


@proves("F.clamp", "F.clip", "F.where")
def choices() -> None:
    assert F.clip is F.clamp
    assert listed(F.clamp(X, 2, -1)) == [[2, 2, 2], [2, 2, 2]]
    assert listed(F.clamp(X, -1, 3)) == [[1, -1, 3], [3, 3, -1]]
    assert listed(F.where(X > 0, X, 0)) == [[1, 0, 3], [4, 5, 0]]
    assert listed(F.where(cond=X > 0, x=X, y=0)) == [[1, 0, 3], [4, 5, 0]]
    for both in ({"condition": X > 0, "cond": X > 0}, {}):
        with pytest.raises(TypeError, match="exactly one of condition and cond"):
            F.where(x=X, y=0, **both)  # type: ignore[arg-type]
    assert listed(F.where(condition=B, x=Tensor([1.0, 2.0]), y=Tensor([[3.0], [4.0]]))) == [
        [1, 3],
        [1, 4],
    ]
    with pytest.raises(TypeError):
        F.where(B, 1, 0)
    with pytest.raises(ValueError):
        F.where(I, X[:1], X[:1])


@proves("F.complex_mul", "F.outer", "F.as_interleaved_complex")
def pairs() -> None:
    a, b = Tensor([[1.0, 2.0]]), Tensor([[3.0, -1.0], [0.0, 1.0]])
    assert listed(F.complex_mul(a, b)) == [[5, 5], [-2, 1]]
    with pytest.raises(ValueError):
        F.complex_mul(X, X)
    assert listed(F.outer(Tensor([1.0, 2.0]), Tensor([3.0, 4.0, 5.0]))) == [[3, 4, 5], [6, 8, 10]]
    with pytest.raises(ValueError):
        F.outer(X, X)
    assert F.as_interleaved_complex(Tensor.zeros([3, 6])).shape == [3, 3, 2]
    with pytest.raises(ValueError):
        F.as_interleaved_complex(X)
    with pytest.raises(TypeError):
        compiled(F.as_interleaved_complex, X)


@proves("F.matmul", "F.band_part", "F.layer_norm", "F.rms_norm", "F.group_norm")
def products_and_norms() -> None:
    assert F.matmul(X, Tensor.ones([3])).shape == [2]
    assert F.matmul(Tensor.ones([2]), X).shape == [3]
    assert F.matmul(Tensor.ones([5, 1, 2, 3]), Tensor.ones([4, 3, 2])).shape == [5, 4, 2, 2]
    for wrong in (Tensor(1.0), Tensor.ones([2, 2])):
        with pytest.raises(ValueError):
            F.matmul(X, wrong)
    with pytest.raises(TypeError):
        F.matmul(X, np.ones((3, 2), np.float32))
    square = Tensor.ones([2, 3, 3])
    assert listed(F.band_part(square, None, 0)[0]) == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert listed(F.band_part(square, -1, 0, exclude=True)[1]) == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    for bad in ((-2, 0), (3, 0), (0, 3)):
        with pytest.raises(ValueError):
            F.band_part(square, *bad)
    with pytest.raises(ValueError):
        F.band_part(Tensor([1.0]), 0, 0)
    one, zero = Tensor.ones([3]), Tensor.zeros([3])
    found = F.layer_norm(X, gamma=one, beta=zero, epsilon=1e-5).to_numpy()
    assert found.mean(-1) == pytest.approx([0, 0], abs=1e-6)
    for arguments in ((one, zero, 0.0), (Tensor.ones([2]), zero, 1e-5), (one, X, 1e-5)):
        with pytest.raises(ValueError):
            F.layer_norm(X, *arguments)
    assert F.rms_norm(X, one, 1e-6, weight_offset=1.0).shape == [2, 3]
    with pytest.raises(ValueError):
        F.rms_norm(X, Tensor.ones([2]), 1e-6)
    image = Tensor.ones([1, 4, 2])
    assert listed(F.group_norm(image, Tensor.ones([4]), Tensor.ones([4]), 2, 1e-5))[0][0] == [1, 1]
    with pytest.raises(ValueError):
        F.group_norm(Tensor.ones([4]), Tensor.ones([4]), Tensor.ones([4]), 2, 1e-5)


@proves("F.reshape", "F.flatten", "F.squeeze", "F.unsqueeze", "F.permute", "F.transpose")
def shapes() -> None:
    assert F.reshape(X, [3, -1]).shape == [3, 2]
    assert F.reshape(X, (Dim(6),)).shape == [6]
    for wrong in ([-1, -1], [4], [0, -1], [5, -1]):
        with pytest.raises(ValueError):
            F.reshape(X, wrong)
    cube = Tensor.zeros([2, 3, 4])
    assert F.flatten(cube, 1).shape == [2, 12]
    assert F.flatten(Tensor(1.0)).shape == [1]
    with pytest.raises(IndexError):
        F.flatten(cube, 3)
    with pytest.raises(ValueError):
        F.flatten(cube, 2, 1)
    assert F.squeeze(Tensor.zeros([2, 1]), -1).shape == [2]
    with pytest.raises(ValueError):
        F.squeeze(X, 0)
    with pytest.raises(IndexError):
        F.squeeze(X, 2)
    assert [F.unsqueeze(X, axis).shape for axis in (-3, 2)] == [[1, 2, 3], [2, 3, 1]]
    for axis in (3, -4):
        with pytest.raises(ValueError):
            F.unsqueeze(X, axis)
    assert F.permute(cube, [2, 0, -2]).shape == [4, 2, 3]
    with pytest.raises(ValueError):
        F.permute(cube, [0, 1])
    with pytest.raises(IndexError):
        F.permute(cube, [0, 1, 3])
    with pytest.raises(ValueError):
        F.permute(cube, [0, 1, 1])
    assert F.transpose(cube, 0, -1).shape == [4, 3, 2]
    with pytest.raises(IndexError):
        F.transpose(cube, 0, 3)
    scalar = Tensor(2.0)
    assert F.transpose(scalar, -1, 0).item() == 2


@proves("F.broadcast_to", "F.concat", "F.stack", "F.split", "F.chunk")
def joining_and_cutting() -> None:
    assert F.broadcast_to(X, [4, 2, 3]).shape == [4, 2, 3]
    with pytest.raises(ValueError, match="must be either 1 or equal"):
        F.broadcast_to(X, [4, 3])
    with pytest.raises(ValueError):
        F.broadcast_to(X, Tensor([4, 2, 3], dtype=DType.int64))
    assert F.concat([X, X], axis=-1).shape == [2, 6]
    with pytest.raises(ValueError, match="one dtype"):
        F.concat([Tensor([1.0]), Tensor([1], dtype=DType.int8)])
    for values in ([], [X, Tensor([1.0])], [X, Tensor.zeros([2, 2])]):
        with pytest.raises(ValueError):
            F.concat(values)
    with pytest.raises(IndexError):
        F.concat([X], axis=2)
    assert F.stack([X, X], axis=2).shape == [2, 3, 2]
    for values in ([], [X, X[0]], [X, X.cast(DType.float64)]):
        with pytest.raises(ValueError):
            F.stack(values)
    with pytest.raises(IndexError):
        F.stack([X], axis=3)
    assert [p.shape for p in F.split(X, [1, 0, 2], axis=1)] == [[2, 1], [2, 0], [2, 2]]
    assert [p.shape for p in F.split(X, 2, axis=1)] == [[2, 2], [2, 1]]
    assert F.split(Tensor.zeros([0]), []) == []
    for sizes in ([1, 1], [4, -1]):
        with pytest.raises(ValueError):
            F.split(X, sizes, axis=1)
    with pytest.raises(IndexError):
        F.split(X, [2], axis=2)
    with pytest.raises(TypeError):
        compiled(lambda x: F.split(x, 2), X)
    assert len(F.chunk(X, 3, axis=1)) == 3
    for axis in (2, -3):
        with pytest.raises(ValueError):
            F.chunk(X, 1, axis=axis)
        with pytest.raises(IndexError):
            F.chunk(X, 1, axis=axis)
    with pytest.raises(ValueError):
        F.chunk(X, 2, axis=1)
    with pytest.raises(ValueError):
        F.chunk(Tensor(1.0), 1)


@proves("F.tile", "F.repeat_interleave", "F.pad", "F.slice_tensor")
def growing() -> None:
    assert F.tile(X, [2, 1]).shape == [4, 3]
    for repeats in ([2], [0, 1]):
        with pytest.raises(ValueError):
            F.tile(X, repeats)
    assert listed(F.repeat_interleave(Tensor([1.0, 2.0]), 2)) == [1, 1, 2, 2]
    counts = Tensor([0, 3], dtype=DType.int64)
    assert listed(F.repeat_interleave(Tensor([1.0, 2.0]), counts, 0, out_dim=3)) == [2, 2, 2]
    assert F.repeat_interleave(Tensor([1.0, 2.0]), 0).shape == [0]
    for arguments in ((-1,), (counts, 0), (1, 5)):
        with pytest.raises(ValueError):
            F.repeat_interleave(Tensor([1.0, 2.0]), *arguments)
    row = Tensor([1.0, 2.0, 3.0])
    assert listed(F.pad(row, [1, 2], value=9)) == [9, 1, 2, 3, 9, 9]
    assert listed(F.pad(row, [2, 0], mode="reflect")) == [3, 2, 1, 2, 3]
    assert listed(F.pad(row, [0, 1], mode="edge")) == [1, 2, 3, 3]
    assert F.pad(X, [1, 0, 0, 2]).shape == [3, 5]
    for arguments in (([-1, 0],), ([1],), ([1, 1], "wrap"), ([1, 1], "constant", "x")):
        with pytest.raises(ValueError):
            F.pad(row, *arguments)
    with pytest.raises(AssertionError):
        F.pad(row, [1])
    assert listed(F.slice_tensor(X, [0, slice(1, None)])) == [-2, 3]


@proves("F.rebind", "F.shape_to_tensor", "F.transfer_to")
def assertions_and_places() -> None:
    assert F.rebind(X, [2, 3]).shape == [2, 3]
    for wrong in ([3, 3], [6]):
        with pytest.raises(ValueError):
            F.rebind(X, wrong, message="because")
    assert listed(F.shape_to_tensor(X.shape)) == [2, 3]
    assert F.shape_to_tensor([1]).type == TensorType(DType.int64, [1], CPU())
    assert F.transfer_to(X, DeviceRef.CPU()) is X


@proves("F.constant", "F.constant_external", "F.range", "F.arange", "F.hann_window")
def sources() -> None:
    assert listed(F.constant(3, DType.int32, CPU())) == 3
    assert F.constant(np.array([1, 2])).dtype is DType.int64
    with pytest.raises(ValueError):
        F.constant(np.array([1, 2]), DType.float32)
    external = F.constant_external("w", TensorType(DType.float32, [2], CPU()))
    assert external.shape == [2]
    with pytest.raises(TypeError):
        external.item()
    with pytest.raises(TypeError):
        F.constant_external("w", "float32")
    assert F.range is F.arange
    kind: dict[str, Any] = {"dtype": DType.int32, "device": CPU()}
    assert listed(F.range(0, 5, 2, **kind)) == [0, 2, 4]
    assert listed(F.arange(5, 0, -2, **kind)) == [5, 3, 1]
    assert F.arange(3, 1, **kind).shape == [0]
    assert F.arange(0, 5, 2, out_dim=3, **kind).shape == [3]
    for arguments in ((0, 5, 0), (0, 5, 2, 4)):
        with pytest.raises(ValueError):
            F.arange(*arguments, **kind)
    with pytest.raises(ValueError):
        F.range(0, 1000, dtype=DType.bfloat16, device=CPU())
    with pytest.raises(ValueError):
        F.arange(0, Tensor(3, dtype=DType.int64), **kind)
    assert F.hann_window(4, CPU()).to_numpy() == pytest.approx([0, 0.5, 1, 0.5])
    assert F.hann_window(3, device=CPU(), periodic=False).to_numpy() == pytest.approx([0, 1, 0])
    assert [F.hann_window(n, CPU()).shape for n in (0, 1)] == [[0], [1]]
    with pytest.raises(TypeError):
        F.hann_window(2.0, CPU())
    with pytest.raises(ValueError):
        F.hann_window(-1, CPU())
    with pytest.raises(ValueError):
        F.hann_window(1000, CPU(), dtype=DType.bfloat16)


@proves(*named("F", "full ones zeros full_like ones_like zeros_like"))
def fills() -> None:
    assert F.full([], 2).item() == 2
    assert F.full([2, 0], True, dtype=DType.bool).type == TensorType(DType.bool, [2, 0], CPU())
    assert listed(F.ones([2], dtype=DType.int8, device=CPU())) == [1, 1]
    assert listed(F.zeros((1,))) == [0]
    for like in (I, I.type):
        assert listed(F.full_like(like, 7)) == [[7, 7, 7]]
        assert F.ones_like(like).type == F.zeros_like(like).type == I.type


@proves(*named("F", "uniform gaussian normal uniform_like gaussian_like normal_like"))
def random_functions() -> None:
    maxmod.random.set_seed(1)
    a = F.uniform([1000], (2, 3))
    assert 2 <= a.to_numpy().min() <= a.to_numpy().max() < 3
    assert F.normal([2], mean=5.0, std=0.0).to_numpy().tolist() == [5, 5]
    same = []
    for fn in (F.normal, F.gaussian):
        maxmod.random.set_seed(2)
        same.append(listed(fn([3], mean=1.0, std=2.0)))
    assert same[0] == same[1]
    assert F.gaussian([3]).type == TensorType(DType.float32, [3], CPU())
    for like in (I, I.type):
        for fn in (F.uniform_like, F.gaussian_like, F.normal_like):
            assert fn(like).type == I.type


@proves("F.gather", "F.gather_nd", "F.scatter", "F.scatter_nd")
def picking_and_placing() -> None:
    where = Tensor([0, -1], dtype=DType.int64)
    assert F.gather(X, where, axis=1).shape == [2, 2]
    with pytest.raises(TypeError):
        F.gather(X, where)
    with pytest.raises(IndexError):
        F.gather(X, where, axis=2)
    with pytest.raises(ValueError):
        F.gather(X, X, axis=0)
    with pytest.raises(IndexError):
        F.gather(X, Tensor([3], dtype=DType.int64), axis=1)
    assert listed(F.gather_nd(X, Tensor([[1, 2]], dtype=DType.int64))) == [-6]
    for bad in (-1, 1):
        with pytest.raises(ValueError):
            F.gather_nd(X, Tensor([[1]], dtype=DType.int64), batch_dims=bad)
    ones = Tensor.ones([2, 1])
    at = Tensor([[1], [0]], dtype=DType.int64)
    assert listed(F.scatter(X, ones, at)) == [[1, 1, 3], [1, 5, -6]]
    assert listed(F.scatter_nd(X, Tensor([[7.0] * 3]), Tensor([[1]], dtype=DType.int64)))[1] == [
        7,
        7,
        7,
    ]
    for fn in (lambda u, i: F.scatter(X, u, i), lambda u, i: F.scatter_nd(X, u, i)):
        with pytest.raises(ValueError):
            fn(ones.cast(DType.float64), at)
        with pytest.raises(ValueError):
            fn(ones, at.cast(DType.int8))
    with pytest.raises(ValueError):
        F.scatter(X, ones, at, axis=2)


_COMBINED = [f"scatter{nd}_{how}" for nd in ("", "_nd") for how in ("add", "max", "min", "mul")]


@proves(*(f"F.{name}" for name in _COMBINED))
def combining() -> None:
    base = Tensor([2.0, 3.0])
    results = {"add": [2, 10], "max": [2, 4], "min": [2, 3], "mul": [2, 36]}
    for how, wanted in results.items():
        updates, at = Tensor([3.0, 4.0]), Tensor([1, 1], dtype=DType.int32)
        assert listed(getattr(F, f"scatter_{how}")(base, updates, at)) == wanted
        rows = at.reshape([2, 1])
        assert listed(getattr(F, f"scatter_nd_{how}")(base, updates, rows)) == wanted
    assert listed(base) == [2, 3]


@proves("F.masked_scatter", "F.nonzero", "F.argsort", "F.top_k", "F.bottom_k")
def data_decides() -> None:
    mask = np.array([[True, False, True]])
    found = F.masked_scatter(X, mask, Tensor([7.0, 8.0, 9.0, 10.0]), 4)
    assert listed(found) == [[7, -2, 8], [9, 5, 10]]
    assert listed(F.masked_scatter(X, False, Tensor([0.0])[:0], "k")) == listed(X)
    for updates, count in ((Tensor([7.0]), 4), (Tensor([7.0] * 4), 3), (X.cast(DType.float64), 4)):
        with pytest.raises(ValueError):
            F.masked_scatter(X, mask, updates, count)
    assert listed(F.nonzero(X > 2, "k")) == [[0, 2], [1, 0], [1, 1]]
    with pytest.raises(ValueError):
        F.nonzero(X, 2)
    with pytest.raises(ValueError):
        F.nonzero(Tensor(1.0), "k")
    row = Tensor([3.0, 1.0, 2.0])
    assert listed(F.argsort(row, ascending=False)) == [0, 2, 1]
    with pytest.raises(ValueError):
        F.argsort(X)
    top = F.top_k(X, 2)
    assert isinstance(top, list)
    assert listed(top[0]) == [[3, 1], [5, 4]]
    assert listed(F.bottom_k(X, 1, axis=0)[1]) == [[0, 0, 1]]
    assert listed(F.top_k(Tensor([1.0, 1.0]), 1)[1]) == [0]
    with pytest.raises(ValueError):
        F.top_k(X, 4)
    assert F.top_k(X, 0)[0].shape == [2, 0]


@proves("F.buffer_store", "F.buffer_store_slice")
def stores() -> None:
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    alias = np.from_dlpack(x)
    assert F.buffer_store(x, x * 2) is None
    assert alias.tolist() == [[2, 4], [6, 8]]
    assert F.buffer_store_slice(x, Tensor([0.0, 0.0]), [1]) is None
    assert alias.tolist() == [[2, 4], [0, 0]]
    for source in (Tensor(1.0), Tensor([1.0, 2.0]).cast(DType.float64)):
        with pytest.raises(ValueError):
            F.buffer_store(x, source)
    with pytest.raises(ValueError):
        F.buffer_store_slice(x, Tensor([[1.0]]), [0])
    with pytest.raises(IndexError):
        F.buffer_store_slice(x, Tensor([1.0, 2.0]), [2])
    grown = BufferType(DType.float32, ["n"], CPU())
    fn = compile_function(lambda b: F.buffer_store(b, b + 1), [grown], name="f", parameters={})
    target = Tensor([1.0, 2.0])
    fn(target)
    assert listed(target) == [2, 3]


@proves("F.non_maximum_suppression", "F.roi_align")
def boxes() -> None:
    corners = Tensor([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9], [2.0, 2.0, 3.0, 3.0]]])
    scores = Tensor([[[0.5, 0.9, 0.8]]])
    limits = Tensor(5, dtype=DType.int64), Tensor(0.5), Tensor(0.1)
    assert listed(F.non_maximum_suppression(corners, scores, *limits)) == [[0, 0, 1], [0, 0, 2]]
    with pytest.raises(TypeError):
        F.non_maximum_suppression(corners, scores, 5, 0.5, 0.1)
    image = Tensor.ones([1, 4, 4, 1])
    rois = Tensor([[0.0, 0.0, 0.0, 3.0, 3.0]])
    assert listed(F.roi_align(image, rois, 1, 1)) == [[[[1]]]]
    with pytest.raises(ValueError):
        F.roi_align(image, rois, 1, 1, mode="SUM")
    with pytest.raises(ValueError):
        F.roi_align(X, rois, 1, 1)


@proves("F.conv2d", "F.conv3d", "F.conv2d_transpose")
def convolutions() -> None:
    x, w = Tensor.ones([1, 5, 5, 2]), Tensor.ones([3, 3, 2, 4])
    assert F.conv2d(x, w, stride=(2, 1), padding=(1, 1, 0, 0)).shape == [1, 3, 3, 4]
    fcrs = F.permute(w, [3, 2, 0, 1])
    found = F.conv2d(
        F.permute(x, [0, 3, 1, 2]),
        fcrs,
        bias=Tensor.ones([4]),
        input_layout=ConvInputLayout.NCHW,
        filter_layout=FilterLayout.FCRS,
    )
    assert found.shape == [1, 4, 3, 3]
    assert found.to_numpy().max() == 19
    for arguments in ((X, w), (x, X), (x, Tensor.ones([3, 3, 3, 4]))):
        with pytest.raises(ValueError):
            F.conv2d(*arguments)
    with pytest.raises(ValueError):
        F.conv2d(x, w, bias=X)
    cube = F.conv3d(Tensor.ones([1, 3, 3, 3, 1]), Tensor.ones([2, 2, 2, 1, 1]))
    assert cube.shape == [1, 2, 2, 2, 1]
    up = F.conv2d_transpose(Tensor.ones([1, 2, 2, 3]), Tensor.ones([2, 2, 4, 3]), stride=(2, 2))
    assert up.shape == [1, 4, 4, 4]
    with pytest.raises(ValueError):
        F.conv2d_transpose(
            Tensor.ones([1, 2, 2, 3]), Tensor.ones([2, 2, 4, 3]), output_paddings=(1, 0)
        )


@proves("F.avg_pool2d", "F.max_pool2d", "F.fold")
def pools() -> None:
    x = F.reshape(Tensor.arange(16), [1, 4, 4, 1])
    assert F.max_pool2d(x, (2, 2)).shape == [1, 3, 3, 1]
    assert F.max_pool2d(x, (2, 2), stride=2).shape == [1, 2, 2, 1]
    padded = F.avg_pool2d(x, (2, 2), stride=2, padding=1)
    assert padded.to_numpy()[0, 0, 0, 0] == 0
    inside = F.avg_pool2d(x, (2, 2), stride=2, padding=1, count_boundary=False)
    assert inside.to_numpy()[0, 2, 2, 0] == 15
    assert F.avg_pool2d(x, (3, 3), stride=2, ceil_mode=True).shape == [1, 2, 2, 1]
    folded = F.fold(Tensor.ones([1, 4, 4]), (3, 3), (2, 2))
    assert listed(folded)[0][0] == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    for shape in ([1, 3, 4], [1, 4, 5]):
        with pytest.raises(ValueError):
            F.fold(Tensor.ones(shape), (3, 3), (2, 2))


@proves("F.resize", "F.resize_linear", "F.resize_nearest", "F.resize_bicubic", "F.irfft")
def resampling() -> None:
    image = Tensor.ones([1, 1, 2, 2])
    for mode in (InterpolationMode.NEAREST, InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
        assert F.resize(image, [1, 1, 4, 3], mode).shape == [1, 1, 4, 3]
    assert F.resize(image, [1, 1, 4, 3]).to_numpy().min() == 1
    with pytest.raises(ValueError):
        F.resize(X, [4, 4])
    with pytest.raises(ValueError):
        F.resize(image, [4, 4])
    row = Tensor([0.0, 2.0])
    assert listed(F.resize_linear(row, [3], 1)) == [0, 1, 2]
    assert listed(F.resize_nearest(row, [4], 2, 2)) == [0, 0, 2, 2]
    assert F.resize_bicubic(image, [1, 1, 3, 3]).shape == [1, 1, 3, 3]
    with pytest.raises(ValueError):
        F.resize_linear(row, [3], 4)
    with pytest.raises(ValueError):
        F.resize_nearest(row, [3], 0, 4)
    signal = np.array([1.0, -2.0, 3.0, 0.5], np.float32)
    pair = np.fft.rfft(signal)
    spectrum = Tensor(np.stack([pair.real, pair.imag], -1).astype(np.float32))
    found = F.irfft(spectrum, n=4, axis=0, input_is_complex=True)
    np.testing.assert_allclose(found.to_numpy(), signal, atol=1e-6)
    flat = Tensor(pair.real.astype(np.float32))
    np.testing.assert_allclose(
        F.irfft(flat, normalization="forward").to_numpy(),
        np.fft.irfft(pair.real, norm="forward"),
        atol=1e-5,
    )
    with pytest.raises(ValueError):
        F.irfft(flat, normalization="none")
    with pytest.raises(ValueError):
        F.irfft(flat.cast(DType.float64))


@proves("F.cond", "F.while_loop", "F.side_stream", "F.print")
def control() -> None:
    def fn(x: Tensor) -> list[Tensor]:
        (y,) = F.cond(F.sum(F.flatten(x))[0] > 0, [x.type], lambda: x, lambda: -x)
        return F.while_loop(y, lambda y: F.max(F.flatten(y))[0] < 50, lambda y: y * 2)

    assert listed(fn(X)) == listed(compiled(fn, X)) == [[[16, -32, 48], [64, 80, -96]]]
    assert listed(F.side_stream([X], lambda x: x + 1, stream_id=1))[0] == listed(X + 1)
    F.print(X, "x")
    with pytest.raises(ValueError):
        F.while_loop([], lambda: True, lambda: None)


@proves("F.custom", "F.inplace_custom")
def kernels_of_users() -> None:
    name = "api_case_scale"
    maxmod.custom.register(name, numpy=lambda x, factor: x * factor, infer=lambda x, **_: x)
    (y,) = F.custom(name, CPU(), [X], [X.type], {"factor": 2.0})
    assert listed(y) == listed(X * 2)
    with pytest.raises(ValueError):
        F.custom("api_case_unknown", CPU(), [X], [X.type])
    with pytest.raises(TypeError):
        F.custom(name, CPU(), [X], [X.type], {"factor": [2]})
    with pytest.raises(TypeError):
        F.custom(name, CPU(), [X.driver_tensor], [X.type], {"factor": 2.0})
    with pytest.raises(ValueError):
        F.inplace_custom("api_case_unknown", CPU(), [X])


@proves("F.lazy", "F.in_graph_context", "F.ensure_context", "F.functional")
def contexts() -> None:
    with F.lazy():
        x = Tensor.ones([2])
        with pytest.raises(TypeError, match="before realization context is completed"):
            x.item()
    assert not x.real
    assert listed(x) == [1, 1]
    seen = []
    assert not F.in_graph_context()
    compiled(lambda x: seen.append(F.in_graph_context()) or x, X)
    assert seen == [True]
    with F.ensure_context():
        assert not F.in_graph_context()

    @F.functional
    def several(x: Tensor) -> Any:
        """Two."""
        return (x, x + 1) if x.rank else None

    assert isinstance(several(X), list)
    assert several(Tensor(1.0)) is None
    assert (several.__name__, several.__doc__) == ("several", "Two.")
    assert several(X)[0] is X


@proves(*named("F", "allreduce_sum allgather reduce_scatter distributed_broadcast"))
def on_one_device() -> None:
    assert F.allreduce_sum([X], [None])[0] is X
    assert listed(F.allreduce_sum([X, X], [None, None])) == [listed(X * 2)] * 2
    assert F.allgather([X, X], [None, None], axis=1)[1].shape == [2, 6]
    for fn in (F.allreduce_sum, F.allgather):
        with pytest.raises(ValueError):
            fn([X, X], [None])
    assert F.reduce_scatter(X) is F.distributed_broadcast(X) is X


@proves("F.dequantize", "F.qmatmul")
def block_formats() -> None:
    for call in (lambda: F.dequantize("Q4_0", X), lambda: F.qmatmul("Q4_0", None, X, X)):
        with pytest.raises(NotImplementedError):
            call()


@proves(*named("ops", "constant constant_external buffer_load call"))
@proves("ops.buffer_create", "Graph.current", "Graph.output", "Graph.output_types")
@proves("graph.ops", "ops.random", "ops.InterpolationMode")
def ops_of_graphs() -> None:
    row = TensorType(DType.float32, ["n"], CPU())
    with pytest.raises(LookupError, match="No graph found"):
        _ = Graph.current
    with pytest.raises(LookupError):
        ops.constant(1.0, DType.float32, CPU())
    with Graph("inner", input_types=[row]) as inner:
        assert Graph.current is inner
        inner.output(inner.inputs[0].tensor * 2)
    with Graph("outer", input_types=[row, row.as_buffer()]) as graph:
        with pytest.raises(TypeError):
            _ = graph.output_types
        x, buffer = graph.inputs[0].tensor, graph.inputs[1].buffer
        (y,) = ops.call(inner, x)
        scratch = ops.buffer_create(BufferType(DType.float32, [1], CPU()))
        loaded = ops.buffer_load(buffer)
        one = ops.constant(1.0, DType.float32, CPU())
        w = ops.constant_external("w", TensorType(DType.float32, [1], CPU()))
        graph.output(y + loaded + one, ops.buffer_load(scratch) + w)
    assert [t.short() for t in graph.output_types] == ["float32[n]", "float32[1]"]
    assert ops.InterpolationMode.NEAREST
    assert ops.random.set_seed
