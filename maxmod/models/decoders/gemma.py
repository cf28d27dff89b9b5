"""Gemma, Gemma 2 and the text models of Gemma 3, decoder-only transformers.

They are like Llama, with embeddings scaled by the root of their width and gains that are stored
less 1. Gemma 2 normalises after each part as well, and bounds logits softly; Gemma 3 normalises
queries and keys in place of that. Both let most or half of their layers see the last tokens only.

Source: Gemma Team, Gemma, arXiv 2403.08295; Gemma 2, arXiv 2408.00118; Gemma 3 Technical Report,
arXiv 2503.19786. Names and numerics follow `GemmaForCausalLM`, `Gemma2ForCausalLM` and
`Gemma3ForCausalLM` of the transformers library, in whose layout weights are read.
"""

from __future__ import annotations

from dataclasses import dataclass

from maxmod import functional as F
from maxmod.errors import ModelError
from maxmod.generate.kv_cache import CacheShape, Context, WholeContext
from maxmod.models.attention import (
    FULL,
    SLIDING,
    attention,
    check_layer_types,
    merge_heads,
    soft_cap,
    split_heads,
)
from maxmod.models.decoders.llama import FREQUENCIES
from maxmod.models.rope_scaling import rope_frequencies, warn_of_lost_theta
from maxmod.models.rotary import RotaryTable
from maxmod.nn import Embedding, GemmaRMSNorm, Linear, Module, ModuleList
from maxmod.tensor import Tensor
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, drop, strip_prefix

# The older files of Gemma say "gelu" and mean this approximation of it.
_ACTIVATIONS = (None, "gelu", "gelu_pytorch_tanh")

# What config.json may leave out.
DEFAULTS: dict[str, JsonObject] = {
    "gemma": {"num_key_value_heads": 16},
    "gemma2": {
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 2,
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
    },
    "gemma3_text": {
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
    },
}


@dataclass(frozen=True, slots=True)
class Config:
    """The fields of config.json that the models use."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 256
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-6
    hidden_act: str | None = None
    hidden_activation: str | None = None
    attention_bias: bool = False
    use_bidirectional_attention: bool | None = None
    tie_word_embeddings: bool = True
    query_pre_attn_scalar: float | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    sliding_window: int | None = None
    sliding_window_pattern: int = 1
    layer_types: list | None = None
    rope_theta: float | None = None
    rope_local_base_freq: float = 10000.0
    rope_scaling: dict | None = None
    rope_parameters: dict | None = None

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.hidden_size, self.intermediate_size, self.num_hidden_layers)
        sizes += (self.num_attention_heads, self.num_key_value_heads, self.head_dim)
        sizes += (self.max_position_embeddings, self.sliding_window_pattern)
        numbers = (self.query_pre_attn_scalar, self.sliding_window)
        numbers += (self.attn_logit_softcapping, self.final_logit_softcapping)
        if min(sizes) < 1 or any(number is not None and number <= 0 for number in numbers):
            raise ModelError("sizes must be above 0.")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ModelError(
                f"num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}."
            )
        if not {self.hidden_act, self.hidden_activation} <= set(_ACTIVATIONS):
            raise ModelError(
                "hidden_activation: expected 'gelu_pytorch_tanh', got "
                f"{self.hidden_activation or self.hidden_act!r}."
            )
        if self.use_bidirectional_attention:
            raise ModelError("use_bidirectional_attention: expected false, got true.")
        kinds = (FULL,) if self.is_first else (FULL, SLIDING)
        check_layer_types(self.layer_types, self.num_hidden_layers, kinds)
        self._check_rope()
        self.frequencies()

    @property
    def max_positions(self) -> int:
        """The longest sequence."""
        return self.max_position_embeddings

    @property
    def cache_shape(self) -> CacheShape:
        """Size of the cache per token."""
        return CacheShape(self.num_hidden_layers, self.num_key_value_heads, self.head_dim)

    @property
    def is_first(self) -> bool:
        """Whether it is the first Gemma, which has fewer norms."""
        return self.model_type == "gemma"

    def kinds(self) -> list[str]:
        """For each layer what its tokens see: all before them, or the last ones."""
        layers = range(self.num_hidden_layers)
        if self.is_first or self.sliding_window is None:
            return [FULL for _ in layers]
        if self.layer_types is None:
            every = self.sliding_window_pattern
            return [SLIDING if (layer + 1) % every else FULL for layer in layers]
        return list(self.layer_types)

    def windows(self) -> list[int | None]:
        """For each layer how many positions a token sees, itself included; None for all."""
        return [self.sliding_window if kind == SLIDING else None for kind in self.kinds()]

    def frequencies(self) -> JsonObject:
        """For each kind of layer radians per position of each pair: float64 [head_dim / 2].

        Raises:
            ModelError: If the fields about it are malformed or of an unknown kind.
        """
        given, older = self.rope_parameters or {}, self.rope_scaling or {}
        if self.model_type != "gemma3_text":
            one = rope_frequencies(self.head_dim, self.rope_theta, older or given)
            return {FULL: one, SLIDING: one}
        full, near = (given.get(kind) or {} for kind in (FULL, SLIDING))  # the older form is FULL's
        return {
            FULL: rope_frequencies(self.head_dim, self.rope_theta, {**full, **older}, 1e6),
            SLIDING: rope_frequencies(self.head_dim, self.rope_local_base_freq, near),
        }

    def _check_rope(self) -> None:
        """Checks `rope_parameters`, which Gemma 3 has for each kind of layer."""
        if self.model_type != "gemma3_text":
            warn_of_lost_theta(self.rope_scaling, self.rope_parameters, self.rope_theta)
            return
        for kind, scaling in (self.rope_parameters or {}).items():
            if kind not in (FULL, SLIDING) or not isinstance(scaling, dict | None):
                raise ModelError(
                    f"rope_parameters: expected an object for each of {FULL} and {SLIDING}, got "
                    f"{kind!r:.80}: {scaling!r:.80}."
                )


class Attention(Module[[Tensor, RotaryTable, Context], Tensor]):
    """Self-attention with rotary positions and grouped queries."""

    def __init__(self, config: Config, layer: int) -> None:
        self.layer = layer
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.window = config.windows()[layer]
        self.scale = (config.query_pre_attn_scalar or config.head_dim) ** -0.5
        self.cap = config.attn_logit_softcapping
        width, kv_width = self.heads * config.head_dim, self.kv_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, width, bias=config.attention_bias)
        self.k_proj = Linear(config.hidden_size, kv_width, bias=config.attention_bias)
        self.v_proj = Linear(config.hidden_size, kv_width, bias=config.attention_bias)
        self.o_proj = Linear(width, config.hidden_size, bias=config.attention_bias)
        self.qk_norm = config.model_type == "gemma3_text"
        if self.qk_norm:
            self.q_norm = GemmaRMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = GemmaRMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, table: RotaryTable, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        q = split_heads(self.q_proj(x), self.heads)
        k = split_heads(self.k_proj(x), self.kv_heads)
        v = split_heads(self.v_proj(x), self.kv_heads)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        k, v = context.extend(self.layer, table.apply(k), v)
        mask = context.mask(self.window)
        return self.o_proj(merge_heads(attention(table.apply(q), k, v, mask, self.scale, self.cap)))


class MLP(Module[[Tensor], Tensor]):
    """The gated MLP: `down(gelu(gate(x)) * up(x))` (GeGLU)."""

    def __init__(self, config: Config) -> None:
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each position: x [batch, seq, width]."""
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Block(Module[[Tensor, RotaryTable, Context], Tensor]):
    """Attention and MLP of the first Gemma, each normalised before and added to its input."""

    def __init__(self, config: Config, layer: int) -> None:
        self.input_layernorm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, table: RotaryTable, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        x = x + self.self_attn(self.input_layernorm(x), table, context)
        return x + self.mlp(self.post_attention_layernorm(x))


