"""Modules: the base class, layers and containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maxmod.nn.activation import (
    GELU,
    Dropout,
    Identity,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from maxmod.nn.container import LayerList, ModuleList, Sequential
from maxmod.nn.conv import Conv2d
from maxmod.nn.embedding import Embedding
from maxmod.nn.hyper_connection import HyperConnection
from maxmod.nn.linear import Linear
from maxmod.nn.lora import LoRA, lora_layers, lora_parameters
from maxmod.nn.module import Module, TransparentModule, module_dataclass
from maxmod.nn.norm import GemmaRMSNorm, GroupNorm, LayerNorm, RMSNorm
from maxmod.nn.parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
)
from maxmod.nn.pinned import PinnedDeviceTensor
from maxmod.nn.quantized_embedding import QuantizedEmbedding
from maxmod.nn.quantized_linear import QuantizedLinear
from maxmod.nn.quantizing import quantize
from maxmod.nn.rope import RotaryEmbedding, TransposedRotaryEmbedding
from maxmod.nn.subgraph import as_subgraph
from maxmod.op import foreign_hint

__all__ = [
    "GELU",
    "ColumnParallelLinear",
    "Conv2d",
    "Dropout",
    "Embedding",
    "GemmaRMSNorm",
    "GroupNorm",
    "HyperConnection",
    "Identity",
    "LayerList",
    "LayerNorm",
    "Linear",
    "LoRA",
    "LogSoftmax",
    "Module",
    "ModuleList",
    "PinnedDeviceTensor",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "RMSNorm",
    "ReLU",
    "RotaryEmbedding",
    "RowParallelLinear",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "TransparentModule",
    "TransposedRotaryEmbedding",
    "VocabParallelEmbedding",
    "as_subgraph",
    "lora_layers",
    "lora_parameters",
    "module_dataclass",
    "quantize",
]


if not TYPE_CHECKING:  # a checker knows what is missing

    def __getattr__(name: str) -> object:
        raise AttributeError(f"module 'maxmod.nn' has no attribute {name!r}{foreign_hint(name)}")
