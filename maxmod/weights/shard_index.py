"""Which files make up a checkpoint: one file, a folder, or an index with its shards.

Names in an index come from strangers. They must be plain file names; what they point to may be a
link, since the cache of Hugging Face is made of links.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass

from maxmod.errors import CheckpointError, ModelError
from maxmod.system.files import open_regular, read_at
from maxmod.weights.foreign import conversion_lines, foreign_page
from maxmod.weights.header import MAX_HEADER_BYTES, fail, parse_json, quote
from maxmod.weights.hub_cache import download_hint, find_in_cache

MODEL_FILE = "model.safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$")
_MAX_SHARDS = 1000  # of which those that are missing are named
_PYTORCH = (".bin", ".pth", ".pt", ".ckpt")
_OTHER_FORMATS = (*_PYTORCH, ".gguf", ".h5", ".msgpack", ".onnx", ".npz")
_ADAPTER = "adapter_model.safetensors"
# What training leaves besides weights.
_NO_WEIGHTS = (
    "training_args.bin",
    "optimizer.bin",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
)


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a checkpoint.

    `shards` is None for a single file; else it maps each tensor name to its file name.
    """

    paths: tuple[str, ...]
    shards: dict[str, str] | None = None
    index: str = ""


def find_files(path: str | os.PathLike[str]) -> Files:
    """Finds the files of a checkpoint.

    Args:
        path: A .safetensors file, an index (.json), or a folder with `model.safetensors`, an
            index, or a single other .safetensors file; looked for in this order. Also the name
            of a model in the cache of Hugging Face.

    Raises:
        CheckpointError: If there is nothing to read, more than one choice, or the index is
            malformed or names files outside its folder.
    """
    try:
        where = find_in_cache(os.fspath(path))
    except ModelError as error:
        raise CheckpointError(f"open_checkpoint: {error}") from None
    except ValueError as error:  # a NUL character in the name
        raise fail(repr(path), str(error)) from None
    if os.path.isdir(where):
        where = _in_folder(where)
    elif not os.path.exists(where) and os.path.exists(where + ".index.json"):
        where += ".index.json"  # it was saved in shards
    if where.endswith(".json"):
        return _from_index(where)
    hint = download_hint(where)
    if hint and not os.path.lexists(where):
        raise fail(where, "there is no such file, folder or model", f"For a model {hint}.")
    check_regular(where)
    return Files((where,))


def check_regular(path: str) -> None:
    """Raises `CheckpointError` unless `path` is a file (a pipe would block its reader)."""
    os.close(open_weights(path))


def open_weights(path: str) -> int:
    """Opens a file for reading and returns its descriptor; see `check_regular`."""
    try:
        return open_regular(path)
    except OSError as error:
        raise fail(path, f"cannot read the file: {error.strerror or error}") from None


def _in_folder(folder: str) -> str:
    names = sorted(os.listdir(folder))
    for name in (MODEL_FILE, "model" + INDEX_SUFFIX):
        if name in names:
            return os.path.join(folder, name)
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    files = indexes or [name for name in names if name.endswith(".safetensors")]
    if not files:
        raise fail(
            folder,
            f"no weights: expected {MODEL_FILE}, an index, or one *.safetensors file",
            _hint_for(folder, names),
        )
    _refuse_shards(folder, files)
    if len(files) > 1:
        listed = ", ".join(quote(name) for name in files[:8])
        raise fail(folder, f"ambiguous folder: {listed}", "Pass the path of one of them.")
    if files[0] == _ADAPTER:
        raise fail(
            folder,
            f"no weights: {_ADAPTER} holds a LoRA adapter only",
            "Add it to its model first, with merge_and_unload() of the package peft.",
        )
    return os.path.join(folder, files[0])


