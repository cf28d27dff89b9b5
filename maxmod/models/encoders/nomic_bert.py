"""NomicBERT: BERT with rotary positions and a gated MLP.

Source: Z. Nussbaum et al., Nomic Embed: Training a Reproducible Long Context Text Embedder, arXiv
2402.01613. Names and numerics follow `NomicBertModel` of the transformers library, without its
pooler.
"""

from __future__ import annotations

from dataclasses import dataclass

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.models.activations import ACTIVATIONS
from maxmod.models.attention import attention, merge_heads, split_heads
from maxmod.models.encoders.blocks import EncoderConfig, padding_mask
from maxmod.models.encoders.family import Family, Head
from maxmod.models.encoders.heads import SequenceHead, TokenHead, WordHead
from maxmod.models.packing import Packing
from maxmod.models.rotary import RotaryTable, rope_frequencies
from maxmod.nn import Embedding, LayerNorm, Linear, Module, ModuleList
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


class Attention(Module[[Tensor, Tensor, RotaryTable], Tensor]):
    """Multi-head self-attention with rotary positions, a residual connection and post-norm."""

    def __init__(self, config: Config) -> None:
        width, inner = config.hidden_size, config.num_attention_heads * config.dim
        self.heads = config.num_attention_heads
        self.scale = config.dim**-0.5
        self.query = Linear(width, inner, bias=False)
        self.key = Linear(width, inner, bias=False)
        self.value = Linear(width, inner, bias=False)
        self.dense = Linear(inner, width, bias=False)
        self.norm = LayerNorm(width, config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor, table: RotaryTable) -> Tensor:
        """x [batch, seq, width]; mask bool, broadcast to [batch, 1, seq, seq]."""
        q, k, v = (split_heads(map(x), self.heads) for map in (self.query, self.key, self.value))
        mixed = attention(table.apply(q), table.apply(k), v, mask, self.scale)
        return self.norm(x + self.dense(merge_heads(mixed)))


class MLP(Module[[Tensor], Tensor]):
    """The gated MLP `down(act(gate(x)) * up(x))`, a residual connection and post-norm."""

    def __init__(self, config: Config) -> None:
        width, inner = config.hidden_size, config.intermediate_size
        self.activation = config.hidden_act
        self.gate = Linear(width, inner, bias=False)
        self.up = Linear(width, inner, bias=False)
        self.down = Linear(inner, width, bias=False)
        self.norm = LayerNorm(width, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each position: x [batch, seq, width]."""
        return self.norm(x + self.down(ACTIVATIONS[self.activation](self.gate(x)) * self.up(x)))


class Block(Module[[Tensor, Tensor, RotaryTable], Tensor]):
    """Attention and MLP."""

    def __init__(self, config: Config) -> None:
        self.attention = Attention(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, mask: Tensor, table: RotaryTable) -> Tensor:
        """x [batch, seq, width]; mask and table as for `Attention`."""
        return self.mlp(self.attention(x, mask, table))


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
        if packing is None:
            places = F.arange(0, tokens.shape[1], dtype=DType.int64, device=tokens.device)
            mask = padding_mask(tokens, lengths)
        else:
            places, mask = packing.positions(), packing.mask()
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
        "encoder.layers.*.norm1.*": "layers.*.attention.norm.*",
        "encoder.layers.*.mlp.fc11.*": "layers.*.mlp.up.*",
        "encoder.layers.*.mlp.fc12.*": "layers.*.mlp.gate.*",
        "encoder.layers.*.mlp.fc2.*": "layers.*.mlp.down.*",
        "encoder.layers.*.norm2.*": "layers.*.mlp.norm.*",
    },
    splits={
        "encoder.layers.*.attn.Wqkv.*": [
            f"layers.*.attention.{part}.*" for part in ("query", "key", "value")
        ],
    },
    heads={
        "sequence": Head(
            names={"pooler.dense.*": "dense.*", "classifier.*": "out.*"},
            make=lambda config, labels: SequenceHead(config.hidden_size, labels, "tanh"),
        ),
        "tokens": Head(
            names={"classifier.*": "out.*"},
            make=lambda config, labels: TokenHead(config.hidden_size, labels),
        ),
        "words": Head(
            names={
                "cls.predictions.transform.dense.*": "dense.*",
                "cls.predictions.transform.layer_norm.*": "norm.*",
                "cls.predictions.bias": "bias",
            },
            make=lambda config, _: WordHead(config, config.hidden_act),
        ),
    },
    unused=("pooler.*", "cls.*", "qa_outputs.*"),
)
