"""Rotary position embeddings."""

from maxmod.nn.rope import yarn
from maxmod.nn.rope.rope import (
    RotaryEmbedding,
    TransposedRotaryEmbedding,
    embed,
    positional_embedding,
    theta,
)

__all__ = [
    "RotaryEmbedding",
    "TransposedRotaryEmbedding",
    "embed",
    "positional_embedding",
    "theta",
    "yarn",
]
