"""`save_state`: writes tensors to .safetensors files; a crash never destroys the previous files.

A file is written under a temporary name, flushed to disk, then renamed. A sharded checkpoint gets
shards under unused names first and its index last, so that the switch from the old model to the
new one is atomic.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maxmod import backends
from maxmod.errors import ArgumentError, CheckpointError, OperandError
from maxmod.tensor.exchange import DLPackArray
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.values.tensor_type import TensorType
from maxmod.weights.header import CODES, MAX_HEADER_BYTES, MAX_NAME_CHARACTERS, quote
from maxmod.weights.mapping import ALIGNMENT, Weights, as_weights
from maxmod.weights.progress import progress
from maxmod.weights.shard_index import MODEL_FILE, read_index
from maxmod.weights.temporary import new_temporary, remove_abandoned

_SUFFIX = ".safetensors"
_WRITE_BYTES = 1 << 26  # per call, so that the progress bar moves


@dataclass(slots=True)
class _Shard:
    names: list[str] = field(default_factory=list)
    nbytes: int = 0
    aliases: dict[str, str] = field(default_factory=dict)


def save_state(
    state: StateLike | Iterable[tuple[str, DLPackArray]],
    path: str | os.PathLike[str],
    *,
    max_shard_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Writes tensors to a .safetensors file, or to several with an index.

    An interrupted save leaves existing files unchanged. What a killed one left behind (files such
    as `.model.safetensors.0123abcd.tmp`) is removed by the next save to the folder. Saving over the
    file that the tensors are being read from, or are mapped from, is safe.

    Args:
        state: Names to tensors: a mapping (also a lazy one, which is read tensor by tensor), or
            pairs such as `module.parameters`.
        path: A file name that ends in `.safetensors`, or a folder, which gets a
            `model.safetensors`; it is created if needed.
        max_shard_bytes: Limit for the data of one file; a larger tensor gets a separate file.
            None writes one file.
        metadata: Strings to store with the tensors. `{"format": "pt"}` is added, which
            transformers requires.

    Returns:
        The path of the file or index; `open_checkpoint` takes it, or the folder.

    A tensor with several names is stored under the first; the others are recorded in the metadata,
    as by `safetensors.torch.save_model`, and `open_checkpoint` restores them.

    Raises:
        OSError: If the disk is full or the folder cannot be written to; nothing is changed.
        CheckpointError: If a dtype, a name or the metadata cannot be stored.

    Example:
        >>> import os, tempfile, numpy as np
        >>> from maxmod.weights import save_state
        >>> path = os.path.join(tempfile.mkdtemp(), "weights.safetensors")
        >>> os.path.basename(save_state({"w": np.ones((2, 3), np.float32)}, path))
        'weights.safetensors'
    """
    weights = as_weights(_as_mapping(state))
    folder, stem = _target(os.fspath(path))
    if max_shard_bytes is not None and max_shard_bytes <= 0:
        raise ArgumentError(f"save_state: max_shard_bytes: expected a size, got {max_shard_bytes}.")
    shards = _plan(weights, max_shard_bytes)
    entries = {"format": "pt", **(metadata or {})}
    # All errors in the contents are raised here, before the first byte is written.
    headers = [_header(weights, shard, entries) for shard in shards]
    os.makedirs(folder, exist_ok=True)
    remove_abandoned(folder)
    with progress("save", sum(shard.nbytes for shard in shards)) as advance:
        if len(shards) == 1:
            return _save_single(weights, shards[0], headers[0], folder, stem, advance)
        return _save_sharded(weights, shards, headers, folder, stem, advance)


def _as_mapping(state: Any) -> StateLike:
    if isinstance(state, Mapping):
        return state
    try:
        pairs = [(name, value) for name, value in state]
    except (TypeError, ValueError):
        raise OperandError(
            "save_state: expected a mapping of names to tensors, or pairs of both, got "
            f"{type(state).__name__}. Hint: module.parameters gives pairs."
        ) from None
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ArgumentError("save_state: the pairs have a duplicate name.")
    return table


def _target(path: str) -> tuple[str, str]:
    if path.endswith(_SUFFIX) and not os.path.isdir(path):
        folder, name = os.path.split(path)
        return folder or ".", name.removesuffix(_SUFFIX)
    if os.path.exists(path) and not os.path.isdir(path):
        raise ArgumentError(
            f"save_state: {path}: expected a folder or a name that ends in {_SUFFIX}, got a file."
        )
    return path, MODEL_FILE.removesuffix(_SUFFIX)


# ---- assignment to shards ------------------------------------------------------------------------


def _plan(weights: Weights, max_shard_bytes: int | None) -> list[_Shard]:
    shards = [_Shard()]
    stored: dict[Hashable, tuple[_Shard, str]] = {}
    for name in weights:
        key = weights.source_key(name)
        if key in stored:
            shard, first = stored[key]
            shard.aliases[name] = first
            continue
        nbytes = int(weights.tensor_type(name).nbytes)
        shard = shards[-1]
        if max_shard_bytes is not None and shard.names and shard.nbytes + nbytes > max_shard_bytes:
            shard = _Shard()
            shards.append(shard)
        shard.names.append(name)
        shard.nbytes += nbytes
        stored[key] = (shard, name)
    for shard in shards:
        # Tensors whose size keeps the next one aligned come first, so that mapped files are
        # aligned, too. The sort is stable.
        shard.names.sort(key=lambda name: _alignment_class(weights, name))
    return shards


