"""SmolLM3: Llama, with every fourth layer without positions.

Source: Hugging Face, SmolLM3 (2025); B. Yang et al., RoPE to NoPE and Back Again, arXiv 2501.18795.
Names and numerics follow `SmolLM3ForCausalLM` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from maxmod.errors import ModelError
from maxmod.models.attention import FULL, SLIDING
from maxmod.models.decoders.blocks import DecoderModel, usual_model
from maxmod.models.decoders.config import DecoderConfig
from maxmod.nn import RMSNorm
from maxmod.values.plain import JsonObject

DEFAULTS: JsonObject = {
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, slots=True)
class Config(DecoderConfig):
    """The fields of config.json that the model uses."""

    THETA: ClassVar[float] = 2000000.0

    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    use_sliding_window: bool = False
    no_rope_layers: list | None = None
    no_rope_layer_interval: int = 4

    def __post_init__(self) -> None:
        layers = self.num_hidden_layers
        if self.no_rope_layer_interval < 1:
            raise ModelError("no_rope_layer_interval: expected a number above 0.")
        given = self.no_rope_layers
        if given is not None and (len(given) != layers or not all(n in (0, 1) for n in given)):
            raise ModelError(f"no_rope_layers: expected {layers} times 0 or 1, got {given!r:.200}.")
        DecoderConfig.__post_init__(self)

    def rotates(self) -> list[bool]:
        """For each layer whether its queries and keys are rotated; the fields name it so."""
        if self.no_rope_layers is not None:
            return [bool(number) for number in self.no_rope_layers]
        every = self.no_rope_layer_interval
        return [(layer + 1) % every != 0 for layer in range(self.num_hidden_layers)]

    def kinds(self) -> list[str]:
        """For each layer what its tokens see: all before them, or the last ones."""
        if not self.use_sliding_window or self.sliding_window is None:
            return [FULL] * self.num_hidden_layers
        if self.layer_types is not None:
            return list(self.layer_types)
        return [FULL if rotates else SLIDING for rotates in self.rotates()]


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    norm, bias = partial(RMSNorm, eps=config.rms_norm_eps), config.attention_bias
    return usual_model(config, norm, bias=bias, output_bias=bias, mlp_bias=config.mlp_bias)
