"""NomicBERT: BERT with rotary positions and a gated MLP.

Source: Z. Nussbaum et al., Nomic Embed: Training a Reproducible Long Context Text Embedder, arXiv
2402.01613. Names and numerics follow `NomicBertModel` of the transformers library, without its
pooler.
"""

from __future__ import annotations

from dataclasses import dataclass

from maxmod.errors import ModelError
from maxmod.models.encoders.blocks import (
    EncoderConfig,
    GatedMLP,
    RotaryAttention,
    places_and_mask,
)
from maxmod.models.encoders.family import (
    POOLER_AND_OUT,
    Family,
    labels_of_texts,
    labels_of_tokens,
    masked_words,
)
from maxmod.models.packing import Packing
from maxmod.models.rope_scaling import rope_frequencies
from maxmod.models.rotary import RotaryTable
from maxmod.nn import Embedding, LayerNorm, Module, ModuleList
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray

_THETA = 1000.0


@dataclass(frozen=True, slots=True)
class Config(EncoderConfig):
    """The fields of config.json that the model uses."""

    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    type_vocab_size: int = 2
    head_dim: int | None = None
    rope_parameters: dict | None = None
    rope_scaling: dict | None = None
    rope_theta: float | None = None

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        if self.type_vocab_size < 1 or self.dim < 1:
            raise ModelError("sizes must be above 0.")
        self.frequencies()

    @property
    def dim(self) -> int:
        """Size of a head."""
        return (
            self.hidden_size // self.num_attention_heads
            if self.head_dim is None
            else (self.head_dim)
        )

    def frequencies(self) -> HostArray:
        """Radians per position of each pair of elements of a head: float64 [dim / 2].

        Raises:
            ModelError: If the fields about it are malformed or of an unknown kind.
        """
        scaling = self.rope_scaling or self.rope_parameters or {}
        return rope_frequencies(self.dim, self.rope_theta, scaling, _THETA)


class Block(Module[..., Tensor]):
    """Attention and the gated MLP, each with a residual connection and post-norm."""

    def __init__(self, config: Config) -> None:
        width, heads = config.hidden_size, config.num_attention_heads
        self.attention = RotaryAttention(width, heads, config.dim, bias=False)
        self.attention_norm = LayerNorm(width, config.layer_norm_eps)
        self.mlp = GatedMLP(width, config.intermediate_size, config.hidden_act, bias=False)
        self.mlp_norm = LayerNorm(width, config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor, table: RotaryTable) -> Tensor:
        """x [batch, seq, width]; mask and table as for `RotaryAttention`."""
        x = self.attention_norm(x + self.attention(x, mask, table))
        return self.mlp_norm(x + self.mlp(x))


class NomicBert(Module[..., Tensor]):
    """The encoder: tokens to a vector for each of them.

    Attributes:
        words: Embedding of tokens.
        types: Embedding of token types: 0 for a text, 1 for the second one of a pair.
        norm: Normalisation of their sum.
        layers: The blocks.
    """

    is_packable = True

    def __init__(self, config: Config) -> None:
        self.words = Embedding(config.vocab_size, dim=config.hidden_size)
        self.types = Embedding(config.type_vocab_size, dim=config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layers = ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.frequencies = config.frequencies()

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        packing: Packing | None = None,
        *,
        types: Tensor | None = None,
    ) -> Tensor:
        """Gives each token a vector; arguments and result as for `Bert`."""
        places, mask = places_and_mask(tokens, lengths, packing)
        table = RotaryTable(places, self.frequencies)
        x = self.words(tokens) + (self.types.weight[0] if types is None else self.types(types))
        x = self.norm(x)
        for block in self.layers:
            x = block(x, mask, table)
        return x if packing is None else packing.unpacked(x)


NOMIC_BERT = Family(
    config=Config,
    module=NomicBert,
    prefixes=("nomic_bert.",),
    names={
        "embeddings.word_embeddings.*": "words.*",
        "embeddings.token_type_embeddings.*": "types.*",
        "embeddings.LayerNorm.*": "norm.*",
        "emb_ln.*": "norm.*",
        "encoder.layers.*.attn.out_proj.*": "layers.*.attention.dense.*",
        "encoder.layers.*.norm1.*": "layers.*.attention_norm.*",
        "encoder.layers.*.mlp.fc11.*": "layers.*.mlp.up.*",
        "encoder.layers.*.mlp.fc12.*": "layers.*.mlp.gate.*",
        "encoder.layers.*.mlp.fc2.*": "layers.*.mlp.down.*",
        "encoder.layers.*.norm2.*": "layers.*.mlp_norm.*",
    },
    splits={
        "encoder.layers.*.attn.Wqkv.*": [
            f"layers.*.attention.{part}.*" for part in ("query", "key", "value")
        ],
    },
    heads={
        "sequence": labels_of_texts(POOLER_AND_OUT, "tanh"),
        "tokens": labels_of_tokens(),
        "words": masked_words(
            {
                "cls.predictions.transform.dense.*": "dense.*",
                "cls.predictions.transform.layer_norm.*": "norm.*",
                "cls.predictions.bias": "bias",
            }
        ),
    },
    unused=("pooler.*", "cls.*", "qa_outputs.*"),
)
