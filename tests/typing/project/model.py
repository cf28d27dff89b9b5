"""A small transformer block, written with every form that the API offers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from maxmod import CPU, DType, Module, Tensor, TensorType, module_dataclass
from maxmod import functional as F
from maxmod.graph import Dim, DimLike
from maxmod.nn import (
    Embedding,
    LayerNorm,
    Linear,
    ModuleList,
    PinnedDeviceTensor,
    RMSNorm,
    Sequential,
)
from maxmod.tensor import defaults


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    vocab: int = 11
    dim: int = 8
    heads: int = 2
    layers: int = 2


@F.functional
def causal_mask(length: DimLike, dtype: DType) -> Tensor:
    """0 where a position may look, minus infinity elsewhere."""
    n = Dim(length)
    blocked = Tensor.full([n, n], float("-inf"), dtype=dtype, device=CPU())
    return F.band_part(blocked, num_lower=None, num_upper=0, exclude=True)


class Attention(Module[[Tensor], Tensor]):
    """Attention with a causal mask."""

    scale: PinnedDeviceTensor

    def __init__(self, config: Config) -> None:
        self.heads = config.heads
        self.qkv = Linear(config.dim, 3 * config.dim, bias=False)
        self.out = Linear(config.dim, config.dim)
        self.scale = Tensor([1 / math.sqrt(config.dim // config.heads)], device=CPU())

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        head_dim = int(dim) // self.heads
        parts = [
            part.reshape([batch, length, self.heads, head_dim]).permute([0, 2, 1, 3])
            for part in F.split(self.qkv(x), [int(dim)] * 3, axis=-1)
        ]
        q, k, v = parts
        scores = q @ F.transpose(k, -2, -1) * self.scale + causal_mask(length, x.dtype)
        mixed = F.softmax(scores) @ v
        return self.out(mixed.permute([0, 2, 1, 3]).reshape([batch, length, dim]))


@module_dataclass(eq=False)
class Gate(Module[[Tensor], Tensor]):
    """A module that is a dataclass."""

    weight: Tensor
    bias: Tensor | int = 0

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x * self.weight + self.bias) * x


class Block(Module[[Tensor], Tensor]):
    """A layer."""

    def __init__(self, config: Config) -> None:
        self.norm1 = LayerNorm(config.dim)
        self.attention = Attention(config)
        self.norm2 = RMSNorm(config.dim)
        self.mlp = Sequential(
            Linear(config.dim, 2 * config.dim),
            Gate(Tensor.ones([2 * config.dim])),
            Linear(2 * config.dim, config.dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = self.mlp(self.norm2(x))
        return x + y


class Decoder(Module[[Tensor], Tensor]):
    """Tokens to logits."""

    def __init__(self, config: Config) -> None:
        self.embed = Embedding(config.vocab, dim=config.dim)
        self.blocks = ModuleList(Block(config) for _ in range(config.layers))
        self.norm = LayerNorm(config.dim, eps=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embed.weight.T


class Older(Module):
    """A module that defines `__call__`, as in the first version of the API."""

    def __init__(self, dim: int) -> None:
        self.inner = Linear(dim, dim)

    def __call__(self, x: Tensor) -> Tensor:
        return self.inner(x) * 2


def token_type() -> TensorType:
    """The type of a batch of tokens of any size."""
    _, device = defaults()
    return TensorType(DType.int64, ["batch", "length"], device)
