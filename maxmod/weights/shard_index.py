"""Which files make up a checkpoint: one file, a folder, or an index with its shards.

Names in an index come from strangers. They must be plain file names; what they point to may be a
link, since the cache of Hugging Face is made of links.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass

from maxmod.errors import CheckpointError
from maxmod.weights.header import MAX_HEADER_BYTES, fail, parse_json, quote, read_at

MODEL_FILE = "model.safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$")
_OTHER_FORMATS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".npz", ".onnx")


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
            index, or a single other .safetensors file; looked for in this order.

    Raises:
        CheckpointError: If there is nothing to read, more than one choice, or the index is
            malformed or names files outside its folder.
    """
    where = os.fspath(path)
    if os.path.isdir(where):
        where = _in_folder(where)
    elif not os.path.exists(where) and os.path.exists(where + ".index.json"):
        where += ".index.json"  # it was saved in shards
    if where.endswith(".json"):
        return _from_index(where)
    check_regular(where)
    return Files((where,))


def check_regular(path: str) -> None:
    """Raises `CheckpointError` unless `path` is a file (a pipe would block its reader)."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise fail(path, f"cannot read the file: {error.strerror or error}") from None
    except ValueError as error:  # a NUL character in the name
        raise fail(repr(path), str(error)) from None
    if not stat.S_ISREG(mode):
        raise fail(path, "expected a file, got a folder, pipe or device")


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
    if len(files) > 1:
        listed = ", ".join(quote(name) for name in files[:8])
        raise fail(folder, f"ambiguous folder: {listed}", "Pass the path of one of them.")
    shard = _SHARD.search(files[0])
    if shard and int(shard[2]) > 1:
        raise fail(
            folder,
            f"{quote(files[0])} is one of {int(shard[2])} shards, but there is no index",
            "The download is incomplete.",
        )
    return os.path.join(folder, files[0])


def _hint_for(folder: str, names: list[str]) -> str:
    other = [name for name in names if name.endswith(_OTHER_FORMATS)]
    if other:
        return f"{quote(other[0])} is in another format; convert it to safetensors first."
    if "snapshots" in names:
        return f"This is a download cache; open a folder in {os.path.join(folder, 'snapshots')}."
    return ""


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


def read_index(path: str) -> dict[str, str]:
    """Reads an index: tensor name to the plain name of the file that contains it.

    Raises:
        CheckpointError: If the index is malformed, or a file name is not plain.
    """
    check_regular(path)
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
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
    if text.startswith(b"version https://git-lfs"):
        hint = "Fetch the files with `git lfs pull` or `hf download`."
        raise fail(path, "expected an index, got a git-lfs pointer", hint)
    table = parse_json(path, text, "the index")
    weight_map = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise fail(path, "expected an object 'weight_map' from tensor names to file names")
    for name, file in weight_map.items():
        _check_plain(path, name, file)
    return weight_map


def _check_plain(path: str, tensor: str, file: object) -> None:
    if not isinstance(file, str) or not is_plain_name(file):
        raise CheckpointError(
            f"open_checkpoint: {path}: tensor {quote(tensor)} points outside the folder: expected "
            f"a plain file name, got {quote(str(file))}."
        )
    if not file.endswith(".safetensors"):
        raise fail(
            path,
            f"tensor {quote(tensor)}: expected the name of a .safetensors file, got {quote(file)}",
            "maxmod reads safetensors only.",
        )


def is_plain_name(name: str) -> bool:
    """True for the name of a file in the same folder, on every system.

    Only the name is checked, not where it resolves to: symbolic links are the owner's decision.
    """
    if not name or name in (".", "..") or not name.isprintable():
        return False
    return not any(character in name for character in '/\\:*?"<>|')
