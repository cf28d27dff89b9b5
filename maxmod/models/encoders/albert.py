"""ALBERT: BERT with narrow embeddings, whose blocks share weights.

Source: Z. Lan et al., ALBERT: A Lite BERT for Self-supervised Learning of Language Representations,
arXiv 1909.11942. Names and numerics follow `AlbertModel` of the transformers library.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from maxmod.errors import ModelError
from maxmod.models.encoders import electra
from maxmod.models.encoders.bert import EMBEDDING_NAMES, Bert
from maxmod.models.encoders.blocks import Block
from maxmod.models.encoders.family import (
    OUT,
    Family,
    labels_of_texts,
    labels_of_tokens,
    masked_words,
)
from maxmod.nn import Linear, ModuleList


@dataclass(frozen=True, slots=True)
class Config(electra.Config):
    """The fields of config.json that the model uses."""

    hidden_act: str = "gelu_new"
    num_hidden_groups: int = 1
    inner_group_num: int = 1

    def __post_init__(self) -> None:
        electra.Config.__post_init__(self)
        if not 1 <= self.num_hidden_groups <= self.num_hidden_layers or self.inner_group_num < 1:
            raise ModelError(
                f"num_hidden_groups and inner_group_num: expected 1 to {self.num_hidden_layers} "
                f"and 1 or more, got {self.num_hidden_groups} and {self.inner_group_num}."
            )

    def groups(self) -> list[int]:
        """The group whose blocks each layer runs."""
        layers = self.num_hidden_layers
        return [int(layer / (layers / self.num_hidden_groups)) for layer in range(layers)]


class Albert(Bert):
    """The encoder: tokens to a vector for each of them.

    Attributes:
        layers: The groups of blocks.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.order = config.groups()
        if not self.is_projected:  # its files have the map at equal widths too
            self.is_projected = True
            self.projection = Linear(config.embedding_width, config.hidden_size)

    def make_layers(self, config: Config) -> ModuleList:  # type: ignore[override]
        """Makes the blocks of each group."""
        inner, groups = range(config.inner_group_num), range(config.num_hidden_groups)
        return ModuleList(ModuleList(Block(config) for _ in inner) for _ in groups)

    def blocks(self) -> Iterator[Block]:
        """The blocks in the order in which they run."""
        for group in self.order:
            yield from self.layers[group]  # type: ignore[misc]


_LAYER = "encoder.albert_layer_groups.*.albert_layers.*."
ALBERT = Family(
    config=Config,
    module=Albert,
    prefixes=("albert.",),
    names={
        **EMBEDDING_NAMES,
        "encoder.embedding_hidden_mapping_in.*": "projection.*",
        _LAYER + "attention.LayerNorm.*": "layers.*.*.attention.norm.*",
        _LAYER + "attention.*": "layers.*.*.attention.*",
        _LAYER + "ffn.*": "layers.*.*.mlp.up.*",
        _LAYER + "ffn_output.*": "layers.*.*.mlp.down.*",
        _LAYER + "full_layer_layer_norm.*": "layers.*.*.mlp.norm.*",
    },
    heads={
        "sequence": labels_of_texts({"pooler.*": "dense.*", **OUT}, "tanh"),
        "tokens": labels_of_tokens(),
        "words": masked_words(
            {
                "predictions.dense.*": "dense.*",
                "predictions.LayerNorm.*": "norm.*",
                "predictions.bias": "bias",
            }
        ),
    },
    unused=("pooler.*", "predictions.*", "sop_classifier.*", "qa_outputs.*"),
)
