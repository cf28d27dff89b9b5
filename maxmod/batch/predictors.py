"""`Generate`, `Embed`, `Classify`: a model that loads where it is used, over batches of columns."""

from __future__ import annotations

import abc
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

from maxmod import models
from maxmod.batch.columns import Batch, column_of, vectors, with_columns
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, MaxmodError, OperandError
from maxmod.models import load_classifier, load_vision_model
from maxmod.models.registry import loader_of
from maxmod.system.locks import fork_safe_lock
from maxmod.values.device import DeviceLike

_STREAMS = 1 << 32
Value: TypeAlias = Any  # a model, its options, or a value of a table

_CHUNK = 1024  # rows that are sorted by length together
_ON_ERROR = ("raise", "column")
ERROR = "error"  # the column of errors


class Outcome(NamedTuple):
    """What came of a row: values for the new columns, or an error."""

    values: tuple[Value, ...] | None
    error: str | None = None


class Predictor(abc.ABC):
    """A model over batches of columns.

    It can be pickled whenever: as its folder and options, without weights.

    Args:
        folder: The model folder, as for the loading functions; every machine must see it.
        column: The column that is read.
        output: The name of the new column.
        device: As for the loading functions.
        dtype: As for the loading functions.
        quantize: As for the loading functions.
        on_error: What a row that the model cannot take does: `"raise"` an error, or get None and
            its message in a `"column"` named `error`.
        loading: Further options of the loading function.
        **options: Of the method of the model.
    """

    loader: ClassVar[str]
    id: str | None = None

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        column: str = "text",
        output: str,
        device: DeviceLike | None = None,
        dtype: DType | None = None,
        quantize: str | None = None,
        on_error: str = "raise",
        loading: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> None:
        if on_error not in _ON_ERROR:
            raise ArgumentError(
                f"{type(self).__name__}: on_error: expected one of {', '.join(_ON_ERROR)}, got "
                f"{on_error!r}."
            )
        self.folder = os.fspath(folder)
        self.column, self.output, self.on_error = column, output, on_error
        self.options = options
        given = {"device": device, "dtype": dtype, "quantize": quantize}
        self._loading = {**given, **(loading or {})}
        self._model: Value = None
        self._lock = fork_safe_lock()

    @property
    def model(self) -> Value:
        """The model, which is loaded when it is first needed in a process."""
        with self._lock:
            if self._model is None:
                self._model = self._load()
        return self._model

    @property
    def new_columns(self) -> tuple[str, ...]:
        """The names of the new columns, without that of errors."""
        return (self.output,)

    def __call__(self, batch: Batch) -> Batch:
        """Returns a batch of the same kind with the new columns.

        Args:
            batch: A dict of lists or arrays, a table or record batch of Arrow, or a data frame of
                pandas.

        Raises:
            ArgumentError: (a ValueError) If the column is missing, or a new one is there already.
            MaxmodError: With `on_error="raise"`, for the first row that the model cannot take.
        """
        ids = None if self.id is None else column_of(batch, self.id)
        found = list(self.outcomes(column_of(batch, self.column), ids))
        new: dict[str, list[Value]] = {
            name: self._column([None if row.values is None else row.values[place] for row in found])
            for place, name in enumerate(self.new_columns)
        }
        if self.on_error == "column":
            new[ERROR] = [row.error for row in found]
        return with_columns(batch, new)

    @abc.abstractmethod
    def outcomes(
        self, values: Iterable[object], ids: Iterable[object] | None = None
    ) -> Iterator[Outcome]:
        """Yields what comes of each value, in order; takes some of them ahead.

        Args:
            values: Those of the column.
            ids: What random numbers depend on, for each row; its place by default.
        """

    def _load(self) -> Value:
        return getattr(models, self.loader)(self.folder, **self._loading)

    def _column(self, values: list[Value]) -> list[Value]:
        return values

    def _outcomes_of_lists(self, values: Iterable[object]) -> Iterator[Outcome]:
        """For models that take a list: some at a time, and where that fails its halves."""
        self._predicted([])  # a folder or an option that is wrong is no error of a row
        rows = iter(values)
        while chunk := list(itertools.islice(rows, _CHUNK)):
            yield from self._tried(chunk)

    def _tried(self, rows: Sequence[object]) -> list[Outcome]:
        try:
            return self._predicted(rows)
        except MaxmodError as error:
            if self.on_error == "raise":
                raise
            if len(rows) == 1:
                return [Outcome(None, str(error))]
            middle = len(rows) // 2
            return self._tried(rows[:middle]) + self._tried(rows[middle:])

    def _predicted(self, rows: Sequence[object]) -> list[Outcome]:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Value]:
        return {**vars(self), "_model": None, "_lock": None}

    def __setstate__(self, state: dict[str, Value]) -> None:
        vars(self).update(state)
        self._lock = fork_safe_lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.folder!r}, {self.column!r} -> {self.output!r})"