def _alignment_class(weights: Weights, name: str) -> tuple[bool, int]:
    type = weights.tensor_type(name)
    return int(type.nbytes) % ALIGNMENT != 0, -type.dtype.size_in_bytes


def _header(weights: Weights, shard: _Shard, metadata: Mapping[str, str]) -> bytes:
    texts = {**metadata, **shard.aliases}
    clash = next((key for key in metadata if key in shard.aliases or key in weights), None)
    if clash is not None:
        raise CheckpointError(f"save_state: {quote(clash)} is a tensor and a key of the metadata.")
    if not all(isinstance(key, str) and isinstance(text, str) for key, text in texts.items()):
        raise CheckpointError("save_state: metadata: expected strings.")
    table: JsonObject = {"__metadata__": texts}
    position = 0
    for name in shard.names:
        type = weights.tensor_type(name)
        _check_storable(name, type)
        end = position + int(type.nbytes)
        table[name] = {
            "dtype": CODES[type.dtype],
            "shape": [int(size) for size in type.sizes],
            "data_offsets": [position, end],
        }
        position = end
    text = _encode(table)
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"save_state: the header would have {len(text)} bytes, more than {MAX_HEADER_BYTES}. "
            "Hint: max_shard_bytes makes more files."
        )
    return len(text).to_bytes(8, "little") + text


def _encode(table: JsonObject) -> bytes:
    try:
        return json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise CheckpointError("save_state: a name or the metadata is not valid Unicode.") from None


def _check_storable(name: object, type: TensorType) -> None:
    if not isinstance(name, str) or name == "__metadata__" or len(name) > MAX_NAME_CHARACTERS:
        raise CheckpointError(f"save_state: {quote(str(name))} is not a valid tensor name.")
    if type.dtype not in CODES:
        known = ", ".join(dtype.name for dtype in CODES)
        raise CheckpointError(
            f"save_state: tensor {quote(name)}: safetensors cannot store {type.short()}: expected "
            f"one of {known}."
        )


# ---- writing -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[int]:
    """Yields a descriptor to write to; renames the file to `path` if the block succeeds."""
    fd, temporary = new_temporary(path)
    try:
        try:
            yield fd
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _sync_folder(folder: str) -> None:
    """Makes renames durable, on systems that can sync a folder."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _write(fd: int, data: memoryview, advance: Callable[[int], None] = lambda nbytes: None) -> None:
    while data:
        count = os.write(fd, data[:_WRITE_BYTES])
        advance(count)
        data = data[count:]


def _write_shard(
    weights: Weights, shard: _Shard, header: bytes, path: str, advance: Callable[[int], None]
) -> None:
    with _replacing(path) as fd:
        _write(fd, memoryview(header))
        for name in shard.names:
            tensor = weights[name]
            host = backends.get(tensor.type.device).to_host(tensor.data)
            raw = np.ascontiguousarray(host).reshape(-1).view(np.uint8)
            _write(fd, raw.data, advance)


def _save_single(
    weights: Weights,
    shard: _Shard,
    header: bytes,
    folder: str,
    stem: str,
    advance: Callable[[int], None],
) -> str:
    path = os.path.join(folder, stem + _SUFFIX)
    index = os.path.join(folder, stem + _SUFFIX + ".index.json")
    old = _old_shards(index, stem)
    _write_shard(weights, shard, header, path, advance)
    _sync_folder(folder)  # from here on, the folder opens with this file
    _remove([index, *(os.path.join(folder, name) for name in old)])
    return path


def _save_sharded(
    weights: Weights,
    shards: Sequence[_Shard],
    headers: Sequence[bytes],
    folder: str,
    stem: str,
    advance: Callable[[int], None],
) -> str:
    index = os.path.join(folder, stem + _SUFFIX + ".index.json")
    old = _old_shards(index, stem)
    names = _unused_names(folder, stem, len(shards))
    try:
        for shard, header, name in zip(shards, headers, names):
            _write_shard(weights, shard, header, os.path.join(folder, name), advance)
        _sync_folder(folder)
        table = {
            "metadata": {"total_size": sum(shard.nbytes for shard in shards)},
            "weight_map": {
                tensor: name for shard, name in zip(shards, names) for tensor in shard.names
            },
        }
        with _replacing(index) as fd:
            _write(fd, memoryview(json.dumps(table, indent=2, ensure_ascii=False).encode()))
    except BaseException:
        _remove(os.path.join(folder, name) for name in names)
        raise
    _sync_folder(folder)
    # A single file takes precedence over an index, so an older one must be removed.
    _remove([os.path.join(folder, stem + _SUFFIX)])
    _remove(os.path.join(folder, name) for name in old)
    return index


def _old_shards(index: str, stem: str) -> list[str]:
    """Returns the shards of the checkpoint that is replaced, if their names are ours."""
    try:
        names = set(read_index(index).values())
    except CheckpointError:
        return []
    pattern = re.compile(re.escape(stem) + r"(-v\d+)?-\d{5}-of-\d{5}\.safetensors")
    return sorted(name for name in names if pattern.fullmatch(name))


def _unused_names(folder: str, stem: str, count: int) -> list[str]:
    """Returns names as on Hugging Face, with a version suffix if these are taken."""
    taken = set(os.listdir(folder))
    for version in itertools.count(1):
        base = stem if version == 1 else f"{stem}-v{version}"
        names = [f"{base}-{i:05d}-of-{count:05d}{_SUFFIX}" for i in range(1, count + 1)]
        if not taken.intersection(names):
            return names
    raise AssertionError


def _remove(paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
