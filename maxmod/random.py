"""Random tensors from one seed: `maxmod.random.normal([2, 3])`, `maxmod.random.set_seed(0)`."""

from __future__ import annotations

from maxmod.ops.random import (
    gaussian,
    gaussian_like,
    normal,
    normal_like,
    seed,
    set_seed,
    uniform,
    uniform_like,
)

__all__ = [
    "gaussian",
    "gaussian_like",
    "normal",
    "normal_like",
    "seed",
    "set_seed",
    "uniform",
    "uniform_like",
]
