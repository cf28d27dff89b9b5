"""The Llama family of decoder-only transformers: Llama 2 to 3.2, Mistral, Qwen2, Qwen2.5 and Qwen3.

Source: H. Touvron et al., Llama 2, arXiv 2307.09288; A. Q. Jiang et al., Mistral 7B, arXiv
2310.06825; A. Yang et al., Qwen2 Technical Report, arXiv 2407.10671, and Qwen3 Technical Report,
arXiv 2505.09388. Names and numerics follow `LlamaForCausalLM` and its relatives in the transformers
library, in whose layout weights are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from maxmod.errors import ModelError
from maxmod.models.attention import FULL, SLIDING
from maxmod.models.decoders.blocks import DecoderModel, usual_model
from maxmod.models.decoders.config import DecoderConfig
from maxmod.models.rope_scaling import trained_length
from maxmod.nn import RMSNorm
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
class Config(DecoderConfig):
    """The fields of config.json that the models use."""

    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    use_sliding_window: bool = False
    max_window_layers: int = 0
    dual_chunk_attention_config: dict | None = None

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """The kinds that layers may have; those of Llama and Mistral are all of one."""
        if self.model_type not in ("llama", "mistral"):
            return (FULL, SLIDING)
        return (FULL,) if self.sliding_window is None else (SLIDING,)

    @property
    def max_positions(self) -> int:
        """The longest sequence.

        Where config.json asks for attention in chunks, one chunk: up to there it is the usual one.
        """
        longest = trained_length(self._scaling(), self._positions())
        chunks = self.dual_chunk_attention_config
        return longest if chunks is None else min(longest, chunk_length(chunks))

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have a bias."""
        return self.model_type == "qwen2" or self.output_bias

    @property
    def output_bias(self) -> bool:
        """Whether the last map of an attention has a bias."""
        return self.attention_bias and self.model_type in ("llama", "qwen3")

    def kinds(self) -> list[str]:
        """For each layer what its tokens see: all before them, or the last ones."""
        layers = self.num_hidden_layers
        if self.model_type in ("llama", "mistral"):
            return [FULL if self.sliding_window is None else SLIDING] * layers
        if not self.use_sliding_window or self.sliding_window is None:
            return [FULL] * layers
        if self.layer_types is None:
            return [SLIDING if n >= self.max_window_layers else FULL for n in range(layers)]
        return list(self.layer_types)


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


def make_module(config: Config) -> DecoderModel:
    """Makes the model of a configuration."""
    norm = partial(RMSNorm, eps=config.rms_norm_eps)

    def head_norm(heads: int) -> RMSNorm:
        return norm(config.dim)

    return usual_model(
        config,
        norm,
        bias=config.qkv_bias,
        output_bias=config.output_bias,
        mlp_bias=config.mlp_bias,
        head_norm=head_norm if config.model_type == "qwen3" else None,
    )


def adapt_weights(weights: StateLike) -> Weights:
    """Returns weights of a Hugging Face folder with the names of the module.

    Older files have the frequencies as tensors; they follow from config.json.
    """
    return drop(strip_prefix(weights, "model."), FREQUENCIES)
