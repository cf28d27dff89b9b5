"""ELECTRA: BERT whose embeddings may be narrower than its blocks.

Source: K. Clark et al., ELECTRA: Pre-training Text Encoders as Discriminators Rather Than
Generators, arXiv 2003.10555. Names and numerics follow `ElectraModel` of the transformers library;
masked words are what its generators are trained for.
"""

from __future__ import annotations

from dataclasses import dataclass

from maxmod.errors import ModelError
from maxmod.models.encoders import bert
from maxmod.models.encoders.bert import BLOCK_NAMES, EMBEDDING_NAMES, Bert
from maxmod.models.encoders.family import (
    DENSE_AND_OUT,
    Family,
    labels_of_texts,
    labels_of_tokens,
    masked_words,
)


@dataclass(frozen=True, slots=True)
class Config(bert.Config):
    """The fields of config.json that the model uses."""

    embedding_size: int = 128

    def __post_init__(self) -> None:
        bert.Config.__post_init__(self)
        if self.embedding_size < 1:
            raise ModelError(f"embedding_size: expected 1 or more, got {self.embedding_size}.")

    @property
    def embedding_width(self) -> int:
        """The size of the vectors of the embeddings."""
        return self.embedding_size


ELECTRA = Family(
    config=Config,
    module=Bert,
    prefixes=("electra.",),
    names={**EMBEDDING_NAMES, **BLOCK_NAMES, "embeddings_project.*": "projection.*"},
    heads={
        "sequence": labels_of_texts(DENSE_AND_OUT, "gelu"),
        "tokens": labels_of_tokens(),
        "words": masked_words(
            {
                "generator_predictions.dense.*": "dense.*",
                "generator_predictions.LayerNorm.*": "norm.*",
                "generator_lm_head.bias": "bias",
            },
            "gelu",
        ),
    },
    unused=("discriminator_predictions.*", "generator_*", "qa_outputs.*"),
)