class SandwichBlock(Module[[Tensor, RotaryTable, Context], Tensor]):
    """Attention and MLP of Gemma 2 and 3, each normalised before and after."""

    def __init__(self, config: Config, layer: int) -> None:
        width, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = GemmaRMSNorm(width, eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = GemmaRMSNorm(width, eps)
        self.pre_feedforward_layernorm = GemmaRMSNorm(width, eps)
        self.mlp = MLP(config)
        self.post_feedforward_layernorm = GemmaRMSNorm(width, eps)

    def forward(self, x: Tensor, table: RotaryTable, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        mixed = self.self_attn(self.input_layernorm(x), table, context)
        x = x + self.post_attention_layernorm(mixed)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Head(Linear):
    """Hidden states to logits, which Gemma 2 keeps between two bounds."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.hidden_size, config.vocab_size, bias=False)
        self.cap = config.final_logit_softcapping

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., vocab]"""
        return soft_cap(super().forward(x), self.cap)


class Gemma(Module[[Tensor], Tensor]):
    """The language model: tokens to the logits of the token that comes after each of them.

    Attributes:
        embed_tokens: Embedding of tokens.
        layers: The blocks.
        norm: The last normalisation.
        lm_head: Hidden states to logits; its weight is that of `embed_tokens` if the configuration
            says so.
    """

    def __init__(self, config: Config) -> None:
        self.frequencies = config.frequencies()
        self.kinds = config.kinds()
        self.scale = config.hidden_size**0.5
        block = Block if config.is_first else SandwichBlock
        self.embed_tokens = Embedding(config.vocab_size, dim=config.hidden_size)
        self.layers = ModuleList(block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = GemmaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Head(config)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [batch, seq] -> logits [batch, seq, vocab]"""
        return self.lm_head(self.hidden(tokens))

    def hidden(self, tokens: Tensor, context: Context | None = None) -> Tensor:
        """int64 [batch, seq] -> [batch, seq, width], the input of `lm_head`"""
        context = context or WholeContext(tokens)
        tables = {
            kind: RotaryTable(context.positions, self.frequencies[kind]) for kind in set(self.kinds)
        }
        x = self.embed_tokens(tokens)
        # The factor is rounded to the dtype of the model, as in training.
        x = x * Tensor.full([], self.scale, dtype=x.dtype, device=x.device)
        for block, kind in zip(self.layers, self.kinds):
            x = block(x, tables[kind], context)
        return self.norm(x)


def adapt_weights(weights: StateLike) -> Weights:
    """Returns weights of a Hugging Face folder with the names of `Gemma`."""
    return drop(strip_prefix(weights, "model."), FREQUENCIES)
