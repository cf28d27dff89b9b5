"""Ministral: Mistral, whose layers may be of two kinds.

Source: A. Q. Jiang et al., Mistral 7B, arXiv 2310.06825; Mistral AI, Un Ministral, des Ministraux
(2024). Names and numerics follow `MinistralForCausalLM` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from maxmod.models.decoders.blocks import Attention, Block, DecoderModel, GatedMLP, Parts
from maxmod.models.decoders.config import DecoderConfig
from maxmod.nn import RMSNorm
from maxmod.values.plain import JsonObject

DEFAULTS: JsonObject = {
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096 * 32,
    "sliding_window": 4096,
}


@dataclass(frozen=True, slots=True)
class Config(DecoderConfig):
    """The fields of config.json that the model uses."""

    rms_norm_eps: float = 1e-6


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    norm = partial(RMSNorm, eps=config.rms_norm_eps)

    def block(layer: int) -> Block:
        attention, mlp = Attention(config, layer), GatedMLP(config)
        return Block(Parts(config.hidden_size, attention, mlp, norm))

    return DecoderModel(config, block, norm)
