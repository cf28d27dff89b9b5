"""Types of values in a graph and what they are made of, under the path of other versions."""

from __future__ import annotations

from maxmod.dtype import DType
from maxmod.values.device import DeviceKind, DeviceRef
from maxmod.values.dim import AlgebraicDim, Dim, DimLike, StaticDim, SymbolicDim
from maxmod.values.layouts import ConvInputLayout, FilterLayout
from maxmod.values.shape import Shape, ShapeLike
from maxmod.values.tensor_type import BufferType, TensorType, Type

__all__ = [
    "AlgebraicDim",
    "BufferType",
    "ConvInputLayout",
    "DType",
    "DeviceKind",
    "DeviceRef",
    "Dim",
    "DimLike",
    "FilterLayout",
    "Shape",
    "ShapeLike",
    "StaticDim",
    "SymbolicDim",
    "TensorType",
    "Type",
]
