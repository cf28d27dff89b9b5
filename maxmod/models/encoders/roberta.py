"""RoBERTa, XLM-RoBERTa and CamemBERT: BERT whose positions begin after that of padding.

Source: Y. Liu et al., RoBERTa: A Robustly Optimized BERT Pretraining Approach, arXiv 1907.11692;
A. Conneau et al., Unsupervised Cross-lingual Representation Learning at Scale, arXiv 1911.02116.
Names and numerics follow `RobertaModel` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass

from maxmod import functional as F
from maxmod.dtype import DType
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
from maxmod.models.packing import Packing
from maxmod.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Config(bert.Config):
    """The fields of config.json that the model uses."""

    pad_token_id: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise ModelError(
                f"pad_token_id: expected 0 to {self.vocab_size - 1}, got {self.pad_token_id}."
            )
        bert.Config.__post_init__(self)

    @property
    def max_positions(self) -> int:
        """The longest sequence: the first positions are kept for padding."""
        return self.max_position_embeddings - self.pad_token_id - 1


def places_after_padding(tokens: Tensor, padding: int, packing: Packing | None = None) -> Tensor:
    """Counts tokens from `padding` + 1, but for those that are padding, which have `padding`.

    Args:
        tokens: int64 [batch, seq]; packed [1, tokens].
        padding: The token that pads, even where it stands in the middle of a text.
        packing: Where texts start, if all of them are in one row.

    Returns:
        int64, the shape of the tokens.
    """
    counts = (tokens != padding).cast(DType.int64)
    places = F.cumsum(counts, axis=1)
    if packing is not None:  # less the tokens of the texts before
        places = places - F.gather(places - counts, packing.starts, axis=1)
    return places * counts + padding


class Roberta(Bert):
    """The encoder: tokens to a vector for each of them."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.padding = config.pad_token_id

    def places(self, tokens: Tensor, packing: Packing | None) -> Tensor:
        """The rows of `positions` for tokens int64 [batch, seq]: int64 [batch, seq]."""
        return places_after_padding(tokens, self.padding, packing)


WORD_NAMES = {
    "lm_head.dense.*": "dense.*",
    "lm_head.layer_norm.*": "norm.*",
    "lm_head.bias": "bias",
}

ROBERTA = Family(
    config=Config,
    module=Roberta,
    prefixes=("roberta.",),
    names={**EMBEDDING_NAMES, **BLOCK_NAMES},
    heads={
        "sequence": labels_of_texts(DENSE_AND_OUT, "tanh"),
        "tokens": labels_of_tokens(),
        "words": masked_words(WORD_NAMES, "gelu"),
    },
    unused=("pooler.*", "lm_head.*", "qa_outputs.*"),
)
