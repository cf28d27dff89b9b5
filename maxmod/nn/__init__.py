"""Modules: the base class, layers and containers."""

from maxmod.nn.container import ModuleList, Sequential
from maxmod.nn.embedding import Embedding
from maxmod.nn.linear import Linear
from maxmod.nn.module import Module, TransparentModule, module_dataclass
from maxmod.nn.norm import GemmaRMSNorm, GroupNorm, LayerNorm, RMSNorm
from maxmod.nn.pinned import PinnedDeviceTensor
from maxmod.nn.rope import RotaryEmbedding, TransposedRotaryEmbedding
from maxmod.nn.subgraph import as_subgraph

__all__ = [
    "Embedding",
    "GemmaRMSNorm",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "PinnedDeviceTensor",
    "RMSNorm",
    "RotaryEmbedding",
    "Sequential",
    "TransparentModule",
    "TransposedRotaryEmbedding",
    "as_subgraph",
    "module_dataclass",
]