class Generate(Predictor):
    """Continues the text, or answers the chat, of each row; see `maxmod.generate.generate_many`.

    Args:
        folder: See `Predictor`, as for the options that are not listed here.
        column: Of texts, chats (lists of messages) and lists of token ids.
        output: The name of the column of new texts.
        id: A column of numbers or names that differ from row to row. With a `seed`, the text of a
            row then depends on its own, and not on where it stands in which batch.
        chat: Read a text as a message of the user to a chat model.
        system: With `chat`, the system message.
        **options: Of `generate_many`, such as `batch_size`, `max_new_tokens` and `seed`.

    Example:
        >>> from maxmod.batch import Generate
        >>> from maxmod.models import adder_folder
        >>> found = Generate(adder_folder(), on_error="column")({"text": ["1+1=", ""]})
        >>> found["completion"], found["error"][0]
        (['2', None], None)
    """

    loader = "load_model"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        output: str = "completion",
        id: str | None = None,
        chat: bool = False,
        system: str | None = None,
        **options: Value,
    ) -> None:
        super().__init__(folder, output=output, **options)
        if system is not None and not chat:
            raise ArgumentError("Generate: system: requires chat=True.")
        self.id, self.chat, self.system = id, chat, system

    def outcomes(
        self, values: Iterable[object], ids: Iterable[object] | None = None
    ) -> Iterator[Outcome]:
        """Yields what comes of each value, in order; takes some of them ahead."""
        rows, numbers = itertools.tee(zip(values, itertools.count() if ids is None else ids))
        found = self.model.generate_many(
            (self._prompt(value) for value, _ in rows),
            streams=(_stream(row) for _, row in numbers),
            on_error="yield" if self.on_error == "column" else "raise",
            **self.options,
        )
        for text in found:
            yield Outcome((text,)) if isinstance(text, str) else Outcome(None, str(text))

    def _prompt(self, value: object) -> Value:
        if not self.chat or not isinstance(value, str):
            return value
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": value}]


class Embed(Predictor):
    """A vector for each text, or each image of an image model; see `TextEncoder.embed`.

    Args:
        folder: See `Predictor`, as for the options that are not listed here.
        output: The name of the column of vectors, float32.
        **options: Of `embed`, such as `prompt_name` and `batch_size`.
    """

    loader = "load_encoder"

    def __init__(
        self, folder: str | os.PathLike[str], *, output: str = "embedding", **options: Value
    ) -> None:
        super().__init__(folder, output=output, **options)

    def outcomes(
        self, values: Iterable[object], ids: Iterable[object] | None = None
    ) -> Iterator[Outcome]:
        """Yields what comes of each value, in order; takes some of them ahead."""
        return self._outcomes_of_lists(values)

    def _predicted(self, rows: Sequence[object]) -> list[Outcome]:
        _expect_texts("Embed", rows)
        return [Outcome((vector,)) for vector in self.model.embed(rows, **self.options)]

    def _column(self, values: list[Value]) -> list[Value]:
        return vectors(values)


class Classify(Predictor):
    """The most likely labels of each text or image; see `TextClassifier.classify`.

    Args:
        folder: See `Predictor`, as for the options that are not listed here.
        column: Of texts or pairs of texts; for a model of images, of paths.
        output: The name of the column of labels; that of their probabilities ends in `_score`.
        top: How many labels. With 1, the columns hold a label and a number; else lists of them.
        **options: Of `classify`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        output: str = "label",
        top: int = 1,
        **options: Value,
    ) -> None:
        super().__init__(folder, output=output, **options)
        self.top = top

    @property
    def new_columns(self) -> tuple[str, ...]:
        """The names of the new columns, without that of errors."""
        return (self.output, f"{self.output}_score")

    def outcomes(
        self, values: Iterable[object], ids: Iterable[object] | None = None
    ) -> Iterator[Outcome]:
        """Yields what comes of each value, in order; takes some of them ahead."""
        return self._outcomes_of_lists(values)

    def _load(self) -> Value:
        is_vision = loader_of(self.folder) is load_vision_model
        return (load_vision_model if is_vision else load_classifier)(self.folder, **self._loading)

    def _predicted(self, rows: Sequence[object]) -> list[Outcome]:
        _expect_texts("Classify", rows)
        given = [tuple(row) if isinstance(row, list) else row for row in rows]
        found = self.model.classify(given, top=self.top, **self.options)
        if self.top == 1:
            return [Outcome(labels[0]) for labels in found]
        return [Outcome(([n for n, _ in labels], [p for _, p in labels])) for labels in found]


def _stream(row: object) -> int:
    """Returns the number of the stream of random numbers of a row."""
    if isinstance(row, float) and row.is_integer():  # of a column with nulls
        row = int(row)
    if isinstance(row, int):
        return row % _STREAMS
    return zlib.crc32(str(row).encode("utf-8", "surrogatepass"))


def _expect_texts(caller: str, rows: Sequence[object]) -> None:
    """Raises `OperandError` for what is certainly no text, such as an empty field of a table."""
    for row in rows:
        if row is None or isinstance(row, bool | int | float | dict):
            raise OperandError(f"{caller}: expected a text, got {str(row)[:80]}.")
