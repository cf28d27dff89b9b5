"""DeBERTa of the second and third version: attention whose scores have terms for distances.

Source: P. He et al., DeBERTa: Decoding-enhanced BERT with Disentangled Attention, arXiv 2006.03654;
P. He, J. Gao and W. Chen, DeBERTaV3, arXiv 2111.09543. Names and numerics follow `DebertaV2Model`
of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maxmod import functional as F
from maxmod.errors import ModelError
from maxmod.models.activations import check_activation
from maxmod.models.attention import attention, merge_heads, split_heads
from maxmod.models.encoders.bert import EMBEDDING_NAMES
from maxmod.models.encoders.blocks import MLP, EncoderConfig, padding_mask, places_of
from maxmod.models.encoders.family import (
    POOLER_AND_OUT,
    Family,
    Head,
    labels_of_tokens,
    masked_words,
)
from maxmod.models.encoders.heads import SequenceHead
from maxmod.nn import Embedding, LayerNorm, Linear, Module, ModuleList
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray

_TERMS = {"c2p", "p2c"}


@dataclass(frozen=True, slots=True)
class Config(EncoderConfig):
    """The fields of config.json that the model uses."""

    layer_norm_eps: float = 1e-7
    type_vocab_size: int = 0
    relative_attention: bool = False
    max_relative_positions: int = -1
    position_buckets: int = -1
    pos_att_type: str | list | None = None
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    position_biased_input: bool = True
    embedding_size: int | None = None
    pooler_hidden_act: str = "gelu"
    pooler_hidden_size: int | None = None
    legacy: bool = True

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        check_activation("pooler_hidden_act", self.pooler_hidden_act)
        if not self.relative_attention:
            raise ModelError("relative_attention: expected true, got false.")
        if self.pooler_hidden_size not in (None, self.hidden_size):
            raise ModelError(
                f"pooler_hidden_size: expected {self.hidden_size}, got {self.pooler_hidden_size}."
            )
        if not self.terms <= _TERMS:
            raise ModelError(
                f"pos_att_type: expected some of {', '.join(sorted(_TERMS))}, got "
                f"{self.pos_att_type!r:.80}."
            )

    @property
    def embedding_width(self) -> int:
        """The size of the vectors of the embeddings."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    @property
    def terms(self) -> set[str]:
        """Which terms of distances the scores have: of content to position, and the reverse."""
        given = self.pos_att_type or []
        listed = given.lower().split("|") if isinstance(given, str) else given
        return {str(part).strip() for part in listed}

    @property
    def farthest(self) -> int:
        """Distances from there on are alike."""
        given = self.max_relative_positions
        return given if given > 0 else self.max_position_embeddings

    @property
    def span(self) -> int:
        """Half the number of rows of the embedding of distances."""
        return self.position_buckets if self.position_buckets > 0 else self.farthest

    def rows(self) -> HostArray:
        """The row of the embedding for each distance of a key from its query.

        Returns:
            int64 [2 * max_positions - 1], of the distances -max_positions + 1 and on.
        """
        distance = np.arange(-self.max_positions + 1, self.max_positions)
        if self.position_buckets > 0:
            distance = log_buckets(distance, self.position_buckets, self.farthest)
        return np.clip(distance + self.span, 0, 2 * self.span - 1)


def log_buckets(distance: HostArray, buckets: int, farthest: int) -> HostArray:
    """Returns distances, those above half the buckets on a logarithmic scale: int64.

    It rounds as float32 does, since a bucket more or less is another embedding.
    """
    middle = buckets // 2
    size = np.maximum(np.abs(distance), max(middle - 1, 1)).astype(np.float32)
    scale = np.log(np.float32((farthest - 1) / middle))
    steps = np.log(size / np.float32(middle)) / scale * np.float32(middle - 1)
    far = np.sign(distance) * (np.ceil(steps).astype(np.int64) + middle)
    return np.where(np.abs(distance) <= middle, distance, far)


class Attention(Module[[Tensor, Tensor, Tensor, Tensor], Tensor]):
    """Self-attention with terms for distances, a residual connection and post-norm."""

    def __init__(self, config: Config) -> None:
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.terms = sorted(config.terms)
        self.scale = (width // self.heads * (1 + len(self.terms))) ** -0.5
        self.query = Linear(width, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)
        self.dense = Linear(width, width)
        self.norm = LayerNorm(width, config.layer_norm_eps)
        self.is_shared = config.share_att_key
        if not self.is_shared:
            if "c2p" in self.terms:
                self.distance_key = Linear(width, width)
            if "p2c" in self.terms:
                self.distance_query = Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor, distances: Tensor, rows: Tensor) -> Tensor:
        """Mixes the positions of each text.

        Args:
            x: [batch, seq, width].
            mask: bool [batch, 1, 1, seq], false at padding.
            distances: The embedding of distances [2 * span, width].
            rows: int64 [seq, seq]: its row for each query and key.
        """
        q, k, v = (split_heads(map(x), self.heads) for map in (self.query, self.key, self.value))
        bias = None
        places = places_of(x)
        if "c2p" in self.terms:
            keys = self._heads(self.key if self.is_shared else self.distance_key, distances)
            bias = _chosen(q @ keys.T, F.unsqueeze(places, 1), rows)
        if "p2c" in self.terms:
            queries = self._heads(self.query if self.is_shared else self.distance_query, distances)
            found = _chosen(k @ queries.T, F.unsqueeze(places, 0), rows)
            bias = found if bias is None else bias + found
        bias = None if bias is None else bias * self.scale
        mixed = attention(q, k, v, mask, self.scale, bias=bias)
        return self.norm(x + self.dense(merge_heads(mixed)))

    def _heads(self, map: Linear, distances: Tensor) -> Tensor:
        """[2 * span, width] -> [1, heads, 2 * span, dim]"""
        return split_heads(F.unsqueeze(map(distances), 0), self.heads)


