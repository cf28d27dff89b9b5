"""Tokenizers: text to tokens and back, at once or as a stream."""

from __future__ import annotations

import abc
import contextlib
import functools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from maxmod.errors import ArgumentError, MaxmodError, MaxmodWarning, ModelError, OperandError
from maxmod.generate.prompts import token_list

_REPLACEMENT = "\ufffd"  # decoders emit it for bytes that are not a (complete) character


class Encoding(NamedTuple):
    """A text, or a pair of them, as tokens.

    Attributes:
        tokens: Token ids, with the special ones around the texts.
        types: For each token 0, or 1 if it belongs to the second text.
        spans: For each token where its characters start and end in its text; None for special
            tokens.
        words: For each token the number of its word in its text; None for special tokens.
    """

    tokens: list[int]
    types: list[int]
    spans: list[tuple[int, int] | None]
    words: list[int | None]


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
    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Returns the text of tokens.

        Args:
            tokens: The tokens.
            special: Whether special tokens, such as end-of-text, are part of the text.

        Raises:
            OperandError: (a TypeError) If the tokens are not a sequence of int.
        """

    def encode_pair(
        self,
        text: str,
        second: str | None = None,
        *,
        max_tokens: int | None = None,
        cuts_start: bool = False,
    ) -> Encoding:
        """Returns the tokens of a text or of a pair of texts, with what is known of each.

        Args:
            text: The text.
            second: The second text of a pair.
            max_tokens: Cuts texts to this many tokens together, special ones included: the longer
                one first, then both to one length.
            cuts_start: Cuts texts at their start.

        Raises:
            ModelError: If the tokenizer knows no pairs.
        """
        raise ModelError("encode: the tokenizer of this folder has no special tokens around texts.")

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of each text, as `encode` does; it may use several CPUs."""
        return [self.encode(text) for text in texts]


class CharacterTokenizer(Tokenizer):
    """One token for each character; needs no package.

    Args:
        vocabulary: Characters to tokens. Longer keys are special tokens, which no text contains.
        hint: Ends the message about a character that is not in the vocabulary.

    Example:
        >>> from maxmod.generate.text import CharacterTokenizer
        >>> tokenizer = CharacterTokenizer({"0": 0, "1": 1, "+": 2, "<|end|>": 3})
        >>> tokenizer.encode("1+0"), tokenizer.decode([0, 2, 1, 3])
        ([1, 2, 0], '0+1')
        >>> tokenizer.decode([1, 3], special=True)
        '1<|end|>'
    """

    def __init__(self, vocabulary: Mapping[str, int], hint: str = "") -> None:
        self._tokens = {text: token for text, token in vocabulary.items() if len(text) == 1}
        self._texts = {token: text for text, token in self._tokens.items()}
        self._all_texts = {token: text for text, token in vocabulary.items()} | self._texts
        self._hint = hint

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Returns the tokens of a text; see `Tokenizer`.

        Raises:
            ModelError: If a character is not in the vocabulary.
            OperandError: (a TypeError) If the text is not a str.
        """
        _expect_text(text)
        for character in text:
            if character not in self._tokens:
                raise ModelError(
                    f"encode: the model does not know the character {character!r}: expected only "
                    f"{''.join(self._tokens)!r}.{self._hint}"
                )
        return [self._tokens[character] for character in text]

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        texts = self._all_texts if special else self._texts
        return "".join(texts.get(token, "") for token in token_list("decode: tokens", tokens))


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

        It warns with `MaxmodWarning` if the text begins with the special token that is put in front
        of it, as a chat that a template has rendered does.

        Raises:
            ModelError: If the text has a lone surrogate, as command-line arguments that are not
                UTF-8 do; or if the tokenizer fails.
            OperandError: (a TypeError) If the text is not a str.
        """
        _check_text(text)
        with package_errors("encode: the tokenizer failed"):
            tokens = self._tokenizer.encode(text, add_special_tokens=special).ids
            if special:
                self._check_start(tokens)
        return tokens

    def encode_pair(
        self,
        text: str,
        second: str | None = None,
        *,
        max_tokens: int | None = None,
        cuts_start: bool = False,
    ) -> Encoding:
        texts = [text] if second is None else [text, second]
        for one in texts:
            _check_text(one)
        with package_errors("encode: the tokenizer failed"):
            found = self._tokenizer.encode(*texts)
            if max_tokens is not None and len(found.ids) > max_tokens:
                found = self._cut(texts, max_tokens, "left" if cuts_start else "right")
        special = found.special_tokens_mask
        spans = [None if hidden else tuple(span) for span, hidden in zip(found.offsets, special)]
        words = [None if hidden else word for word, hidden in zip(found.word_ids, special)]
        return Encoding(found.ids, found.type_ids, spans, words)

    def _cut(self, texts: Sequence[str], max_tokens: int, side: str) -> Any:
        """Encodes texts that are too long together."""
        parts = [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]
        room = max_tokens - self._tokenizer.num_special_tokens_to_add(len(parts) == 2)
        lengths = _shared_room([len(part.ids) for part in parts], max(room, 0))
        for part, length in zip(parts, lengths):
            part.truncate(length, direction=side)
        return self._tokenizer.post_process(*parts)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        for text in texts:
            _check_text(text)
        package = self._tokenizer
        with package_errors("encode: the tokenizer failed"):
            # The fast one leaves out where in the text each token is.
            run = getattr(package, "encode_batch_fast", package.encode_batch)
            rows = [found.ids for found in run(list(texts), add_special_tokens=True)]
            for row in rows:
                self._check_start(row)
        return rows

    def _check_start(self, tokens: Sequence[int]) -> None:
        if len(tokens) > 1 and tokens[0] == tokens[1] == self._start:
            _warn_of_start(self._tokenizer.id_to_token(tokens[0]))

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        ids = token_list("decode: tokens", tokens)
        with package_errors("decode: the tokenizer failed"):
            return self._tokenizer.decode(ids, skip_special_tokens=not special)

    @functools.cached_property
    def _start(self) -> int | None:
        """The token that is put in front of every text."""
        tokens = self._tokenizer.encode("", add_special_tokens=True).ids
        return tokens[0] if tokens else None


