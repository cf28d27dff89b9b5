"""Reading rows from files: JSON lines, CSV, lines of text, Parquet; a bad one becomes an error."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TextIO

from maxmod.errors import ArgumentError

STANDARD = "-"  # standard input and output
# By the ends of names.
KINDS = {
    ".csv": "csv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
}
TEXT_COLUMN = "text"  # of lines of text


class Row(NamedTuple):
    """A row of a file.

    Attributes:
        fields: Its values by column.
        error: Why it could not be read, with its place; None for a good one.
    """

    fields: dict[str, object]
    error: str | None = None


def kind_of(path: str, given: str | None, option: str) -> str:
    """Returns the kind of a file, by what was given or by the end of its name.

    Raises:
        ArgumentError: If neither tells.
    """
    kind = given or KINDS.get(Path(path).suffix.lower())
    if kind is None:
        raise ArgumentError(
            f"batch: {path}: expected a name that ends in {', '.join(KINDS)}. Hint: {option} says "
            "what the file is."
        )
    return kind


def rows_of(paths: Sequence[str], given: str | None = None) -> Iterator[Row]:
    """Yields the rows of files, one after the other.

    Args:
        paths: The files; `-` is standard input, which has lines of text unless `given` says else.
        given: What all of them are; by default what the ends of their names say.
    """
    for path in paths:
        kind = given or "text" if path == STANDARD else kind_of(path, given, "--input-format")
        yield from _READERS[kind](path)


def count_of(paths: Sequence[str], given: str | None = None) -> int | None:
    """Returns how many rows files have; None where only reading would tell."""
    if STANDARD in paths:
        return None
    return sum(1 for _ in rows_of(paths, given))


def _opened(path: str) -> TextIO:
    if path == STANDARD:
        if sys.stdin is None:
            raise ArgumentError("batch: -: standard input is closed.")
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape", newline="")
        return sys.stdin
    # What is no UTF-8 is found in its own line, and does not end the run.
    return open(path, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _lines(path: str) -> Iterator[tuple[str, str, str | None]]:
    """Yields where each line is, its text, and an error for one that is not UTF-8."""
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            text, where = line.rstrip("\r\n"), f"{path}, line {number}"
            yield where, text, None if _is_utf8(text) else f"{where}: expected text in UTF-8."


def _is_utf8(text: str) -> bool:
    """Whether no bytes were kept as they are when the text was read."""
    return not any("\udc80" <= character <= "\udcff" for character in text)


def _text_rows(path: str) -> Iterator[Row]:
    for _, text, error in _lines(path):
        yield Row({TEXT_COLUMN: None if error else text}, error)


def _json_rows(path: str) -> Iterator[Row]:
    for where, text, error in _lines(path):
        if not text.strip():
            continue
        if error is not None:
            yield Row({}, error)
            continue
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as problem:
            yield Row({}, f"{where}: expected an object of JSON: {problem}.")
            continue
        if isinstance(fields, dict):
            yield Row(fields)
        else:
            yield Row({}, f"{where}: expected an object of JSON, got {text.strip()[:80]}.")


def _csv_rows(path: str) -> Iterator[Row]:
    with _opened(path) as file:
        reader = csv.reader(file, strict=True)
        names = next(reader, [])
        if len(set(names)) != len(names):
            raise ArgumentError(f"batch: {path}: expected names of columns that differ: {names}.")
        while True:
            try:
                values = next(reader, None)
            except csv.Error as problem:
                yield Row({}, f"{path}, line {reader.line_num}: {problem}.")
                continue
            if values is None:
                return
            if not values:
                continue
            error = None
            if len(values) != len(names):
                error = (
                    f"{path}, line {reader.line_num}: expected {len(names)} fields, got "
                    f"{len(values)}."
                )
            elif not all(map(_is_utf8, values)):
                error = f"{path}, line {reader.line_num}: expected text in UTF-8."
            yield Row(dict(zip(names, values)), error)


def _parquet_rows(path: str) -> Iterator[Row]:
    parquet = pyarrow_parquet(path)
    if path == STANDARD:
        raise ArgumentError("batch: -: Parquet is read from a file, not from standard input.")
    with parquet.ParquetFile(path) as file:
        for part in file.iter_batches(batch_size=1024):
            yield from map(Row, part.to_pylist())


def pyarrow_parquet(path: str) -> ModuleType:
    """Returns the package that reads and writes Parquet.

    Raises:
        ArgumentError: If it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ArgumentError(
            f"batch: {path}: Parquet needs the package pyarrow, which cannot be imported ({error})."
            " Hint: pip install pyarrow."
        ) from None
    return pyarrow.parquet


_READERS: dict[str, Callable[[str], Iterator[Row]]] = {
    "csv": _csv_rows,
    "jsonl": _json_rows,
    "parquet": _parquet_rows,
    "text": _text_rows,
}
FORMATS = tuple(_READERS)
