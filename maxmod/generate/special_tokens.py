"""What a model folder says of its tokens besides the vocabulary: special and added ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

from maxmod.errors import ModelError
from maxmod.values.plain import JsonObject
from maxmod.weights.json_files import read_json
from maxmod.weights.text_files import has_file

CONFIG = "tokenizer_config.json"
MAP = "special_tokens_map.json"
ADDED = "added_tokens.json"

# The special tokens with a role, as transformers names them.
ROLES = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))

_END_OF_TEXT = "<|endoftext|>"
_OF_BERT = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")}
_OF_ROBERTA = {
    **{f"{role}_token": f"<{role}>" for role in ("unk", "pad", "mask")},
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
}
# Families with the tokenizer of BERT.
LIKE_BERT = ("Bert", "DistilBert", "Electra")
# What the tokenizer classes of transformers take where a folder does not say it.
_DEFAULTS: dict[str | None, dict[str, str]] = {
    "GPT2": dict.fromkeys(("bos_token", "eos_token", "unk_token"), _END_OF_TEXT),
    "Qwen2": dict.fromkeys(("eos_token", "unk_token", "pad_token"), _END_OF_TEXT),
    "Llama": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "Gemma": {f"{role}_token": f"<{role}>" for role in ("bos", "eos", "unk", "pad")},
    **dict.fromkeys(LIKE_BERT, _OF_BERT),
    **dict.fromkeys(("Roberta", "XLMRoberta", "Camembert"), _OF_ROBERTA),
}
# Llama and Mistral have had tokenizers of several kinds, with other special tokens.
SOME_LLAMA = "one of several of Llama"
# The family where no tokenizer_class is given.
_FAMILY_OF_MODEL = {
    "llama": SOME_LLAMA,
    "mistral": SOME_LLAMA,
    "gpt2": "GPT2",
    "qwen2": "Qwen2",
    "qwen3": "Qwen2",
    "bert": "Bert",
    "camembert": "Camembert",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "gemma": "Gemma",
    "gemma2": "Gemma",
    "gemma3_text": "Gemma",
}
PackageObject: TypeAlias = Any
"""A tokenizer or token of the package tokenizers, which is imported inside of functions only.

The package is optional, so that types are checked without it.
"""

_FLAGS = ("special", "single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is found in a text before anything else is done with it.

    Attributes:
        content: Its text.
        flags: `special`, `lstrip` and so on, as the package tokenizers names them.
    """

    content: str
    flags: dict[str, bool]


@dataclass(frozen=True, slots=True)
class FolderTokens:
    """What the files of a folder say of its tokens.

    Attributes:
        settings: The fields of tokenizer_config.json.
        family: The tokenizer class without the words around, such as `Qwen2`; None if unknown.
        named: The special tokens with a role that the folder names: `bos_token` and the like.
        added: Added tokens by id.
        extra: Special tokens without an id: those with a role, and additional ones.
    """

    settings: JsonObject
    family: str | None
    named: dict[str, str]
    added: dict[int, AddedToken]
    extra: tuple[AddedToken, ...]

    @property
    def defaults(self) -> dict[str, str]:
        """The special tokens that the family has where the folder does not say it."""
        found = _DEFAULTS.get(self.family, {})
        return {role: text for role, text in found.items() if role not in self.settings}

    @property
    def special(self) -> dict[str, str]:
        """Every special token with a role, for templates."""
        return self.defaults | self.named

    @overload
    def flag(self, name: str, default: bool) -> bool: ...

    @overload
    def flag(self, name: str, default: None = None) -> bool | None: ...

    def flag(self, name: str, default: bool | None = None) -> bool | None:
        """Returns a setting that is true or false; the default if it is missing or null.

        Raises:
            ModelError: If it is anything else.
        """
        value = self.settings.get(name)
        if value is not None and not isinstance(value, bool):
            raise ModelError(f"{CONFIG}: {name}: expected true or false, got {value!r:.60}.")
        return default if value is None else value


def read_folder_tokens(folder: Path) -> FolderTokens:
    """Reads tokenizer_config.json, special_tokens_map.json and added_tokens.json.

    They are merged as transformers does: if tokenizer_config.json lists the added tokens
    (`added_tokens_decoder`), what it says counts and special_tokens_map.json only fills in; if not,
    it is the other way round, and added_tokens.json lists them.

    Raises:
        ModelError: If a file is malformed.
    """
    settings, given = _table(folder / CONFIG), _table(folder / MAP)
    has_list = "added_tokens_decoder" in settings
    listed = [*_additional(settings, folder / CONFIG), *_additional(given, folder / MAP)]
    settings = given | settings if has_list else settings | given
    more = settings.get("extra_special_tokens")
    named = {
        name: text
        for name, value in (settings | (more if isinstance(more, dict) else {})).items()
        if name.endswith("_token") and (text := _text(value))
    }
    extra = tuple(_special_tokens(settings, listed, folder / CONFIG))
    texts = {token.content for token in extra}
    if has_list:
        added = _decoder(settings, folder / CONFIG)
    else:
        added = _encoder(_table(folder / ADDED), texts, folder / ADDED)
    return FolderTokens(settings, _family(folder, settings), named, added, extra)


