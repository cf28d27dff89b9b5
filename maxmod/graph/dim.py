"""Sizes and shapes under the path that one module of both had in other versions."""

from __future__ import annotations

from maxmod.errors import DimError, ShapeError
from maxmod.values.dim import (
    AlgebraicDim,
    Dim,
    DimLike,
    StaticDim,
    SymbolicDim,
    as_dim,
    as_size,
    evaluate,
)
from maxmod.values.shape import (
    Shape,
    ShapeLike,
    as_sizes,
    broadcast,
    format_sizes,
    is_static,
    product,
)

__all__ = [
    "AlgebraicDim",
    "Dim",
    "DimError",
    "DimLike",
    "Shape",
    "ShapeError",
    "ShapeLike",
    "StaticDim",
    "SymbolicDim",
    "as_dim",
    "as_size",
    "as_sizes",
    "broadcast",
    "evaluate",
    "format_sizes",
    "is_static",
    "product",
]
