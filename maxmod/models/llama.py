"""The Llama family of decoder-only transformers: Llama 2 to 3.2, Mistral, Qwen2, Qwen2.5 and Qwen3.

Source: H. Touvron et al., Llama 2, arXiv 2307.09288; A. Q. Jiang et al., Mistral 7B, arXiv
2310.06825; A. Yang et al., Qwen2 Technical Report, arXiv 2407.10671, and Qwen3 Technical Report,
arXiv 2505.09388. Names and numerics follow `LlamaForCausalLM` and its relatives in the transformers
library, in whose layout weights are read.
"""

from __future__ import annotations

from dataclasses import dataclass

from maxmod.errors import ModelError
from maxmod.generate.kv_cache import CacheShape, Context, WholeContext
from maxmod.models.activations import ACTIVATIONS, check_activation
from maxmod.models.attention import (
    FULL,
    SLIDING,
    attention,
    check_layer_types,
    merge_heads,
    split_heads,
)
from maxmod.models.rotary import (
    Positions,
    Rope,
    RotaryTable,
    read_rope,
    trained_length,
    warn_of_lost_theta,
)
from maxmod.nn import Embedding, Linear, Module, ModuleList, RMSNorm
from maxmod.tensor import Tensor
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, drop, strip_prefix

# What older files have of rotary embeddings, once or for each layer.
FREQUENCIES = ["rotary_emb.inv_freq", "layers.*.self_attn.rotary_emb.inv_freq"]

# What config.json may leave out, where that means something else than in Llama.
DEFAULTS: dict[str, JsonObject] = {
    "llama": {},
    "mistral": {
        "num_key_value_heads": 8,
        "max_position_embeddings": 4096 * 32,
        "sliding_window": 4096,
    },
    "qwen2": {
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
        "max_window_layers": 28,
    },
    "qwen3": {
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
        "max_window_layers": 28,
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
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 2048
    original_max_position_embeddings: int | None = None
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    rope_theta: float | None = None
    rope_scaling: dict | None = None
    rope_parameters: dict | None = None
    sliding_window: int | None = None
    use_sliding_window: bool = False
    max_window_layers: int = 0
    layer_types: list | None = None
    dual_chunk_attention_config: dict | None = None

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.hidden_size, self.intermediate_size, self.num_hidden_layers)
        sizes += (self.num_attention_heads, self.kv_heads, self.dim, self.max_position_embeddings)
        sizes += (self.max_positions,)
        if min(sizes) < 1 or (self.sliding_window is not None and self.sliding_window < 1):
            raise ModelError("sizes must be above 0.")
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"hidden_size={self.hidden_size} is not a multiple of "
                f"num_attention_heads={self.num_attention_heads}."
            )
        if self.num_attention_heads % self.kv_heads:
            raise ModelError(
                f"num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.kv_heads}."
            )
        check_activation("hidden_act", self.hidden_act)
        self._check_layer_types()
        warn_of_lost_theta(self.rope_scaling, self.rope_parameters, self.rope_theta)
        self.rope()

    @property
    def dim(self) -> int:
        """Size of a head."""
        if self.head_dim is None:
            return self.hidden_size // max(self.num_attention_heads, 1)
        return self.head_dim

    @property
    def kv_heads(self) -> int:
        """Number of heads of keys and values; each serves some heads of queries."""
        if self.num_key_value_heads is None:
            return self.num_attention_heads
        return self.num_key_value_heads

    @property
    def max_positions(self) -> int:
        """The longest sequence.

        Where config.json asks for attention in chunks, one chunk: up to there it is the usual one.
        """
        chunks = self.dual_chunk_attention_config
        longest = trained_length(self._scaling(), self._positions())
        return longest if chunks is None else min(longest, chunk_length(chunks))

    @property
    def cache_shape(self) -> CacheShape:
        """Size of the cache per token."""
        return CacheShape(self.num_hidden_layers, self.kv_heads, self.dim)

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have a bias."""
        return self.model_type == "qwen2" or self.output_bias

    @property
    def output_bias(self) -> bool:
        """Whether the last map of an attention has a bias."""
        return self.attention_bias and self.model_type in ("llama", "qwen3")

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised."""
        return self.model_type == "qwen3"

    def windows(self) -> list[int | None]:
        """For each layer how many positions a token sees, itself included; None for all."""
        layers = self.num_hidden_layers
        if self.model_type in ("llama", "mistral"):
            return [self.sliding_window] * layers
        window = self.sliding_window if self.use_sliding_window else None
        if self.layer_types is None:
            return [window if n >= self.max_window_layers else None for n in range(layers)]
        return [window if kind == SLIDING else None for kind in self.layer_types]

    def _check_layer_types(self) -> None:
        kinds: tuple[str, ...] = (FULL, SLIDING)
        if self.model_type in ("llama", "mistral"):  # their layers are of one kind
            kinds = (FULL,) if self.sliding_window is None else (SLIDING,)
        check_layer_types(self.layer_types, self.num_hidden_layers, kinds)

    def rope(self) -> Rope:
        """How queries and keys are rotated.

        Raises:
            ModelError: If the fields about it are malformed or of an unknown kind.
        """
        return read_rope(self.dim, self.rope_theta, self._scaling(), self._positions())

    def _scaling(self) -> JsonObject:
        return self.rope_scaling or self.rope_parameters or {}  # as in transformers

    def _positions(self) -> Positions:
        return Positions(self.max_position_embeddings, self.original_max_position_embeddings)


