"""What decoders share: attention, MLPs, blocks with norms at various places, and the model.

Source: A. Vaswani et al., Attention Is All You Need, arXiv 1706.03762.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from maxmod.generate.kv_cache import Context, WholeContext
from maxmod.models.activations import ACTIVATIONS
from maxmod.models.attention import attention, merge_heads, soft_cap, split_heads
from maxmod.models.decoders.config import DecoderConfig
from maxmod.models.rotary import RotaryTable
from maxmod.nn import Embedding, Linear, Module, ModuleList
from maxmod.tensor import Tensor

Norm = Callable[[int], Module[[Tensor], Tensor]]  # makes one for a width


class Attention(Module[..., Tensor]):
    """Self-attention with grouped queries, and rotary positions unless the layer has none.

    Args:
        config: The configuration.
        layer: Its number.
        bias: Whether queries, keys and values have a bias.
        output_bias: Whether the last map has one.
        scale: Factor of the scores; the root of the size of a head, inverse, by default.
        cap: Bound of the scaled scores, if they have one; see `soft_cap`.
        norm: Makes the norms of queries and keys, if there are any, for a number of heads.
        norm_before_heads: Whether these take all heads at once; `norm` then gets their width.
    """

    def __init__(
        self,
        config: DecoderConfig,
        layer: int,
        *,
        bias: bool = False,
        output_bias: bool = False,
        scale: float | None = None,
        cap: float | None = None,
        norm: Callable[[int], Module[[Tensor], Tensor]] | None = None,
        norm_before_heads: bool = False,
    ) -> None:
        self.layer = layer
        self.heads, self.kv_heads = config.num_attention_heads, config.kv_heads
        self.window = config.windows()[layer]
        self.rotates = config.rotates()[layer]
        self.scale = config.dim**-0.5 if scale is None else scale
        self.cap = cap
        width, kv_width = self.heads * config.dim, self.kv_heads * config.dim
        self.q_proj = Linear(config.hidden_size, width, bias=bias)
        self.k_proj = Linear(config.hidden_size, kv_width, bias=bias)
        self.v_proj = Linear(config.hidden_size, kv_width, bias=bias)
        self.o_proj = Linear(width, config.hidden_size, bias=output_bias)
        self.norms = norm is not None
        self.norm_before_heads = norm_before_heads
        if norm is not None:
            self.q_norm = norm(width if norm_before_heads else self.heads)
            self.k_norm = norm(kv_width if norm_before_heads else self.kv_heads)

    def forward(self, x: Tensor, table: RotaryTable, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.norms and self.norm_before_heads:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (
            split_heads(part, heads)
            for part, heads in ((q, self.heads), (k, self.kv_heads), (v, self.kv_heads))
        )
        if self.norms and not self.norm_before_heads:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotates:
            q, k = table.apply_to_queries(q), table.apply(k)
        k, v = context.extend(self.layer, k, v)
        mixed = attention(q, k, v, context.mask(self.window), self.scale, self.cap)
        return self.o_proj(merge_heads(mixed))


class GatedMLP(Module[[Tensor], Tensor]):
    """The gated MLP: `down(act(gate(x)) * up(x))`, SwiGLU where the activation is `silu`.

    Source: N. Shazeer, GLU Variants Improve Transformer, arXiv 2002.05202.
    """

    def __init__(self, config: DecoderConfig, *, bias: bool = False) -> None:
        width, inner = config.hidden_size, config.intermediate_size
        self.activation = config.activation
        self.gate_proj = Linear(width, inner, bias=bias)
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each position: x [batch, seq, width]."""
        return self.down_proj(ACTIVATIONS[self.activation](self.gate_proj(x)) * self.up_proj(x))


