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
from functools import partial

from maxmod.errors import ModelError
from maxmod.models.attention import FULL, SLIDING
from maxmod.models.decoders.blocks import (
    Attention,
    Block,
    DecoderModel,
    GatedMLP,
    Parts,
    SandwichBlock,
)
from maxmod.models.decoders.config import DecoderConfig, sliding_but
from maxmod.models.rope_scaling import Rope
from maxmod.nn import GemmaRMSNorm
from maxmod.values.plain import JsonObject

# The older files of Gemma say "gelu" and mean this approximation of it.
_ACTIVATION = "gelu_pytorch_tanh"

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
class Config(DecoderConfig):
    """The fields of config.json that the models use."""

    head_dim: int | None = 256
    max_position_embeddings: int = 8192
    hidden_act: str = _ACTIVATION
    tie_word_embeddings: bool = True
    rms_norm_eps: float = 1e-6
    hidden_activation: str | None = None
    attention_bias: bool = False
    use_bidirectional_attention: bool | None = None
    query_pre_attn_scalar: float | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    sliding_window_pattern: int = 1
    rope_local_base_freq: float = 10000.0

    def __post_init__(self) -> None:
        numbers = (self.query_pre_attn_scalar, self.attn_logit_softcapping)
        numbers += (self.final_logit_softcapping, self.sliding_window_pattern)
        if any(number is not None and number <= 0 for number in numbers):
            raise ModelError("sizes must be above 0.")
        if not {self.hidden_act, self.hidden_activation} <= {None, "gelu", _ACTIVATION}:
            raise ModelError(
                f"hidden_activation: expected {_ACTIVATION!r}, got "
                f"{self.hidden_activation or self.hidden_act!r}."
            )
        if self.use_bidirectional_attention:
            raise ModelError("use_bidirectional_attention: expected false, got true.")
        DecoderConfig.__post_init__(self)

    @property
    def is_first(self) -> bool:
        """Whether it is the first Gemma, which has fewer norms."""
        return self.model_type == "gemma"

    @property
    def is_third(self) -> bool:
        """Whether it is Gemma 3, whose layers of two kinds rotate differently."""
        return self.model_type == "gemma3_text"

    @property
    def activation(self) -> str:
        """Name of the activation of the MLP."""
        return _ACTIVATION

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """The kinds that layers may have."""
        return (FULL,) if self.is_first else (FULL, SLIDING)

    @property
    def scale(self) -> float:
        """Factor of the scores of the attention."""
        return (self.query_pre_attn_scalar or self.dim) ** -0.5

    def kinds(self) -> list[str]:
        """For each layer what its tokens see: all before them, or the last ones."""
        if self.is_first or self.sliding_window is None:
            return [FULL] * self.num_hidden_layers
        if self.layer_types is not None:
            return list(self.layer_types)
        return list(sliding_but(self.sliding_window_pattern, self.num_hidden_layers))

    def ropes(self) -> dict[str, Rope]:
        """How the layers of each kind rotate."""
        if not self.is_third:
            return DecoderConfig.ropes(self)
        return self._ropes_by_kind(self.rope_theta or 1e6, self.rope_local_base_freq)


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    norm = partial(GemmaRMSNorm, eps=config.rms_norm_eps)
    bias = config.attention_bias

    def head_norm(heads: int) -> GemmaRMSNorm:
        return norm(config.dim)

    def block(layer: int) -> Block | SandwichBlock:
        attention = Attention(
            config,
            layer,
            bias=bias,
            output_bias=bias,
            scale=config.scale,
            cap=config.attn_logit_softcapping,
            norm=head_norm if config.is_third else None,
        )
        parts = Parts(config.hidden_size, attention, GatedMLP(config), norm)
        return Block(parts) if config.is_first else SandwichBlock(parts)

    return DecoderModel(
        config,
        block,
        norm,
        embedding_factor=config.hidden_size**0.5,
        rounds_factor=True,  # as in training
        logit_cap=config.final_logit_softcapping,
    )
