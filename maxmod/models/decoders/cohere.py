"""Command R, R+, R7B and Aya of Cohere: attention and MLP side by side, behind one norm.

Pairs of rotated elements are neighbours. In three of four layers of the second generation tokens
see the last ones only, and the fourth has no positions.

Source: Cohere, Command R (2024) and Command A, arXiv 2504.00698. Names and numerics follow
`CohereForCausalLM` and `Cohere2ForCausalLM` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.models.attention import FULL, SLIDING
from maxmod.models.decoders.blocks import Attention, DecoderModel, GatedMLP, ParallelBlock, Parts
from maxmod.models.decoders.config import DecoderConfig, sliding_but
from maxmod.models.parallel import DECODER
from maxmod.nn import LayerNorm, Module
from maxmod.tensor import Tensor
from maxmod.values.plain import JsonObject

DEFAULTS: dict[str, JsonObject] = {
    "cohere": {"max_position_embeddings": 8192, "tie_word_embeddings": True},
    "cohere2": {
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "sliding_window": 4096,
        "sliding_window_pattern": 4,
    },
}

# A norm has a gain for each head.
PARALLEL = replace(
    DECODER,
    columns=(*DECODER.columns, "*.q_norm"),
    of_kv=(*DECODER.of_kv, "*.k_norm"),
)


@dataclass(frozen=True, slots=True)
class Config(DecoderConfig):
    """The fields of config.json that the models use."""

    THETA: ClassVar[float] = 500000.0
    INTERLEAVED: ClassVar[bool] = True

    layer_norm_eps: float = 1e-5
    logit_scale: float = 0.0625
    attention_bias: bool = False
    use_qk_norm: bool = False
    sliding_window_pattern: int = 1

    def __post_init__(self) -> None:
        if self.sliding_window_pattern < 1:
            raise ModelError("sizes must be above 0.")
        DecoderConfig.__post_init__(self)

    def kinds(self) -> list[str]:
        """For each layer what its tokens see: all before them, or the last ones."""
        if self.model_type == "cohere" or self.sliding_window is None:
            return [FULL] * self.num_hidden_layers
        if self.layer_types is not None:
            return list(self.layer_types)
        return list(sliding_but(self.sliding_window_pattern, self.num_hidden_layers))

    def rotates(self) -> list[bool]:
        """For each layer whether its queries and keys are rotated."""
        is_first = self.model_type == "cohere"
        return [is_first or kind == SLIDING for kind in self.kinds()]


class HeadNorm(Module[[Tensor], Tensor]):
    """Normalises each head, with a gain for each of its elements."""

    def __init__(self, dim: int, eps: float, heads: int) -> None:
        self.eps = eps
        self.weight = Tensor.ones([heads, dim])

    def forward(self, x: Tensor) -> Tensor:
        """[batch, heads, seq, dim]"""
        wide = x.cast(DType.float32)
        centred = wide - F.mean(wide, axis=-1)
        normed = centred * F.rsqrt(F.mean(centred * centred, axis=-1) + self.eps)
        return (normed * F.unsqueeze(self.weight.cast(DType.float32), 1)).cast(x.dtype)


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    norm = partial(LayerNorm, eps=config.layer_norm_eps, use_bias=False, keep_dtype=False)
    head_norm = partial(HeadNorm, config.dim, config.layer_norm_eps)
    bias = config.attention_bias

    def block(layer: int) -> ParallelBlock:
        attention = Attention(
            config,
            layer,
            bias=bias,
            output_bias=bias,
            norm=head_norm if config.use_qk_norm else None,
        )
        parts = Parts(config.hidden_size, attention, GatedMLP(config), norm)
        return ParallelBlock(parts, one_norm=True)

    return DecoderModel(config, block, norm, logit_factor=config.logit_scale)
