"""ModernBERT: pre-norm blocks with rotary positions, most of which see a window of the text.

Source: B. Warner et al., Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder, arXiv
2412.13663. Names and numerics follow `ModernBertModel` of the transformers library.
"""

from __future__ import annotations

from dataclasses import dataclass

from maxmod import functional as F
from maxmod.errors import ModelError
from maxmod.models.activations import ACTIVATIONS, check_activation
from maxmod.models.attention import (
    FULL,
    SLIDING,
    check_layer_types,
)
from maxmod.models.encoders.blocks import GatedMLP, RotaryAttention, padding_mask, places_of
from maxmod.models.encoders.family import OUT, Family, Head
from maxmod.models.encoders.heads import SequenceHead, TokenHead, WordHead
from maxmod.models.rope_scaling import rope_frequencies
from maxmod.models.rotary import RotaryTable
from maxmod.nn import Embedding, LayerNorm, Linear, Module, ModuleList
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray

_THETA = {FULL: 160_000.0, SLIDING: 10_000.0}


@dataclass(frozen=True, slots=True)
class Config:
    """The fields of config.json that the model uses."""

    vocab_size: int = 50368
    hidden_size: int = 768
    intermediate_size: int = 1152
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    hidden_activation: str = "gelu"
    max_position_embeddings: int = 8192
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    layer_types: list | None = None
    global_attn_every_n_layers: int = 3
    local_attention: int = 128
    rope_parameters: dict | None = None
    global_rope_theta: float | None = None
    local_rope_theta: float | None = None
    rope_scaling: dict | None = None
    decoder_bias: bool = True
    classifier_pooling: str = "cls"
    classifier_bias: bool = False
    classifier_activation: str = "gelu"

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.hidden_size, self.num_hidden_layers, self.local_attention)
        sizes += (self.num_attention_heads, self.intermediate_size, self.max_position_embeddings)
        if min(*sizes, self.global_attn_every_n_layers) < 1:
            raise ModelError("sizes must be above 0.")
        if self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"hidden_size={self.hidden_size} is not a multiple of "
                f"num_attention_heads={self.num_attention_heads}."
            )
        if self.classifier_pooling not in ("cls", "mean"):
            raise ModelError(
                f"classifier_pooling: expected cls or mean, got {self.classifier_pooling!r:.60}."
            )
        check_activation("hidden_activation", self.hidden_activation)
        check_activation("classifier_activation", self.classifier_activation)
        check_layer_types(self.layer_types, self.num_hidden_layers, (FULL, SLIDING))
        self.frequencies()

    @property
    def max_positions(self) -> int:
        """The longest sequence."""
        return self.max_position_embeddings

    @property
    def embedding_width(self) -> int:
        """The size of the vectors of the embeddings."""
        return self.hidden_size

    @property
    def layer_norm_eps(self) -> float:
        """Added to variances."""
        return self.norm_eps

    @property
    def type_vocab_size(self) -> int:
        """The number of token types: none."""
        return 0

    def kinds(self) -> list[str]:
        """For each layer whether it sees the whole text or a window."""
        if self.layer_types is not None:
            return list(map(str, self.layer_types))
        every = self.global_attn_every_n_layers
        return [SLIDING if layer % every else FULL for layer in range(self.num_hidden_layers)]

    def frequencies(self) -> dict[str, HostArray]:
        """For each kind of layer radians per position of each pair: float64 [dim / 2].

        Raises:
            ModelError: If the fields about it are malformed or of an unknown kind.
        """
        given, dim = self.rope_parameters or {}, self.hidden_size // self.num_attention_heads
        thetas = {FULL: self.global_rope_theta, SLIDING: self.local_rope_theta}
        result = {}
        for kind, default in _THETA.items():
            own = given.get(kind)
            if not isinstance(own, (dict, type(None))):
                raise ModelError(f"rope_parameters: {kind}: expected an object, got {own!r:.60}.")
            scaling = {**(own or {}), **(self.rope_scaling or {})}
            result[kind] = rope_frequencies(dim, thetas[kind], scaling, default)
        return result

    def norm(self) -> LayerNorm:
        """Makes a normalisation."""
        return LayerNorm(self.hidden_size, self.norm_eps, use_bias=self.norm_bias)


