"""Every op of maxmod, one file for each family; importing this package fills the registry."""

from maxmod.ops import create, elementwise, index, indexing, matmul, norm, reduce, shape

__all__ = ["create", "elementwise", "index", "indexing", "matmul", "norm", "reduce", "shape"]
