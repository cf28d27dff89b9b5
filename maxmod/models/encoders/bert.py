"""BERT, an encoder with bidirectional attention, with weights in the layout of Hugging Face.

Source: J. Devlin et al., BERT, arXiv 1810.04805. Names and numerics follow `BertModel` of the
transformers library, without its pooler. The class `Bert` is what most encoders are; their files
say what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from maxmod.errors import ModelError
from maxmod.models.encoders.blocks import Block, EncoderConfig, places_and_mask, places_of
from maxmod.models.encoders.family import (
    POOLER_AND_OUT,
    Family,
    labels_of_texts,
    labels_of_tokens,
    masked_words,
)
from maxmod.models.packing import Packing
from maxmod.nn import Embedding, LayerNorm, Linear, Module, ModuleList
from maxmod.tensor import Tensor
from maxmod.values.plain import JsonObject


@dataclass(frozen=True, slots=True)
class Config(EncoderConfig):
    """The fields of config.json that the model uses."""

    type_vocab_size: int = 2
    position_embedding_type: str = "absolute"
    is_decoder: bool = False

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        if self.type_vocab_size < 0:
            raise ModelError(f"type_vocab_size: expected 0 or more, got {self.type_vocab_size}.")
        if self.position_embedding_type != "absolute" or self.is_decoder:
            raise ModelError(
                "expected position_embedding_type 'absolute' and is_decoder false, got "
                f"{self.position_embedding_type!r} and {self.is_decoder}."
            )


class Bert(Module[..., Tensor]):
    """The encoder: tokens to a vector for each of them.

    Attributes:
        words: Embedding of tokens.
        positions: Embedding of positions.
        types: Embedding of token types: 0 for a text, 1 for the second one of a pair. Models
            without types do not have it.
        norm: Normalisation of their sum.
        projection: Its map to the width of the blocks, in models whose embeddings are narrower.
        layers: The blocks.
        sensitive_layers: Names of the layers that keep 8 bits where others have 4.
        is_packable: Whether texts may lie one after another, without padding.
    """

    is_packable = True

    # all-MiniLM-L6-v2 on 200 sentences, with only these kinds of layers in 4 bits: mean cosine to
    # the vectors of the floats 0.991 for mlp.up, 0.993 value, 0.996 mlp.down, 0.998 dense, 0.9996
    # query, 0.9995 key (December 2026). With all in 4 bits 0.978; with these in 8 bits 0.995.
    sensitive_layers = ("layers.*.attention.value", "layers.*.attention.dense", "layers.*.mlp.up")

    def __init__(self, config: Config) -> None:
        width = config.embedding_width
        self.words = Embedding(config.vocab_size, dim=width)
        self.positions = Embedding(config.max_position_embeddings, dim=width)
        self.has_types = config.type_vocab_size > 0
        if self.has_types:
            self.types = Embedding(config.type_vocab_size, dim=width)
        self.norm = LayerNorm(width, config.layer_norm_eps)
        self.is_projected = width != config.hidden_size
        if self.is_projected:
            self.projection = Linear(width, config.hidden_size)
        self.layers = self.make_layers(config)

    def make_layers(self, config: Config) -> ModuleList:
        """Makes the blocks."""
        return ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    def blocks(self) -> Iterator[Block]:
        """The blocks in the order in which they run."""
        yield from self.layers  # type: ignore[misc]

    def places(self, tokens: Tensor, packing: Packing | None) -> Tensor:
        """The rows of `positions` for tokens int64 [batch, seq]: int64, broadcast to them."""
        return places_of(tokens) if packing is None else packing.positions()

    def bias(self, tokens: Tensor) -> Tensor | None:
        """What is added to the scores of all attentions: [1, heads, seq, seq], or nothing."""
        return None

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        packing: Packing | None = None,
        *,
        types: Tensor | None = None,
    ) -> Tensor:
        """Gives each token a vector.

        Args:
            tokens: int64 [batch, seq]; packed [1, tokens].
            lengths: int64 [batch]: how many tokens of each text count.
            packing: Which tokens belong together, if all of them are in one row.
            types: int64, the shape of the tokens: token types; all are 0 if they are not given.

        Returns:
            [batch, seq, width], also for packed ones.
        """
        _, mask = places_and_mask(tokens, lengths, packing)
        bias = self.bias(tokens)
        x = self.words(tokens) + self.positions(self.places(tokens, packing))
        if self.has_types:
            x = x + (self.types.weight[0] if types is None else self.types(types))
        x = self.norm(x)
        if self.is_projected:
            x = self.projection(x)
        for block in self.blocks():
            x = block(x, mask, bias)
        return x if packing is None else packing.unpacked(x)


# Files of all families have the blocks under the same names, but for a few.
BLOCK_NAMES = {
    "encoder.layer.*.attention.self.*": "layers.*.attention.*",
    "encoder.layer.*.attention.output.dense.*": "layers.*.attention.dense.*",
    "encoder.layer.*.attention.output.LayerNorm.*": "layers.*.attention.norm.*",
    "encoder.layer.*.intermediate.dense.*": "layers.*.mlp.up.*",
    "encoder.layer.*.output.dense.*": "layers.*.mlp.down.*",
    "encoder.layer.*.output.LayerNorm.*": "layers.*.mlp.norm.*",
}
EMBEDDING_NAMES = {
    "embeddings.word_embeddings.*": "words.*",
    "embeddings.position_embeddings.*": "positions.*",
    "embeddings.token_type_embeddings.*": "types.*",
    "embeddings.LayerNorm.*": "norm.*",
}

BERT = Family(
    config=Config,
    module=Bert,
    prefixes=("bert.",),
    names={**EMBEDDING_NAMES, **BLOCK_NAMES},
    # Folders of 2018 and 2019 call the weights of a LayerNorm so.
    old_names={"*LayerNorm.gamma": "*LayerNorm.weight", "*LayerNorm.beta": "*LayerNorm.bias"},
    heads={
        "sequence": labels_of_texts(POOLER_AND_OUT, "tanh"),
        "tokens": labels_of_tokens(),
        "words": masked_words(
            {
                "cls.predictions.transform.dense.*": "dense.*",
                "cls.predictions.transform.LayerNorm.*": "norm.*",
                "cls.predictions.bias": "bias",
            }
        ),
    },
    # Of pretraining, and numbers that older versions of transformers saved.
    unused=("pooler.*", "cls.*", "qa_outputs.*"),
)

_OLD_FIELDS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
_OLD_FIELDS += ("intermediate_size", "hidden_act", "max_position_embeddings", "type_vocab_size")


def is_old_config(table: JsonObject) -> bool:
    """Whether a config.json without `model_type` is that of a BERT.

    The field came in January 2020. RoBERTa had the same fields before, but one token type, and
    says `architectures`; ELECTRA and ALBERT have `embedding_size`.
    """
    named = table.get("architectures") or ["BertModel"]
    return (
        table.get("model_type") is None
        and all(name in table for name in _OLD_FIELDS)
        and table["type_vocab_size"] == 2
        and "embedding_size" not in table
        and isinstance(named, list)
        and all(isinstance(name, str) and name.startswith("Bert") for name in named)
    )
