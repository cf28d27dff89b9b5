"""Builds .safetensors files byte by byte, so that tests do not depend on the code they test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

# Code in the file, storage dtype. Repeated here: it is the format, not our table.
STORAGE = {
    "BOOL": np.bool_,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}


def build(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    """Returns the bytes of a file with this header, well-formed or not, and this data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def info(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    """Returns the entry of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write(path: Path, tensors: dict[str, tuple[str, list[int], bytes]], **metadata: str) -> Path:
    """Writes a well-formed file; tensors are (code, shape, bytes)."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (code, shape, raw) in tensors.items():
        header[name] = info(code, shape, len(data), len(data) + len(raw))
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(build(text + b" " * (-len(text) % 8), data))  # aligned, as writers do
    return path


def floats(*values: float) -> tuple[str, list[int], bytes]:
    """Returns a float32 vector for `write`."""
    return "F32", [len(values)], np.array(values, np.float32).tobytes()


def write_sharded(folder: Path) -> Path:
    """Writes `a` and `b` into one shard, `c` into another one, and the index."""
    write(folder / "one.safetensors", {"a": floats(1, 2), "b": floats(3)})
    write(folder / "two.safetensors", {"c": floats(4, 5, 6)})
    shards = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    return write_index(folder, shards)


def write_index(folder: Path, weight_map: Any) -> Path:
    """Writes an index."""
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 24}, "weight_map": weight_map}))
    return path
