"""Texts and pairs of texts as batches of tokens, for models with a head."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from maxmod.errors import ArgumentError
from maxmod.generate.prompts import check_prompt
from maxmod.generate.text import Encoding, Tokenizer
from maxmod.generate.tokenizer_files import open_tokenizer
from maxmod.models.prompts import TextRules
from maxmod.nn.places import warn
from maxmod.values.array import HostArray

# A text, or two that the model reads together.
Text: TypeAlias = "str | tuple[str, str]"


class Batch(NamedTuple):
    """Some texts that are computed together.

    Attributes:
        places: Where each stands among all texts.
        tokens: int64 [batch, seq], filled up with 0.
        lengths: int64 [batch].
        types: int64 [batch, seq].
    """

    places: list[int]
    tokens: HostArray
    lengths: HostArray
    types: HostArray


@dataclass(eq=False)
class TextInputs:
    """Makes tokens of texts.

    Attributes:
        folder: The folder with the tokenizer.
        rules: The longest text and the like.
        vocab_size: Number of tokens that the model knows.
        type_count: Number of token types that the model knows; 0 if it has none.
    """

    folder: Path
    rules: TextRules
    vocab_size: int
    type_count: int

    def __post_init__(self) -> None:
        self._warned = False

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the folder.

        Raises:
            ModelError: If there is none, or it needs a package that is not installed.
        """
        return open_tokenizer(self.folder)

    def encode(self, caller: str, texts: Iterable[Text], truncate: bool | None) -> list[Encoding]:
        """Returns the tokens of texts.

        Args:
            caller: For messages.
            texts: Each a text, or a pair as a tuple or list of two.
            truncate: As for `TextEncoder.embed`.

        Raises:
            ArgumentError: (a ValueError) If they are not texts, or one has no tokens or too many.
            SliceError: (an IndexError) If the tokenizer has more tokens than the model.
        """
        listed = listed_texts(caller, texts)
        return [self._encode(caller, place, text, truncate) for place, text in enumerate(listed)]

    def _encode(self, caller: str, place: int, text: object, truncate: bool | None) -> Encoding:
        pair = [self._case(one) for one in _pair(caller, place, text)]
        found = self.tokenizer.encode_pair(*pair)
        most = self.rules.max_tokens
        if len(found.tokens) > most:
            self._tell(caller, place, len(found.tokens), truncate)
            cuts_start = self.rules.cuts_start
            found = self.tokenizer.encode_pair(*pair, max_tokens=most, cuts_start=cuts_start)
        check_prompt(found.tokens, self.vocab_size, most, f"{caller}: text {place}")
        if self.type_count and max(found.types) >= self.type_count:
            raise ArgumentError(
                f"{caller}: text {place}: the model reads no pairs of texts: expected token types "
                f"below {self.type_count}, got {max(found.types)}."
            )
        return found

    def _tell(self, caller: str, place: int, length: int, truncate: bool | None) -> None:
        what = (
            f"{caller}: text {place} is too long: expected at most {self.rules.max_tokens} tokens, "
            f"got {length}."
        )
        if truncate is False:
            raise ArgumentError(f"{what} Hint: split it, or let it be cut with truncate.")
        if truncate is None and not self._warned:
            self._warned = True
            warn(f"{what} It is cut, as others will be. Hint: truncate=True cuts silently.")

    def _case(self, text: str) -> str:
        return text.lower() if self.rules.lower_case else text


def batches(caller: str, encodings: Sequence[Encoding], batch_size: int) -> Iterator[Batch]:
    """Yields the texts in batches of similar length, which keeps padding small.

    Raises:
        ArgumentError: (a ValueError) If batch_size is below 1.
    """
    if batch_size < 1:
        raise ArgumentError(f"{caller}: batch_size: expected 1 or more, got {batch_size}.")
    order = sorted(range(len(encodings)), key=lambda place: len(encodings[place].tokens))
    for at in range(0, len(order), batch_size):
        places = order[at : at + batch_size]
        rows = [encodings[place] for place in places]
        lengths = np.array([len(row.tokens) for row in rows], np.int64)
        tokens = np.zeros((len(rows), lengths.max()), np.int64)
        types = np.zeros_like(tokens)
        for number, row in enumerate(rows):
            tokens[number, : len(row.tokens)] = row.tokens
            types[number, : len(row.types)] = row.types
        yield Batch(places, tokens, lengths, types)


def listed_texts(caller: str, texts: Iterable[Text]) -> list[object]:
    """Returns texts as a list; one text alone, or what has no order, is refused."""
    if isinstance(texts, (str, bytes, Mapping, Set)) or not isinstance(texts, Iterable):
        raise ArgumentError(
            f"{caller}: texts: expected a list of str or of pairs, got {type(texts).__name__}."
        )
    return list(texts)


def _pair(caller: str, place: int, text: object) -> tuple[str, ...]:
    if isinstance(text, str):
        return (text,)
    if isinstance(text, (tuple, list)) and len(text) == 2:
        texts = tuple(part for part in text if isinstance(part, str))
        if len(texts) == 2:
            return texts
    raise ArgumentError(
        f"{caller}: text {place}: expected a str or a pair of them, got {text!r:.60}."
    )