def end_tokens(folder: Path) -> frozenset[int]:
    """Returns the end token of the tokenizer, which ends a chat; none where it is not known.

    The end token of config.json is often another one: that of texts. A file that cannot be read is
    reported when the tokenizer is opened.
    """
    try:
        tokens = read_folder_tokens(folder)
        text = tokens.special.get("eos_token")
        found = None if text is None else _id_of(text, tokens, folder)
    except ModelError:
        found = None
    return frozenset([found]) if type(found) is int else frozenset()


def _id_of(text: str, tokens: FolderTokens, folder: Path) -> int | None:
    ids = {token.content: number for number, token in tokens.added.items()}
    if text in ids:
        return ids[text]
    whole = _table(folder / "tokenizer.json")
    for token in whole.get("added_tokens") or []:
        if isinstance(token, dict) and token.get("content") == text:
            return token.get("id")
    model = whole.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else _table(folder / "vocab.json")
    return vocabulary.get(text) if isinstance(vocabulary, dict) else None


def _table(path: Path) -> JsonObject:
    return read_json(path) if has_file(path) else {}


def _family(folder: Path, settings: JsonObject) -> str | None:
    config = _table(folder / "config.json")
    name = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if isinstance(name, str):
        return name.removesuffix("Fast").removesuffix("Tokenizer")
    model = config.get("model_type")
    if model is None and "type_vocab_size" in config:  # of 2018 and 2019
        return "Bert"
    family = _FAMILY_OF_MODEL.get(model) if isinstance(model, str) else None
    # Only the tokenizers of their first generations are of SentencePiece.
    has_pieces = has_file(folder / "tokenizer.model") and not has_file(folder / "tokenizer.json")
    return "Llama" if family == SOME_LLAMA and has_pieces else family


def _additional(table: JsonObject, path: Path) -> list[AddedToken]:
    """Returns the special tokens without a role; newer files name some of them."""
    found: list[AddedToken] = []
    for name in ("additional_special_tokens", "extra_special_tokens"):
        value = table.get(name) or []
        if not isinstance(value, (list, dict)):
            raise ModelError(f"{path}: {name}: expected a list of tokens.")
        listed = value if isinstance(value, list) else value.values()
        found += [_token(token, path, name) for token in listed]
    return found


def _special_tokens(
    settings: JsonObject, additional: list[AddedToken], path: Path
) -> Iterator[AddedToken]:
    """Yields all special tokens, each once."""
    roles = [role for role in ROLES if settings.get(role) is not None]
    seen: set[str] = set()
    for token in [*(_token(settings[role], path, role) for role in roles), *additional]:
        if token.content not in seen:
            seen.add(token.content)
            yield AddedToken(token.content, token.flags | {"special": True})


def _decoder(settings: JsonObject, path: Path) -> dict[int, AddedToken]:
    """Reads `added_tokens_decoder`: ids to tokens."""
    name = "added_tokens_decoder"
    table = {} if settings[name] is None else settings[name]
    if not isinstance(table, dict) or not all(number.isdecimal() for number in table):
        raise ModelError(f"{path}: {name}: expected an object from token ids to tokens.")
    return {int(number): _token(table[number], path, name) for number in table}


def _encoder(table: JsonObject, special: set[str], path: Path) -> dict[int, AddedToken]:
    """Reads added_tokens.json: texts to ids."""
    if not all(type(number) is int for number in table.values()):
        raise ModelError(f"{path}: expected an object from tokens to token ids.")
    flags = {
        text: {"special": text in special, "normalized": text not in special} for text in table
    }
    return {number: AddedToken(text, flags[text]) for text, number in table.items()}


def _text(value: object) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _token(value: object, path: Path, name: str) -> AddedToken:
    text = _text(value)
    if text is None:
        raise ModelError(f"{path}: {name}: expected a token: a string, or an object with content.")
    table = value if isinstance(value, dict) else {}
    flags = {flag: table[flag] for flag in _FLAGS if flag in table}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise ModelError(
            f"{path}: {name}: {text!r}: expected true or false for {', '.join(flags)}."
        )
    return AddedToken(text, flags)
