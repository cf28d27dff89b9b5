"""maxmod: a framework for inference with pretrained weights.

    import maxmod
    from maxmod import Tensor, TensorType, Module, nn, functional as F

Eager tensors and their ops are imported at once. The larger parts (`nn`, `weights`, `models`, ...)
are imported on first use, and CuPy only when an accelerator is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from maxmod import custom, ops  # noqa: F401  (operators of Tensor need ops registered)
from maxmod.backends import accelerator_count
from maxmod.backends.devices import CPU, Accelerator, Device
from maxmod.config import __version__ as __version__
from maxmod.config import configure
from maxmod.dtype import DType
from maxmod.errors import MaxmodError, MaxmodWarning
from maxmod.op import foreign_hint
from maxmod.tensor import Tensor
from maxmod.tensor.buffer import Buffer
from maxmod.tensor.default_context import default_device, default_dtype, defaults, defaults_like
from maxmod.tensor.no_grad import inference_mode, no_grad
from maxmod.values.device import DeviceRef
from maxmod.values.dim import AlgebraicDim, Dim, StaticDim, SymbolicDim
from maxmod.values.shape import Shape
from maxmod.values.tensor_type import BufferType, TensorType

if TYPE_CHECKING:
    from maxmod import (
        array_api,
        compat,
        driver,
        engine,
        functional,
        generate,
        graph,
        models,
        nn,
        random,
        weights,
    )
    from maxmod.nn import Module, module_dataclass, quantize

__all__ = [
    "CPU",
    "Accelerator",
    "AlgebraicDim",
    "Buffer",
    "BufferType",
    "DType",
    "Device",
    "DeviceRef",
    "Dim",
    "MaxmodError",
    "MaxmodWarning",
    "Module",
    "Shape",
    "StaticDim",
    "SymbolicDim",
    "Tensor",
    "TensorType",
    "accelerator_count",
    "array_api",
    "compat",
    "configure",
    "custom",
    "default_device",
    "default_dtype",
    "defaults",
    "defaults_like",
    "driver",
    "engine",
    "functional",
    "generate",
    "graph",
    "inference_mode",
    "models",
    "module_dataclass",
    "nn",
    "no_grad",
    "quantize",
    "random",
    "weights",
]

# Imported on first use (PEP 562): they cost more than a few milliseconds, or most programs do not
# need them.
_LAZY_MODULES = (
    "array_api",
    "compat",
    "driver",
    "engine",
    "functional",
    "generate",
    "graph",
    "models",
    "nn",
    "random",
    "weights",
)
_LAZY_NAMES = {"Module": "maxmod.nn", "module_dataclass": "maxmod.nn", "quantize": "maxmod.nn"}


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(f"maxmod.{name}")
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module(_LAZY_NAMES[name]), name)
    raise AttributeError(
        f"module 'maxmod' has no attribute {name!r}{foreign_hint(name, 'package')}"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
