"""Types of values in a graph: dtype, shape (sizes may be names) and device."""

from __future__ import annotations

from maxmod.device import DeviceKind, DeviceRef
from maxmod.dim import AlgebraicDim, Dim, DimLike, Shape, ShapeLike, StaticDim, SymbolicDim
from maxmod.layouts import ConvInputLayout, FilterLayout, InterpolationMode
from maxmod.tensor_type import BufferType, TensorType, Type

__all__ = [
    "AlgebraicDim",
    "BufferType",
    "ConvInputLayout",
    "DeviceKind",
    "DeviceRef",
    "Dim",
    "DimLike",
    "FilterLayout",
    "InterpolationMode",
    "Shape",
    "ShapeLike",
    "StaticDim",
    "SymbolicDim",
    "TensorType",
    "Type",
]
