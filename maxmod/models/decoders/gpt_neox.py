"""GPT-NeoX and Pythia: attention and MLP side by side, and a part of each head rotated.

Source: S. Black et al., GPT-NeoX-20B, arXiv 2204.06745; S. Biderman et al., Pythia, arXiv
2304.01373. Names and numerics follow `GPTNeoXForCausalLM` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from maxmod.models.decoders.blocks import (
    MLP,
    Attention,
    Block,
    DecoderModel,
    ParallelBlock,
    Parts,
)
from maxmod.models.decoders.config import DecoderConfig
from maxmod.nn import LayerNorm
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, drop, rename, split, strip_prefix

DEFAULTS: JsonObject = {"hidden_act": "gelu", "partial_rotary_factor": 0.25}

_NAMES = {
    "embed_in.weight": "embed_tokens.weight",
    "final_layer_norm.*": "norm.*",
    "embed_out.weight": "lm_head.weight",
    "layers.*.attention.dense.*": "layers.*.self_attn.o_proj.*",
    "layers.*.mlp.dense_h_to_4h.*": "layers.*.mlp.up_proj.*",
    "layers.*.mlp.dense_4h_to_h.*": "layers.*.mlp.down_proj.*",
}
# The causal mask, and frequencies, which older files have for each layer.
_UNUSED = [
    "layers.*.attention.bias",
    "layers.*.attention.masked_bias",
    "layers.*.attention.rotary_emb.inv_freq",
    "rotary_emb.inv_freq",
]


@dataclass(frozen=True, slots=True)
class Config(DecoderConfig):
    """The fields of config.json that the model uses."""

    PARTIAL: ClassVar[bool] = True

    layer_norm_eps: float = 1e-5
    attention_bias: bool = True
    use_parallel_residual: bool = True


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    norm = partial(LayerNorm, eps=config.layer_norm_eps)
    bias = config.attention_bias

    def block(layer: int) -> Block | ParallelBlock:
        attention = Attention(config, layer, bias=bias, output_bias=bias)
        parts = Parts(config.hidden_size, attention, MLP(config), norm)
        if config.use_parallel_residual:
            return ParallelBlock(parts, one_norm=False)
        return Block(parts)

    return DecoderModel(config, block, norm)


def adapt_weights(weights: StateLike, config: Config) -> Weights:
    """Returns weights of a Hugging Face folder with the names of the module.

    Queries, keys and values of a head lie beside each other.
    """
    weights = drop(strip_prefix(weights, "gpt_neox."), _UNUSED)
    rules = {
        f"layers.*.attention.query_key_value.{kind}": [
            f"layers.*.self_attn.{name}_proj.{kind}" for name in "qkv"
        ]
        for kind in ("weight", "bias")
    }
    return rename(split(weights, rules, blocks=config.num_attention_heads), _NAMES)
