"""Tensors: arrays with a dtype, a shape and a device, and the defaults of making them."""

from __future__ import annotations

from maxmod.tensor.buffer import driver_tensor_type
from maxmod.tensor.default_context import (
    contextvar_context,
    default_device,
    default_dtype,
    defaults,
    defaults_like,
)
from maxmod.tensor.tensor import Tensor
from maxmod.values.plain import Numbers as NestedArray
from maxmod.values.plain import Scalar as Number
from maxmod.values.tensor_type import TensorType

__all__ = [
    "NestedArray",
    "Number",
    "Tensor",
    "TensorType",
    "contextvar_context",
    "default_device",
    "default_dtype",
    "defaults",
    "defaults_like",
    "driver_tensor_type",
]
