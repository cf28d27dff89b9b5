"""Programs that read elements at positions which are data, for both kernel languages.

A program takes a table, and integers that are positions on its first axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from helpers import numbers

from maxmod import functional as F
from maxmod.dtype import DType, storage_dtype
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType


@dataclass(frozen=True)
class Gather:
    """A function of a table and positions, the same in NumPy, and its shapes."""

    fn: Callable[..., Any]
    oracle: Callable[..., Any]
    table: tuple[Any, ...] = ("v", 8)
    positions: tuple[Any, ...] = ("b", "s")

    def types(self, table: DType, positions: DType, device: Any = CPU_REF) -> list[TensorType]:
        """The types of the arguments."""
        return [
            TensorType(table, self.table, device),
            TensorType(positions, self.positions, device),
        ]

    def arguments(
        self, rng: np.random.Generator, table: DType, positions: DType, sizes: dict[str, int]
    ) -> list[Any]:
        """Arrays for the symbols in the shapes; positions lie on either side of 0."""
        shape = [sizes.get(size, size) for size in self.table]
        count = [sizes.get(size, size) for size in self.positions]
        low = -shape[0] if positions.is_signed_integral() else 0
        found = rng.integers(low, shape[0], count)
        return [numbers(rng, table, shape), np.asarray(found).astype(storage_dtype(positions))]


def _norm(x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def _traced_norm(x: Any) -> Any:
    centred = x - F.mean(x)
    return centred / F.sqrt(F.mean(centred * centred) + 1e-5)


GATHERS = {
    "alone": Gather(lambda w, p: F.gather(w, p, axis=0), lambda w, p: w[p]),
    "scaled": Gather(lambda w, p: F.gather(w, p, axis=0) * 2 + 1, lambda w, p: w[p] * 2 + 1),
    "normed": Gather(lambda w, p: _traced_norm(F.gather(w, p, axis=0)), lambda w, p: _norm(w[p])),
    "sums": Gather(
        lambda w, p: F.sum(F.exp(F.gather(w, p, axis=0))),
        lambda w, p: np.exp(w[p]).sum(-1, keepdims=True),
    ),
    "along rows": Gather(
        lambda w, p: F.exp(F.gather(w.T, p, axis=1)), lambda w, p: np.exp(w.T[:, p])
    ),
    "rows of rows": Gather(
        lambda w, p: F.sum(F.gather(w.T, F.gather(w.T, p, axis=1).cast(DType.int64) * 0, axis=1)),
        lambda w, p: w.T[:, w.T[:, p].astype(int) * 0].sum(-1, keepdims=True),
        positions=("s",),
    ),
    "of numbers": Gather(
        lambda w, p: F.gather(w, p, axis=0) + 1, lambda w, p: w[p] + 1, table=("v",)
    ),
    "of one number": Gather(
        lambda w, p: F.gather(w, p, axis=0) + 1, lambda w, p: w[p] + 1, positions=()
    ),
    "twice": Gather(
        lambda w, p: F.gather(w, F.gather(p, p * 0, axis=0), axis=0),
        lambda w, p: w[p[p * 0]],
        positions=("s",),
    ),
    "made up": Gather(  # positions that no memory holds
        lambda w, p: F.gather(w, F.elementwise_max(p // 2, 0) * 1, axis=0),
        lambda w, p: w[np.maximum(p // 2, 0)],
    ),
    "of a view": Gather(
        lambda w, p: F.gather(w[:, 2:7].T, p * 0 + 1, axis=0), lambda w, p: w[:, 2:7].T[p * 0 + 1]
    ),
    "of exp": Gather(lambda w, p: F.gather(F.exp(w), p, axis=0), lambda w, p: np.exp(w)[p]),
    "shared": Gather(
        lambda w, p: [w * 2, F.gather(w * 2, p, axis=0)],
        lambda w, p: [w * 2, (w * 2)[p]],
        positions=("v",),
    ),
    "heads": Gather(
        lambda w, p: F.gather(w, p, axis=0).reshape([-1, 2, 4]).permute([1, 0, 2]) * 2,
        lambda w, p: w[p].reshape(-1, 2, 4).transpose(1, 0, 2) * 2,
        positions=("s",),
    ),
    "product": Gather(
        lambda w, p: (F.gather(w, p, axis=0) * 0.5) @ w.T + F.gather(w, p, axis=0)[:, :1],
        lambda w, p: (w[p] * 0.5) @ w.T + w[p][:, :1],
        positions=("s",),
    ),
    "counted": Gather(
        lambda w, p: (
            F.gather(w, p, axis=0)
            + F.gather(w.T, F.arange(0, 3, dtype=DType.int64, device=w.device), axis=0)[:1, :1]
        ),
        lambda w, p: w[p] + w.T[:3][:1, :1],
    ),
    "odd": Gather(  # no vector fits
        lambda w, p: F.gather(w, p, axis=0) * 2, lambda w, p: w[p] * 2, table=("v", 7)
    ),
    "static": Gather(
        lambda w, p: F.gather(w, p, axis=0) * 2,
        lambda w, p: w[p] * 2,
        table=(6, 16),
        positions=(2, 3),
    ),
}
SIZES = (
    {"v": 5, "b": 2, "s": 3},
    {"v": 1, "b": 1, "s": 1},
    {"v": 33, "b": 1, "s": 40},
    {"v": 3, "b": 2, "s": 0},
)
