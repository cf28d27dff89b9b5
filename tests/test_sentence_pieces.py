"""tokenizer.model: read by the rule of SentencePiece for Llama, and refused where it is another.

The package sentencepiece is not needed here: a stand-in reads a model from JSON. With the real one,
the models of Mistral 7B gave the tokens of transformers 4.57 and of sentencepiece for 1,500 texts.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_folders import write

from maxmod.errors import ModelError
from maxmod.generate.special_tokens import end_tokens
from maxmod.generate.text import Tokenizer
from maxmod.generate.tokenizer_files import open_tokenizer

# Pieces with scores: the higher, the sooner they are made.
SCORES = {"▁": -90, "a": -91, "b": -92, "c": -93, "ab": -2, "bc": -1, "▁a": -3, "abc": -4}
SCORES |= {"▁ab": -6, "aa": -5, "aaa": -7, "▁abc": -8, "▁▁": -9}
BYTES = [(f"<0x{byte:02X}>", 0, 6) for byte in range(256)]
PIECES = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), *BYTES]
PIECES += [(piece, score, 1) for piece, score in SCORES.items()]
PIECES += [("[INST]", 0, 3), ("<tool>", 0, 4)]
TOKENS = {piece: token for token, (piece, _, _) in enumerate(PIECES)}
MODEL: dict[str, Any] = {
    "pieces": [{"piece": piece, "score": score, "type": kind} for piece, score, kind in PIECES],
    "trainer_spec": {
        "model_type": 2,
        "byte_fallback": True,
        "unk_piece": "<unk>",
        "treat_whitespace_as_suffix": False,
    },
    "normalizer_spec": {
        "precompiled_charsmap": "",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": True,
        "escape_whitespaces": True,
    },
}


class ModelProto(SimpleNamespace):
    """Stands in for the class of that name in sentencepiece_model_pb2."""

    def ParseFromString(self, data: bytes) -> None:  # noqa: N802
        table = json.loads(data, object_hook=lambda fields: SimpleNamespace(**fields))
        vars(self).update(vars(table))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sentencepiece")
    module.sentencepiece_model_pb2 = SimpleNamespace(ModelProto=ModelProto)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentencepiece", module)


def _folder(folder: Path, model: dict[str, Any] = MODEL, **files: Any) -> Path:
    (folder / "tokenizer.model").write_text(json.dumps(model), "utf-8")
    return write(folder, **{"config": {"model_type": "llama"}, **files})


def _expected(text: str) -> list[int]:
    """Merges the neighbours that make the best piece until there are none."""
    parts = list("▁" + text.replace(" ", "▁"))
    while True:
        made = [left + right for left, right in itertools.pairwise(parts)]
        known = [(SCORES[piece], -at) for at, piece in enumerate(made) if piece in SCORES]
        if not known:
            return [TOKENS[part] for part in parts]
        at = -max(known)[1]
        parts[at : at + 2] = [made[at]]


@settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.text("abc ", min_size=1, max_size=12))
def test_tokens_by_scores(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode(text, special=False) == _expected(text)
    assert tokenizer.encode(text) == [TOKENS["<s>"], *_expected(text)]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.fixture
def tokenizer(package: None, tmp_path: Path) -> Tokenizer:
    return open_tokenizer(_folder(tmp_path))


def test_unknown_characters_are_bytes(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("aé", special=False)
    assert tokens == [TOKENS["▁a"], TOKENS["<0xC3>"], TOKENS["<0xA9>"]]
    assert tokenizer.decode(tokens) == "aé"


def test_control_and_user_pieces_are_tokens(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("<s>[INST]a<tool></s>", special=False)
    assert tokens == [TOKENS[piece] for piece in ("<s>", "[INST]", "▁a", "<tool>", "</s>")]
    assert tokenizer.decode(tokens) == "a<tool>"


@pytest.mark.usefixtures("package")
def test_settings_of_the_folder(tmp_path: Path) -> None:
    """`legacy` puts a space in front of every part of a text, the newer way only of the first."""
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_eos_token": True}
    tokenizer = open_tokenizer(_folder(tmp_path, tokenizer_config=config))
    expected = [TOKENS[piece] for piece in ("<s>", "▁a", "[INST]", "a", "</s>")]
    assert tokenizer.encode("a[INST]a") == expected
    tokenizer = open_tokenizer(_folder(tmp_path, tokenizer_config={**config, "legacy": True}))
    expected = [TOKENS[piece] for piece in ("<s>", "▁a", "[INST]", "▁a", "</s>")]
    assert tokenizer.encode("a[INST]a") == expected
    assert tokenizer.encode("b  b", special=False)[2:4] == [TOKENS["▁▁"], TOKENS["b"]]
    newer = open_tokenizer(_folder(tmp_path, tokenizer_config=config))
    assert newer.encode("b  b", special=False)[2:4] == [TOKENS["▁▁"], TOKENS["b"]]
    config |= {"add_prefix_space": False, "added_tokens_decoder": {str(len(PIECES)): "<pad>"}}
    tokenizer = open_tokenizer(_folder(tmp_path, tokenizer_config=config))
    assert tokenizer.encode("a<pad>", special=False) == [TOKENS["a"], len(PIECES)]


def test_end_token_of_the_first_llamas(tmp_path: Path) -> None:
    _folder(tmp_path, added_tokens={"</s>": 2})
    assert end_tokens(tmp_path) == {2}


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        ("trainer_spec", {"model_type": 1}, "its algorithm is not BPE"),
        ("trainer_spec", {"byte_fallback": False}, "unknown characters are not split into bytes"),
        ("trainer_spec", {"treat_whitespace_as_suffix": True}, "spaces end words"),
        ("normalizer_spec", {"precompiled_charsmap": "x"}, "it normalises texts"),
        ("normalizer_spec", {"remove_extra_whitespaces": True}, "it removes spaces"),
        ("normalizer_spec", {"add_dummy_prefix": False}, "no space is put in front of a text"),
        ("normalizer_spec", {"escape_whitespaces": False}, "spaces stay as they are"),
    ],
)
def test_other_models_are_refused(
    tmp_path: Path, part: str, change: dict[str, Any], reason: str
) -> None:
    _folder(tmp_path, {**MODEL, part: MODEL[part] | change})
    with pytest.raises(ModelError, match=f"tokenizer.model: .* not read: {reason}.*AutoTokenizer"):
        open_tokenizer(tmp_path)


@pytest.mark.usefixtures("package")
def test_unused_pieces_are_refused(tmp_path: Path) -> None:
    pieces = [*MODEL["pieces"], {"piece": "d", "score": 0, "type": 5}]
    with pytest.raises(ModelError, match="it has pieces of other kinds"):
        open_tokenizer(_folder(tmp_path, {**MODEL, "pieces": pieces}))


@pytest.mark.usefixtures("package")
def test_files_that_are_something_else(tmp_path: Path) -> None:
    """The tokenizer.model of Llama 3 is a list of words in base64."""
    _folder(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(ModelError, match="it is not a SentencePiece model. Hint: .*tiktoken"):
        open_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match="got a git-lfs pointer in place of the file"):
        open_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="tokenizer family is Gemma, and only Llama is known"):
        open_tokenizer(_folder(tmp_path, config={"model_type": "gemma2"}))


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ModelError, match="needs sentencepiece and protobuf.*AutoTokenizer.*pip in"):
        open_tokenizer(_folder(tmp_path))
