"""Tokenizers of folders without tokenizer.json: what their files leave out is known per family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from maxmod.errors import ModelError
from maxmod.generate.special_tokens import LIKE_BERT, FolderTokens, PackageObject
from maxmod.weights.json_files import read_json
from maxmod.weights.text_files import read_text

# How the tokenizer.json of Qwen2 splits a text into words.
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Attributes of the normaliser of BERT, and the fields of tokenizer_config.json that set them.
BERT_SETTINGS = {
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
}
_LONGEST_WORD = 100  # characters; longer ones are unknown to BERT


def byte_level(package: ModuleType, path: Path, tokens: FolderTokens) -> PackageObject:
    """Makes the tokenizer of vocab.json and merges.txt.

    Raises:
        ModelError: If a file is malformed, or the family is not known.
    """
    finish = _BYTE_LEVEL.get(tokens.family)
    if finish is None:
        raise ModelError(
            f"{path}: vocab.json and merges.txt do not say how words are split, and the tokenizer "
            f"family is not known: expected the tokenizer_class of tokenizer_config.json to be one "
            f"of {', '.join(f'{name}Tokenizer' for name in _BYTE_LEVEL)}, got {tokens.family}. "
            "Hint: save the tokenizer as tokenizer.json."
        )
    vocabulary, merges = read_json(path), _read_merges(path.with_name("merges.txt"))
    tokenizer = package.Tokenizer(package.models.BPE(vocabulary, merges))
    tokenizer.decoder = package.decoders.ByteLevel()
    finish(package, tokenizer, tokens)
    return tokenizer


def _gpt2(package: ModuleType, tokenizer: PackageObject, tokens: FolderTokens) -> None:
    space = tokens.flag("add_prefix_space", False)
    tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=space)


def _qwen2(package: ModuleType, tokenizer: PackageObject, tokens: FolderTokens) -> None:
    space = tokens.flag("add_prefix_space", False)
    words = package.Regex(_QWEN2_WORDS)
    tokenizer.normalizer = package.normalizers.NFC()
    tokenizer.pre_tokenizer = package.pre_tokenizers.Sequence(
        [
            package.pre_tokenizers.Split(words, behavior="isolated"),
            package.pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False),
        ]
    )


def _roberta(package: ModuleType, tokenizer: PackageObject, tokens: FolderTokens) -> None:
    _gpt2(package, tokenizer, tokens)
    space = tokens.flag("add_prefix_space", False)
    texts = [tokens.special[role] for role in ("sep_token", "cls_token")]
    around = [(text, tokenizer.token_to_id(text)) for text in texts]
    for text, number in around:
        if number is None:
            raise ModelError(f"vocab.json: expected the token {text!r} of every text.")
    tokenizer.post_processor = package.processors.RobertaProcessing(
        *around, trim_offsets=True, add_prefix_space=space
    )


_BYTE_LEVEL: dict[str | None, Callable[[ModuleType, PackageObject, FolderTokens], None]] = {
    "GPT2": _gpt2,
    "Qwen2": _qwen2,
    "Roberta": _roberta,
}


def _read_merges(path: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        parts = line.rstrip("\r").split(" ")
        if (number == 1 and line.startswith("#version")) or parts == [""]:
            continue
        if len(parts) != 2:
            raise ModelError(f"{path}: line {number}: expected two parts of a token, got {line!r}.")
        found.append((parts[0], parts[1]))
    return found


def word_piece(package: ModuleType, path: Path, tokens: FolderTokens) -> PackageObject:
    """Makes the tokenizer of the vocab.txt of BERT.

    Raises:
        ModelError: If the file is malformed, or the family is another one.
    """
    if tokens.family not in LIKE_BERT:
        raise ModelError(
            f"{path}: the tokenizer family is not known: expected the tokenizer_class of "
            f"tokenizer_config.json to be BertTokenizer, got {tokens.family}. Hint: save the "
            "tokenizer as tokenizer.json."
        )
    settings, names = tokens.settings, tokens.special
    for name, usual in (("do_basic_tokenize", True), ("never_split", None)):
        if settings.get(name, usual) not in (usual, []):
            raise ModelError(f"{path}: {name}: expected {usual}, got {settings[name]!r}.")
    words = read_text(path).removesuffix("\n").split("\n")
    vocabulary = {word.rstrip(): token for token, word in enumerate(words)}
    tokenizer = package.Tokenizer(
        package.models.WordPiece(
            vocabulary, unk_token=names["unk_token"], max_input_chars_per_word=_LONGEST_WORD
        )
    )
    tokenizer.normalizer = package.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=tokens.flag("tokenize_chinese_chars", True),
        strip_accents=tokens.flag("strip_accents"),
        lowercase=tokens.flag("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = package.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = package.decoders.WordPiece()
    around = []
    for role in ("cls_token", "sep_token"):
        if names[role] not in vocabulary:
            raise ModelError(f"{path}: expected the token {names[role]!r} of every text.")
        around.append((names[role], vocabulary[names[role]]))
    tokenizer.post_processor = package.processors.BertProcessing(around[1], around[0])
    return tokenizer
