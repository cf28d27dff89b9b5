"""Tokenizers, and text that comes piece by piece."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_folders import HELLO, NEXT, USER, byte_level, ids_of, sentence_pieces

from maxmod.errors import ArgumentError, ModelError, OperandError
from maxmod.generate.text import (
    CharacterTokenizer,
    NewText,
    PackageTokenizer,
    StopStrings,
    TextStream,
    Tokenizer,
)
from maxmod.generate.tokenizer_files import open_tokenizer

FOLDER = Path(__file__).parent / "assets" / "gpt2" / "with_tokenizer"
GOLDEN = json.loads((FOLDER / "golden.json").read_text("utf-8"))


class ByteTokenizer(Tokenizer):
    """One token for each byte of UTF-8."""

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: list[int], *, special: bool = False) -> str:
        return bytes(tokens).decode(errors="replace")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return open_tokenizer(FOLDER)


@pytest.mark.parametrize("case", GOLDEN["encodings"], ids=lambda case: repr(case["text"][:12]))
def test_encodings(tokenizer: Tokenizer, case: dict[str, object]) -> None:
    assert tokenizer.encode(case["text"]) == case["ids"]
    assert tokenizer.decode(case["ids"]) == case["text"].replace("<|endoftext|>", "")


@pytest.mark.parametrize("case", GOLDEN["generations"], ids=lambda case: case["prompt"])
def test_decodings(tokenizer: Tokenizer, case: dict[str, object]) -> None:
    assert tokenizer.encode(case["prompt"]) == case["prompt_ids"]
    assert tokenizer.decode(case["new_ids"]) == case["text"]


def _pieces(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.push(token) for token in tokens), stream.finish()]


@given(st.text())
def test_stream_of_text(text: str) -> None:
    tokenizer = ByteTokenizer()
    pieces = _pieces(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece or "\ufffd" in text for piece in pieces)


@given(st.lists(st.integers(0, 255), max_size=40))
def test_stream_of_any_bytes(tokens: list[int]) -> None:
    tokenizer = ByteTokenizer()
    assert "".join(_pieces(tokenizer, tokens)) == tokenizer.decode(tokens)


@given(st.lists(st.integers(0, 299), max_size=40))
def test_stream_of_any_tokens(tokens: list[int]) -> None:
    tokenizer = open_tokenizer(FOLDER)
    assert "".join(_pieces(tokenizer, tokens)) == tokenizer.decode(tokens)


def test_stream_gives_whole_characters(tokenizer: Tokenizer) -> None:
    pieces = _pieces(tokenizer, tokenizer.encode("é 東🙂."))
    assert [piece for piece in pieces if piece] == ["é", " ", "東", "🙂", "."]


def test_stream_gives_an_unfinished_character_at_the_end() -> None:
    tokens = "a東".encode()[:-1]
    assert _pieces(ByteTokenizer(), list(tokens)) == ["a", "", "", "\ufffd"]


def test_stream_of_special_tokens(tokenizer: Tokenizer) -> None:
    assert _pieces(tokenizer, [0, 41, 0]) == ["", "I", "", ""]


# ---- the text after a prompt ---------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["Paris", "is", "Paris is"])
def test_prompt_and_new_text_are_the_whole_text(prompt: str) -> None:
    """The first token of a text has a space that is not shown; that of a continuation has one."""
    tokenizer = PackageTokenizer(sentence_pieces())
    tokens = tokenizer.encode(prompt)
    new = tokenizer.encode("Paris is", special=False)
    text = NewText(tokenizer, context=tokens)
    pieces = [*(text.push(token) for token in new), text.finish()]
    assert pieces == [" Paris", " is", ""]
    assert prompt + "".join(pieces) == tokenizer.decode([*tokens, *new])
    alone = NewText(tokenizer)
    assert [alone.push(token) for token in new] == ["Paris", " is"]


SPECIAL = byte_level()
SPECIAL.add_special_tokens(["<|end|>", "<|x|>"])
END, OTHER = NEXT, NEXT + 1
E_ACUTE = tuple(ids_of("é"))


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("<|end|>", "user"),
        ("er<|end|>", "us"),
        ("<|end|>hello", "user"),
        ("ser<|end|>hel", "u"),
        ("<|x|>", "userhello"),
        ("hello", "user"),
        ("llo", "userhe"),
        ("<|x|>!", "userhellouser"),
    ],
)
def test_stop_strings_with_special_tokens(stop: str, expected: str) -> None:
    tokenizer = PackageTokenizer(SPECIAL)
    text = NewText(tokenizer, [stop])
    pieces = [text.push(token) for token in (USER, END, HELLO, OTHER, USER)]
    assert "".join([*pieces, text.finish()]) == expected
    assert text.is_stopped == (stop != "<|x|>!")


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([(USER,), (END,), (HELLO,), (OTHER,), E_ACUTE]), max_size=8),
    st.lists(
        st.sampled_from(["<|end|>", "e", "<|end|>u", "<|", "ser<|x|>he", "<|x|><|end|>", "é"]),
        max_size=3,
    ),
)
def test_stop_strings_in_any_tokens(parts: list[tuple[int, ...]], stops: list[str]) -> None:
    """The text ends before the first stop string, and has no special token."""
    tokens = [token for part in parts for token in part]
    tokenizer = PackageTokenizer(SPECIAL)
    text = NewText(tokenizer, stops)
    found = "".join([*(text.push(token) for token in tokens), text.finish()])
    whole = [tokenizer.decode(tokens[:count], special=True) for count in range(len(tokens) + 1)]
    # The stop string that is complete first, and of several the one that starts first.
    starts = ([start for s in stops if (start := part.find(s)) >= 0] for part in whole)
    cut = next((min(places) for places in starts if places), None)
    assert text.is_stopped == (cut is not None)
    assert found == "".join(
        character for character, is_shown in _characters(tokens)[:cut] if is_shown
    )


def _characters(tokens: list[int]) -> list[tuple[str, bool]]:
    """Returns the characters of all tokens, and which are shown."""
    tokenizer = PackageTokenizer(SPECIAL)
    found = []
    for is_special, run in itertools.groupby(tokens, lambda token: token in (END, OTHER)):
        text = tokenizer.decode(list(run), special=True)
        found += [(character, not is_special) for character in text]
    return found


# ---- folders -------------------------------------------------------------------------------------


def test_characters_need_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (tmp_path / "vocab.json").write_text('{"a": 0, "é": 1, "<end>": 2}', "utf-8")
    tokenizer = open_tokenizer(tmp_path)
    assert tokenizer.encode("aéa") == [0, 1, 0]
    assert tokenizer.decode([1, 2, 0, 99]) == "éa"
    with pytest.raises(ModelError, match="does not know the character 'b': expected only 'aé'"):
        tokenizer.encode("ab")


def test_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModelError, match=r"needs the package tokenizers.*pip install tokenizers"):
        open_tokenizer(FOLDER)


def test_older_form_of_gpt2(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), "utf-8")
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), "utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', "utf-8")
    older = open_tokenizer(tmp_path)
    for case in GOLDEN["encodings"]:
        assert older.encode(case["text"]) == case["ids"]
    assert older.decode([0, 41]) == "I"


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no tokenizer: expected tokenizer.json"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 3}'])
def test_malformed_tokenizer(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text, "utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json: the tokenizer is malformed"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "vocab.json: expected JSON"),
        ("[]", "expected a JSON object"),
        ('{"a": "b"}', "expected a JSON object from str to token id"),
        ('{"the": 0, "cat": 1, "a": 2}', "not a character-level vocabulary. Hint: merges.txt"),
    ],
)
def test_malformed_vocabulary(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "vocab.json").write_text(text, "utf-8")
    with pytest.raises(ModelError, match=message):
        open_tokenizer(tmp_path)


def test_prompt_is_never_cut(tmp_path: Path) -> None:
    table = json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))
    table["truncation"] = {
        "direction": "Right",
        "max_length": 2,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(table), "utf-8")
    assert len(open_tokenizer(tmp_path).encode("the bells are ringing")) == 11


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (5, "decode: tokens: expected a sequence of token ids, got 5"),
        ("a", "decode: tokens: expected a sequence of token ids, got 'a'"),
        ([1.5], r"decode: tokens\[0\]: expected an int, got 1.5"),
        ([[1]], r"decode: tokens\[0\]: expected an int, got 'list'"),
    ],
)
def test_tokens_that_are_not_ids(tokenizer: Tokenizer, tokens: Any, message: str) -> None:
    for each in (tokenizer, CharacterTokenizer({"a": 0})):
        with pytest.raises(OperandError, match=message):
            each.decode(tokens)


def test_negative_tokens_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelError, match="decode: the tokenizer failed"):
        tokenizer.decode([-1])


def test_lone_surrogates_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelError, match="not valid Unicode"):
        tokenizer.encode("a\udcff")


def test_several_texts(tokenizer: Tokenizer) -> None:
    texts = ["one", "", "two words", "one"]
    assert tokenizer.encode_all(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_all([]) == []
    with pytest.raises(ModelError, match="not valid Unicode"):
        tokenizer.encode_all(["fine", "\udcff"])


def test_longer_keys_are_special() -> None:
    tokenizer = CharacterTokenizer({"<": 0, "e": 1, "<e": 2})
    assert tokenizer.encode("<e") == [0, 1]


# ---- stop strings --------------------------------------------------------------------------------


@settings(max_examples=300)
@given(
    st.text("ab\n", max_size=20),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
    st.randoms(use_true_random=False),
)
def test_stop_strings_in_any_pieces(text: str, stops: list[str], random: Random) -> None:
    """The pieces together are the text before the stop that is complete first."""
    stream = StopStrings(stops)
    found = ""
    rest = text
    while rest and not stream.found:
        size = random.randint(0, 4)
        found += stream.push(rest[:size])
        rest = rest[size:]
    if not stream.found:
        found += stream.finish()
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    assert stream.found == bool(ends)
    if not ends:
        assert found == text
        return
    assert text.startswith(found)
    assert any(text[len(found) :].startswith(stop) for stop in stops)
    # Nothing that was given before contains a stop.
    assert all(stop not in found for stop in stops)


def test_only_the_beginning_of_a_stop_string_is_held_back() -> None:
    stream = StopStrings(["<end>"])
    assert [stream.push(piece) for piece in ("a<", "e", "x", "<end", "?", "b")] == [
        "a",
        "",
        "<ex",
        "",
        "<end?",
        "b",
    ]
    assert stream.finish() == ""
    assert StopStrings([]).push("at once") == "at once"


@pytest.mark.parametrize("stops", ["text", [""], ["a", ""], [1], [None], None, 3])
def test_malformed_stop_strings(stops: object) -> None:
    with pytest.raises(ArgumentError, match="stop_strings: expected a list of non-empty strings"):
        StopStrings(stops)
