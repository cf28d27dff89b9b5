"""Rows that the blocks of a product compute while they stage them: norms of a few rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cuda_function import CudaFunction, build, planned

from maxmod import DType, TensorType
from maxmod import functional as F
from maxmod.values.device import CPU_REF

ORDERS = (0, 2, 3, 17)  # in step; each warp as far as it can; the same from the last; by chance


def _f32(*sizes: int | str) -> TensorType:
    return TensorType(DType.float32, sizes, CPU_REF)


def _norm(x: Any, g: Any) -> Any:
    return x * F.rsqrt(F.mean(x * x) + 1e-5) * g


def _centred(x: Any, g: Any) -> Any:
    deviation = x - F.mean(x)
    return deviation * F.rsqrt(F.mean(deviation * deviation) + 1e-5) * g


def _wide_norm(x: Any, g: Any) -> Any:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * g


def _wide_centred(x: Any, g: Any) -> Any:
    return _wide_norm(x - x.mean(-1, keepdims=True), g)


def _wide_softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


@dataclass(frozen=True)
class Case:
    """A function that is one kernel.

    Attributes:
        fn: The function, on tensors.
        oracle: The same, on float64 arrays.
        types: Of its arguments.
    """

    fn: Callable[..., Any]
    oracle: Callable[..., Any]
    types: tuple[TensorType, ...]


# Matrices [in, out] and [out, in], with one, four and eight rows of a block; warps that share
# columns, columns that share a warp; rows that are no multiple of a vector or of a step of a warp.
CASES = {
    "by depth": Case(
        lambda x, g, w: _norm(x, g) @ w.T,
        lambda x, g, w: _wide_norm(x, g) @ w.T,
        (_f32(1, 772), _f32(772), _f32(70, 772)),
    ),
    "by column": Case(
        lambda x, g, w: F.relu(_centred(x, g) @ w),
        lambda x, g, w: np.maximum(_wide_centred(x, g) @ w, 0),
        (_f32(3, 77), _f32(77), _f32(77, 36)),
    ),
    "all rows": Case(
        lambda x, w: F.softmax(x) @ w.T,
        lambda x, w: _wide_softmax(x) @ w.T,
        (_f32(8, 300), _f32(9, 300)),
    ),
    "a pair": Case(
        lambda x, g, v, w: F.silu(_centred(x, g) @ v.T) * (_centred(x, g) @ w.T),
        lambda x, g, v, w: _silu(_wide_centred(x, g) @ v.T) * (_wide_centred(x, g) @ w.T),
        (_f32(1, 256), _f32(256), _f32(33, 256), _f32(33, 256)),
    ),
    "side by side, and what is normalised": Case(
        lambda x, y, g, v, w: [_norm(x + y, g) @ v.T, _norm(x + y, g) @ w.T, x + y],
        lambda x, y, g, v, w: [_wide_norm(x + y, g) @ v.T, _wide_norm(x + y, g) @ w.T, x + y],
        (_f32(2, 1, 40), _f32(2, 1, 40), _f32(40), _f32(19, 40), _f32(7, 40)),
    ),
    "a view": Case(
        lambda x, g, w: _norm(x, g).reshape([4, 64]) @ w.T,
        lambda x, g, w: (_wide_norm(x, g).reshape(4, 64)) @ w.T,
        (_f32(2, 2, 64), _f32(64), _f32(24, 64)),
    ),
}


@functools.cache
def _functions() -> dict[str, CudaFunction]:
    made = {name: CudaFunction(case.fn, *case.types) for name, case in CASES.items()}
    build([*made.values()])
    return made


@pytest.mark.parametrize("name", CASES)
def test_rows_are_computed_by_each_block(name: str) -> None:
    case, function = CASES[name], _functions()[name]
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(type.sizes).astype(np.float32) for type in case.types]
    wanted = case.oracle(*(array.astype(np.float64) for array in arrays))
    for order in ORDERS:
        found = function(*arrays, order=order)
        for one, other in zip(found, wanted if isinstance(wanted, list) else [wanted], strict=True):
            atol = 2e-6 * max(1.0, np.abs(other).max())
            np.testing.assert_allclose(one, other, rtol=0, atol=atol)


X, G, W = _f32(1, 64), _f32(64), _f32(24, 64)


@pytest.mark.parametrize(
    ("fn", "types"),
    [
        (lambda x, g, w: [_norm(x, g), _norm(x, g) @ w.T], (X, G, W)),
        (lambda x, g, w: _norm(x, g) * (_norm(x, g) @ w.T), (X, G, _f32(64, 64))),
        (lambda x, g, w: _norm(x, g) @ w.T, (_f32("n", 64), G, W)),
        (lambda x, g, w: _norm(x, g) @ w.T, (_f32(9, 64), G, W)),
        (lambda x, g, w: _norm(x, g) @ w.T, (_f32(1, 60000), _f32(60000), _f32(24, 60000))),
        (lambda x, g, w: _norm(x, g).reshape([2, 32]) @ w.T, (X, G, _f32(24, 32))),
        (lambda x, g, w: F.sum(x * g) @ w, (X, G, _f32(1, 24))),
    ],
    ids=["a result", "gated", "symbolic", "many", "long", "rows", "sums"],
)
def test_rows_stay_a_kernel(fn: Any, types: tuple[TensorType, ...]) -> None:
    """Where others need them, too, or a block could not hold them."""
    sources = planned(fn, *types).kernels
    assert not any("void mm_stage_row(" in source.plain for source in sources)
    assert any(source.name.startswith("row") for source in sources)
