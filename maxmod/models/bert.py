"""BERT, an encoder with bidirectional attention, with weights in the layout of Hugging Face.

Source: J. Devlin et al., BERT, arXiv 1810.04805. Names and numerics follow `BertModel` of the
transformers library, without its pooler.
"""

from __future__ import annotations

from dataclasses import dataclass

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.models.activations import ACTIVATIONS, check_activation
from maxmod.models.attention import attention, merge_heads, split_heads
from maxmod.models.packing import Packing
from maxmod.nn import Embedding, LayerNorm, Linear, Module, ModuleList
from maxmod.nn.places import warn
from maxmod.tensor import Tensor
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, drop, rename, select, strip_prefix


@dataclass(frozen=True, slots=True)
class Config:
    """The fields of config.json that the model uses."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    position_embedding_type: str = "absolute"
    is_decoder: bool = False

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.hidden_size, self.num_hidden_layers, self.type_vocab_size)
        sizes += (self.num_attention_heads, self.intermediate_size, self.max_position_embeddings)
        if min(sizes) < 1:
            raise ModelError("sizes must be above 0.")
        if self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"hidden_size={self.hidden_size} is not a multiple of "
                f"num_attention_heads={self.num_attention_heads}."
            )
        if self.position_embedding_type != "absolute" or self.is_decoder:
            raise ModelError(
                "expected position_embedding_type 'absolute' and is_decoder false, got "
                f"{self.position_embedding_type!r} and {self.is_decoder}."
            )
        check_activation("hidden_act", self.hidden_act)

    @property
    def max_positions(self) -> int:
        """The longest sequence."""
        return self.max_position_embeddings


class Attention(Module[[Tensor, Tensor], Tensor]):
    """Multi-head self-attention with a residual connection and post-norm."""

    def __init__(self, config: Config) -> None:
        self.heads = config.num_attention_heads
        self.scale = (config.hidden_size // self.heads) ** -0.5
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [batch, seq, width]; mask bool, broadcast to [batch, 1, seq, seq]: keys of queries."""
        q, k, v = (split_heads(map(x), self.heads) for map in (self.query, self.key, self.value))
        mixed = merge_heads(attention(q, k, v, mask, self.scale))
        return self.norm(x + self.dense(mixed))


class MLP(Module[[Tensor], Tensor]):
    """Two linear layers with an activation between, a residual connection and post-norm."""

    def __init__(self, config: Config) -> None:
        self.activation = config.hidden_act
        self.up = Linear(config.hidden_size, config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each position: x [batch, seq, width]."""
        return self.norm(x + self.down(ACTIVATIONS[self.activation](self.up(x))))


class Block(Module[[Tensor, Tensor], Tensor]):
    """Attention and MLP."""

    def __init__(self, config: Config) -> None:
        self.attention = Attention(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [batch, seq, width]; mask as for `Attention`."""
        return self.mlp(self.attention(x, mask))


class Bert(Module[..., Tensor]):
    """The encoder: tokens to a vector for each of them.

    Attributes:
        words: Embedding of tokens.
        positions: Embedding of positions.
        types: Embedding of token types (segments); all tokens have type 0.
        norm: Normalisation of their sum.
        layers: The blocks.
        sensitive_layers: Names of the layers that keep 8 bits where others have 4.
    """

    # all-MiniLM-L6-v2 on 200 sentences, with only these kinds of layers in 4 bits: mean cosine to
    # the vectors of the floats 0.991 for mlp.up, 0.993 value, 0.996 mlp.down, 0.998 dense, 0.9996
    # query, 0.9995 key (December 2026). With all in 4 bits 0.978; with these in 8 bits 0.995.
    sensitive_layers = ("layers.*.attention.value", "layers.*.attention.dense", "layers.*.mlp.up")

    def __init__(self, config: Config) -> None:
        self.words = Embedding(config.vocab_size, dim=config.hidden_size)
        self.positions = Embedding(config.max_position_embeddings, dim=config.hidden_size)
        self.types = Embedding(config.type_vocab_size, dim=config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layers = ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    def forward(self, tokens: Tensor, lengths: Tensor, packing: Packing | None = None) -> Tensor:
        """Gives each token a vector.

        Args:
            tokens: int64 [batch, seq]; packed [1, tokens].
            lengths: int64 [batch]: how many tokens of each text count.
            packing: Which tokens belong together, if all of them are in one row.

        Returns:
            [batch, seq, width], also for packed ones.
        """
        if packing is None:
            positions = F.arange(0, tokens.shape[1], dtype=DType.int64, device=tokens.device)
            mask = positions < lengths.reshape([-1, 1, 1, 1])
        else:
            positions, mask = packing.positions(), packing.mask()
        x = self.norm(self.words(tokens) + self.positions(positions) + self.types.weight[0])
        for block in self.layers:
            x = block(x, mask)
        return x if packing is None else packing.unpacked(x)


# The heads that transformers puts on a BERT; `cls` and `pooler` come from pretraining.
_LABEL_HEADS = ["classifier.*", "qa_outputs.*"]
_LEFTOVERS = ["pooler.*", "cls.*", "embeddings.position_ids", "embeddings.token_type_ids"]


def adapt_weights(weights: StateLike) -> Weights:
    """Returns weights of a Hugging Face folder with the names of `Bert`.

    Models with a head save the names with the prefix `bert.`, and folders of 2018 and 2019 call the
    weights of a LayerNorm `gamma` and `beta`. What belongs to heads, and numbers that older
    versions of transformers saved, are left out; a warning names a head for labels.
    """
    weights = strip_prefix(weights, "bert.")
    heads = sorted(select(weights, _LABEL_HEADS))
    if heads:
        warn(
            f"load_encoder: the folder has a head for labels, which is left out: "
            f"{', '.join(heads)[:200]}. The encoder gives vectors of texts only."
        )
    weights = drop(weights, [*_LEFTOVERS, *_LABEL_HEADS])
    old = {"*LayerNorm.gamma": "*LayerNorm.weight", "*LayerNorm.beta": "*LayerNorm.bias"}
    block = "encoder.layer.*."
    return rename(
        rename(weights, old),
        {
            "embeddings.word_embeddings.*": "words.*",
            "embeddings.position_embeddings.*": "positions.*",
            "embeddings.token_type_embeddings.*": "types.*",
            "embeddings.LayerNorm.*": "norm.*",
            block + "attention.self.*": "layers.*.attention.*",
            block + "attention.output.dense.*": "layers.*.attention.dense.*",
            block + "attention.output.LayerNorm.*": "layers.*.attention.norm.*",
            block + "intermediate.dense.*": "layers.*.mlp.up.*",
            block + "output.dense.*": "layers.*.mlp.down.*",
            block + "output.LayerNorm.*": "layers.*.mlp.norm.*",
        },
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
