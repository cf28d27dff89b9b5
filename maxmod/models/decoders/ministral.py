"""Ministral: Mistral, whose layers may be of two kinds; Ministral 3, whose queries grow.

Source: A. Q. Jiang et al., Mistral 7B, arXiv 2310.06825; Mistral AI, Un Ministral, des Ministraux
(2024). That queries of late positions are larger is from Llama 4 (2025). Names and numerics follow
`MinistralForCausalLM` and `Ministral3ForCausalLM` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from maxmod.errors import ModelError
from maxmod.models.decoders.blocks import DecoderModel, usual_model
from maxmod.models.decoders.config import DecoderConfig
from maxmod.models.rope_scaling import Rope
from maxmod.nn import RMSNorm
from maxmod.values.plain import JsonObject

_BETA = "llama_4_scaling_beta"
DEFAULTS: dict[str, JsonObject] = {
    "ministral": {
        "num_key_value_heads": 8,
        "max_position_embeddings": 4096 * 32,
        "sliding_window": 4096,
    },
    "ministral3": {
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 16.0,
            "original_max_position_embeddings": 16384,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            _BETA: 0.1,
        },
    },
}


@dataclass(frozen=True, slots=True)
class Config(DecoderConfig):
    """The fields of config.json that the model uses."""

    rms_norm_eps: float = 1e-6

    def _rope(self, scaling: JsonObject) -> Rope:
        if self.model_type == "ministral":
            return DecoderConfig._rope(self, scaling)
        given = {k: v for k, v in scaling.items() if k != "max_position_embeddings"}
        beta, step = given.pop(_BETA, None), given.get("original_max_position_embeddings")
        rope = DecoderConfig._rope(self, given)
        for name, value in ((_BETA, beta), ("original_max_position_embeddings", step)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ModelError(
                    f"rope_parameters: {name}: expected a number above 0, got {value!r:.80}."
                )
        assert beta is not None
        assert step is not None
        return replace(rope, growth=float(beta), step=float(step))


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    return usual_model(config, partial(RMSNorm, eps=config.rms_norm_eps))
