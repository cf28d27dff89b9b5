"""OPT: GPT-2 with positions that start at 2, and norms before or after each part.

Source: S. Zhang et al., OPT: Open Pre-trained Transformer Language Models, arXiv 2205.01068. Names
and numerics follow `OPTForCausalLM` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from maxmod.errors import ModelError
from maxmod.generate.kv_cache import Context, WholeContext
from maxmod.models.decoders.blocks import MLP, Attention
from maxmod.models.decoders.config import DecoderConfig
from maxmod.nn import Embedding, LayerNorm, Linear, Module, ModuleList
from maxmod.tensor import Tensor
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, rename, strip_prefix

DEFAULTS: JsonObject = {"hidden_act": "relu", "tie_word_embeddings": True}

_OFFSET = 2  # of positions in their table

_NAMES = {
    "layers.*.self_attn.out_proj.*": "layers.*.self_attn.o_proj.*",
    "layers.*.self_attn_layer_norm.*": "layers.*.input_layernorm.*",
    "layers.*.final_layer_norm.*": "layers.*.post_attention_layernorm.*",
    "layers.*.fc1.*": "layers.*.mlp.up_proj.*",
    "layers.*.fc2.*": "layers.*.mlp.down_proj.*",
    "final_layer_norm.*": "norm.*",
}


@dataclass(frozen=True, slots=True)
class Config(DecoderConfig):
    """The fields of config.json that the model uses."""

    word_embed_proj_dim: int | None = None
    do_layer_norm_before: bool = True
    _remove_final_layer_norm: bool = False
    layer_norm_elementwise_affine: bool = True
    enable_bias: bool = True

    def __post_init__(self) -> None:
        if self.word_embed_proj_dim is not None and self.word_embed_proj_dim < 1:
            raise ModelError("sizes must be above 0.")
        DecoderConfig.__post_init__(self)

    @property
    def embedding_width(self) -> int:
        """The size of the vectors of tokens."""
        return self.word_embed_proj_dim or self.hidden_size

    @property
    def last_norm(self) -> bool:
        """Whether there is a norm behind the last block."""
        return self.do_layer_norm_before and not self._remove_final_layer_norm

    def rotates(self) -> list[bool]:
        """No layer rotates."""
        return [False] * self.num_hidden_layers


class Block(Module[..., Tensor]):
    """Attention and MLP, each added to its input and normalised before or after."""

    def __init__(self, config: Config, layer: int) -> None:
        norm = partial(LayerNorm, elementwise_affine=config.layer_norm_elementwise_affine)
        bias = config.enable_bias
        self.is_before = config.do_layer_norm_before
        self.input_layernorm = norm(config.hidden_size)
        self.self_attn = Attention(config, layer, bias=bias, output_bias=bias)
        self.post_attention_layernorm = norm(config.hidden_size)
        self.mlp = MLP(config, bias=bias)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        attention, mlp = self.self_attn, self.mlp
        if self.is_before:
            x = x + attention(self.input_layernorm(x), None, context)
            return x + mlp(self.post_attention_layernorm(x))
        x = self.input_layernorm(x + attention(x, None, context))
        return self.post_attention_layernorm(x + mlp(x))


class OPT(Module[[Tensor], Tensor]):
    """The language model: tokens to the logits of the token that comes after each of them.

    Attributes:
        embed_tokens: Embedding of tokens.
        embed_positions: Embedding of positions.
        project_in: From the size of the embeddings to that of the blocks, where they differ.
        layers: The blocks.
        norm: The last normalisation, if there is one.
        project_out: From the size of the blocks to that of the embeddings.
        lm_head: Hidden states to logits; its weight is that of `embed_tokens` if the configuration
            says so.
    """

    def __init__(self, config: Config) -> None:
        width, outer = config.hidden_size, config.embedding_width
        self.embed_tokens = Embedding(config.vocab_size, dim=outer)
        self.embed_positions = Embedding(config.max_position_embeddings + _OFFSET, dim=width)
        self.projects = outer != width
        if self.projects:
            self.project_in = Linear(outer, width, bias=False)
            self.project_out = Linear(width, outer, bias=False)
        self.layers = ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.last_norm = config.last_norm
        if self.last_norm:
            affine = config.layer_norm_elementwise_affine
            self.norm = LayerNorm(width, elementwise_affine=affine)
        self.lm_head = Linear(outer, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [batch, seq] -> logits [batch, seq, vocab]"""
        return self.lm_head(self.hidden(tokens))

    def hidden(self, tokens: Tensor, context: Context | None = None) -> Tensor:
        """int64 [batch, seq] -> [batch, seq, width], the input of `lm_head`"""
        context = context or WholeContext(tokens)
        x = self.embed_tokens(tokens)
        x = self.project_in(x) if self.projects else x
        x = x + self.embed_positions(context.positions + _OFFSET)
        for block in self.layers:
            x = block(x, context)
        x = self.norm(x) if self.last_norm else x
        return self.project_out(x) if self.projects else x


def make_module(config: Config) -> OPT:
    """Makes the model of a configuration."""
    return OPT(config)


def adapt_weights(weights: StateLike, config: Config) -> Weights:
    """Returns weights of a Hugging Face folder with the names of the module."""
    for prefix in ("model.", "decoder."):
        weights = strip_prefix(weights, prefix)
    return rename(weights, _NAMES)