def _expect_text(text: object) -> None:
    if not isinstance(text, str):
        raise OperandError(f"encode: text: expected a str, got {type(text).__name__}.")


def _check_text(text: object) -> None:
    """Refuses what is not a text in Unicode."""
    _expect_text(text)
    try:
        str(text).encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"encode: the text is not valid Unicode: {error.reason}.") from None


def _shared_room(lengths: Sequence[int], room: int) -> list[int]:
    """Returns how many tokens each text keeps: the longer loses first, then both to one length."""
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    shorter = min(*lengths, room // 2)
    longer = min(max(lengths), room - shorter)
    return [shorter, longer] if lengths[0] <= lengths[1] else [longer, shorter]


def _warn_of_start(text: str) -> None:
    warnings.warn(
        f"encode: the text begins with {text!r}, and the tokenizer puts another one in front of "
        "it, so that the model reads it twice. Hint: give the messages of the chat and not their "
        "text, or the tokens of encode(text, special=False).",
        MaxmodWarning,
        stacklevel=5,
    )


@contextlib.contextmanager
def package_errors(message: str) -> Iterator[None]:
    """Turns whatever the package tokenizers raises into a `ModelError` with this message."""
    try:
        yield
    except BaseException as error:
        # A panic of its Rust code extends BaseException alone.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, (MaxmodError, MaxmodWarning)):
            raise
        raise ModelError(f"{message}: {error}") from None


class TextStream:
    """Turns tokens into text as they come, and never returns a partial character.

    A character may span several tokens, and a decoder may treat the first token of a text
    differently. So the tokens of the last piece are decoded again with the new ones, and the new
    part is returned once it ends in a whole character. The pieces together are the text of all
    tokens.

    Args:
        tokenizer: The tokenizer.
        context: Tokens before the first one, whose text is not returned. Some tokenizers leave out
            the space in front of the first word of a text; a word that continues one needs it.
        special: Whether special tokens are part of the text.

    Example:
        >>> from maxmod.generate.text import CharacterTokenizer, TextStream
        >>> stream = TextStream(CharacterTokenizer({"a": 0, "b": 1}))
        >>> [stream.push(token) for token in (1, 0)], stream.finish()
        (['b', 'a'], '')
    """

    def __init__(
        self, tokenizer: Tokenizer, context: Sequence[int] = (), *, special: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._given = list(context)  # tokens of the last piece
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
        before = self._tokenizer.decode(self._given, special=self._special)
        text = self._tokenizer.decode(self._given + self._held, special=self._special)
        return text[len(before) :]


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

    def __init__(self, stops: Iterable[str]) -> None:
        listed = list(stops) if isinstance(stops, Iterable) else [stops]
        if isinstance(stops, str) or not all(isinstance(s, str) and s for s in listed):
            raise ArgumentError(
                "generate: stop_strings: expected a list of non-empty strings, got "
                f"{stops!r:.60}. Hint: stop_strings=['###'] has one string."
            )
        self._stops: list[str] = [*listed]
        self._held = ""
        self.found = False

    @property
    def listed(self) -> list[str]:
        """The stop strings."""
        return self._stops

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


class _Piece(NamedTuple):
    length: int  # in the text with special tokens
    offset: int  # where what is shown starts there
    shown: str


class NewText:
    """The text of new tokens as they come, up to the first stop string.

    Stop strings are looked for in the text with special tokens, which is not the one that is
    returned: a stop string may be a special token, or contain one.

    Args:
        tokenizer: The tokenizer.
        stop_strings: Strings that end the text and are not part of it.
        context: The tokens of the text that is continued; see `TextStream`.

    Raises:
        ArgumentError: If a stop string is empty.

    Example:
        >>> from maxmod.generate.text import CharacterTokenizer, NewText
        >>> tokenizer = CharacterTokenizer({"a": 0, "b": 1, "<|end|>": 2})
        >>> text = NewText(tokenizer, ["<|end|>"])
        >>> [text.push(token) for token in (1, 0, 2, 0)], text.is_stopped
        (['b', 'a', '', ''], True)
    """

    def __init__(
        self, tokenizer: Tokenizer, stop_strings: Iterable[str] = (), context: Sequence[int] = ()
    ) -> None:
        self._stops = StopStrings(stop_strings)
        self._shown = TextStream(tokenizer, context)
        self._whole = TextStream(tokenizer, context, special=True) if self._stops.listed else None
        self._held: list[_Piece] = []  # they may be part of a stop string

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._stops.found

    def push(self, token: int) -> str:
        """Returns the text that is final now; empty if there is none."""
        shown = self._shown.push(token)
        if self._whole is None:
            return shown
        return self._until_stop(self._whole.push(token), shown)

    def finish(self) -> str:
        """Returns the remaining text."""
        shown = self._shown.finish()
        if self._whole is None or self.is_stopped:
            return "" if self.is_stopped else shown
        text = self._until_stop(self._whole.finish(), shown)
        return text if self.is_stopped else text + self._take(len(self._stops.finish()))

    def _until_stop(self, whole: str, shown: str) -> str:
        if self.is_stopped:
            return ""
        certain = self._stops.push(whole)
        if self.is_stopped:
            shown += self._shown.finish()
        # A piece starts or ends alike with and without special tokens.
        offset = 0 if whole.startswith(shown) else len(whole) - len(shown)
        self._held.append(_Piece(len(whole), offset, shown))
        return self._take(len(certain))

    def _take(self, count: int) -> str:
        """Removes so many characters of the text with special tokens; returns what is shown."""
        text = ""
        while self._held and self._held[0].length <= count:
            piece = self._held.pop(0)
            text += piece.shown
            count -= piece.length
        if count:
            length, offset, shown = self._held[0]
            visible = max(0, count - offset)
            text += shown[:visible]
            self._held[0] = _Piece(length - count, max(0, offset - count), shown[visible:])
        return text
