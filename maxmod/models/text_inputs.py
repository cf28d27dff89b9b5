"""Texts and pairs of texts as tokens, and as batches of similar length."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from maxmod.errors import ArgumentError
from maxmod.generate.prompts import check_prompt
from maxmod.generate.text import Encoding, Tokenizer
from maxmod.generate.tokenizer_files import open_tokenizer
from maxmod.models.packing import pad
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
        """Returns the tokens of texts or pairs, with what is known of each token.

        Args:
            caller: For messages.
            texts: Each a text, or a pair as a tuple or list of two.
            truncate: As for `TextEncoder.embed`.

        Raises:
            ArgumentError: (a ValueError) If they are not texts, or one has no tokens or too many.
            SliceError: (an IndexError) If the tokenizer has more tokens than the model.
        """
        listed = listed_texts(caller, texts, "str or of pairs")
        return [self._encode(caller, place, text, truncate) for place, text in enumerate(listed)]

    def tokens(
        self, caller: str, texts: Iterable[str], prompt: str, truncate: bool | None
    ) -> list[list[int]]:
        """Returns the tokens of texts alone, which a tokenizer may make on several CPUs.

        Args:
            caller: For messages.
            texts: The texts.
            prompt: What is put in front of each, in the case of the rules.
            truncate: As for `TextEncoder.embed`.

        Raises:
            ArgumentError, SliceError: As for `encode`.
        """
        listed = listed_texts(caller, texts, "str")
        given = [prompt + self.case(one_text(caller, n, text)) for n, text in enumerate(listed)]
        rows = self.tokenizer.encode_all(given)
        for place, row in enumerate(rows):
            if not row:
                raise ArgumentError(f"{caller}: text {place} has no tokens.")
            if len(row) > self.rules.max_tokens:
                self._tell(caller, place, len(row), truncate)
                rows[place] = self._cut(given[place], row)
        self.check(caller, rows)
        return rows

    def check(self, caller: str, rows: Iterable[Sequence[int]]) -> None:
        """Refuses tokens that the model cannot take: see `check_prompt`."""
        for row in rows:
            check_prompt(row, self.vocab_size, self.rules.max_tokens, caller)

    def specials(self, text: str) -> tuple[int, int]:
        """Returns how many special tokens the tokenizer puts before and after a text."""
        plain, whole = (self.tokenizer.encode(text, special=special) for special in (False, True))
        extra = len(whole) - len(plain)
        before = next((n for n in range(extra + 1) if whole[n : n + len(plain)] == plain), 0)
        return before, extra - before

    def case(self, text: str) -> str:
        """Returns a text in lower case, if the rules ask for it."""
        return text.lower() if self.rules.lower_case else text

    def _cut(self, text: str, tokens: list[int]) -> list[int]:
        """Returns the tokens of a text that is too long without some at its end or start."""
        most = self.rules.max_tokens
        before, after = self.specials(text)
        if self.rules.cuts_start:
            return [*tokens[:before], *tokens[len(tokens) - most + before :]]
        return [*tokens[: most - after], *tokens[len(tokens) - after :]]

    def _encode(self, caller: str, place: int, text: object, truncate: bool | None) -> Encoding:
        pair = [self.case(one) for one in _pair(caller, place, text)]
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


def batches(caller: str, encodings: Sequence[Encoding], batch_size: int | None) -> Iterator[Batch]:
    """Yields texts in batches, each filled up to one length.

    Args:
        caller: For messages.
        encodings: The tokens of the texts.
        batch_size: As for `by_length`.
    """
    for places in by_length(caller, [len(row.tokens) for row in encodings], batch_size):
        rows = [encodings[place] for place in places]
        tokens, lengths = pad([row.tokens for row in rows])
        types, _ = pad([row.types for row in rows])
        yield Batch(places, tokens, lengths, types)


# Tokens that are computed together. On 2 cores of an AMD EPYC (Zen 3, AVX2, December 2026) MiniLM
# takes per token, with 96, 384, 768, 1536, 3072 of them: 0.168, 0.154, 0.153, 0.141, 0.144 ms.
BATCH_TOKENS = 1536


def by_length(caller: str, lengths: Sequence[int], batch_size: int | None) -> Iterator[list[int]]:
    """Yields which texts are computed together: of similar length, so that little is padding.

    Args:
        caller: For messages.
        lengths: The number of tokens of each text.
        batch_size: How many texts at most; otherwise it is the number of tokens that is limited.

    Raises:
        ArgumentError: (a ValueError) If batch_size is below 1.
    """
    if batch_size is not None and batch_size < 1:
        raise ArgumentError(f"{caller}: batch_size: expected 1 or more, got {batch_size}.")
    part: list[int] = []
    tokens = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if part and (len(part) == batch_size or tokens + lengths[place] > BATCH_TOKENS):
            yield part
            part, tokens = [], 0
        part.append(place)
        tokens += lengths[place]
    if part:
        yield part


def listed_texts(caller: str, texts: object, kind: str) -> list[object]:
    """Returns texts as a list; one text alone, or what has no order, is refused.

    Args:
        caller: For messages.
        texts: The texts.
        kind: What each should be, for messages.
    """
    if isinstance(texts, Iterable) and not isinstance(texts, (str, bytes, Mapping, Set)):
        with contextlib.suppress(TypeError):  # an array without axes
            return list(texts)
    raise ArgumentError(f"{caller}: texts: expected a list of {kind}, got {type(texts).__name__}.")


def one_text(caller: str, place: int, text: object) -> str:
    """Returns a text; anything else is refused."""
    if isinstance(text, str):
        return text
    raise ArgumentError(f"{caller}: text {place}: expected a str, got {type(text).__name__}.")


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
