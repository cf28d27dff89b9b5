"""Every op of maxmod, one file for each family; importing this package fills the registry."""

from maxmod.ops import (
    control,
    create,
    effects,
    elementwise,
    extend,
    index,
    indexing,
    matmul,
    norm,
    random,
    reduce,
    shape,
    update,
)

__all__ = [
    "control",
    "create",
    "effects",
    "elementwise",
    "extend",
    "index",
    "indexing",
    "matmul",
    "norm",
    "random",
    "reduce",
    "shape",
    "update",
]