class Block(Module[..., Tensor]):
    """Pre-norm attention and MLP, each with a residual connection; the first has one norm less."""

    def __init__(self, config: Config, layer: int) -> None:
        self.has_norm = layer > 0  # the embeddings are normalised already
        if self.has_norm:
            self.attention_norm = config.norm()
        width, heads = config.hidden_size, config.num_attention_heads
        self.attention = RotaryAttention(width, heads, width // heads, bias=config.attention_bias)
        self.mlp_norm = config.norm()
        inner, activation = config.intermediate_size, config.hidden_activation
        self.mlp = GatedMLP(width, inner, activation, bias=config.mlp_bias)

    def forward(self, x: Tensor, mask: Tensor, table: RotaryTable) -> Tensor:
        """x [batch, seq, width]; mask and table as for `RotaryAttention`."""
        x = x + self.attention(self.attention_norm(x) if self.has_norm else x, mask, table)
        return x + self.mlp(self.mlp_norm(x))


class ModernBert(Module[..., Tensor]):
    """The encoder: tokens to a vector for each of them.

    Attributes:
        words: Embedding of tokens.
        norm: Its normalisation.
        layers: The blocks.
        last_norm: The last normalisation.
    """

    is_packable = False

    def __init__(self, config: Config) -> None:
        self.words = Embedding(config.vocab_size, dim=config.hidden_size)
        self.norm = config.norm()
        self.layers = ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.last_norm = config.norm()
        self.kinds = config.kinds()
        self.reach = config.local_attention // 2
        self.frequencies = config.frequencies()

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Encodes texts.

        Args:
            tokens: int64 [batch, seq].
            lengths: int64 [batch]: how many tokens of each row count.

        Returns:
            [batch, seq, width].
        """
        places = places_of(tokens)
        distance = F.abs(F.unsqueeze(places, 1) - F.unsqueeze(places, 0))
        whole = padding_mask(tokens, lengths)
        # Padding far from the text sees itself, as the softmax of nothing is no number.
        masks = {FULL: whole, SLIDING: (whole & (distance <= self.reach)) | (distance == 0)}
        tables = {kind: RotaryTable(places, row) for kind, row in self.frequencies.items()}
        x = self.norm(self.words(tokens))
        for block, kind in zip(self.layers, self.kinds):
            x = block(x, masks[kind], tables[kind])
        return self.last_norm(x)


class TokenHeadWithTransform(TokenHead):
    """Logits of the labels of each token, after a map, an activation and a normalisation."""

    def __init__(self, config: Config, labels: int) -> None:
        super().__init__(config.hidden_size, labels)
        self.activation = config.classifier_activation
        self.dense = Linear(config.hidden_size, config.hidden_size, bias=config.classifier_bias)
        self.norm = config.norm()

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """[batch, seq, width], int64 [batch] -> [batch, seq, labels]"""
        return self.out(self.norm(ACTIVATIONS[self.activation](self.dense(hidden))))


def _word_head(config: Config, _: int) -> WordHead:
    head = WordHead(config, config.classifier_activation)
    head.dense = Linear(config.hidden_size, config.hidden_size, bias=config.classifier_bias)
    head.norm = config.norm()
    return head


def _sequence_head(config: Config, labels: int) -> SequenceHead:
    return SequenceHead(
        config.hidden_size,
        labels,
        config.classifier_activation,
        norm=config.norm(),
        bias=config.classifier_bias,
        mean=config.classifier_pooling == "mean",
    )


_TRANSFORM = {"head.dense.*": "dense.*", "head.norm.*": "norm.*"}
_PARTS = ("query", "key", "value")
MODERNBERT = Family(
    config=Config,
    module=ModernBert,
    prefixes=("model.",),
    names={
        "embeddings.tok_embeddings.*": "words.*",
        "embeddings.norm.*": "norm.*",
        "layers.*.attn_norm.*": "layers.*.attention_norm.*",
        "layers.*.attn.Wo.*": "layers.*.attention.dense.*",
        "layers.*.mlp.Wo.*": "layers.*.mlp.down.*",
        "final_norm.*": "last_norm.*",
    },
    splits={
        "layers.*.attn.Wqkv.*": [f"layers.*.attention.{part}.*" for part in _PARTS],
        "layers.*.mlp.Wi.*": ["layers.*.mlp.gate.*", "layers.*.mlp.up.*"],
    },
    heads={
        "sequence": Head({**_TRANSFORM, **OUT}, _sequence_head),
        "tokens": Head({**_TRANSFORM, **OUT}, TokenHeadWithTransform),
        "words": Head({**_TRANSFORM, "decoder.bias": "bias"}, _word_head),
    },
    unused=("decoder.*", "qa_outputs.*"),
)
