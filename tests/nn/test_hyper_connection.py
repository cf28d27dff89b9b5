"""Hyper-connections against the formulas in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maxmod import DType, Module, Tensor, TensorType
from maxmod.errors import ArgumentError, ShapeError
from maxmod.nn import HyperConnection, Linear
from maxmod.values.device import CPU_REF

N, DIM = 3, 4
RNG = np.random.default_rng(5)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _oracle(module: HyperConnection, x: Any, rounds: int, eps: float) -> tuple[Any, Any, Any]:
    fn, base, scale = (
        t.to_numpy().astype(np.float64) for t in (module.hc_fn, module.hc_base, module.hc_scale)
    )
    row = x.reshape(*x.shape[:-2], N * DIM)
    row = row / np.sqrt((row**2).mean(-1, keepdims=True) + 1e-6)
    m = row @ fn.T
    pre = _sigmoid(scale[0] * m[..., :N] + base[:N]) + eps
    post = 2 * _sigmoid(scale[1] * m[..., N : 2 * N] + base[N : 2 * N])
    mix = (scale[2] * m[..., 2 * N :] + base[2 * N :]).reshape(*x.shape[:-2], N, N)
    mix = np.exp(mix - mix.max(-1, keepdims=True))
    mix = mix / mix.sum(-1, keepdims=True) + eps
    for turn in range(rounds):
        if turn:
            mix = mix / (mix.sum(-1, keepdims=True) + eps)
        mix = mix / (mix.sum(-2, keepdims=True) + eps)
    return np.einsum("...n,...nd->...d", pre, x), post, mix


def _module(**options: Any) -> HyperConnection:
    module = HyperConnection(DIM, N, **options)
    count = 2 * N + N * N
    module.load_state_dict(
        {
            "hc_fn": RNG.normal(size=(count, N * DIM)).astype(np.float32),
            "hc_base": RNG.normal(size=count).astype(np.float32),
            "hc_scale": np.array([0.5, 2, 1], np.float32),
        }
    )
    return module


@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize(("rounds", "eps"), [(1, 1e-6), (20, 1e-3)])
def test_values(lead: tuple[int, ...], rounds: int, eps: float) -> None:
    module = _module(hc_sinkhorn_iters=rounds, hc_eps=eps)
    streams = RNG.normal(size=(*lead, N, DIM)).astype(np.float32)
    y = RNG.normal(size=(*lead, DIM)).astype(np.float32)
    x = Tensor(streams)
    found = module(x)
    wanted = _oracle(module, streams.astype(np.float64), rounds, eps)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.to_numpy(), other, rtol=2e-5, atol=1e-6)
    result = module.combine(Tensor(y), x, *found[1:])
    _, post, mix = wanted
    after = post[..., None] * y[..., None, :] + np.einsum("...ij,...id->...jd", mix, streams)
    np.testing.assert_allclose(result.to_numpy(), after, rtol=2e-5, atol=2e-6)


def test_the_mixing_matrix_is_doubly_stochastic() -> None:
    _, _, mix = _module()(Tensor(RNG.normal(size=(7, N, DIM)).astype(np.float32)))
    for axis, atol in ((-1, 2e-2), (-2, 1e-5)):  # columns are divided last
        np.testing.assert_allclose(mix.sum(axis).to_numpy(), 1, atol=atol)


class _Layer(Module[[Tensor], Tensor]):
    def __init__(self) -> None:
        self.connection = _module()
        self.layer = Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        y, post, mix = self.connection(x)
        return self.connection.combine(self.layer(y), x, post, mix)


def test_compiled() -> None:
    layer = _Layer()
    compiled = layer.compile(TensorType(DType.float32, ["batch", N, DIM], CPU_REF))
    for batch in (1, 4):
        x = Tensor(RNG.normal(size=(batch, N, DIM)).astype(np.float32))
        np.testing.assert_allclose(
            compiled(x).to_numpy(), layer(x).to_numpy(), rtol=1e-4, atol=1e-5
        )


def test_parameters_and_types() -> None:
    module = HyperConnection(DIM, N)
    found = {name: tensor.type.short() for name, tensor in module.parameters}
    assert found == {
        "hc_fn": "float32[15,12]",
        "hc_base": "float32[15]",
        "hc_scale": "float32[3]",
    }
    x = Tensor.ones([2, N, DIM], dtype=DType.bfloat16)
    y, post, mix = module(x)
    assert (y.dtype, post.dtype, mix.dtype) == (DType.bfloat16, DType.float32, DType.float32)
    assert module.combine(y, x, post, mix).type == x.type


def test_errors() -> None:
    with pytest.raises(ArgumentError, match="HyperConnection: expected positive numbers"):
        HyperConnection(DIM, 0)
    for shape in ([DIM], [2, N, DIM + 1], [N + 1, DIM]):
        with pytest.raises(ShapeError, match=r"HyperConnection: expected \[..., 3, 4\], got"):
            HyperConnection(DIM, N)(Tensor.ones(shape))
