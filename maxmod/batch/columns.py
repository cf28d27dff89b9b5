"""Batches of columns: dicts of lists or arrays, tables of Arrow, data frames of pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from maxmod.errors import ArgumentError, OperandError, did_you_mean

Batch: TypeAlias = Any  # of one of the kinds above
Column: TypeAlias = "Sequence[object]"


def names_of(batch: Batch) -> list[str]:
    """Returns the names of the columns.

    Raises:
        OperandError: If it is of another kind.
    """
    if isinstance(batch, Mapping):
        return list(batch)
    if hasattr(batch, "column_names") and hasattr(batch, "schema"):
        return list(batch.column_names)
    if hasattr(batch, "columns") and hasattr(batch, "assign"):
        return list(batch.columns)
    raise OperandError(
        "batch: expected a dict of columns, a table of Arrow or a data frame of pandas, got "
        f"{type(batch).__name__}."
    )


def column_of(batch: Batch, name: str) -> list[object]:
    """Returns the values of a column.

    Raises:
        ArgumentError: If there is no such column.
    """
    names = names_of(batch)
    if name not in names:
        raise ArgumentError(
            f"batch: there is no column {name!r}: the columns are {', '.join(map(str, names))}."
            f"{did_you_mean(name, names)}"
        )
    column = batch[name]
    for method in ("to_pylist", "tolist"):  # of Arrow; of NumPy and pandas
        if hasattr(column, method):
            return [_nested(value) for value in getattr(column, method)()]
    return [_nested(value) for value in column]


def _nested(value: object) -> object:
    """Lists in place of the arrays that engines make of them."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return [_nested(item) for item in value] if isinstance(value, list) else value


def with_columns(batch: Batch, new: Mapping[str, list[object]]) -> Batch:
    """Returns a batch of the same kind with further columns."""
    taken = [name for name in new if name in names_of(batch)]
    if taken:
        raise ArgumentError(f"batch: there is a column {taken[0]!r} already: choose another name.")
    if isinstance(batch, Mapping):
        return {**batch, **{name: _plain(values) for name, values in new.items()}}
    if hasattr(batch, "assign"):
        return batch.assign(**new)
    import pyarrow

    table = batch if hasattr(batch, "append_column") else pyarrow.Table.from_batches([batch])
    for name, values in new.items():
        rows = [row.tolist() if isinstance(row, np.ndarray) else row for row in values]
        dtype = pyarrow.list_(pyarrow.float32()) if isinstance(values, _Vectors) else None
        table = table.append_column(name, pyarrow.array(rows, type=dtype))
    return table


class _Vectors(list[object]):
    """Rows of float32."""


def vectors(rows: list[object]) -> list[object]:
    """Marks a list as rows of float32, of which some may be None."""
    return _Vectors(rows)


def _plain(values: list[object]) -> object:
    """One array for vectors without gaps, else the list itself."""
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    return np.stack(arrays) if arrays and len(arrays) == len(values) else list(values)
