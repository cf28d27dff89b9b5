"""Reading the JSON files of a model folder, which come from strangers."""

from __future__ import annotations

import json
import os
from typing import Any, TypeVar

from maxmod.errors import ModelError
from maxmod.values.plain import JsonObject
from maxmod.weights.text_files import read_text

T = TypeVar("T")


def read_json(path: str | os.PathLike[str]) -> JsonObject:
    """Reads a JSON object from a file.

    Raises:
        ModelError: If the file cannot be read (see `text_files.read_bytes`) or is not a JSON
            object; the message has the path.
    """
    return _read(os.fspath(path), dict, "a JSON object")


def read_json_list(path: str | os.PathLike[str]) -> list[Any]:
    """Reads a JSON array from a file; see `read_json`."""
    return _read(os.fspath(path), list, "a JSON array")


def _read(path: str, kind: type[T], expected: str) -> T:
    table = parse_json(path, read_text(path))
    if not isinstance(table, kind):
        raise ModelError(f"{path}: expected {expected}, got {type(table).__name__}.")
    return table


def parse_json(where: str, text: str) -> object:
    """Parses the text of a JSON file.

    Raises:
        ModelError: If it is not JSON, nested too deeply, or has a number of thousands of digits.
    """
    if not text.strip():
        raise ModelError(
            f"{where}: expected JSON, got an empty file. Hint: the download was interrupted; "
            "download it again."
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        start = text.lstrip()[:40]
        got = "" if start[0] in '{["' else f" The file starts with {start!r}."
        raise ModelError(f"{where}: expected JSON: {str(error)[:200]}.{got}") from None