def _chosen(scores: Tensor, places: Tensor, rows: Tensor) -> Tensor:
    """Takes the score of one distance for each query and key.

    Args:
        scores: [batch, heads, seq, 2 * span], of all distances from each place.
        places: int64, broadcast to [seq, seq]: which of them counts, the query or the key.
        rows: int64 [seq, seq]: the distances.

    Returns:
        [batch, heads, seq, seq].
    """
    batch, heads, seq, span = scores.shape
    flat = (places * int(span) + rows).reshape([seq * seq])
    found = F.gather(scores.reshape([batch, heads, seq * span]), flat, axis=2)
    return found.reshape([batch, heads, seq, seq])


class Block(Module[[Tensor, Tensor, Tensor, Tensor], Tensor]):
    """Attention and MLP."""

    def __init__(self, config: Config) -> None:
        self.attention = Attention(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, mask: Tensor, distances: Tensor, rows: Tensor) -> Tensor:
        """x [batch, seq, width]; the others as for `Attention`."""
        return self.mlp(self.attention(x, mask, distances, rows))


class Deberta(Module[..., Tensor]):
    """The encoder: tokens to a vector for each of them.

    Attributes:
        words: Embedding of tokens.
        positions: Embedding of positions, in models that have one.
        types: Embedding of token types, in models that have them.
        projection: Map of embeddings that are narrower than the blocks.
        norm: Normalisation of their sum.
        distances: Embedding of distances.
        distance_norm: Its normalisation.
        layers: The blocks.
    """

    is_packable = False  # the scores of all distances would be larger than padding

    def __init__(self, config: Config) -> None:
        width = config.embedding_width
        self.words = Embedding(config.vocab_size, dim=width)
        self.has_positions = config.position_biased_input
        if self.has_positions:
            self.positions = Embedding(config.max_position_embeddings, dim=width)
        self.has_types = config.type_vocab_size > 0
        if self.has_types:
            self.types = Embedding(config.type_vocab_size, dim=width)
        self.is_projected = width != config.hidden_size
        if self.is_projected:
            self.projection = Linear(width, config.hidden_size, bias=False)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.distances = Embedding(2 * config.span, dim=config.hidden_size)
        self.has_distance_norm = "layer_norm" in config.norm_rel_ebd.lower()
        if self.has_distance_norm:
            self.distance_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layers = ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.rows = config.rows()
        self.longest = config.max_positions

    def forward(self, tokens: Tensor, lengths: Tensor, *, types: Tensor | None = None) -> Tensor:
        """Encodes texts.

        Args:
            tokens: int64 [batch, seq].
            lengths: int64 [batch]: how many tokens of each row count.
            types: int64 [batch, seq]: token types; all are 0 if they are not given.

        Returns:
            [batch, seq, width].
        """
        places = places_of(tokens)
        x = self.words(tokens)
        if self.has_positions:
            x = x + self.positions(places)
        if self.has_types:
            x = x + (self.types.weight[0] if types is None else self.types(types))
        x = self.norm(self.projection(x) if self.is_projected else x)
        between = F.unsqueeze(places, 1) - F.unsqueeze(places, 0) + (self.longest - 1)
        rows = Tensor(self.rows, device=tokens.device)[between]
        distances = self.distances.weight
        distances = self.distance_norm(distances) if self.has_distance_norm else distances
        mask = padding_mask(tokens, lengths)
        for block in self.layers:
            x = block(x, mask, distances, rows)
        return x


def _sequence_head(config: Config, labels: int) -> SequenceHead:
    return SequenceHead(config.hidden_size, labels, config.pooler_hidden_act)


_LAYER = "encoder.layer.*."
_SELF = _LAYER + "attention.self."
_WORDS = ("cls.predictions.transform.", "lm_predictions.lm_head.")
DEBERTA = Family(
    config=Config,
    module=Deberta,
    prefixes=("deberta.",),
    names={
        **EMBEDDING_NAMES,
        "embeddings.embed_proj.*": "projection.*",
        "encoder.rel_embeddings.*": "distances.*",
        "encoder.LayerNorm.*": "distance_norm.*",
        _SELF + "query_proj.*": "layers.*.attention.query.*",
        _SELF + "key_proj.*": "layers.*.attention.key.*",
        _SELF + "value_proj.*": "layers.*.attention.value.*",
        _SELF + "pos_key_proj.*": "layers.*.attention.distance_key.*",
        _SELF + "pos_query_proj.*": "layers.*.attention.distance_query.*",
        _LAYER + "attention.output.dense.*": "layers.*.attention.dense.*",
        _LAYER + "attention.output.LayerNorm.*": "layers.*.attention.norm.*",
        _LAYER + "intermediate.dense.*": "layers.*.mlp.up.*",
        _LAYER + "output.dense.*": "layers.*.mlp.down.*",
        _LAYER + "output.LayerNorm.*": "layers.*.mlp.norm.*",
    },
    heads={
        "sequence": Head(POOLER_AND_OUT, _sequence_head),
        "tokens": labels_of_tokens(),
        "words": masked_words(
            {
                **{f"{start}dense.*": "dense.*" for start in _WORDS},
                **{f"{start}LayerNorm.*": "norm.*" for start in _WORDS},
                "cls.predictions.bias": "bias",
                "lm_predictions.lm_head.bias": "bias",
            }
        ),
    },
    unused=("pooler.*", "cls.*", "lm_predictions.*", "mask_predictions.*", "qa_outputs.*"),
)
