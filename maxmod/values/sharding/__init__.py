"""Meshes and layouts, as code for several devices names them, on the one device of a tensor.

A mesh of any shape can be written down. What has a tensor (`Tensor`, `Module.to`, `compile`) takes
the meshes of one device: `DeviceMesh.ref` is that device, and an error for every other mesh.
"""

from maxmod.values.sharding.layout import BufferLayout, TensorLayout, layout_of
from maxmod.values.sharding.mapping import (
    ConversionError,
    DeviceMapping,
    NamedMapping,
    PlacementMapping,
)
from maxmod.values.sharding.mesh import DeviceMesh
from maxmod.values.sharding.placement import Partial, Placement, ReduceOp, Replicated, Sharded

__all__ = [
    "BufferLayout",
    "ConversionError",
    "DeviceMapping",
    "DeviceMesh",
    "NamedMapping",
    "Partial",
    "Placement",
    "PlacementMapping",
    "ReduceOp",
    "Replicated",
    "Sharded",
    "TensorLayout",
    "layout_of",
]
