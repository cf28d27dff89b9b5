"""MPNet: RoBERTa without token types, with a bias of each distance in its attention.

Source: K. Song et al., MPNet: Masked and Permuted Pre-training for Language Understanding, arXiv
2004.09297; the buckets of distances are those of C. Raffel et al., Exploring the Limits of Transfer
Learning with a Unified Text-to-Text Transformer, arXiv 1910.10683. Names and numerics follow
`MPNetModel` of the transformers library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from maxmod import functional as F
from maxmod.errors import ModelError
from maxmod.models.encoders import roberta
from maxmod.models.encoders.bert import EMBEDDING_NAMES
from maxmod.models.encoders.blocks import places_of
from maxmod.models.encoders.family import (
    DENSE_AND_OUT,
    Family,
    labels_of_texts,
    labels_of_tokens,
    masked_words,
)
from maxmod.models.encoders.roberta import WORD_NAMES, Roberta
from maxmod.nn import Embedding
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray

_FARTHEST = 128  # distances from there on share a bucket


@dataclass(frozen=True, slots=True)
class Config(roberta.Config):
    """The fields of config.json that the model uses."""

    type_vocab_size: int = 0
    relative_attention_num_buckets: int = 32

    def __post_init__(self) -> None:
        roberta.Config.__post_init__(self)
        if self.relative_attention_num_buckets != 32:  # as many as its code asks for
            raise ModelError(
                "relative_attention_num_buckets: expected 32, got "
                f"{self.relative_attention_num_buckets}."
            )


def distance_buckets(longest: int, buckets: int) -> HostArray:
    """Returns the bucket of each distance of a key from its query, -longest + 1 to longest - 1.

    Half of the buckets are for keys that come later. Near distances have a bucket each, those from
    a quarter of the buckets on share them on a logarithmic scale.

    Returns:
        int64 [2 * longest - 1].
    """
    distance = np.arange(-longest + 1, longest)
    half = buckets // 2
    exact = half // 2
    far = np.maximum(np.abs(distance), 1).astype(np.float32)
    scale = np.float32(math.log(_FARTHEST / exact))
    steps = np.log(far / np.float32(exact)) / scale * np.float32(half - exact)
    shared = np.minimum(exact + steps.astype(np.int64), half - 1)
    near = np.where(np.abs(distance) < exact, np.abs(distance), shared)
    return near + np.where(distance > 0, half, 0)


class MPNet(Roberta):
    """The encoder: tokens to a vector for each of them.

    Attributes:
        relative: The bias of each bucket of distances, for each head.
    """

    is_packable = False  # the biases of all pairs of tokens would be larger than padding

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        buckets = config.relative_attention_num_buckets
        self.relative = Embedding(buckets, dim=config.num_attention_heads)
        self.longest = config.max_positions
        self.buckets = distance_buckets(self.longest, buckets)

    def bias(self, tokens: Tensor) -> Tensor:
        """What is added to the scores of all attentions: [1, heads, seq, seq]."""
        places = places_of(tokens)
        distance = F.unsqueeze(places, 0) - F.unsqueeze(places, 1) + (self.longest - 1)
        buckets = Tensor(self.buckets, device=tokens.device)[distance]
        return F.unsqueeze(self.relative(buckets).permute([2, 0, 1]), 0)


_LAYER = "encoder.layer.*."
MPNET = Family(
    config=Config,
    module=MPNet,
    prefixes=("mpnet.",),
    names={
        **EMBEDDING_NAMES,
        "encoder.relative_attention_bias.*": "relative.*",
        _LAYER + "attention.attn.q.*": "layers.*.attention.query.*",
        _LAYER + "attention.attn.k.*": "layers.*.attention.key.*",
        _LAYER + "attention.attn.v.*": "layers.*.attention.value.*",
        _LAYER + "attention.attn.o.*": "layers.*.attention.dense.*",
        _LAYER + "attention.LayerNorm.*": "layers.*.attention.norm.*",
        _LAYER + "intermediate.dense.*": "layers.*.mlp.up.*",
        _LAYER + "output.dense.*": "layers.*.mlp.down.*",
        _LAYER + "output.LayerNorm.*": "layers.*.mlp.norm.*",
    },
    heads={
        "sequence": labels_of_texts(DENSE_AND_OUT, "tanh"),
        "tokens": labels_of_tokens(),
        "words": masked_words(WORD_NAMES, "gelu"),
    },
    unused=("pooler.*", "lm_head.*", "qa_outputs.*"),
)
