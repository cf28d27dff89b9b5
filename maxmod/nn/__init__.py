"""Modules: the base class, layers and containers."""

from maxmod.nn.container import ModuleList, Sequential
from maxmod.nn.embedding import Embedding
from maxmod.nn.linear import Linear
from maxmod.nn.module import Module, module_dataclass
from maxmod.nn.norm import GemmaRMSNorm, LayerNorm, RMSNorm

__all__ = [
    "Embedding",
    "GemmaRMSNorm",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "RMSNorm",
    "Sequential",
    "module_dataclass",
]
