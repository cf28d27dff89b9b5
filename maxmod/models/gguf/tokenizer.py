"""The tokenizer of a GGUF file, as the files of a model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from maxmod.generate.sentence_pieces import merges_of
from maxmod.generate.special_tokens import PackageObject
from maxmod.log import note
from maxmod.values.plain import JsonObject

# The kinds of tokens, of llama.cpp.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4

# How texts are split into words before pairs of bytes are merged, by `tokenizer.ggml.pre`. Source:
# the tokenizer.json of Llama 3 and Qwen2.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_LLAMAS = ("llama-bpe", "llama3", "llama-v3")
_PATTERNS = {
    **dict.fromkeys((*_LLAMAS, "dbrx", "smaug-bpe"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN2),
}
# The rule of GPT-2, with a digit a word, and as it is. The "default" of llama.cpp, which files have
# whose rule nobody wrote down, is no rule that a model was trained with.
_DIGITS = ("smollm", "refact", "starcoder", "command-r", "codeshell", "exaone")
_GPT2 = ("gpt-2", "olmo", "phi-2", "mpt", "jais")


def write_tokenizer(folder: Path, file: Path, fields: JsonObject) -> None:
    """Writes tokenizer.json, tokenizer_config.json and generation_config.json of a GGUF file.

    A tokenizer.json beside the file is taken in place of its own. Without the package tokenizers
    there is none, and neither where its kind is not known, which one line says: the model reads
    token ids.
    """
    table = _settings(fields)
    (folder / "tokenizer_config.json").write_text(json.dumps(table), "utf-8")
    ends = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    found = sorted({int(end) for end in ends if end is not None})  # type: ignore[call-overload]
    defaults = {"eos_token_id": found} if found else {}
    (folder / "generation_config.json").write_text(json.dumps(defaults), "utf-8")
    beside = file.with_name("tokenizer.json")
    if beside.is_file():
        (folder / "tokenizer.json").write_bytes(beside.read_bytes())
        return
    try:
        import tokenizers
    except ImportError:
        return
    reason = _unknown(fields)
    if reason:
        note(
            f"{file.name}: its tokenizer is not read: {reason}. Hint: put the tokenizer.json of "
            "the model beside the file, or pass token ids."
        )
        return
    _tokenizer(tokenizers, fields).save(str(folder / "tokenizer.json"))


def _texts(fields: JsonObject) -> Sequence[str]:
    found = fields.get("tokenizer.ggml.tokens")
    return found if isinstance(found, list) else ()


def _settings(fields: JsonObject) -> JsonObject:
    texts = _texts(fields)
    result: JsonObject = {}
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    for name, short in names.items():
        number = fields.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(number, int) and number < len(texts):
            result[f"{short}_token"] = texts[number]
    # What llama.cpp does where the file does not say it.
    starts = fields.get("tokenizer.ggml.model") == "llama" or _rule(fields) in _LLAMAS
    for short, default in (("bos", starts), ("eos", False)):
        adds = bool(fields.get(f"tokenizer.ggml.add_{short}_token", default))
        result[f"add_{short}_token"] = adds and f"{short}_token" in result
    template = fields.get("tokenizer.chat_template")
    if isinstance(template, str):
        result["chat_template"] = template
    return result


def _rule(fields: JsonObject) -> str:
    """Returns how texts are split into words, as GGUF calls it."""
    is_gpt2 = fields.get("general.architecture") == "gpt2"
    return str(fields.get("tokenizer.ggml.pre", "gpt-2" if is_gpt2 else "default"))


def _unknown(fields: JsonObject) -> str:
    """Returns what of a tokenizer is not known here; empty if there is nothing."""
    kind = str(fields.get("tokenizer.ggml.model"))
    if kind not in _MAKERS:
        return f"tokenizer.ggml.model: expected one of {', '.join(_MAKERS)}, got {kind!r:.80}"
    known = sorted({*_PATTERNS, *_DIGITS, *_GPT2})
    if kind == "gpt2" and _rule(fields) not in known:
        return f"tokenizer.ggml.pre: expected one of {', '.join(known)}, got {_rule(fields)!r:.80}"
    return ""


def _tokenizer(package: ModuleType, fields: JsonObject) -> PackageObject:
    ids = {text: number for number, text in enumerate(_texts(fields))}
    made = _MAKERS[str(fields["tokenizer.ggml.model"])](package, fields, ids)
    kinds = fields.get("tokenizer.ggml.token_type") or []
    assert isinstance(kinds, list)
    made.add_tokens(
        [
            package.AddedToken(text, special=kinds[number] == _CONTROL, normalized=False)
            for text, number in ids.items()
            if number < len(kinds) and kinds[number] in (_CONTROL, _USER_DEFINED)
        ]
    )
    return made


def _byte_level(package: ModuleType, fields: JsonObject, ids: Mapping[str, int]) -> PackageObject:
    splitters, given = package.pre_tokenizers, fields.get("tokenizer.ggml.merges") or []
    merges = [tuple(pair.split(" ", 1)) for pair in given]  # type: ignore[union-attr]
    rule = _rule(fields)
    made = package.Tokenizer(package.models.BPE(dict(ids), merges, ignore_merges=rule in _LLAMAS))
    if rule in _PATTERNS:
        split = splitters.Split(package.Regex(_PATTERNS[rule]), "isolated")
        parts = [split, splitters.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        digits = [splitters.Digits(individual_digits=True)] if rule in _DIGITS else []
        parts = [*digits, splitters.ByteLevel(add_prefix_space=False)]
    if _PATTERNS.get(rule) == _QWEN2:
        made.normalizer = package.normalizers.NFC()
    made.pre_tokenizer = splitters.Sequence(parts)
    made.decoder = package.decoders.ByteLevel()
    return made


def _sentence_pieces(
    package: ModuleType, fields: JsonObject, ids: Mapping[str, int]
) -> PackageObject:
    scores = fields.get("tokenizer.ggml.scores") or [0.0] * len(ids)
    kinds = fields.get("tokenizer.ggml.token_type") or []
    texts = _texts(fields)
    assert isinstance(scores, list) and isinstance(kinds, list)
    unknown = next((t for t, k in zip(texts, kinds) if k == _UNKNOWN), None)
    made = package.Tokenizer(
        package.models.BPE(
            dict(ids),
            merges_of(dict(ids), dict(zip(texts, scores))),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    normalizers, decoders = package.normalizers, package.decoders
    has_space = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    prepend = [normalizers.Prepend("▁")] if has_space else []
    made.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    strip = [decoders.Strip(" ", 1, 0)] if has_space else []
    made.decoder = decoders.Sequence([*parts, *strip])
    return made


# By `tokenizer.ggml.model`.
_MAKERS = {"gpt2": _byte_level, "llama": _sentence_pieces}
