"""`open_tokenizer`: the tokenizer of a model folder, from whichever files it has."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from maxmod.errors import ModelError
from maxmod.generate.sentence_pieces import convert_hint, sentence_pieces
from maxmod.generate.special_tokens import (
    LIKE_BERT,
    SOME_LLAMA,
    AddedToken,
    FolderTokens,
    PackageObject,
    read_folder_tokens,
)
from maxmod.generate.text import CharacterTokenizer, PackageTokenizer, Tokenizer, package_errors
from maxmod.generate.tokenizer_families import BERT_SETTINGS, byte_level, word_piece
from maxmod.weights.json_files import read_json
from maxmod.weights.text_files import has_file, read_bytes

# These classes of transformers put special tokens around a text as tokenizer_config.json says, and
# not as tokenizer.json does; and the first one by default.
_BY_SETTINGS = ("Llama", "CodeLlama", "Gemma", "Cohere", SOME_LLAMA)

# Makes the tokenizer of a file, with the package tokenizers.
_Reader: TypeAlias = Callable[[ModuleType, Path, FolderTokens], PackageObject]


def open_tokenizer(folder: str | os.PathLike[str], *, hint: str = "") -> Tokenizer:
    """Opens the tokenizer of a model folder.

    Looked for in this order: tokenizer.json; vocab.json with merges.txt, of GPT-2 and Qwen;
    vocab.txt of BERT; tokenizer.model of Llama 2 and Mistral, which needs the packages
    sentencepiece and protobuf; vocab.json with one token for each character. All but the last
    need the package tokenizers. The tokens that tokenizer_config.json, special_tokens_map.json and
    added_tokens.json add are merged as transformers does.

    `add_bos_token` and `add_eos_token` of tokenizer_config.json say which special tokens a text
    gets if the tokenizer class is that of Llama, CodeLlama, Gemma or Cohere, or if tokenizer.json
    itself adds none; in other classes tokenizer.json decides. That is the rule of transformers 4.

    Args:
        folder: The folder.
        hint: Ends the message about a character that is not in a vocabulary of characters.

    Raises:
        ModelError: (a ValueError) If there is none, it is malformed or of an unknown family, or the
            package is missing.
    """
    folder = Path(folder)
    for names, make in _READERS:
        if all(has_file(folder / name) for name in names):
            return _from_package(folder, folder / names[0], make)
    _refuse_foreign(folder)
    vocabulary = folder / "vocab.json"
    if has_file(vocabulary):
        return CharacterTokenizer(_read_characters(vocabulary), hint)
    raise ModelError(
        f"{folder}: there is no tokenizer: expected tokenizer.json. Hint: save the tokenizer into "
        "the folder as well, or pass token ids in place of text (--token-ids)."
    )


def _refuse_foreign(folder: Path) -> None:
    hints = {
        "spiece.model": convert_hint(folder),
        "sentencepiece.bpe.model": convert_hint(folder),
        "tekken.json": "put the tokenizer.json of the same model into the folder.",
    }
    for name, hint in hints.items():
        if has_file(folder / name):
            raise ModelError(
                f"{folder / name}: this kind of tokenizer is not read: expected tokenizer.json. "
                f"Hint: {hint}"
            )


def _from_package(folder: Path, path: Path, make: _Reader) -> Tokenizer:
    try:
        import tokenizers
    except ImportError as error:
        raise ModelError(
            f"{path}: reading it needs the package tokenizers, which cannot be imported ({error}). "
            "Hint: pip install tokenizers."
        ) from None
    tokens = read_folder_tokens(folder)
    with package_errors(f"{path}: the tokenizer is malformed"):
        tokenizer = make(tokenizers, path, tokens)
        _add_tokens(tokenizers, tokenizer, tokens, folder)
        _surround(tokenizers, tokenizer, tokens, folder)
    return PackageTokenizer(tokenizer)


def _whole(package: ModuleType, path: Path, tokens: FolderTokens) -> PackageObject:
    tokenizer = package.Tokenizer.from_buffer(read_bytes(path).removeprefix(codecs.BOM_UTF8))
    # What the settings say of two parts counts, as in transformers.
    normaliser, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    if isinstance(normaliser, package.normalizers.BertNormalizer) and tokens.family in LIKE_BERT:
        for name, setting in BERT_SETTINGS.items():
            if tokens.flag(setting) is not None:
                setattr(normaliser, name, tokens.flag(setting))
    has_space = tokens.flag("add_prefix_space")
    if isinstance(splitter, package.pre_tokenizers.ByteLevel) and has_space is not None:
        splitter.add_prefix_space = has_space
    return tokenizer


# The files that each kind needs, the best kind first.
_READERS: tuple[tuple[tuple[str, ...], _Reader], ...] = (
    (("tokenizer.json",), _whole),
    (("vocab.json", "merges.txt"), byte_level),
    (("vocab.txt",), word_piece),
    (("tokenizer.model",), sentence_pieces),
)


def _add_tokens(
    package: ModuleType, tokenizer: PackageObject, tokens: FolderTokens, folder: Path
) -> None:
    """Adds what the folder lists; a token that tokenizer.json has with other flags gets these."""
    special = {token.content for token in tokens.extra}
    known = tokenizer.get_added_tokens_decoder()
    made: list[PackageObject] = []
    for number, token in sorted(tokens.added.items()):
        if repr(known.get(number)) != repr(_made(package, token)):
            flags = token.flags | ({"special": True} if token.content in special else {})
            made.append(_made(package, AddedToken(token.content, flags)))
    contents = {token.content for token in [*known.values(), *tokens.added.values()]}
    made += [_made(package, token) for token in tokens.extra if token.content not in contents]
    usual = {text: None for text in tokens.defaults.values() if text not in contents | special}
    # The mask of RoBERTa takes the space in front of it along.
    made += [package.AddedToken(t, special=True, lstrip=t == "<mask>") for t in usual]
    tokenizer.add_tokens(made)
    for number, token in tokens.added.items():
        found = tokenizer.token_to_id(token.content)
        if found != number:
            raise ModelError(
                f"{folder}: the token {token.content!r} has two ids: {number} in the list of added "
                f"tokens, {found} after the vocabulary is read."
            )


def _made(package: ModuleType, token: AddedToken) -> PackageObject:
    return package.AddedToken(token.content, **token.flags)


def _surround(
    package: ModuleType, tokenizer: PackageObject, tokens: FolderTokens, folder: Path
) -> None:
    """Puts special tokens around a text where `add_bos_token` and `add_eos_token` decide it."""
    adds = {name: tokens.flag(f"add_{name}_token") for name in ("bos", "eos")}
    if tokens.family in _BY_SETTINGS:
        # Version 5 writes `backend`, and leaves the flag out, as its tokenizer.json decides.
        if adds["bos"] is None and "backend" not in tokens.settings:
            adds["bos"] = "bos_token" in tokens.special or None
        is_decided = any(flag is not None for flag in adds.values())
    else:
        is_decided = True in adds.values() and not tokenizer.num_special_tokens_to_add(False)
    if not is_decided:
        return
    texts = {name: _around(tokens, name, folder) for name, flag in adds.items() if flag}
    parts = [texts.get("bos"), "$A", texts.get("eos")]
    tokenizer.post_processor = package.processors.TemplateProcessing(
        single=[part for part in parts if part is not None],
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in {*texts.values()}],
    )


def _around(tokens: FolderTokens, name: str, folder: Path) -> str:
    text = tokens.special.get(f"{name}_token")
    if text is None:
        raise ModelError(f"{folder}: add_{name}_token is true, but there is no {name}_token.")
    return text


def _read_characters(path: Path) -> dict[str, int]:
    table = read_json(path)
    if not all(type(token) is int for token in table.values()):
        raise ModelError(f"{path}: expected a JSON object from str to token id.")
    if sum(len(text) == 1 for text in table) * 2 < len(table):
        raise ModelError(
            f"{path}: not a character-level vocabulary. Hint: merges.txt or tokenizer.json is "
            "missing from the folder."
        )
    return table
