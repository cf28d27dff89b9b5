"""Writing rows so that a run that was stopped goes on where it ended.

What is written goes to `FILE.partial`, and `FILE.state` says how much of it counts: how many rows,
and how many bytes. Both are flushed to the disk in this order, so that whatever ends the process,
the rows that the state counts are there; what comes after them is cut off by the next run. When
all rows are written the file gets its name. Parquet is written in parts of a fixed number of rows,
which are joined at the end.
"""

from __future__ import annotations

import abc
import contextlib
import csv
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from maxmod.batch.rows import STANDARD, pyarrow_parquet
from maxmod.errors import ArgumentError
from maxmod.values.plain import JsonObject
from maxmod.weights.json_files import read_json

_SAVE_S = 1.0  # between two states
_PART = 4096  # rows of a part of Parquet


class Sink(abc.ABC):
    """Where rows go.

    Attributes:
        rows: How many are written, those of runs before included.
        columns: The only columns there can be, where a file has a head.
    """

    rows: int = 0
    columns: list[str] | None = None

    @abc.abstractmethod
    def write(self, row: Mapping[str, object]) -> None:
        """Adds a row."""

    @abc.abstractmethod
    def save(self) -> None:
        """Makes what is written so far outlive the process."""

    @abc.abstractmethod
    def finish(self) -> None:
        """Gives the complete file its name."""

    def close(self) -> None:  # noqa: B027  most have nothing to close
        """Leaves what is written so far to the next run."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_sink(path: str, kind: str, columns: list[str] | None, about: JsonObject) -> Sink:
    """Opens a file for rows; one that an earlier run left incomplete is continued.

    Args:
        path: The file; `-` is standard output, which cannot be continued.
        kind: What is written: `jsonl`, `csv` or `parquet`.
        columns: The columns of CSV.
        about: The run: its model, options and input, which must be those of the earlier one.

    Raises:
        ArgumentError: If the file is there already, or the earlier run was another one.
    """
    if path == STANDARD:
        if kind == "parquet":
            raise ArgumentError("batch: -: Parquet is written to a file, not to standard output.")
        return _Stream(kind, columns)
    if kind == "parquet":
        return _ParquetFile(Path(path), about)
    return _LinesFile(Path(path), kind, columns, about)


def _line(kind: str, columns: list[str] | None, row: Mapping[str, object]) -> str:
    """Returns a row as text that UTF-8 can hold: surrogates become escapes of JSON, or `?`."""
    if kind == "jsonl":
        text = json.dumps(row, ensure_ascii=False, default=_plain)
        return (text if _is_unicode(text) else json.dumps(row, default=_plain)) + "\n"
    assert columns is not None
    text = io.StringIO()
    cells = [_cell(row.get(name)) for name in columns]
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "replace").decode("utf-8")


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: object) -> object:
    """What JSON has in place of arrays and of what other files hold."""
    if isinstance(value, np.ndarray):
        return [round(float(number), 7) for number in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def _cell(value: object) -> object:
    is_nested = isinstance(value, (list, tuple, dict, np.ndarray))
    return json.dumps(value, ensure_ascii=False, default=_plain) if is_nested else value


class _Stream(Sink):
    """Standard output."""

    def __init__(self, kind: str, columns: list[str] | None) -> None:
        self._kind = kind
        self.columns = columns if kind == "csv" else None
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        if self.columns is not None:
            sys.stdout.write(_line(kind, self.columns, dict(zip(self.columns, self.columns))))

    def write(self, row: Mapping[str, object]) -> None:
        sys.stdout.write(_line(self._kind, self.columns, row))
        self.rows += 1

    def save(self) -> None:
        sys.stdout.flush()

    def finish(self) -> None:
        sys.stdout.flush()


class _File(Sink):
    """A file with a state beside it.

    Attributes:
        state: What the last run left; `rows` counts.
    """

    def __init__(self, path: Path, about: JsonObject) -> None:
        self.path = path
        self._state_path = path.with_name(f"{path.name}.state")
        self._about = about
        if path.exists():
            self._forget_state()  # a run may have ended between its last two steps
            raise ArgumentError(
                f"batch: {path}: the file is there already, and complete. Hint: remove it to start "
                "again."
            )
        self.state = self._read_state()
        self.rows = int(self.state.get("rows", 0))
        self._saved = time.monotonic()

    def _read_state(self) -> JsonObject:
        if not self._state_path.exists():
            return {}
        state = read_json(self._state_path)
        before = state.get("about")
        if before != self._about:
            assert isinstance(before, dict)
            changed = _differences(before, self._about)
            raise ArgumentError(
                f"batch: {self.path}: an earlier run of {state.get('rows')} rows was another one: "
                f"{changed}. Hint: give the same options to go on, or remove {self._state_path} to "
                "start again."
            )
        return state

    def _save_state(self, **numbers: int) -> None:
        """Replaces the state, whole or not at all."""
        temporary = self._state_path.with_name(f"{self._state_path.name}.new")
        text = json.dumps({"rows": self.rows, **numbers, "about": self._about}, indent=1)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._state_path)
        self._saved = time.monotonic()

    def _is_due(self) -> bool:
        return time.monotonic() - self._saved > _SAVE_S

    def _forget_state(self) -> None:
        self._state_path.unlink(missing_ok=True)


class _LinesFile(_File):
    """JSON lines or CSV."""

    def __init__(self, path: Path, kind: str, columns: list[str] | None, about: JsonObject) -> None:
        super().__init__(path, about)
        self._kind = kind
        self.columns = columns if kind == "csv" else None
        self._partial = path.with_name(f"{path.name}.partial")
        nbytes = int(self.state.get("bytes", 0))
        if self.state and (not self._partial.exists() or self._partial.stat().st_size < nbytes):
            raise ArgumentError(
                f"batch: {path}: {self._partial} is missing or shorter than the state says. Hint: "
                f"remove {self._state_path} to start again."
            )
        self._file = self._partial.open("r+b" if self.state else "wb")
        self._file.seek(nbytes)
        self._file.truncate()
        if not self.state:
            if self.columns is not None:
                self._put(_line(kind, self.columns, dict(zip(self.columns, self.columns))))
            self.save()

    def write(self, row: Mapping[str, object]) -> None:
        self._put(_line(self._kind, self.columns, row))
        self.rows += 1
        if self._is_due():
            self.save()

    def save(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._save_state(bytes=self._file.tell())

    def close(self) -> None:
        self._file.close()

    def finish(self) -> None:
        self.save()
        self.close()
        self._partial.replace(self.path)
        self._forget_state()

    def _put(self, text: str) -> None:
        self._file.write(text.encode("utf-8"))


class _ParquetFile(_File):
    """Parquet, in parts until it is complete."""

    def __init__(self, path: Path, about: JsonObject) -> None:
        super().__init__(path, about)
        self._parquet = pyarrow_parquet(str(path))
        self._folder = path.with_name(f"{path.name}.parts")
        if not self.state and self._folder.exists():
            shutil.rmtree(self._folder)  # parts that no state counts
        self._folder.mkdir(exist_ok=True)
        self._waiting: list[dict[str, object]] = []
        if not self.state:
            self._save_state()

    def write(self, row: Mapping[str, object]) -> None:
        self._waiting.append({name: _arrow(value) for name, value in row.items()})
        if len(self._waiting) == _PART:
            self._write_part()

    def save(self) -> None:
        """Rows of a part that is not full are computed again: parts are the same in each run."""

    def finish(self) -> None:
        if self._waiting or not self.rows:
            self._write_part()
        made = self.path.with_name(f"{self.path.name}.new")
        self._join(made)
        made.replace(self.path)
        self._forget_state()
        shutil.rmtree(self._folder)

    def _write_part(self) -> None:
        import pyarrow

        name = self._folder / f"{self.rows // _PART:06d}.parquet"
        names = list(dict.fromkeys(key for row in self._waiting for key in row))
        table = {key: _arrow_column([row.get(key) for row in self._waiting]) for key in names}
        self._parquet.write_table(pyarrow.table(table), name)
        _flush(name)
        self.rows += len(self._waiting)
        self._waiting = []
        self._save_state()

    def _join(self, made: Path) -> None:
        import pyarrow

        parts = sorted(self._folder.glob("*.parquet"))
        schema = _common_schema([self._parquet.read_schema(part) for part in parts])
        with self._parquet.ParquetWriter(made, schema) as writer:
            for part in parts:
                table = self._parquet.read_table(part)
                for field in schema:
                    if field.name not in table.column_names:
                        empty = pyarrow.nulls(len(table), field.type)
                        table = table.append_column(field, empty)
                    elif field.type == pyarrow.string():
                        texts = pyarrow.array(_texts(table[field.name].to_pylist()), field.type)
                        place = table.column_names.index(field.name)
                        table = table.set_column(place, field, texts)
                writer.write_table(table.select(schema.names).cast(schema))
        _flush(made)


def _arrow_column(values: list[object]) -> object:
    """Returns a column of Arrow; values of several kinds become texts, those of JSON."""
    import pyarrow

    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):
        return pyarrow.array(_texts(values))


def _common_schema(schemas: list[Any]) -> Any:
    """Returns the schema of all parts: a column of several kinds is one of texts.

    One that has only nulls in a part has the dtype that it has in another.
    """
    import pyarrow

    fields = []
    for name in dict.fromkeys(name for schema in schemas for name in schema.names):
        found = [pyarrow.schema([schema.field(name)]) for schema in schemas if name in schema.names]
        try:
            fields.append(pyarrow.unify_schemas(found, promote_options="permissive").field(0))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
            fields.append(pyarrow.field(name, pyarrow.string()))
    return pyarrow.schema(fields)


def _texts(values: list[object]) -> list[str | None]:
    return [
        value
        if value is None or isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, default=_plain)
        for value in values
    ]


def _arrow(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _flush(path: Path) -> None:
    with path.open("rb") as file, contextlib.suppress(OSError):
        os.fsync(file.fileno())


def _differences(before: JsonObject, now: JsonObject) -> str:
    return "; ".join(f"{name} was {old}, is {new}" for name, old, new in _changed(before, now))


def _changed(before: JsonObject, now: JsonObject) -> Iterator[tuple[str, str, str]]:
    for name in dict.fromkeys((*before, *now)):
        if before.get(name) != now.get(name):
            yield name, json.dumps(before.get(name))[:80], json.dumps(now.get(name))[:80]
