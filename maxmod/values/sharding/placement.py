"""What one axis of a mesh does to a tensor."""

from __future__ import annotations

import dataclasses
import enum


class ReduceOp(enum.StrEnum):
    """How the values of a `Partial` placement are combined.

    Args:
        value: The name of the reduction, such as `"sum"`.
    """

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    MEAN = "mean"
    PROD = "prod"


class Placement:
    """What one axis of a mesh does to a tensor; base of the three placements."""


@dataclasses.dataclass(frozen=True)
class Replicated(Placement):
    """Every device of the mesh axis holds the whole tensor."""


@dataclasses.dataclass(frozen=True)
class Sharded(Placement):
    """Every device of the mesh axis holds a slice of the tensor.

    Args:
        axis: The axis of the tensor that is split.
    """

    axis: int


@dataclasses.dataclass(frozen=True)
class Partial(Placement):
    """Every device of the mesh axis holds one operand of a reduction.

    Args:
        reduce_op: The reduction.
    """

    reduce_op: ReduceOp = ReduceOp.SUM
