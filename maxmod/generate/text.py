"""Tokenizers: text to tokens and back, at once or as a stream."""

from __future__ import annotations

import abc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maxmod.errors import ArgumentError, ModelError
from maxmod.weights.json_files import read_json
from maxmod.weights.text_files import read_bytes

_REPLACEMENT = "\ufffd"  # decoders emit it for bytes that are not a (complete) character


class Tokenizer(abc.ABC):
    """Text to tokens and back."""

    @abc.abstractmethod
    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Returns the tokens of a text.

        Args:
            text: The text.
            special: Whether to add the special tokens that the model expects at the start or end.
                A chat template already contains them.
        """

    @abc.abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without special tokens such as end-of-text."""


class CharacterTokenizer(Tokenizer):
    """One token for each character; needs no package.

    Args:
        vocabulary: Characters to tokens. Longer keys are special tokens, which no text contains.

    Example:
        >>> from maxmod.generate.text import CharacterTokenizer
        >>> tokenizer = CharacterTokenizer({"0": 0, "1": 1, "+": 2, "<|end|>": 3})
        >>> tokenizer.encode("1+0"), tokenizer.decode([0, 2, 1, 3])
        ([1, 2, 0], '0+1')
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._tokens = {text: token for text, token in vocabulary.items() if len(text) == 1}
        self._texts = {token: text for text, token in self._tokens.items()}

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Returns the tokens of a text; see `Tokenizer`.

        Raises:
            ModelError: If a character is not in the vocabulary.
        """
        for character in text:
            if character not in self._tokens:
                raise ModelError(
                    f"encode: the model does not know the character {character!r}: expected only "
                    f"{''.join(self._tokens)!r}."
                )
        return [self._tokens[character] for character in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self._texts.get(token, "") for token in tokens)


class PackageTokenizer(Tokenizer):
    """A tokenizer of the package `tokenizers` of Hugging Face.

    Args:
        tokenizer: A `tokenizers.Tokenizer`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # The file may enable both; a prompt must not be truncated or padded silently.
        tokenizer.no_truncation()
        tokenizer.no_padding()

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Returns the tokens of a text; see `Tokenizer`.

        Raises:
            ModelError: If the text has a lone surrogate, as command-line arguments that are not
                UTF-8 do.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ModelError(f"encode: the text is not valid Unicode: {error.reason}.") from None
        return self._tokenizer.encode(text, add_special_tokens=special).ids

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)


def open_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """Opens the tokenizer of a model folder.

    Looked for in this order: tokenizer.json; vocab.json with merges.txt (the older form of GPT-2);
    vocab.json with one token for each character. The first two need the package `tokenizers`.

    Raises:
        ModelError: (a ValueError) If there is none, it is malformed, or the package is missing.
    """
    folder = Path(folder)
    whole, vocabulary, merges = (
        folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    if whole.exists():
        return _from_package(
            whole, lambda package: package.Tokenizer.from_buffer(read_bytes(whole))
        )
    if vocabulary.exists() and merges.exists():
        return _from_package(vocabulary, lambda package: _byte_level(package, vocabulary, merges))
    if vocabulary.exists():
        return CharacterTokenizer(_read_vocabulary(vocabulary))
    raise ModelError(
        f"{folder}: there is no tokenizer: expected tokenizer.json. Hint: save the tokenizer into "
        "the folder as well, or pass token ids in place of text (--token-ids)."
    )


def _from_package(path: Path, make: Any) -> Tokenizer:
    try:
        import tokenizers
    except ImportError as error:
        raise ModelError(
            f"{path}: reading it needs the package tokenizers, which cannot be imported ({error}). "
            "Hint: pip install 'maxmod[text]'."
        ) from None
    try:
        return PackageTokenizer(make(tokenizers))
    except ModelError:
        raise
    except Exception as error:  # the package raises nothing more precise
        raise ModelError(f"{path}: the tokenizer is malformed: {error}") from None


def _byte_level(package: Any, vocabulary: Path, merges: Path) -> Any:
    tokenizer = package.Tokenizer(package.models.BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = package.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def _read_vocabulary(path: Path) -> dict[str, int]:
    table = read_json(path)
    if not all(type(token) is int for token in table.values()):
        raise ModelError(f"{path}: expected a JSON object from str to token id.")
    if sum(len(text) == 1 for text in table) * 2 < len(table):
        raise ModelError(
            f"{path}: not a character-level vocabulary. Hint: merges.txt or tokenizer.json is "
            "missing from the folder."
        )
    return table


class TextStream:
    """Turns tokens into text as they come, and never returns a partial character.

    A character may span several tokens, and a decoder may treat the first token of a text
    differently. So the tokens of the last piece are decoded again with the new ones, and the new
    part is returned once it ends in a whole character. The pieces together are the text of all
    tokens.

    Example:
        >>> from maxmod.generate.text import CharacterTokenizer, TextStream
        >>> stream = TextStream(CharacterTokenizer({"a": 0, "b": 1}))
        >>> [stream.push(token) for token in (1, 0)], stream.finish()
        (['b', 'a'], '')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._given: list[int] = []  # tokens of the last piece
        self._held: list[int] = []  # tokens after it

    def push(self, token: int) -> str:
        """Returns the text that is final now; empty if a character is incomplete."""
        self._held.append(token)
        piece = self._piece()
        if not piece or piece.endswith(_REPLACEMENT):
            return ""
        self._given, self._held = self._held, []
        return piece

    def finish(self) -> str:
        """Returns the remaining text, with U+FFFD for bytes that are not a character."""
        piece = self._piece()
        self._given, self._held = [], []
        return piece

    def _piece(self) -> str:
        before = self._tokenizer.decode(self._given)
        return self._tokenizer.decode(self._given + self._held)[len(before) :]


class StopStrings:
    """Ends a stream of text before the first stop string, and never returns a part of one.

    Args:
        stops: The stop strings.

    Attributes:
        found: Whether one of them was found.

    Raises:
        ArgumentError: If one of them is empty.

    Example:
        >>> from maxmod.generate.text import StopStrings
        >>> stops = StopStrings(["\\n\\n"])
        >>> [stops.push(piece) for piece in ("one", "\\n", "two\\n", "\\nthree")], stops.found
        (['one', '', '\\ntwo', ''], True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if isinstance(stops, str) or not all(isinstance(s, str) and s for s in stops):
            raise ArgumentError("generate: stop_strings: expected a list of non-empty strings.")
        self._stops = list(stops)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """Returns the text that is certain to come before any stop string."""
        if self.found:
            return ""
        text = self._held + piece
        ends = [start for stop in self._stops if (start := text.find(stop)) >= 0]
        if ends:
            self.found = True
            self._held = ""
            return text[: min(ends)]
        kept = max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def finish(self) -> str:
        """Returns the text that was held back, as no more text comes."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, text: str, stop: str) -> int:
        """Returns how many of the last characters may be the start of a stop string."""
        longest = min(len(text), len(stop) - 1)
        return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
