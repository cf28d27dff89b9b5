"""Graphs, their values and the types of these: dtype, shape (sizes may be names) and device."""

from __future__ import annotations

from maxmod.graph import ops
from maxmod.graph import type as type
from maxmod.graph.builder import Graph
from maxmod.graph.values import (
    BufferValue,
    BufferValueLike,
    StrongTensorValueLike,
    TensorValue,
    TensorValueLike,
    Value,
    Weight,
)
from maxmod.values.device import DeviceKind, DeviceRef
from maxmod.values.dim import AlgebraicDim, Dim, DimLike, StaticDim, SymbolicDim
from maxmod.values.layouts import ConvInputLayout, FilterLayout, InterpolationMode
from maxmod.values.shape import Shape, ShapeLike
from maxmod.values.tensor_type import BufferType, TensorType, Type

__all__ = [
    "AlgebraicDim",
    "BufferType",
    "BufferValue",
    "BufferValueLike",
    "ConvInputLayout",
    "DeviceKind",
    "DeviceRef",
    "Dim",
    "DimLike",
    "FilterLayout",
    "Graph",
    "InterpolationMode",
    "Shape",
    "ShapeLike",
    "StaticDim",
    "StrongTensorValueLike",
    "SymbolicDim",
    "TensorType",
    "TensorValue",
    "TensorValueLike",
    "Type",
    "Value",
    "Weight",
    "ops",
]
