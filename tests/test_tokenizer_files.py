"""Which tokens the files of a folder make: added ones, families, the start and end of a text.

The expected ids follow from the small vocabularies; the rules of merging are those of
transformers 4.57, which gives the same ids for folders of these forms.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizer_folders import (
    HELLO,
    MERGES,
    NEXT,
    SPACE_HELLO,
    USER,
    VOCABULARY,
    byte_level,
    ids_of,
    sentence_pieces,
    write,
    write_byte_level,
    write_whole,
)
from tokenizers import Regex, pre_tokenizers, processors
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer

from maxmod.errors import MaxmodWarning, ModelError, OperandError
from maxmod.generate.special_tokens import end_tokens, read_folder_tokens
from maxmod.generate.tokenizer_files import open_tokenizer

START, END = "<|im_start|>", "<|im_end|>"
CHAT = f"{START}user\nhello{END}"
CHAT_IDS = [NEXT, USER, *ids_of("\n"), HELLO, NEXT + 1]
DECODER = {
    str(NEXT): {"content": START, "special": True, "normalized": False},
    str(NEXT + 1): {"content": END, "special": True, "normalized": False},
}


# ---- added tokens --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"added_tokens_decoder": DECODER}},
        {"added_tokens": {END: NEXT + 1, START: NEXT}},
        {"tokenizer_config": {"additional_special_tokens": [START, {"content": END}]}},
        {"tokenizer_config": {"extra_special_tokens": [START, END]}},
        {"tokenizer_config": {"extra_special_tokens": {"a_token": START, "b_token": END}}},
        {"tokenizer_config": {"bos_token": START, "eos_token": {"content": END}}},
        {"special_tokens_map": {"bos_token": START, "eos_token": END}},
        {"special_tokens_map": {"additional_special_tokens": [START, END]}},
        {
            "tokenizer_config": {"additional_special_tokens": [START]},
            "special_tokens_map": {"additional_special_tokens": [START, END]},
        },
    ],
)
def test_added_tokens_are_found_in_a_text(tmp_path: Path, files: dict[str, Any]) -> None:
    tokenizer = open_tokenizer(write_whole(tmp_path, byte_level(), **files))
    assert tokenizer.encode(CHAT) == CHAT_IDS
    is_special = "added_tokens" not in files
    assert tokenizer.decode(CHAT_IDS) == ("user\nhello" if is_special else CHAT)
    assert tokenizer.decode(CHAT_IDS, special=True) == CHAT


def test_added_tokens_are_special_where_a_role_says_so(tmp_path: Path) -> None:
    files = {"added_tokens": {START: NEXT, END: NEXT + 1}, "special_tokens_map": {"eos_token": END}}
    tokenizer = open_tokenizer(write_whole(tmp_path, byte_level(), **files))
    assert tokenizer.decode(CHAT_IDS) == f"{START}user\nhello"


def test_flags_of_added_tokens(tmp_path: Path) -> None:
    """`lstrip` takes the spaces before a token, `single_word` only finds whole words."""
    decoder = {
        str(NEXT): {"content": "<a>", "lstrip": True, "special": True},
        str(VOCABULARY["us"]): {"content": "us", "single_word": True, "special": False},
    }
    write_whole(tmp_path, byte_level(), tokenizer_config={"added_tokens_decoder": decoder})
    tokenizer = open_tokenizer(tmp_path)
    assert tokenizer.encode("hello  <a>hello") == [HELLO, NEXT, HELLO]
    assert tokenizer.encode("us user") == [VOCABULARY["us"], *ids_of(" "), USER]


def test_ids_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    decoder = {str(NEXT + 3): {"content": START}}
    write_whole(tmp_path, byte_level(), tokenizer_config={"added_tokens_decoder": decoder})
    with pytest.raises(ModelError, match=rf"<\|im_start\|>' has two ids: {NEXT + 3} .* {NEXT} aft"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("tokenizer_config", {"added_tokens_decoder": []}, "added_tokens_decoder: expected an obj"),
        ("tokenizer_config", {"added_tokens_decoder": {"x": "a"}}, "expected an object from token"),
        ("tokenizer_config", {"added_tokens_decoder": {"1": 3}}, "expected a token: a string"),
        (
            "tokenizer_config",
            {"added_tokens_decoder": {"1": {"content": "a", "lstrip": 3}}},
            "'a': expected true or false for lstrip",
        ),
        ("tokenizer_config", {"eos_token": 3}, "eos_token: expected a token"),
        ("special_tokens_map", {"additional_special_tokens": "a"}, "expected a list of tokens"),
        ("added_tokens", {"a": "b"}, "added_tokens.json: expected an object from tokens to"),
        ("added_tokens", [], "added_tokens.json: expected a JSON object"),
    ],
)
def test_malformed_lists_of_tokens(tmp_path: Path, name: str, table: Any, message: str) -> None:
    write_whole(tmp_path, byte_level(), **{name: table})
    with pytest.raises(ModelError, match=message):
        open_tokenizer(tmp_path)


def test_roles_of_special_tokens(tmp_path: Path) -> None:
    """Without a list of added tokens the older special_tokens_map.json has the last word."""
    config = {"bos_token": "<a>", "eos_token": None, "tokenizer_class": "LlamaTokenizer"}
    given = {"bos_token": {"content": "<b>"}, "pad_token": "<p>"}
    write(tmp_path, tokenizer_config=config, special_tokens_map=given)
    expected = {"bos_token": "<b>", "pad_token": "<p>", "unk_token": "<unk>"}
    assert read_folder_tokens(tmp_path).special == expected
    write(tmp_path, tokenizer_config={**config, "added_tokens_decoder": {}})
    assert read_folder_tokens(tmp_path).special == {**expected, "bos_token": "<a>"}


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"eos_token": END, "added_tokens_decoder": DECODER}},
        {"special_tokens_map": {"eos_token": END}, "added_tokens": {END: NEXT + 1}},
    ],
)
def test_end_token_of_added_tokens(tmp_path: Path, files: dict[str, Any]) -> None:
    assert end_tokens(write(tmp_path, **files)) == {NEXT + 1}


def test_end_token_of_the_vocabulary(tmp_path: Path) -> None:
    assert end_tokens(tmp_path) == set()
    write_whole(tmp_path, sentence_pieces(), tokenizer_config={"eos_token": "</s>"})
    assert end_tokens(tmp_path) == {2}
    write(tmp_path, tokenizer_config={"eos_token": "Paris"})
    assert end_tokens(tmp_path) == set()
    write(tmp_path, tokenizer_config={"eos_token": "▁Paris"})
    assert end_tokens(tmp_path) == {open_tokenizer(tmp_path).encode("Paris")[1]}
    (tmp_path / "tokenizer.json").unlink()
    write_byte_level(tmp_path, tokenizer_config={"eos_token": "user"})
    assert end_tokens(tmp_path) == {USER}
    write(tmp_path, tokenizer_config=[])  # reported when the tokenizer is opened
    assert end_tokens(tmp_path) == set()


# ---- folders without tokenizer.json --------------------------------------------------------------


def test_words_and_normal_form_of_qwen(tmp_path: Path) -> None:
    """GPT-2 joins digits and spaces, keeps newlines apart, and does not normalise."""
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": DECODER}
    tokenizer = open_tokenizer(write_byte_level(tmp_path, tokenizer_config=config))
    decomposed = unicodedata.normalize("NFD", "é")
    assert tokenizer.encode(decomposed) == ids_of("é")
    assert tokenizer.encode(CHAT) == CHAT_IDS
    # A tab and the letters behind it are one word for Qwen and two for GPT-2: no merge across them.
    assert tokenizer.encode("\thello") == [*ids_of("\t"), HELLO]
    older = open_tokenizer(write(tmp_path, tokenizer_config={"tokenizer_class": "GPT2Tokenizer"}))
    assert older.encode(decomposed) == ids_of(decomposed)


def test_qwen_splits_words_by_the_pattern_of_qwen(tmp_path: Path) -> None:
    """A pair is merged where it is in one word."""
    merges = [*MERGES, "' M", "1 2", "Ċ Ċ", "! Ċ"]  # Ċ is a newline
    words = [merge.replace(" ", "") for merge in merges[len(MERGES) :]]
    table = VOCABULARY | {word: NEXT + place for place, word in enumerate(words)}
    write_byte_level(tmp_path, config={"model_type": "qwen3"})
    write(tmp_path, vocab=table)
    (tmp_path / "merges.txt").write_text("\n".join(merges), "utf-8")
    texts = ("I'M", "12", "a\n\nb", "!\n")
    qwen = [open_tokenizer(tmp_path).encode(text) for text in texts]
    assert [NEXT + place in row for place, row in enumerate(qwen)] == [True, False, True, True]
    write(tmp_path, config={"model_type": "gpt2"})
    gpt = [open_tokenizer(tmp_path).encode(text) for text in texts]
    assert [NEXT + place in row for place, row in enumerate(gpt)] == [False, True, False, False]


@pytest.mark.parametrize("space", [False, True])
def test_gpt2_with_and_without_a_space_in_front(tmp_path: Path, space: bool) -> None:
    config = {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": space}
    tokenizer = open_tokenizer(write_byte_level(tmp_path, tokenizer_config=config))
    assert tokenizer.encode("hello") == [SPACE_HELLO if space else HELLO]
    assert tokenizer.encode("<|endoftext|>") == [NEXT]
    assert tokenizer.decode([SPACE_HELLO, NEXT]) == " hello"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"config": {"model_type": "llama"}},
        {"config": {"model_type": "qwen2", "tokenizer_class": "BartTokenizer"}},
        {"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast"}},
    ],
)
def test_unknown_families_are_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    write_byte_level(tmp_path, **files)
    with pytest.raises(ModelError, match="family is not known.*GPT2Tokenizer, Qwen2Tokenizer"):
        open_tokenizer(tmp_path)


def test_malformed_merges(tmp_path: Path) -> None:
    write_byte_level(tmp_path, config={"model_type": "gpt2"})
    (tmp_path / "merges.txt").write_text("h e\nh e l\n")
    with pytest.raises(ModelError, match="merges.txt: line 2: expected two parts .* 'h e l'"):
        open_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_text("h x\n")
    with pytest.raises(ModelError, match="vocab.json: the tokenizer is malformed"):
        open_tokenizer(tmp_path)


WORD_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[NEW]", "cafe", "café", "Café"]
WORD_PIECES += ["a", "##b", "東", "京", "##京", "!"]


@pytest.mark.parametrize(
    ("config", "text", "words"),
    [
        ({}, "Café ab!", ["cafe", "a", "##b", "!"]),
        ({"do_lower_case": False}, "Café", ["Café"]),
        ({"strip_accents": False}, "Café", ["café"]),
        ({"do_lower_case": False, "strip_accents": True}, "a café", ["a", "cafe"]),
        ({}, "東京", ["東", "京"]),
        ({"tokenize_chinese_chars": False}, "東京", ["東", "##京"]),
        ({}, "a[MASK]x", ["a", "[MASK]", "[UNK]"]),
        ({"additional_special_tokens": ["[NEW]"]}, "[NEW]a", ["[NEW]", "a"]),
    ],
)
def test_word_pieces(tmp_path: Path, config: dict[str, Any], text: str, words: list[str]) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORD_PIECES) + "\n", "utf-8")
    write(tmp_path, config={"model_type": "bert"}, tokenizer_config=config)
    tokenizer = open_tokenizer(tmp_path)
    expected = [WORD_PIECES.index(word) for word in words]
    assert tokenizer.encode(text) == [2, *expected, 3]
    assert tokenizer.encode(text, special=False) == expected


def test_word_pieces_of_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORD_PIECES), "utf-8")
    with pytest.raises(ModelError, match="family is not known: .* to be BertTokenizer, got None"):
        open_tokenizer(tmp_path)
    for field, value in {"do_basic_tokenize": False, "never_split": ["a"]}.items():
        write(tmp_path, config={"model_type": "bert"}, tokenizer_config={field: value})
        with pytest.raises(ModelError, match=f"vocab.txt: {field}: expected"):
            open_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n", "utf-8")
    write(tmp_path, tokenizer_config={})
    with pytest.raises(ModelError, match=r"vocab.txt: expected the token '\[CLS\]'"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("spiece.model", "AutoTokenizer.from_pretrained"),
        ("sentencepiece.bpe.model", "AutoTokenizer.from_pretrained"),
        ("tekken.json", "put the tokenizer.json of the same model into the folder"),
    ],
)
def test_other_kinds_of_files_are_refused(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"\n\x0e\n\x05<unk>\x15")
    with pytest.raises(ModelError, match=rf"{name}: .* not read: .* Hint: .*{hint}"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["add_prefix_space", "add_bos_token", "add_eos_token"])
def test_settings_that_are_not_true_or_false(tmp_path: Path, name: str) -> None:
    """null is as if it were missing."""
    write_whole(tmp_path, byte_level(), tokenizer_config={name: None})
    assert open_tokenizer(tmp_path).encode("hello") == [HELLO]
    write(tmp_path, tokenizer_config={name: "yes"})
    with pytest.raises(ModelError, match=f"{name}: expected true or false, got 'yes'"):
        open_tokenizer(tmp_path)


def test_settings_change_parts_of_the_whole_file(tmp_path: Path) -> None:
    """As in transformers: the space of byte-level tokenizers, and the normaliser of BERT."""
    write_whole(tmp_path, byte_level(), tokenizer_config={"add_prefix_space": True})
    assert open_tokenizer(tmp_path).encode("hello") == [SPACE_HELLO]
    whole = tokenizers.Tokenizer(WordLevel({"Café": 0, "cafe": 1}, unk_token="cafe"))
    whole.normalizer = BertNormalizer(lowercase=True)
    write_whole(tmp_path, whole, tokenizer_config={"tokenizer_class": "BertTokenizer"})
    assert open_tokenizer(tmp_path).encode("Café") == [1]
    config = {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False}
    assert open_tokenizer(write(tmp_path, tokenizer_config=config)).encode("Café") == [0]


# ---- the start and the end of a text -------------------------------------------------------------


@pytest.mark.parametrize("has_template", [False, True])
@pytest.mark.parametrize(
    ("flags", "start", "end"),
    [
        ({}, [1], []),
        ({"add_bos_token": True}, [1], []),
        ({"add_bos_token": False}, [], []),
        ({"add_eos_token": True}, [1], [2]),
        ({"add_bos_token": False, "add_eos_token": True}, [], [2]),
    ],
)
def test_settings_of_llama_decide(
    tmp_path: Path, flags: dict[str, bool], start: list[int], end: list[int], has_template: bool
) -> None:
    config = {"tokenizer_class": "LlamaTokenizerFast", **flags}
    write_whole(tmp_path, sentence_pieces(start=has_template), tokenizer_config=config)
    tokenizer = open_tokenizer(tmp_path)
    plain = tokenizer.encode("Paris", special=False)
    assert tokenizer.encode("Paris") == [*start, *plain, *end]


@pytest.mark.parametrize("has_template", [False, True])
def test_folders_of_transformers_5_leave_the_start_to_the_file(
    tmp_path: Path, has_template: bool
) -> None:
    config = {"tokenizer_class": "LlamaTokenizer", "backend": "tokenizers"}
    write_whole(tmp_path, sentence_pieces(start=has_template), tokenizer_config=config)
    assert open_tokenizer(tmp_path).encode("") == ([1] if has_template else [])


def test_settings_of_other_classes_count_where_the_file_adds_nothing(tmp_path: Path) -> None:
    config = {"add_bos_token": True, "bos_token": START, "tokenizer_class": "PreTrainedTokenizer"}
    whole = byte_level()
    write_whole(tmp_path, whole, tokenizer_config=config)
    assert open_tokenizer(tmp_path).encode("hello") == [NEXT, HELLO]
    whole.add_special_tokens(["<a>"])
    whole.post_processor = processors.TemplateProcessing(
        single="<a> $A", special_tokens=[("<a>", NEXT)]
    )
    write_whole(tmp_path, whole, tokenizer_config={**config, "add_bos_token": False})
    assert open_tokenizer(tmp_path).encode("hello") == [NEXT, HELLO]


def test_a_start_without_a_token_is_refused(tmp_path: Path) -> None:
    write_whole(tmp_path, byte_level(), tokenizer_config={"add_bos_token": True})
    with pytest.raises(ModelError, match="add_bos_token is true, but there is no bos_token"):
        open_tokenizer(tmp_path)


def test_two_starts_are_warned_of_once(tmp_path: Path) -> None:
    tokenizer = open_tokenizer(write_whole(tmp_path, sentence_pieces()))
    with pytest.warns(MaxmodWarning, match="begins with '<s>'.*reads it twice.*special=False") as w:
        assert tokenizer.encode("<s> Paris")[:2] == [1, 1]
    assert len(w) == 1
    # No warning, which would be an error here.
    assert tokenizer.encode("<s> Paris", special=False)[0] == 1
    assert tokenizer.encode("Paris <s>")[0] == 1


# ---- failures of the package ---------------------------------------------------------------------


def test_failures_of_the_package_are_model_errors(tmp_path: Path) -> None:
    whole = byte_level()
    whole.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    tokenizer = open_tokenizer(write_whole(tmp_path, whole))
    with pytest.raises(ModelError, match="encode: the tokenizer failed: .*retry-limit"):
        tokenizer.encode("a" * 40 + "b")
    with pytest.raises(OperandError, match="encode: text: expected a str, got int"):
        tokenizer.encode(5)
