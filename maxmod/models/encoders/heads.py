"""Heads of encoders: from the vectors of tokens to logits of labels or of words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.models.activations import ACTIVATIONS
from maxmod.models.encoders.blocks import padding_mask
from maxmod.nn import LayerNorm, Linear, Module
from maxmod.nn.initial import initial_normal
from maxmod.tensor import Tensor
from maxmod.values.plain import JsonObject


class SequenceHead(Module[[Tensor, Tensor], Tensor]):
    """Logits of the labels of a text, from the vector of its first token or the mean of all.

    Args:
        width: Size of the vectors.
        labels: Number of labels.
        activation: Name of the activation between the two maps.
        norm: A normalisation after it.
        bias: Whether the first map has a bias.
        mean: Whether the vectors of a text are averaged in place of taking the first.
    """

    def __init__(
        self,
        width: int,
        labels: int,
        activation: str,
        *,
        norm: Module[[Tensor], Tensor] | None = None,
        bias: bool = True,
        mean: bool = False,
    ) -> None:
        self.activation = activation
        self.mean = mean
        self.dense = Linear(width, width, bias=bias)
        self.has_norm = norm is not None
        if norm is not None:
            self.norm = norm
        self.out = Linear(width, labels)

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """[batch, seq, width], int64 [batch] -> [batch, labels]"""
        x = _mean(hidden, lengths) if self.mean else hidden[:, 0]
        x = ACTIVATIONS[self.activation](self.dense(x))
        return self.out(self.norm(x) if self.has_norm else x)


def _mean(hidden: Tensor, lengths: Tensor) -> Tensor:
    """The mean of the vectors of the tokens that count: [batch, width]."""
    batch, seq, width = hidden.shape
    mask = padding_mask(hidden, lengths).reshape([batch, seq, 1])
    total = F.sum(F.where(mask, hidden, 0.0), axis=1).reshape([batch, width])
    return total / F.unsqueeze(lengths, 1).cast(hidden.dtype)


class TokenHead(Module[[Tensor, Tensor], Tensor]):
    """Logits of the labels of each token.

    Args:
        width: Size of the vectors.
        labels: Number of labels.
    """

    def __init__(self, width: int, labels: int) -> None:
        self.out = Linear(width, labels)

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """[batch, seq, width], int64 [batch] -> [batch, seq, labels]"""
        return self.out(hidden)


class EncoderSizes(Protocol):
    """What a head needs to know of the configuration of its encoder."""

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        ...

    @property
    def hidden_size(self) -> int:
        """The size of the vectors."""
        ...

    @property
    def embedding_width(self) -> int:
        """The size of the vectors of the embeddings."""
        ...

    @property
    def layer_norm_eps(self) -> float:
        """Added to variances."""
        ...


class WordHead(Module[[Tensor, Tensor], Tensor]):
    """Logits of the words at masked places; the last map is the embedding of words.

    Args:
        config: The configuration of the encoder.
        activation: Name of the activation after the first map.
    """

    def __init__(self, config: EncoderSizes, activation: str) -> None:
        self.activation = activation
        self.dense = Linear(config.hidden_size, config.embedding_width)
        self.norm = LayerNorm(config.embedding_width, config.layer_norm_eps)
        self.bias = initial_normal([config.vocab_size])

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """Vectors [..., width] and the embedding [vocab, width] -> [..., vocab]"""
        x = self.norm(ACTIVATIONS[self.activation](self.dense(hidden)))
        return x @ words.T + self.bias


class WithHead(Module[..., Tensor]):
    """An encoder with a head for labels, of texts or of tokens.

    Args:
        encoder: Tokens to vectors.
        head: Vectors to logits.
    """

    def __init__(self, encoder: Any, head: Any) -> None:
        self.encoder = encoder
        self.head = head

    def forward(self, tokens: Tensor, lengths: Tensor, types: Tensor | None = None) -> Tensor:
        """Computes logits.

        Args:
            tokens: int64 [batch, seq].
            lengths: int64 [batch]: how many tokens of each row count.
            types: int64 [batch, seq]: token types, for models that have them.

        Returns:
            float32 [batch, labels], or [batch, seq, labels] for labels of tokens.
        """
        hidden = _encoded(self.encoder, tokens, lengths, types)
        return self.head(hidden, lengths).cast(DType.float32)


def _encoded(encoder: Any, tokens: Tensor, lengths: Tensor, types: Tensor | None) -> Tensor:
    return encoder(tokens, lengths, **({} if types is None else {"types": types}))


class WithWordHead(Module[..., Tensor]):
    """An encoder with a head of masked words.

    Args:
        encoder: Tokens to vectors.
        head: A `WordHead`.
    """

    def __init__(self, encoder: Any, head: Any) -> None:
        self.encoder = encoder
        self.head = head

    def forward(self, tokens: Tensor, lengths: Tensor, types: Tensor | None = None) -> Tensor:
        """Computes the logits of the words at all places; arguments as for `WithHead`.

        Returns:
            float32 [batch, seq, vocab].
        """
        hidden = _encoded(self.encoder, tokens, lengths, types)
        return self.head(hidden, self.encoder.words.weight).cast(DType.float32)

    def at(
        self, tokens: Tensor, lengths: Tensor, places: Tensor, types: Tensor | None = None
    ) -> Tensor:
        """Computes the logits of the words at some places, which spares the product of the others.

        Args:
            tokens: int64 [batch, seq].
            lengths: int64 [batch].
            places: int64 [places]: row * seq + position of each.
            types: As for `WithHead`.

        Returns:
            float32 [places, vocab].
        """
        hidden = _encoded(self.encoder, tokens, lengths, types)
        chosen = F.gather(hidden.reshape([-1, hidden.shape[2]]), places, axis=0)
        return self.head(chosen, self.encoder.words.weight).cast(DType.float32)


class WordsAt(Module[..., Tensor]):
    """Logits of the words at some places: `WithWordHead.at` as a module, to be compiled.

    Args:
        module: The model.
    """

    def __init__(self, module: Any) -> None:
        self.module = module

    def forward(
        self, tokens: Tensor, lengths: Tensor, places: Tensor, types: Tensor | None = None
    ) -> Tensor:
        """As `WithWordHead.at`."""
        return self.module.at(tokens, lengths, places, types)


def expect_tied(table: JsonObject, where: Path) -> None:
    """Raises `ModelError` where the words have a map of their own, in place of the embedding."""
    if table.get("tie_word_embeddings") is False:
        raise ModelError(
            f"{where}: 'tie_word_embeddings': masked words are read only from models whose last "
            "map is the embedding of words: expected true, got false."
        )
