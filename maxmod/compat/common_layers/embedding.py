"""Embeddings with the names of tensor parallelism: on one device each is `Embedding`."""

from __future__ import annotations

from maxmod.nn.embedding import Embedding


class VocabParallelEmbedding(Embedding):
    """`Embedding`; on several devices its rows would be divided."""


__all__ = ["Embedding", "VocabParallelEmbedding"]
