"""Random values of a graph; the seed is set in the graph: `ops.random.set_seed(0)`."""

from __future__ import annotations

from maxmod.ops.random import gaussian_like as gaussian
from maxmod.ops.random import normal_like as normal
from maxmod.ops.random import set_seed
from maxmod.ops.random import uniform_like as uniform

__all__ = ["gaussian", "normal", "set_seed", "uniform"]
