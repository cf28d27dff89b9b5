"""Choosing the next token by its logits: the most likely one, or one drawn at random."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from maxmod.errors import ArgumentError, ModelError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. The steps happen in the order in which they are listed here.

    Attributes:
        repetition_penalty: Logits of tokens that the text has already are divided by it if they are
            positive, and multiplied by it if they are negative; above 0, and 1 changes nothing.
        temperature: 0 takes the most likely token; above that, tokens are drawn with the
            probabilities softmax(logits / temperature).
        top_k: Only from the so many most likely tokens, and those as likely as the last of them; 0
            for all.
        top_p: Only from the fewest most likely tokens whose probabilities add up to this; 1 for
            all. At least one token is left.
        min_p: Only from tokens that are at least this times as likely as the most likely one; 0 for
            all.
        seed: Of the random numbers; equal seeds give equal texts.

    Source: repetition penalty: N. S. Keskar et al., CTRL, arXiv 1909.05858; top-p: A. Holtzman et
        al., The Curious Case of Neural Text Degeneration, arXiv 1904.09751; min-p: M. N. Nguyen et
        al., Turning Up the Heat, arXiv 2407.01082. Order and ties follow the logits processors of
        the transformers library.
    """

    repetition_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check("repetition_penalty", "above 0", self.repetition_penalty, self._is_penalty())
        _check("temperature", "0 or more", self.temperature, 0 <= self.temperature < math.inf)
        _check("top_k", "0 or more", self.top_k, self.top_k >= 0)
        _check("top_p", "above 0 and at most 1", self.top_p, 0 < self.top_p <= 1)
        _check("min_p", "0 to 1", self.min_p, 0 <= self.min_p <= 1)
        _check("seed", "0 or more", self.seed, self.seed >= 0)

    def _is_penalty(self) -> bool:
        return 0 < self.repetition_penalty < math.inf


def _check(name: str, expected: str, value: float, is_fine: bool) -> None:
    if not is_fine:
        raise ArgumentError(f"generate: {name}: expected {expected}, got {value}.")


def candidates(logits: Array, options: Sampling, seen: Array) -> tuple[Array, Array]:
    """Returns the tokens that can be drawn, in increasing order, and their probabilities.

    Args:
        logits: Float [vocab], without NaN.
        options: With a temperature above 0.
        seen: The tokens of the text so far, each once.

    Returns:
        int64 [n] and float64 [n]; the probabilities add up to 1.
    """
    scores = penalized(logits, options, seen).astype(np.float64) / options.temperature
    tokens = np.arange(len(scores))
    if 0 < options.top_k < len(scores):
        least = np.partition(scores, -options.top_k)[-options.top_k]
        tokens = np.flatnonzero(scores >= least)
    weights = _softmax(scores[tokens])
    if options.top_p < 1:
        kept = _nucleus(weights, options.top_p)
        tokens, weights = tokens[kept], weights[kept]
    if options.min_p > 0:
        kept = weights >= options.min_p * weights.max()
        tokens, weights = tokens[kept], weights[kept]
    return tokens, weights / weights.sum()


def penalized(logits: Array, options: Sampling, seen: Array) -> Array:
    """Returns the logits after the repetition penalty."""
    if options.repetition_penalty == 1 or not len(seen):
        return logits
    result = logits.copy()
    found = logits[seen]
    penalty = options.repetition_penalty
    result[seen] = np.where(found > 0, found / penalty, found * penalty)
    return result


def _softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def _nucleus(weights: Array, top_p: float) -> Array:
    """Returns the positions of the fewest largest weights whose sum reaches `top_p`, sorted."""
    # Weights below this add up to less than 1 - top_p, so that they need not be sorted.
    likely = np.flatnonzero(weights >= (1 - top_p) / len(weights))
    ordered = likely[np.argsort(-weights[likely], kind="stable")]
    reached = np.cumsum(weights[ordered])
    count = int(np.searchsorted(reached, top_p)) + 1
    return np.sort(ordered[:count])


class Sampler:
    """Chooses the tokens of one text, one after another.

    Args:
        options: How to choose.
        prompt: The tokens before the first one.
        row: Number of the text among several, each of which has random numbers of its own.
    """

    def __init__(self, options: Sampling, prompt: Iterable[int], row: int = 0) -> None:
        self._options = options
        self._seen = np.unique(np.fromiter(prompt, np.int64))
        # numpy.random takes a while to import and the most likely token needs no numbers.
        seeds = [options.seed, row]
        self._random = np.random.default_rng(seeds) if options.temperature else None

    def choose(self, logits: Array) -> int:
        """Returns the next token.

        Args:
            logits: Float [vocab].

        Raises:
            ModelError: If a logit is NaN.
        """
        best = int(logits.argmax())  # of a NaN, if there is one
        if np.isnan(logits[best]):
            raise ModelError("generate: the logits are NaN. Hint: are the weights damaged?")
        if self._random is None:
            token = int(penalized(logits, self._options, self._seen).argmax())
        else:
            tokens, weights = candidates(logits, self._options, self._seen)
            reached = np.cumsum(weights)
            drawn = self._random.random() * reached[-1]
            token = int(tokens[np.searchsorted(reached, drawn, side="right")])
        self._remember(token)
        return token

    def _remember(self, token: int) -> None:
        if self._options.repetition_penalty != 1:
            self._seen = np.union1d(self._seen, [token])
