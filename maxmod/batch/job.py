"""A run of the command: rows of files through a model, into a file."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from maxmod.batch.predictors import ERROR, Outcome, Predictor
from maxmod.batch.rows import Row
from maxmod.batch.sinks import Sink
from maxmod.errors import ArgumentError, did_you_mean

Numbered = tuple[int, Row]  # with its place in the input


def chosen(
    rows: Iterable[Row], limit: int | None = None, shuffle_seed: int | None = None
) -> Iterator[Numbered]:
    """Yields rows with their places: in another order, or the first ones alone.

    Another order needs all rows in memory.
    """
    found: Iterable[Numbered] = enumerate(rows)
    if shuffle_seed is not None:
        shuffled = list(found)
        random.Random(shuffle_seed).shuffle(shuffled)
        found = shuffled
    return itertools.islice(found, limit)


def check_columns(names: Iterable[str], predictor: Predictor) -> None:
    """Checks that the column is there, and that the new ones are not.

    Raises:
        ArgumentError: If not.
    """
    names = list(names)
    if predictor.column not in names:
        raise ArgumentError(
            f"batch: --column: there is no column {predictor.column!r}: the columns are "
            f"{', '.join(names) or 'none'}.{did_you_mean(predictor.column, names)}"
        )
    taken = [name for name in (*predictor.new_columns, ERROR) if name in names]
    if taken:
        raise ArgumentError(
            f"batch: --output-column: the input has a column {taken[0]!r} already. Hint: another "
            "name."
        )


def run(
    predictor: Predictor, rows: Iterable[Numbered], sink: Sink, advance: Callable[[int], None]
) -> int:
    """Writes what comes of each row, after those that the sink has already.

    Args:
        predictor: What is done with a row.
        rows: The rows, the same in each run.
        sink: Where they go.
        advance: Is told how many further rows are written.

    Returns:
        How many of the rows have an error.
    """
    taken: deque[tuple[Row, str | None]] = deque()  # with the error of those that are not tried
    numbers: deque[int] = deque()
    errors = 0

    def values() -> Iterator[object]:
        for number, row in itertools.islice(rows, sink.rows, None):
            error = row.error or _misfit(row, predictor, sink)
            taken.append((row, error))
            if error is None:
                numbers.append(number)
                yield row.fields[predictor.column]

    def write(row: Row, outcome: Outcome) -> None:
        nonlocal errors
        found = outcome.values or (None,) * len(predictor.new_columns)
        errors += outcome.error is not None
        new = {n: v for n, v in zip(predictor.new_columns, found) if n not in row.fields}
        sink.write({**row.fields, **new, ERROR: outcome.error})
        advance(1)

    def write_untried() -> None:
        while taken and taken[0][1] is not None:
            row, error = taken.popleft()
            write(row, Outcome(None, error))

    try:
        for outcome in predictor.outcomes(values(), iter(numbers.popleft, None)):
            write_untried()
            write(taken.popleft()[0], outcome)
        write_untried()
    except BaseException:
        sink.save()
        raise
    sink.finish()
    return errors


def _misfit(row: Row, predictor: Predictor, sink: Sink) -> str | None:
    """Returns why a row cannot be taken, by its columns."""
    if predictor.column not in row.fields:
        return f"there is no column {predictor.column!r}."
    for name in (*predictor.new_columns, ERROR):
        if name in row.fields:
            return f"there is a column {name!r} already: {str(row.fields[name])[:80]}."
    others = [name for name in row.fields if sink.columns is not None and name not in sink.columns]
    if others:
        return f"left out, as the first row has no such column: {', '.join(others)[:200]}."
    return None


def with_first(rows: Iterator[Row]) -> tuple[Row | None, Iterator[Row]]:
    """Returns the first good row, and all rows again."""
    before: list[Row] = []
    for row in rows:
        before.append(row)
        if row.error is None:
            return row, itertools.chain(before, rows)
    return None, iter(before)
