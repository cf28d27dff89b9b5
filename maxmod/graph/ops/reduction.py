"""The reductions of graphs, under the path of their module in MAX."""

from __future__ import annotations

from maxmod.functional import argmax, argmin, cumsum, max, mean, min, prod, sum

__all__ = ["argmax", "argmin", "cumsum", "max", "mean", "min", "prod", "sum"]
