"""Modules: the base class, layers and containers."""

from maxmod.nn.container import LayerList, ModuleList, Sequential
from maxmod.nn.conv import Conv2d
from maxmod.nn.embedding import Embedding
from maxmod.nn.hyper_connection import HyperConnection
from maxmod.nn.linear import Linear
from maxmod.nn.lora import LoRA, lora_layers, lora_parameters
from maxmod.nn.module import Module, TransparentModule, module_dataclass
from maxmod.nn.norm import GemmaRMSNorm, GroupNorm, LayerNorm, RMSNorm
from maxmod.nn.pinned import PinnedDeviceTensor
from maxmod.nn.quantized_linear import QuantizedLinear, quantize
from maxmod.nn.rope import RotaryEmbedding, TransposedRotaryEmbedding
from maxmod.nn.subgraph import as_subgraph

__all__ = [
    "Conv2d",
    "Embedding",
    "GemmaRMSNorm",
    "GroupNorm",
    "HyperConnection",
    "LayerList",
    "LayerNorm",
    "Linear",
    "LoRA",
    "Module",
    "ModuleList",
    "PinnedDeviceTensor",
    "QuantizedLinear",
    "RMSNorm",
    "RotaryEmbedding",
    "Sequential",
    "TransparentModule",
    "TransposedRotaryEmbedding",
    "as_subgraph",
    "lora_layers",
    "lora_parameters",
    "module_dataclass",
    "quantize",
]