def _refuse_shards(folder: str, files: list[str]) -> None:
    """Refuses shards without an index, which is what says which of them belong together."""
    shards = [match for match in map(_SHARD.search, files) if match and int(match[2]) > 1]
    if not shards:
        return
    stem, count = shards[0].string[: shards[0].start()], int(shards[0][2])
    here = {int(match[1]) for match in shards if int(match[2]) == count}
    missing = sorted({*range(1, count + 1)} - here) if count <= _MAX_SHARDS else []
    lacks = f", nor the shards {', '.join(map(str, missing[:8]))}" if missing else ""
    raise fail(
        folder,
        f"{quote(shards[0].string)} is one of {count} shards, but there is no index "
        f"({quote(stem + INDEX_SUFFIX)}){lacks}",
        "The download is incomplete; get what is missing.",
    )


def _hint_for(folder: str, names: list[str]) -> str:
    weights = [name for name in names if name not in _NO_WEIGHTS]
    for suffix in _OTHER_FORMATS:
        found = [name for name in weights if name.endswith(suffix)]
        if found and suffix in _PYTORCH:
            return _pytorch_hint(folder, found)
        if found:
            return f"{quote(found[0])} is in another format, which is not read."
    return ""


def _pytorch_hint(folder: str, found: list[str]) -> str:
    pattern = glob.escape(found[0])
    if len(found) > 1:
        pattern = "*" + os.path.splitext(found[0])[1]
    source = os.path.join(glob.escape(folder), pattern)
    lines = conversion_lines(source, os.path.join(folder, MODEL_FILE))
    return f"{quote(found[0])} is a file of PyTorch. {lines}"


def _from_index(path: str) -> Files:
    weight_map = read_index(path)
    folder = os.path.dirname(path)
    names = list(dict.fromkeys(weight_map.values()))
    for name in names:
        if not os.path.exists(os.path.join(folder, name)):
            raise fail(
                path,
                f"the shard {quote(name)} is missing from the folder",
                "The download is incomplete.",
            )
        check_regular(os.path.join(folder, name))
    return Files(tuple(os.path.join(folder, name) for name in names), weight_map, path)


def read_index(path: str, suffix: str = ".safetensors") -> dict[str, str]:
    """Reads an index: tensor name to the plain name of the file that contains it.

    Args:
        path: The index.
        suffix: How the names of the files end.

    Raises:
        CheckpointError: If the index is malformed, or a file name is not plain.
    """
    fd = open_weights(path)
    try:
        size = os.fstat(fd).st_size
        if size > MAX_HEADER_BYTES:
            raise fail(
                path,
                f"the index is too large: expected at most {MAX_HEADER_BYTES} bytes, got {size}",
            )
        text = read_at(fd, size, 0)
    finally:
        os.close(fd)
    found = foreign_page(text)
    if found is not None:
        raise fail(path, f"expected an index, got {found.what}", found.hint)
    table = parse_json(path, text.removeprefix(b"\xef\xbb\xbf"), "the index")
    weight_map = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise fail(path, "expected an object 'weight_map' from tensor names to file names")
    for name, file in weight_map.items():
        _check_plain(path, name, file, suffix)
    return weight_map


def _check_plain(path: str, tensor: str, file: object, suffix: str) -> None:
    if not isinstance(file, str) or not is_plain_name(file):
        raise CheckpointError(
            f"open_checkpoint: {path}: tensor {quote(tensor)} points outside the folder: expected "
            f"a plain file name, got {quote(str(file))}."
        )
    if not file.endswith(suffix):
        raise fail(
            path,
            f"tensor {quote(tensor)}: expected the name of a {suffix} file, got {quote(file)}",
            "maxmod reads safetensors only.",
        )


def is_plain_name(name: str) -> bool:
    """True for the name of a file in the same folder, on every system.

    Only the name is checked, not where it resolves to: symbolic links are the owner's decision.
    """
    if not name or name in (".", "..") or not name.isprintable():
        return False
    return not any(character in name for character in '/\\:*?"<>|')
