"""Linear layers with the names of tensor parallelism: on one device each is `Linear`."""

from __future__ import annotations

from maxmod.nn.linear import Linear


class ColumnParallelLinear(Linear):
    """`Linear`; on several devices its rows of weights would be divided."""


class RowParallelLinear(Linear):
    """`Linear`; on several devices its columns of weights would be divided."""


__all__ = ["ColumnParallelLinear", "Linear", "RowParallelLinear"]
