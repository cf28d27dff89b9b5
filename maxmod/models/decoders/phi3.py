"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: Llama with queries, keys and values in one weight.

So are the gate and the other half of the MLP. They are split while they are read.

Source: M. Abdin et al., Phi-3 Technical Report, arXiv 2404.14219; Phi-4 Technical Report, arXiv
2412.08905. Names and numerics follow `Phi3ForCausalLM` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from maxmod.models.decoders.blocks import DecoderModel, usual_model
from maxmod.models.decoders.config import DecoderConfig
from maxmod.nn import RMSNorm
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, split, strip_prefix

DEFAULTS: JsonObject = {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096}


@dataclass(frozen=True, slots=True)
class Config(DecoderConfig):
    """The fields of config.json that the model uses."""

    PARTIAL: ClassVar[bool] = True

    rms_norm_eps: float = 1e-5

    def _scaling(self) -> JsonObject:
        given = DecoderConfig._scaling(self)
        kind = given.get("rope_type", given.get("type"))
        # The first files say yarn and mean longrope.
        return {**given, "rope_type": "longrope", "type": None} if kind == "yarn" else given


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    return usual_model(config, partial(RMSNorm, eps=config.rms_norm_eps))


def adapt_weights(weights: StateLike, config: Config) -> Weights:
    """Returns weights of a Hugging Face folder with the names of the module."""
    weights = strip_prefix(weights, "model.")
    prefix = "layers.*.self_attn"
    qkv = [f"{prefix}.{name}_proj.weight" for name in "qkv"]
    heads = (config.num_attention_heads, config.kv_heads, config.kv_heads)
    sizes = [count * config.dim for count in heads]
    return split_gate(split(weights, {f"{prefix}.qkv_proj.weight": qkv}, sizes=sizes))


def split_gate(weights: StateLike) -> Weights:
    """Splits the gate of each MLP from the other half."""
    halves = [f"layers.*.mlp.{name}_proj.weight" for name in ("gate", "up")]
    return split(weights, {"layers.*.mlp.gate_up_proj.weight": halves})
