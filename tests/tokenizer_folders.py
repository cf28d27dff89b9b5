"""Folders with tiny tokenizers, in the forms that models are published in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

# The bytes of UTF-8 as GPT-2 writes them, and a few words; Ġ is a space.
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
WORDS = ["he", "hel", "hell", "hello", "Ġhello", "us", "use", "user"]
VOCABULARY = {text: token for token, text in enumerate([*ALPHABET, *WORDS])}
MERGES = ["h e", "he l", "hel l", "hell o", "Ġ hello", "u s", "us e", "use r"]
HELLO, SPACE_HELLO, USER = (VOCABULARY[text] for text in ("hello", "Ġhello", "user"))
NEXT = len(VOCABULARY)  # the id of the first added token


def ids_of(text: str) -> list[int]:
    """Returns the token of each byte."""
    table = bytes_to_characters()
    return [VOCABULARY[table[byte]] for byte in text.encode()]


def bytes_to_characters() -> dict[int, str]:
    """Returns the characters that stand for bytes: themselves if visible, else from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {
        byte: chr(0x100 + place) for place, byte in enumerate(hidden)
    }


def write(folder: Path, **files: Any) -> Path:
    """Writes files of JSON: `config`, `tokenizer_config`, `special_tokens_map`, ..."""
    for name, table in files.items():
        (folder / f"{name}.json").write_text(json.dumps(table, ensure_ascii=False), "utf-8")
    return folder


def write_whole(folder: Path, tokenizer: Any, **files: Any) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    return write(folder, **files)


def write_byte_level(folder: Path, **files: Any) -> Path:
    """vocab.json and merges.txt."""
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), "utf-8")
    return write(folder, vocab=VOCABULARY, **files)


def byte_level() -> Any:
    tokenizer = tokenizers.Tokenizer(
        models.BPE(VOCABULARY, [tuple(line.split()) for line in MERGES])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


# ▁ is a space.
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"Parisfce"]
PIECES += ["▁P", "ar", "is", "aris", "▁Paris", "▁i", "▁is"]
SENTENCE_MERGES = ["▁ P", "a r", "i s", "ar is", "▁P aris", "▁ i", "▁ is"]


def sentence_pieces(start: bool = True) -> Any:
    """A tokenizer as that of Llama 2; the first token of a text has a space in front."""
    vocabulary = {text: token for token, text in enumerate(dict.fromkeys(PIECES))}
    merges = [tuple(line.split()) for line in SENTENCE_MERGES]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    if start:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return tokenizer
