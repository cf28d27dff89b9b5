"""A decoder as an encoder: the vectors of the tokens of texts, before the map to logits.

Tokens see those before them, as in the decoder, or all tokens of the text where config.json says
so.

Source: L. Wang et al., Improving Text Embeddings with Large Language Models, arXiv 2401.00368;
Z. Li et al., Towards General Text Embeddings with Multi-stage Contrastive Learning, arXiv
2308.03281.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.generate.kv_cache import WholeContext
from maxmod.nn import Linear, Module
from maxmod.tensor import Tensor
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, add_prefix, drop, rename

# The field of config.json that says whether tokens see those behind them, and its value if so.
_DIRECTION: dict[str, tuple[str, bool]] = {"gemma3_text": ("use_bidirectional_attention", True)}
_USUAL = ("is_causal", False)
# Classes of code in a folder that compute what is read here, given the field: gte-Qwen2's.
KNOWN_CODE = {"qwen2": "Qwen2"}


class BothWays(WholeContext):
    """Texts of several lengths, filled up to one, whose tokens see all of their text.

    Args:
        tokens: int64 [batch, seq].
        lengths: int64 [batch]: how many tokens of each row count.
    """

    def __init__(self, tokens: Tensor, lengths: Tensor) -> None:
        super().__init__(tokens)
        self._lengths = lengths.reshape([-1, 1, 1, 1])

    def mask(self, window: int | None = None) -> Tensor:
        """bool [batch, 1, seq or 1, seq]; a window reaches half of it to each side."""
        kept = self.positions < self._lengths
        if window is None:
            return kept
        distance = F.abs(F.unsqueeze(self.positions, 1) - self.positions)
        # Padding far from the text sees itself, as the softmax of nothing is no number.
        return F.logical_or(F.logical_and(kept, distance <= window // 2), distance == 0)


class DecoderEncoder(Module[[Tensor, Tensor], Tensor]):
    """The encoder: tokens to a vector for each of them.

    Args:
        model: The decoder; its head is taken away.
        both_ways: Whether tokens see those behind them.

    Attributes:
        model: The decoder without a head.
    """

    is_packable = False

    def __init__(self, model: Any, both_ways: bool) -> None:
        del model.lm_head
        self.model = model
        self.both_ways = both_ways

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Encodes texts.

        Args:
            tokens: int64 [batch, seq].
            lengths: int64 [batch]: how many tokens of each row count.

        Returns:
            [batch, seq, width].
        """
        context = BothWays(tokens, lengths) if self.both_ways else WholeContext(tokens)
        return self.model.hidden(tokens, context)


class DecoderClassifier(DecoderEncoder):
    """The decoder with a head: texts to logits of labels, from the vector of their last token.

    Attributes:
        score: Hidden states to logits.
    """

    def __init__(self, model: Any, width: int, labels: int) -> None:
        super().__init__(model, both_ways=False)
        self.score = Linear(width, labels, bias=False)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """int64 [batch, seq], int64 [batch] -> float32 [batch, labels]"""
        last = F.unsqueeze(lengths, 1) - 1
        hidden = self.model.hidden(tokens, WholeContext(tokens))
        columns = F.arange(0, tokens.shape[1], dtype=DType.int64, device=tokens.device)
        chosen = F.where(F.unsqueeze(columns == last, 2), hidden, 0.0)
        return self.score(F.squeeze(F.sum(chosen, axis=1), 1)).cast(DType.float32)


def sees_both_ways(table: JsonObject) -> bool:
    """Whether config.json says that tokens see those behind them."""
    field, value = _direction(table)
    return table.get(field) is value


def without_direction(table: JsonObject) -> JsonObject:
    """Returns the fields of config.json without what `sees_both_ways` reads."""
    return {**table, _direction(table)[0]: None} if sees_both_ways(table) else table


def says_direction(table: JsonObject) -> bool:
    """Whether config.json says anything about what tokens see."""
    return _direction(table)[0] in table


def _direction(table: JsonObject) -> tuple[str, bool]:
    return _DIRECTION.get(str(table.get("model_type")), _USUAL)


def make_module(decoder: Callable[..., Module], both_ways: bool, config: Any) -> DecoderEncoder:
    """Makes the encoder of a configuration.

    Raises:
        ModelError: If tokens see those behind them, but only in a window of unknown form.
    """
    if both_ways and config.model_type not in _DIRECTION and any(config.windows()):
        raise ModelError(
            "is_causal: a model whose tokens see those behind them is not supported with "
            f"sliding_window: expected null, got {config.sliding_window}."
        )
    return DecoderEncoder(decoder(config), both_ways)


def make_classifier(
    decoder: Callable[..., Module], config: Any, labels: int = 2
) -> DecoderClassifier:
    """Makes the classifier of a configuration."""
    return DecoderClassifier(decoder(config), config.hidden_size, labels)


def adapt_weights(
    adapt: Callable[[StateLike, Any], Weights], weights: StateLike, config: Any
) -> Weights:
    """Returns weights of a folder with the names here, without those of the map to logits."""
    weights = add_prefix(drop(adapt(weights, config), "lm_head.*"), "model.")
    return rename(weights, {"model.score.*": "score.*"})
