"""Reductions as they are called in MAX, NumPy and PyTorch; NumPy is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from maxmod import CPU, DType, Module, Tensor, TensorType
from maxmod import functional as F

RNG = np.random.default_rng(0)
A = RNG.standard_normal((2, 3, 4)).astype(np.float32)
X = Tensor(A)

ORACLES: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "mean": np.mean,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "any": lambda a, **axes: np.any(a, **axes),
    "all": lambda a, **axes: np.all(a, **axes),
    "var": np.var,
    "std": np.std,
    "norm": lambda a, axis=None, keepdims=False: np.sqrt(
        np.sum(a.astype(np.float64) ** 2, axis=axis, keepdims=keepdims)
    ),
}
METHODS = [name for name in ORACLES if hasattr(X, name)]


def _close(found: Tensor, wanted: Any) -> None:
    assert found.shape == list(np.shape(wanted))
    np.testing.assert_allclose(found.to_numpy(), wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ORACLES)
def test_axes_kept_and_dropped(name: str) -> None:
    fn, oracle = getattr(F, name), ORACLES[name]
    _close(fn(X), oracle(A, axis=-1, keepdims=True))
    _close(fn(X, axis=None), np.reshape(oracle(A, axis=None), [1]))
    for axis in (0, -2, (0, 2), (2, 0), [1], None):
        axes = tuple(axis) if isinstance(axis, list) else axis
        for keep in (True, False):
            _close(fn(X, axis=axis, keepdims=keep), oracle(A, axis=axes, keepdims=keep))
    _close(fn(X, axis=(0, 1)), oracle(A, axis=(0, 1), keepdims=True))


@pytest.mark.parametrize("name", [name for name in ORACLES if name not in ("max", "min")])
def test_dim_is_as_in_pytorch(name: str) -> None:
    # torch.var and torch.std divide by n - 1.
    more = {"ddof": 1} if name in ("var", "std") else {}
    for axis in (1, -1, (0, 2), None):
        wanted = ORACLES[name](A, axis=axis, **more)
        kept = ORACLES[name](A, axis=axis, keepdims=True, **more)
        _close(getattr(F, name)(X, dim=axis), wanted)
        _close(getattr(F, name)(X, dim=axis, keepdim=True), kept)
        if name in METHODS:
            _close(getattr(X, name)(dim=axis), wanted)
            _close(getattr(X, name)(axis=axis, keepdims=False, **_named(more)), wanted)


def _named(more: dict[str, int]) -> dict[str, int]:
    return {"correction": more["ddof"]} if more else {}


@pytest.mark.parametrize(("name", "position"), [("max", np.argmax), ("min", np.argmin)])
def test_extremes_with_dim_are_a_pair(name: str, position: Callable[..., Any]) -> None:
    values, indices = getattr(X, name)(dim=1)
    _close(values, ORACLES[name](A, axis=1))
    _close(indices, position(A, axis=1))
    pair = getattr(F, name)(X, dim=-1, keepdim=True)
    _close(pair.values, ORACLES[name](A, axis=-1, keepdims=True))
    _close(pair.indices, position(A, axis=-1, keepdims=True))
    _close(getattr(F, "arg" + name)(X, dim=0), position(A, axis=0))
    with pytest.raises(ValueError, match="either a second tensor or an axis"):
        getattr(F, name)(X, X, dim=0)


def test_bool_is_counted() -> None:
    flags = X > 0
    assert F.sum(flags).dtype is DType.int64
    _close(F.sum(flags, axis=0), (A > 0).sum(axis=0, keepdims=True))
    assert (X > 0).sum(dim=None).item() == (A > 0).sum()
    _close(F.any(X), np.ones((2, 3, 1), bool))
    for fn, oracle in ((F.any, np.any), (F.all, np.all)):
        _close(fn(flags, axis=1), oracle(A > 0, axis=1, keepdims=True))
        empty = Tensor.zeros([2, 0], dtype=DType.bool)
        _close(fn(empty), oracle(np.zeros((2, 0)), axis=-1, keepdims=True))
        integers = Tensor([[0, 3], [1, 2]], dtype=DType.int8)
        _close(fn(integers, dim=1), oracle([[0, 3], [1, 2]], axis=1))


@pytest.mark.parametrize("p", [0, 1, 2, 3, 0.5, np.inf, -np.inf])
def test_norms(p: float) -> None:
    _close(F.norm(X, p, axis=1), np.linalg.norm(A.astype(np.float64), p, axis=1, keepdims=True))


def test_correction_and_narrow_floats() -> None:
    for correction in (0, 1, 1.5):
        found = F.var(X, axis=0, correction=correction)
        distance = A - A.mean(0)
        _close(found, (distance**2).sum(0, keepdims=True) / (2 - correction))
    half = Tensor(np.full(5000, 100, np.float32) + np.arange(5000) % 2).cast(DType.float16)
    assert half.var().dtype is DType.float16
    assert half.var().item() == 0.25  # the sums do not fit float16
    assert np.isnan(F.var(Tensor([1.0]), correction=1).item())


def test_reductions_in_a_compiled_function() -> None:
    class Statistics(Module[..., Any]):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [
                x.sum(dim=(0, 2)),
                F.var(x, axis=0),
                x.std(dim=0),
                F.norm(x, axis=None),
                (x > 0).any(dim=1),
                F.all(x > -1, axis=(0, 1)),
                (x > 0).sum(),
                x.max(dim=1).indices,
            ]

    compiled = Statistics().compile(TensorType(DType.float32, ["n", 3, 4], CPU()))
    wanted = [
        A.sum((0, 2)),
        A.var(0, keepdims=True),
        A.std(0, ddof=1),
        [np.linalg.norm(A.ravel())],
        (A > 0).any(1),
        (A > -1).all((0, 1), keepdims=True),
        (A > 0).sum(-1, keepdims=True),
        A.argmax(1),
    ]
    for found, expected in zip(compiled(X), wanted, strict=True):
        _close(found, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: np.sum(X), r"Hint: results are new tensors.*np.sum\(x.to_numpy\(\)\) works"),
        (lambda: X.sum(dtype=DType.int32), r"F.sum\(x.cast"),
        (lambda: X.mean(axes=1), "it takes .*Did you mean 'axis'"),
        (lambda: X.sum(0, 1), r"sum: too many positional .*Hint: .*x.sum\(axis=\(0, 1\)\)"),
        (lambda: F.sum(X, axis=0, dim=1), "either axis or dim"),
        (lambda: X.argmax(axis=(0, 1)), r"expected an int or None, got \(0, 1\)"),
        (lambda: X.sum(axis=(0, 0)), "each axis once"),
        (lambda: X.sum(axis=()), "at least one"),
        (lambda: X.sum(dim=3), "Invalid axis=3"),
        (lambda: F.std(Tensor([1, 2], dtype=DType.int64)), r"Hint: F.std\(x.cast\(DType.float32"),
        (lambda: F.norm(X, "nuc"), "other norms of matrices are not here"),
        (lambda: F.var(X, ddof=1), "it is called correction"),
    ],
    ids=[
        *("numpy_sum", "dtype", "axes", "two_positions", "axis_and_dim", "argmax_of_two_axes"),
        *(
            "one_axis_twice",
            "zero_axes",
            "axis_out_of_range",
            "std_of_ints",
            "nuclear_norm",
            "ddof",
        ),
    ],
)
def test_refused_calls(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_dim_names_the_axis_of_other_ops() -> None:
    for fn in (F.softmax, F.logsoftmax, F.cumsum, F.argsort):
        if fn is not F.argsort:
            _close(fn(X, dim=1), fn(X, axis=1).to_numpy())
    _close(F.concat([X, X], dim=1), np.concatenate([A, A], 1))
    _close(F.stack([X, X], dim=2), np.stack([A, A], 2))
    _close(F.chunk(X, 2, dim=2)[1], A[:, :, 2:])
    _close(F.split(X, [1, 2], dim=1)[1], A[:, 1:])
    _close(X.unsqueeze(dim=0), A[None])
    _close(X.split(2, dim=-1)[0], A[..., :2])
    _close(F.top_k(X, 1, dim=0)[0], A.max(0, keepdims=True))


def test_sizes_and_axes_one_by_one() -> None:
    _close(X.reshape(4, -1), A.reshape(4, -1))
    _close(X.reshape(-1), A.ravel())
    _close(X.permute(2, 0, 1), A.transpose(2, 0, 1))
    _close(X.broadcast_to(5, 2, 3, 4), np.broadcast_to(A, (5, 2, 3, 4)))
    for given in (X.reshape(shape=[24]), X.reshape([24]), X.reshape((24,)), X.reshape(24)):
        assert given.shape == [24]
    with pytest.raises(TypeError, match=r"Hint: x.reshape\(\[...\]\)"):
        X.reshape()  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"squeeze: .*Hint: name the axis: x.squeeze\(0\)"):
        X.squeeze()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"Hint: sizes are one list: Tensor.zeros\(\[2, 3\]\)"):
        Tensor.zeros(2, 3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"got int. Hint: \[3\] is a list of one size"):
        Tensor.zeros(3)  # type: ignore[arg-type]
