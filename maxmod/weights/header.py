"""The header of a .safetensors file: parsing, and an error for each rule that it can violate.

A file is 8 bytes (the length of the header, little-endian), the header (JSON: name to dtype, shape
and byte range), then the data. Nothing here allocates more than the size of the file allows.

Source: the format description of safetensors; its cap of 100 MB on headers is kept.
"""

from __future__ import annotations

import collections
import glob
import json
import os
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError, safe_open

from maxmod.dtype import DType
from maxmod.errors import CheckpointError
from maxmod.system.files import read_at
from maxmod.values.device import CPU_REF
from maxmod.values.plain import Json, JsonObject
from maxmod.values.tensor_type import TensorType
from maxmod.weights.foreign import PYTORCH, conversion_lines, foreign_weights

MAX_HEADER_BYTES = 100_000_000
MAX_NAME_CHARACTERS = 4096  # our limit: longer names are an attack on code that prints them
MAX_RANK = 64  # of NumPy
_MAX_SIZE = 2**63 - 1

DTYPES = {
    "BOOL": DType.bool,
    "I8": DType.int8,
    "I16": DType.int16,
    "I32": DType.int32,
    "I64": DType.int64,
    "U8": DType.uint8,
    "U16": DType.uint16,
    "U32": DType.uint32,
    "U64": DType.uint64,
    "F8_E8M0": DType.float8_e8m0fnu,
    "F8_E4M3": DType.float8_e4m3fn,
    "F8_E4M3FNUZ": DType.float8_e4m3fnuz,
    "F8_E5M2": DType.float8_e5m2,
    "F8_E5M2FNUZ": DType.float8_e5m2fnuz,
    "F16": DType.float16,
    "BF16": DType.bfloat16,
    "F32": DType.float32,
    "F64": DType.float64,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


def fail(path: str, what: str, hint: str = "") -> CheckpointError:
    """Makes the error for a file: ``open_checkpoint: PATH: what. Hint: hint``."""
    tail = f" Hint: {hint}" if hint else ""
    return CheckpointError(f"open_checkpoint: {path}: {what}.{tail}")


def quote(name: str) -> str:
    """Returns a name from a file for a message: escaped, at most 100 characters."""
    return repr(name) if len(name) <= 100 else repr(name[:100]) + "..."


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored tensor: its type, and the location of its bytes.

    `start` counts from the beginning of the file.
    """

    name: str
    type: TensorType
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """The contents of the header of one file. Entries are in the order of the data."""

    entries: tuple[Entry, ...]
    metadata: dict[str, str]


def read_header(path: str, fd: int) -> Header:
    """Reads and checks the header of an open file.

    Raises:
        CheckpointError: If the file is not a safetensors file or violates the format.
    """
    size = os.fstat(fd).st_size
    try:
        text = _header_text(path, fd, size)
    except OSError as error:  # such as a link to /proc/self/mem
        raise fail(path, f"cannot read the file: {error.strerror or error}") from None
    table = parse_json(path, text, "the header")
    if not isinstance(table, dict):
        raise fail(path, f"the header: expected a JSON object, got {type(table).__name__}")
    metadata = _metadata(path, table.pop("__metadata__", None))
    data_start = 8 + len(text)
    entries = [_entry(path, name, info, data_start) for name, info in table.items()]
    entries.sort(key=lambda entry: (entry.start, entry.nbytes))
    _check_layout(path, entries, data_start, size)
    _validate(path)
    return Header(tuple(entries), metadata)


def _header_text(path: str, fd: int, size: int) -> bytes:
    start = read_at(fd, 64, 0)
    if size == 0:
        raise fail(path, "the file is empty", "The download was interrupted; download it again.")
    length = int.from_bytes(start[:8], "little")
    if start[8:9] != b"{" or length > size - 8:  # the magic numbers are legal lengths, too
        found = foreign_weights(start)
        if found is not None:
            hint = found.hint
            if found.what.endswith(PYTORCH):
                target = os.path.splitext(path)[0] + ".converted.safetensors"
                hint = conversion_lines(glob.escape(path), target)
            raise fail(path, f"expected a safetensors file, got {found.what}", hint)
    if size < 8:
        raise fail(path, f"the file is too short: expected at least 8 bytes, got {size}")
    if length > MAX_HEADER_BYTES:
        raise fail(
            path,
            f"the header is too large: expected at most {MAX_HEADER_BYTES} bytes, got {length}",
            "This is probably not a safetensors file.",
        )
    if length > size - 8:
        raise fail(
            path,
            f"the file is truncated: expected a header of {length} bytes, got {size - 8}",
            "The download was interrupted; download it again.",
        )
    text = read_at(fd, length, 8)
    if not text.startswith(b"{"):
        raise fail(path, f"the header: expected JSON that starts with '{{', got {text[:8]!r}")
    return text


def parse_json(path: str, text: bytes, what: str) -> Any:
    """Parses JSON of a file, rejecting duplicate keys.

    Raises:
        CheckpointError: If it is not valid JSON, nested too deeply, or has a duplicate key.
    """

    def unique(pairs: list[tuple[str, Json]]) -> JsonObject:
        table = dict(pairs)
        if len(table) != len(pairs):
            counts = collections.Counter(key for key, _ in pairs)
            twice = counts.most_common(1)[0][0]
            raise fail(path, f"{what}: duplicate key {quote(twice)}")
        return table

    try:
        return json.loads(text, object_pairs_hook=unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise fail(path, f"{what} is not valid JSON: {str(error)[:200]}") from None


def _metadata(path: str, table: object) -> dict[str, str]:
    if table is None:  # the format allows it in place of an object
        return {}
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise fail(path, "__metadata__: expected an object of strings, or null")
    return table


def _entry(path: str, name: str, info: object, data_start: int) -> Entry:
    label = f"tensor {quote(name)}"
    if len(name) > MAX_NAME_CHARACTERS:
        raise fail(
            path, f"{label}: expected at most {MAX_NAME_CHARACTERS} characters, got {len(name)}"
        )
    if not isinstance(info, dict) or not {"dtype", "shape", "data_offsets"} <= info.keys():
        raise fail(path, f"{label}: expected an object with dtype, shape and data_offsets")
    dtype = info["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        known = ", ".join(DTYPES)
        raise fail(path, f"{label}: unknown dtype: expected one of {known}, got {dtype!r:.40}")
    shape = _sizes(path, f"{label}: shape", info["shape"])
    if len(shape) > MAX_RANK:
        raise fail(path, f"{label}: expected at most {MAX_RANK} axes, got {len(shape)}")
    offsets = _sizes(path, f"{label}: data_offsets", info["data_offsets"])
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise fail(path, f"{label}: data_offsets: expected [begin, end], got {offsets!r:.80}")
    nbytes = DTYPES[dtype].size_in_bytes
    extent = nbytes  # of the shape without its zeros, which NumPy limits too
    for size in shape:
        nbytes *= size
        extent *= size or 1
        if extent > _MAX_SIZE:
            raise fail(path, f"{label}: the shape {shape!r:.80} overflows 63 bits")
    begin, end = offsets
    if end - begin != nbytes:
        raise fail(
            path,
            f"{label}: data_offsets do not fit its type: expected {nbytes} bytes for "
            f"{dtype}{shape!r:.80}, got {end - begin}",
        )
    return Entry(
        name, TensorType.of(DTYPES[dtype], tuple(shape), CPU_REF), data_start + begin, nbytes
    )


def _sizes(path: str, label: str, value: object) -> list[int]:
    if not isinstance(value, list) or not all(
        type(size) is int and 0 <= size <= _MAX_SIZE for size in value
    ):
        raise fail(path, f"{label}: expected a list of sizes, got {value!r:.80}")
    return value


def _check_layout(path: str, entries: list[Entry], data_start: int, size: int) -> None:
    """Checks that entries cover the data completely and without overlap."""
    position = data_start
    for entry in entries:
        if entry.start != position:
            what = "overlaps the previous tensor" if entry.start < position else "leaves a gap"
            raise fail(
                path,
                f"tensor {quote(entry.name)} {what}: expected its data at byte "
                f"{position - data_start}, got {entry.start - data_start}",
            )
        position += entry.nbytes
    if position > size:
        raise fail(
            path,
            f"the file is truncated: expected {position} bytes, got {size}",
            "The download was interrupted; download it again.",
        )
    if position < size:
        raise fail(
            path, f"there are bytes after the last tensor: expected {position} bytes, got {size}"
        )


def _validate(path: str) -> None:
    """Also validates the file with the safetensors package."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, ValueError, OSError) as error:
        raise fail(path, f"safetensors rejects the file: {str(error)[:200]}") from None
