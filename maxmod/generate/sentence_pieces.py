"""The tokenizer.model of Llama 2 and Mistral: SentencePiece with byte-pair encoding."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from maxmod.errors import ModelError
from maxmod.generate.special_tokens import FolderTokens, PackageObject
from maxmod.weights.text_files import read_bytes

# What SentencePiece writes for a space.
_SPACE = "▁"
# Numbers of sentencepiece_model.proto: the kind of a model, and the kinds of its pieces.
_BPE = 2
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6


def sentence_pieces(package: ModuleType, path: Path, tokens: FolderTokens) -> PackageObject:
    """Makes the tokenizer of a tokenizer.model, as transformers converts it for Llama.

    Raises:
        ModelError: If the file or the family is of another kind, or the packages that read it are
            missing; the message has the lines that convert it.
    """
    if tokens.family != "Llama":
        raise _refusal(path, f"the tokenizer family is {tokens.family}, and only Llama is known")
    model = _read(path)
    reason = _difference(model)
    if reason:
        raise _refusal(path, reason)
    vocabulary = {piece.piece: token for token, piece in enumerate(model.pieces)}
    scores = {piece.piece: piece.score for piece in model.pieces}
    tokenizer = package.Tokenizer(
        package.models.BPE(
            vocabulary,
            merges_of(vocabulary, scores),
            unk_token=model.trainer_spec.unk_piece,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.add_tokens(
        [
            package.AddedToken(piece.piece, normalized=False, special=piece.type == _CONTROL)
            for piece in model.pieces
            if piece.type in (_CONTROL, _USER_DEFINED)
        ]
    )
    _finish(package, tokenizer, tokens)
    return tokenizer


def _read(path: Path) -> Any:
    try:
        from sentencepiece import sentencepiece_model_pb2
    except (ImportError, TypeError) as error:  # TypeError: protobuf is of another age
        raise _refusal(
            path, f"reading it needs sentencepiece and protobuf, which cannot be imported ({error})"
        ) from None
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(read_bytes(path))
    except ModelError:
        raise
    except Exception:  # DecodeError of protobuf
        raise _refusal(path, "it is not a SentencePiece model") from None
    return model


def _refusal(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path}: {reason}. Hint: {convert_hint(path.parent)} With pip install sentencepiece "
        "protobuf the tokenizer.model of a Llama 2 or Mistral is read as it is."
    )


def convert_hint(folder: Path) -> str:
    """Returns the lines that make tokenizer.json from other files of a folder."""
    return (
        "make tokenizer.json with transformers (pip install transformers sentencepiece protobuf "
        f"tiktoken): from transformers import AutoTokenizer; folder = {str(folder)!r}; "
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
    )


def _difference(model: Any) -> str:
    """Returns what the model asks for that is not done here; empty if there is nothing."""
    trainer, normaliser = model.trainer_spec, model.normalizer_spec
    kinds = {piece.type for piece in model.pieces}
    wrong = {
        "its algorithm is not BPE": trainer.model_type != _BPE,
        "unknown characters are not split into bytes": not trainer.byte_fallback,
        "it normalises texts": bool(normaliser.precompiled_charsmap),
        "it removes spaces": normaliser.remove_extra_whitespaces,
        "no space is put in front of a text": not normaliser.add_dummy_prefix,
        "spaces stay as they are": not normaliser.escape_whitespaces,
        "spaces end words": trainer.treat_whitespace_as_suffix,
        "it has pieces of other kinds": not kinds
        <= {_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE},
    }
    return next((f"it is of a kind that is not read: {name}" for name in wrong if wrong[name]), "")


def merges_of(vocabulary: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """Returns the pairs that make pieces, the best first.

    SentencePiece merges the pair that makes the piece with the highest score. Of several pairs that
    make the same piece, those with the longer first part come first, as in transformers.
    """
    found = [pair for piece in vocabulary for pair in _pairs(piece, vocabulary)]
    found.sort(key=lambda pair: (scores["".join(pair)], len(pair[0]), len(pair[1])), reverse=True)
    return found


def _pairs(piece: str, vocabulary: Container[str]) -> Iterator[tuple[str, str]]:
    for at in range(1, len(piece)):
        if piece[:at] in vocabulary and piece[at:] in vocabulary:
            yield piece[:at], piece[at:]


def _finish(package: ModuleType, tokenizer: PackageObject, tokens: FolderTokens) -> None:
    """Writes spaces as the class of Llama does; `legacy` puts one in front of every part."""
    has_space = tokens.flag("add_prefix_space", True)
    normalizers, decoders = package.normalizers, package.decoders
    if not tokens.flag("legacy", True):
        tokenizer.pre_tokenizer = package.pre_tokenizers.Metaspace(
            replacement=_SPACE, prepend_scheme="first" if has_space else "never", split=False
        )
    else:
        prepend = [normalizers.Prepend(_SPACE)] if has_space else []
        tokenizer.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", _SPACE)])
    parts = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    strip = [decoders.Strip(" ", 1, 0)] if has_space else []
    tokenizer.decoder = decoders.Sequence([*parts, *strip])
