"""OLMo 2 and OLMo 3: Llama with norms after attention and MLP, and norms of all queries and keys.

In three of four layers of OLMo 3 tokens see the last ones only; scaled positions are for the
others.

Source: Team OLMo, 2 OLMo 2 Furious, arXiv 2501.00656; Olmo 3, arXiv 2512.13961. Names and numerics
follow `Olmo2ForCausalLM` and `Olmo3ForCausalLM` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from maxmod.models.attention import FULL
from maxmod.models.decoders.blocks import Attention, DecoderModel, GatedMLP, Parts, PostNormBlock
from maxmod.models.decoders.config import DecoderConfig, sliding_but
from maxmod.models.rope_scaling import Rope
from maxmod.nn import RMSNorm
from maxmod.values.plain import JsonObject

DEFAULTS: dict[str, JsonObject] = {
    "olmo2": {},
    "olmo3": {"sliding_window": 4096},
}
# Its norms of queries and keys take all heads at once, so that they are not divided.
PARALLEL = None
_THETA = {"olmo2": 10000.0, "olmo3": 500000.0}


@dataclass(frozen=True, slots=True)
class Config(DecoderConfig):
    """The fields of config.json that the models use."""

    rms_norm_eps: float = 1e-5
    attention_bias: bool = False

    @property
    def is_third(self) -> bool:
        """Whether it is OLMo 3, whose layers are of two kinds."""
        return self.model_type == "olmo3"

    def kinds(self) -> list[str]:
        """For each layer what its tokens see: all before them, or the last ones."""
        if not self.is_third:
            return [FULL] * self.num_hidden_layers
        if self.layer_types is not None:
            return list(self.layer_types)
        return list(sliding_but(4, self.num_hidden_layers))

    def ropes(self) -> dict[str, Rope]:
        """How the layers of each kind rotate."""
        if not self.is_third:
            return DecoderConfig.ropes(self)
        theta = self.rope_theta or _THETA["olmo3"]
        return self._ropes_by_kind(theta, theta)


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    norm = partial(RMSNorm, eps=config.rms_norm_eps)
    bias = config.attention_bias

    def block(layer: int) -> PostNormBlock:
        attention = Attention(
            config, layer, bias=bias, output_bias=bias, norm=norm, norm_before_heads=True
        )
        return PostNormBlock(Parts(config.hidden_size, attention, GatedMLP(config), norm))

    return DecoderModel(config, block, norm)
