"""Reading the JSON files of a model folder, which come from strangers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

from maxmod.errors import ModelError
from maxmod.values.plain import JsonObject

T = TypeVar("T")

MAX_BYTES = 64 << 20  # tokenizer.json of large vocabularies has 20 MB; more is not a configuration


def read_json(path: str | os.PathLike[str]) -> JsonObject:
    """Reads a JSON object from a file.

    Raises:
        ModelError: If the file cannot be read or is not a JSON object; the message has the path.
    """
    return _read(Path(path), dict, "a JSON object")


def read_json_list(path: str | os.PathLike[str]) -> list[Any]:
    """Reads a JSON array from a file; see `read_json`."""
    return _read(Path(path), list, "a JSON array")


def _read(path: Path, kind: type[T], expected: str) -> T:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelError(f"{path}: expected at most {MAX_BYTES} bytes, got {size}.")
        table = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot read the file: {error.strerror or error}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"{path}: expected JSON: {error}.") from None
    if not isinstance(table, kind):
        raise ModelError(f"{path}: expected {expected}, got {type(table).__name__}.")
    return table