class MLP(Module[[Tensor], Tensor]):
    """Two linear layers with an activation between them."""

    def __init__(self, config: DecoderConfig, *, bias: bool = True) -> None:
        self.activation = config.activation
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each position: x [batch, seq, width]."""
        return self.down_proj(ACTIVATIONS[self.activation](self.up_proj(x)))


@dataclass(frozen=True, slots=True)
class Parts:
    """What a block is made of.

    Attributes:
        width: Size of the vectors.
        attention: The attention.
        mlp: The MLP.
        norm: Makes a norm.
    """

    width: int
    attention: Attention
    mlp: Module[[Tensor], Tensor]
    norm: Norm


class Block(Module[..., Tensor]):
    """Attention and MLP, each normalised before and added to its input.

    Args:
        parts: What it is made of.
        factor: Of what is added.
    """

    def __init__(self, parts: Parts, factor: float = 1.0) -> None:
        self.factor = factor
        self.input_layernorm = parts.norm(parts.width)
        self.self_attn = parts.attention
        self.post_attention_layernorm = parts.norm(parts.width)
        self.mlp = parts.mlp

    def forward(self, x: Tensor, table: RotaryTable, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        x = x + self._scaled(self.self_attn(self.input_layernorm(x), table, context))
        return x + self._scaled(self.mlp(self.post_attention_layernorm(x)))

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.factor == 1 else x * self.factor


class PostNormBlock(Module[..., Tensor]):
    """Attention and MLP, each normalised after and added to its input."""

    def __init__(self, parts: Parts) -> None:
        self.self_attn = parts.attention
        self.post_attention_layernorm = parts.norm(parts.width)
        self.mlp = parts.mlp
        self.post_feedforward_layernorm = parts.norm(parts.width)

    def forward(self, x: Tensor, table: RotaryTable, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        x = x + self.post_attention_layernorm(self.self_attn(x, table, context))
        return x + self.post_feedforward_layernorm(self.mlp(x))


class SandwichBlock(Module[..., Tensor]):
    """Attention and MLP, each normalised before and after, and added to its input."""

    def __init__(self, parts: Parts) -> None:
        self.input_layernorm = parts.norm(parts.width)
        self.self_attn = parts.attention
        self.post_attention_layernorm = parts.norm(parts.width)
        self.pre_feedforward_layernorm = parts.norm(parts.width)
        self.mlp = parts.mlp
        self.post_feedforward_layernorm = parts.norm(parts.width)

    def forward(self, x: Tensor, table: RotaryTable, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        mixed = self.self_attn(self.input_layernorm(x), table, context)
        x = x + self.post_attention_layernorm(mixed)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class ParallelBlock(Module[..., Tensor]):
    """Attention and MLP of the same input, normalised by one norm or by one for each.

    Source: B. Wang and A. Komatsuzaki, GPT-J-6B (2021).
    """

    def __init__(self, parts: Parts, *, one_norm: bool) -> None:
        self.one_norm = one_norm
        self.input_layernorm = parts.norm(parts.width)
        self.self_attn = parts.attention
        if not one_norm:
            self.post_attention_layernorm = parts.norm(parts.width)
        self.mlp = parts.mlp

    def forward(self, x: Tensor, table: RotaryTable, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        normed = self.input_layernorm(x)
        other = normed if self.one_norm else self.post_attention_layernorm(x)
        return x + self.self_attn(normed, table, context) + self.mlp(other)


class DecoderModel(Module[[Tensor], Tensor]):
    """The language model: tokens to the logits of the token that comes after each of them.

    Args:
        config: The configuration.
        block: Makes the block of a layer.
        norm: Makes the last norm.
        embedding_factor: Of the embeddings.
        rounds_factor: Whether that factor is rounded to the dtype of the model.
        logit_factor: Of the logits.
        logit_cap: Bound of the logits, if they have one; see `soft_cap`.

    Attributes:
        embed_tokens: Embedding of tokens.
        layers: The blocks.
        norm: The last normalisation.
        lm_head: Hidden states to logits; its weight is that of `embed_tokens` if the configuration
            says so.
    """

    def __init__(
        self,
        config: DecoderConfig,
        block: Callable[[int], Module[..., Tensor]],
        norm: Norm,
        *,
        embedding_factor: float = 1.0,
        rounds_factor: bool = False,
        logit_factor: float = 1.0,
        logit_cap: float | None = None,
    ) -> None:
        self.ropes, self.kinds = config.ropes(), config.kinds()
        self.embedding_factor, self.rounds_factor = embedding_factor, rounds_factor
        self.logit_factor, self.logit_cap = logit_factor, logit_cap
        self.embed_tokens = Embedding(config.vocab_size, dim=config.hidden_size)
        self.layers = ModuleList(block(layer) for layer in range(config.num_hidden_layers))
        self.norm = norm(config.hidden_size)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [batch, seq] -> logits [batch, seq, vocab]"""
        return self.logits(self.hidden(tokens))

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., vocab]"""
        logits = self.lm_head(hidden)
        logits = logits if self.logit_factor == 1 else logits * self.logit_factor
        return soft_cap(logits, self.logit_cap)

    def hidden(self, tokens: Tensor, context: Context | None = None) -> Tensor:
        """int64 [batch, seq] -> [batch, seq, width], the input of `lm_head`"""
        context = context or WholeContext(tokens)
        tables = self._tables(context.positions)
        x = self._embedded(tokens)
        for block, kind in zip(self.layers, self.kinds):
            x = block(x, tables[kind], context)
        return self.norm(x)

    def _embedded(self, tokens: Tensor) -> Tensor:
        x, factor = self.embed_tokens(tokens), self.embedding_factor
        if self.rounds_factor:
            return x * Tensor.full([], factor, dtype=x.dtype, device=x.device)
        return x if factor == 1 else x * factor

    def _tables(self, positions: Tensor) -> dict[str, RotaryTable]:
        """A table for each kind of layer; kinds that rotate alike share theirs."""
        made: dict[int, RotaryTable] = {}
        for kind in self.kinds:
            rope = self.ropes[kind]
            if id(rope) not in made:
                made[id(rope)] = RotaryTable(positions, rope)
        return {kind: made[id(self.ropes[kind])] for kind in set(self.kinds)}


def usual_model(
    config: DecoderConfig,
    norm: Norm,
    *,
    bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    head_norm: Norm | None = None,
) -> DecoderModel:
    """Makes the model that most are: norms before the attention and before the gated MLP.

    Args:
        config: The configuration.
        norm: Makes a norm for a width.
        bias: Whether queries, keys and values have a bias.
        output_bias: Whether the last map of the attention has one.
        mlp_bias: Whether the maps of the MLP have one.
        head_norm: Makes the norms of queries and keys, if there are any, for a number of heads.
    """

    def block(layer: int) -> Block:
        attention = Attention(config, layer, bias=bias, output_bias=output_bias, norm=head_norm)
        mlp = GatedMLP(config, bias=mlp_bias)
        return Block(Parts(config.hidden_size, attention, mlp, norm))

    return DecoderModel(config, block, norm)
