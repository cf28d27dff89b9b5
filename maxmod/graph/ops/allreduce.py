"""Sums over devices, under the path of other versions: `ops.allreduce.sum(inputs, buffers)`."""

from __future__ import annotations

from maxmod.ops.collective import allreduce_sum as sum

__all__ = ["sum"]
