"""DistilBERT: half the blocks of BERT, without token types.

Source: V. Sanh et al., DistilBERT, a distilled version of BERT, arXiv 1910.01108. Names and
numerics follow `DistilBertModel` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass

from maxmod.models.encoders import bert
from maxmod.models.encoders.bert import EMBEDDING_NAMES, Bert
from maxmod.models.encoders.family import (
    OUT,
    Family,
    labels_of_texts,
    labels_of_tokens,
    masked_words,
)


@dataclass(frozen=True, slots=True)
class Config(bert.Config):
    """The fields of config.json that the model uses, which calls some by other names."""

    type_vocab_size: int = 0


_ATTENTION = "transformer.layer.*.attention."
DISTILBERT = Family(
    config=Config,
    module=Bert,
    prefixes=("distilbert.",),
    names={
        **EMBEDDING_NAMES,
        _ATTENTION + "q_lin.*": "layers.*.attention.query.*",
        _ATTENTION + "k_lin.*": "layers.*.attention.key.*",
        _ATTENTION + "v_lin.*": "layers.*.attention.value.*",
        _ATTENTION + "out_lin.*": "layers.*.attention.dense.*",
        "transformer.layer.*.sa_layer_norm.*": "layers.*.attention.norm.*",
        "transformer.layer.*.ffn.lin1.*": "layers.*.mlp.up.*",
        "transformer.layer.*.ffn.lin2.*": "layers.*.mlp.down.*",
        "transformer.layer.*.output_layer_norm.*": "layers.*.mlp.norm.*",
    },
    heads={
        "sequence": labels_of_texts({"pre_classifier.*": "dense.*", **OUT}, "relu"),
        "tokens": labels_of_tokens(),
        "words": masked_words(
            {
                "vocab_transform.*": "dense.*",
                "vocab_layer_norm.*": "norm.*",
                "vocab_projector.bias": "bias",
            }
        ),
    },
    unused=("vocab_projector.*", "qa_outputs.*"),
)
