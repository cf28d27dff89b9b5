"""GLM-4 of Z.ai, and GLM-4-0414: half of each head rotated, and pairs that are neighbours.

The later models have norms after attention and MLP as well.

Source: Team GLM, ChatGLM, arXiv 2406.12793. Names and numerics follow `GlmForCausalLM` and
`Glm4ForCausalLM` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from maxmod.models.decoders.blocks import (
    Attention,
    Block,
    DecoderModel,
    GatedMLP,
    Parts,
    SandwichBlock,
)
from maxmod.models.decoders.config import DecoderConfig
from maxmod.models.decoders.phi3 import split_gate
from maxmod.nn import RMSNorm
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, rename, strip_prefix

DEFAULTS: JsonObject = {
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
}

_NORMS = {
    "layers.*.post_self_attn_layernorm.*": "layers.*.post_attention_layernorm.*",
    "layers.*.post_attention_layernorm.*": "layers.*.pre_feedforward_layernorm.*",
    "layers.*.post_mlp_layernorm.*": "layers.*.post_feedforward_layernorm.*",
}


@dataclass(frozen=True, slots=True)
class Config(DecoderConfig):
    """The fields of config.json that the models use."""

    INTERLEAVED: ClassVar[bool] = True
    PARTIAL: ClassVar[bool] = True

    rms_norm_eps: float = 1.5625e-7
    attention_bias: bool = False


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    norm = partial(RMSNorm, eps=config.rms_norm_eps)

    def block(layer: int) -> Block | SandwichBlock:
        attention = Attention(config, layer, bias=config.attention_bias)
        parts = Parts(config.hidden_size, attention, GatedMLP(config), norm)
        return SandwichBlock(parts) if config.model_type == "glm4" else Block(parts)

    return DecoderModel(config, block, norm)


def adapt_weights(weights: StateLike, config: Config) -> Weights:
    """Returns weights of a Hugging Face folder with the names of the module.

    GLM-4-0414 has names of its own for the norms around the MLP and after the attention.
    """
    weights = split_gate(strip_prefix(weights, "model."))
    if config.model_type == "glm4":
        weights = rename(weights, _NORMS)
    return weights
