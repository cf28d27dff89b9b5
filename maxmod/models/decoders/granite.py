"""Granite 3 and 4 without experts: Llama with a factor for each of its parts.

Source: IBM, Granite 3.0 Language Models (2024); G. Yang et al., Tensor Programs V, arXiv
2203.03466.
Names and numerics follow `GraniteForCausalLM` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from maxmod.errors import ModelError
from maxmod.models.decoders.blocks import Attention, Block, DecoderModel, GatedMLP, Parts
from maxmod.models.decoders.config import DecoderConfig
from maxmod.nn import RMSNorm


@dataclass(frozen=True, slots=True)
class Config(DecoderConfig):
    """The fields of config.json that the model uses."""

    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    embedding_multiplier: float = 1.0
    attention_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0

    def __post_init__(self) -> None:
        if self.logits_scaling == 0:
            raise ModelError("logits_scaling: expected another number than 0.")
        DecoderConfig.__post_init__(self)


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    norm = partial(RMSNorm, eps=config.rms_norm_eps)
    bias, scale = config.attention_bias, config.attention_multiplier

    def block(layer: int) -> Block:
        attention = Attention(config, layer, bias=bias, output_bias=bias, scale=scale)
        mlp = GatedMLP(config, bias=config.mlp_bias)
        parts = Parts(config.hidden_size, attention, mlp, norm)
        return Block(parts, config.residual_multiplier)

    return DecoderModel(
        config,
        block,
        norm,
        embedding_factor=config.embedding_multiplier,
        logit_factor=1 / config.logits_scaling,
    )
