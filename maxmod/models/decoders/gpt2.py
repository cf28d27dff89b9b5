"""GPT-2, a decoder-only transformer, with weights in the layout of Hugging Face.

Source: A. Radford et al., Language Models are Unsupervised Multitask Learners (2019). Names and
numerics follow `GPT2LMHeadModel` of the transformers library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from maxmod import functional as F
from maxmod.errors import ModelError
from maxmod.generate.kv_cache import CacheShape, Context, WholeContext
from maxmod.models.activations import ACTIVATIONS, check_activation
from maxmod.models.attention import attention, merge_heads, split_heads
from maxmod.models.parallel import Parallel, expect_multiple, rows_of_part
from maxmod.nn import Embedding, LayerNorm, Linear, Module, ModuleList
from maxmod.tensor import Tensor
from maxmod.tensor.like import StateLike
from maxmod.weights import Weights, drop, strip_prefix, transpose


@dataclass(frozen=True, slots=True)
class Config:
    """The fields of config.json that the model uses."""

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.n_positions, self.n_embd, self.n_layer, self.n_head)
        if min(sizes) < 1 or (self.n_inner is not None and self.n_inner < 1):
            raise ModelError("sizes must be above 0.")
        if self.n_embd % self.n_head:
            raise ModelError(f"n_embd={self.n_embd} is not a multiple of n_head={self.n_head}.")
        check_activation("activation_function", self.activation_function)

    @property
    def max_positions(self) -> int:
        """The longest sequence."""
        return self.n_positions

    @property
    def cache_shape(self) -> CacheShape:
        """Size of the cache per token."""
        return CacheShape(self.n_layer, self.n_head, self.dim)

    @property
    def dim(self) -> int:
        """Size of a head."""
        return self.n_embd // self.n_head

    @property
    def inner(self) -> int:
        """The width inside of an MLP."""
        return self.n_inner or 4 * self.n_embd


@dataclass(frozen=True, slots=True)
class ConfigOfPart(Config):
    """What one of several processes computes.

    Attributes:
        n_part: The number of processes; `n_head` and `n_inner` are those of each.
    """

    n_part: int = 1

    @property
    def dim(self) -> int:
        """Size of a head."""
        return self.n_embd // (self.n_head * self.n_part)


def part(config: Config, size: int) -> ConfigOfPart:
    """Returns the configuration of the part that each of several processes computes."""
    expect_multiple(size, n_head=config.n_head, n_inner=config.inner)
    given: dict[str, Any] = {field.name: getattr(config, field.name) for field in fields(config)}
    given |= {"n_head": config.n_head // size, "n_inner": config.inner // size}
    given |= {"vocab_size": rows_of_part(config.vocab_size, size), "n_part": size}
    return ConfigOfPart(**given)


PARALLEL = Parallel(
    part=part,
    kv_heads=lambda config: config.n_head,
    columns=("*.c_fc",),
    of_kv=(),
    fused=("*.c_attn",),
    rows=("*.c_proj",),
    table="wte",
    head="lm_head",
)


class Attention(Module[[Tensor, Context], Tensor]):
    """Multi-head self-attention."""

    def __init__(self, config: Config, layer: int) -> None:
        self.layer = layer
        self.n_head = config.n_head
        self.scale = 1.0
        width = config.n_head * config.dim
        if config.scale_attn_weights:
            self.scale /= math.sqrt(config.dim)
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1
        self.c_attn = Linear(config.n_embd, 3 * width)
        self.c_proj = Linear(width, config.n_embd)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        q, k, v = (split_heads(part, self.n_head) for part in F.chunk(self.c_attn(x), 3, axis=-1))
        k, v = context.extend(self.layer, k, v)
        return self.c_proj(merge_heads(attention(q, k, v, context.mask(), self.scale)))


class MLP(Module[[Tensor], Tensor]):
    """Two linear layers with an activation between them."""

    def __init__(self, config: Config) -> None:
        inner = config.inner
        self.activation = config.activation_function
        self.c_fc = Linear(config.n_embd, inner)
        self.c_proj = Linear(inner, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each position: x [batch, seq, width]."""
        return self.c_proj(ACTIVATIONS[self.activation](self.c_fc(x)))


class Block(Module[[Tensor, Context], Tensor]):
    """Pre-norm attention and MLP, each with a residual connection."""

    def __init__(self, config: Config, layer: int) -> None:
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        x = x + self.attn(self.ln_1(x), context)
        return x + self.mlp(self.ln_2(x))


class GPT2(Module[[Tensor], Tensor]):
    """The language model: tokens to the logits of the token that comes after each of them.

    Attributes:
        wte: Embedding of tokens.
        wpe: Embedding of positions.
        h: The blocks.
        ln_f: The last normalisation.
        lm_head: Hidden states to logits; its weight is that of `wte` if the configuration says so.
    """

    def __init__(self, config: Config) -> None:
        self.wte = Embedding(config.vocab_size, dim=config.n_embd)
        self.wpe = Embedding(config.n_positions, dim=config.n_embd)
        self.h = ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [batch, seq] -> logits [batch, seq, vocab]"""
        return self.lm_head(self.hidden(tokens))

    def hidden(self, tokens: Tensor, context: Context | None = None) -> Tensor:
        """int64 [batch, seq] -> [batch, seq, width], the input of `lm_head`"""
        context = context or WholeContext(tokens)
        x = self.wte(tokens) + self.wpe(context.positions)
        for block in self.h:
            x = block(x, context)
        return self.ln_f(x)


def adapt_weights(weights: StateLike) -> Weights:
    """Returns weights of a Hugging Face folder with the names and layouts of `GPT2`.

    The language model saves its names with the prefix `transformer.`, the model without a head does
    not. Its layers are of the kind Conv1D, which keeps weights as [in, out]. Older files have the
    causal mask of each block as a tensor.
    """
    weights = strip_prefix(weights, "transformer.")
    weights = drop(weights, ["h.*.attn.bias", "h.*.attn.masked_bias"])
    return transpose(weights, ["h.*.c_attn.weight", "h.*.c_fc.weight", "h.*.c_proj.weight"])
