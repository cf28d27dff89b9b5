"""StarCoder2: grouped queries and rotary positions with the norms, biases and MLP of GPT-2.

Source: A. Lozhkov et al., StarCoder 2 and The Stack v2, arXiv 2402.19173. Names and numerics follow
`Starcoder2ForCausalLM` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from maxmod.models.decoders.blocks import MLP, Attention, Block, DecoderModel, Parts
from maxmod.models.decoders.config import DecoderConfig
from maxmod.nn import LayerNorm
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, rename, strip_prefix

DEFAULTS: JsonObject = {
    "num_key_value_heads": 2,
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, slots=True)
class Config(DecoderConfig):
    """The fields of config.json that the model uses."""

    norm_epsilon: float = 1e-5
    use_bias: bool = True


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    norm = partial(LayerNorm, eps=config.norm_epsilon)
    bias = config.use_bias

    def block(layer: int) -> Block:
        attention = Attention(config, layer, bias=bias, output_bias=bias)
        return Block(Parts(config.hidden_size, attention, MLP(config, bias=bias), norm))

    return DecoderModel(config, block, norm)


def adapt_weights(weights: StateLike, config: Config) -> Weights:
    """Returns weights of a Hugging Face folder with the names of the module."""
    names = {
        "layers.*.mlp.c_fc.*": "layers.*.mlp.up_proj.*",
        "layers.*.mlp.c_proj.*": "layers.*.mlp.down_proj.*",
    }
    return rename(strip_prefix(weights, "model."), names)