def chunk_length(chunks: JsonObject) -> int:
    """Returns how many tokens a chunk of dual chunk attention has.

    Source: C. An et al., Training-Free Long-Context Scaling of Large Language Models, arXiv
    2402.17463: a chunk has the positions below `chunk_size - local_size`.

    Raises:
        ModelError: If the fields about it are malformed.
    """
    size, local = chunks.get("chunk_size"), chunks.get("local_size")
    if not isinstance(size, int) or not isinstance(local, int) or not size > local > 0:
        raise ModelError(
            "dual_chunk_attention_config: expected chunk_size above local_size above 0, got "
            f"{size!r:.40} and {local!r:.40}."
        )
    return size - local


class Attention(Module[[Tensor, RotaryTable, Context], Tensor]):
    """Self-attention with rotary positions and grouped queries."""

    def __init__(self, config: Config, layer: int) -> None:
        self.layer = layer
        self.heads = config.num_attention_heads
        self.kv_heads = config.kv_heads
        self.window = config.windows()[layer]
        self.scale = config.dim**-0.5
        width, kv_width = self.heads * config.dim, self.kv_heads * config.dim
        self.q_proj = Linear(config.hidden_size, width, bias=config.qkv_bias)
        self.k_proj = Linear(config.hidden_size, kv_width, bias=config.qkv_bias)
        self.v_proj = Linear(config.hidden_size, kv_width, bias=config.qkv_bias)
        self.o_proj = Linear(width, config.hidden_size, bias=config.output_bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.dim, config.rms_norm_eps)
        self.qk_norm = config.qk_norm

    def forward(self, x: Tensor, table: RotaryTable, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        q = split_heads(self.q_proj(x), self.heads)
        k = split_heads(self.k_proj(x), self.kv_heads)
        v = split_heads(self.v_proj(x), self.kv_heads)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        k, v = context.extend(self.layer, table.apply(k), v)
        mixed = attention(table.apply(q), k, v, context.mask(self.window), self.scale)
        return self.o_proj(merge_heads(mixed))


class MLP(Module[[Tensor], Tensor]):
    """The gated MLP: `down(act(gate(x)) * up(x))`, SwiGLU where the activation is `silu`."""

    def __init__(self, config: Config) -> None:
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.activation = config.hidden_act
        self.gate_proj = Linear(width, inner, bias=bias)
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each position: x [batch, seq, width]."""
        return self.down_proj(ACTIVATIONS[self.activation](self.gate_proj(x)) * self.up_proj(x))


class Block(Module[[Tensor, RotaryTable, Context], Tensor]):
    """Pre-norm attention and MLP, each with a residual connection."""

    def __init__(self, config: Config, layer: int) -> None:
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, table: RotaryTable, context: Context) -> Tensor:
        """x [batch, seq, width]"""
        x = x + self.self_attn(self.input_layernorm(x), table, context)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(Module[[Tensor], Tensor]):
    """The language model: tokens to the logits of the token that comes after each of them.

    Attributes:
        embed_tokens: Embedding of tokens.
        layers: The blocks.
        norm: The last normalisation.
        lm_head: Hidden states to logits; its weight is that of `embed_tokens` if the configuration
            says so.
    """

    def __init__(self, config: Config) -> None:
        self.rope = config.rope()
        self.embed_tokens = Embedding(config.vocab_size, dim=config.hidden_size)
        self.layers = ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [batch, seq] -> logits [batch, seq, vocab]"""
        return self.lm_head(self.hidden(tokens))

    def hidden(self, tokens: Tensor, context: Context | None = None) -> Tensor:
        """int64 [batch, seq] -> [batch, seq, width], the input of `lm_head`"""
        context = context or WholeContext(tokens)
        table = RotaryTable(context.positions, self.rope)
        x = self.embed_tokens(tokens)
        for block in self.layers:
            x = block(x, table, context)
        return self.norm(x)


def adapt_weights(weights: StateLike) -> Weights:
    """Returns weights of a Hugging Face folder with the names of `Llama`.

    Older files have the frequencies as tensors; they follow from config.json.
    """
    return drop(strip_prefix(weights, "model."), FREQUENCIES)
