"""Text generation: one token after another, each from the logits after all tokens before it.

>>> from maxmod.generate import generate_text
>>> from maxmod.models import adder_folder, load_model
>>> "".join(generate_text(load_model(adder_folder()), "123+456="))
'579'
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from maxmod.errors import ArgumentError, MaxmodWarning, ModelError, SliceError
from maxmod.models.language import LanguageModel
from maxmod.text import TextStream


class Decoder(Protocol):
    """Computes logits for a sequence that grows."""

    def feed(self, tokens: Sequence[int]) -> np.ndarray[Any, Any]:
        """Appends tokens to the sequence and returns the logits [vocab] after the last one."""
        ...


class RecomputingDecoder:
    """Runs the model on the whole sequence each time; one compile serves all lengths.

    Args:
        model: The model.
        eager: Run it op by op instead of compiled.
    """

    def __init__(self, model: LanguageModel, *, eager: bool = False) -> None:
        self._model = model
        self._eager = eager
        self._tokens: list[int] = []

    def feed(self, tokens: Sequence[int]) -> np.ndarray[Any, Any]:
        """Appends tokens to the sequence and returns the logits [vocab] after the last one."""
        self._tokens.extend(tokens)
        return self._model.next_logits([self._tokens], eager=self._eager)[0]


def generate(
    model: LanguageModel,
    tokens: Sequence[int],
    *,
    max_new_tokens: int | None = None,
    stop: Collection[int] | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    eager: bool = False,
) -> Iterator[int]:
    """Continues a sequence of tokens; gives each new token as soon as it is known.

    Args:
        model: The model, from `load_model`.
        tokens: The prompt; at least one token.
        max_new_tokens: How many tokens to give at most; None for as many as the model has room for.
        stop: Tokens that end the text and are not given; those of the model by default.
        temperature: 0 takes the most likely token; above that, tokens are drawn with the
            probabilities softmax(logits / temperature).
        seed: Of the random numbers for that; equal seeds give equal texts.
        eager: Run the model op by op instead of compiled.

    Returns:
        An iterator of new tokens. It ends with a `MaxmodWarning` if the model has no more room.

    Raises:
        ArgumentError: (a ValueError) If the prompt is empty or longer than the model allows, or a
            number is out of range.
        SliceError: (an IndexError and ValueError) If a token is not in the vocabulary.
        ModelError: (a ValueError) If the logits are NaN.
    """
    tokens = [int(token) for token in tokens]
    _check_prompt(model, tokens)
    if max_new_tokens is not None and max_new_tokens < 0:
        raise ArgumentError(f"generate: max_new_tokens: expected 0 or more, got {max_new_tokens}.")
    if not 0 <= temperature < float("inf"):
        raise ArgumentError(f"generate: temperature: expected 0 or more, got {temperature}.")
    if seed < 0:
        raise ArgumentError(f"generate: seed: expected 0 or more, got {seed}.")
    ends = model.stop if stop is None else frozenset(stop)
    decoder = RecomputingDecoder(model, eager=eager)
    choice = _Choice(temperature, seed)
    # The checks above happen in the call, not when the first token is asked for.
    return _generate(model, decoder, choice, tokens, max_new_tokens, ends)


def _generate(
    model: LanguageModel,
    decoder: Decoder,
    choice: _Choice,
    tokens: list[int],
    max_new_tokens: int | None,
    ends: Collection[int],
) -> Iterator[int]:
    length = len(tokens)
    feed = tokens
    while max_new_tokens is None or length - len(tokens) < max_new_tokens:
        if length > model.max_positions:
            warnings.warn(
                f"generate: stopped: the model has room for {model.max_positions} tokens, prompt "
                "included.",
                MaxmodWarning,
                stacklevel=2,
            )
            return
        token = choice(decoder.feed(feed))
        if token in ends:
            return
        yield token
        feed = [token]
        length += 1


def generate_text(model: LanguageModel, prompt: str, **options: Any) -> Iterator[str]:
    """Continues a text; gives each piece of the new text as soon as it is certain.

    Args:
        model: The model, from `load_model`; its folder must have a tokenizer.
        prompt: The text to continue.
        **options: As for `generate`.

    Returns:
        An iterator of pieces, which never end inside of a character.
    """
    stream = TextStream(model.tokenizer)
    return _pieces(stream, generate(model, model.tokenizer.encode(prompt), **options))


def _pieces(stream: TextStream, tokens: Iterator[int]) -> Iterator[str]:
    for token in tokens:
        piece = stream.push(token)
        if piece:
            yield piece
    piece = stream.finish()
    if piece:
        yield piece


def _check_prompt(model: LanguageModel, tokens: Sequence[int]) -> None:
    if not tokens:
        raise ArgumentError("generate: the prompt is empty: expected at least one token, got none.")
    for position, token in enumerate(tokens):
        if not 0 <= token < model.vocab_size:
            raise SliceError(
                f"generate: token {token} at position {position} is not in the vocabulary: "
                f"expected 0 to {model.vocab_size - 1}."
            )
    if len(tokens) > model.max_positions:
        raise ArgumentError(
            f"generate: the prompt is too long: expected at most {model.max_positions} tokens, got "
            f"{len(tokens)}."
        )


class _Choice:
    """Chooses the next token by its logits."""

    def __init__(self, temperature: float, seed: int) -> None:
        self._temperature = temperature
        # numpy.random takes a while to import and the most likely token needs no numbers.
        self._random = np.random.default_rng(seed) if temperature else None

    def __call__(self, logits: np.ndarray[Any, Any]) -> int:
        best = int(logits.argmax())  # of a NaN, if there is one
        if np.isnan(logits[best]):
            raise ModelError("generate: the logits are NaN. Hint: are the weights damaged?")
        if self._random is None:
            return best
        wide = (logits.astype(np.float64) - float(logits[best])) / self._temperature
        cumulative = np.cumsum(np.exp(wide))
        drawn = self._random.random() * cumulative[-1]
        return int(np.searchsorted(cumulative, drawn, side="right"))
