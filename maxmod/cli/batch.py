"""`maxmod batch`: generates, embeds or classifies the rows of files."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maxmod.cli.arguments import add_device, add_quantize, add_sampling, add_strict
from maxmod.errors import ArgumentError
from maxmod.values.plain import JsonObject

if TYPE_CHECKING:
    from maxmod.batch import Predictor
    from maxmod.batch.rows import Row

# What each task takes besides the options of all; and the columns that are looked for.
_OPTIONS = {
    "generate": (
        *("max_new_tokens", "greedy", "temperature", "top_k", "top_p", "min_p"),
        *("repetition_penalty", "seed", "stop", "chat", "system"),
    ),
    "embed": ("prompt_name", "prompt", "truncate"),
    "classify": ("top", "truncate"),
}
_COLUMNS = ("prompt", "messages", "text", "sentence", "image")
_NAMES = {"stop": "stop_strings"}  # of options that Python calls by another one
_FORMATS = ("jsonl", "csv", "parquet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Runs a model over the rows of files and writes each row with what the model gives. A run "
        "that is stopped, by Ctrl-C or the end of the machine, goes on where it ended when the "
        "same command is given again. A row that cannot be read, or that the model cannot take, "
        "gets a message in the column error. Parquet needs pyarrow."
    )
    add = parser.add_argument
    add("task", choices=tuple(_OPTIONS), help="what to do with each row")
    add("--model", metavar="FOLDER", required=True, help="a model folder")
    text = "files of rows: .jsonl, .csv, .parquet, or .txt with a text in each line; - is stdin"
    add("--input", metavar="FILE", nargs="+", required=True, help=text)
    text = "the file to write: .jsonl, .csv or .parquet; - is standard output"
    add("--output", metavar="FILE", required=True, help=text)
    text = f"the column to read (default: the first there is of {', '.join(_COLUMNS)})"
    add("--column", metavar="NAME", help=text)
    add("--output-column", metavar="NAME", help="the column to write")
    add("--input-format", choices=(*_FORMATS, "text"), help="default: by the names of the files")
    add("--output-format", choices=_FORMATS, help="default: by the name of the file")
    add("--batch-size", metavar="N", type=int, help="rows that the model takes at once")
    add("--limit", metavar="N", type=int, help="take the first N rows only")
    text = "take rows in another order, with this seed; all of them are kept in memory"
    add("--shuffle-seed", metavar="S", type=int, help=text)
    add_device(parser)
    add_quantize(parser)
    add_strict(parser)
    group = parser.add_argument_group("generate")
    text = "new tokens of each row (default: as many as the model says or allows)"
    group.add_argument("--max-new-tokens", metavar="N", type=int, help=text)
    add_sampling(group)
    text = "stop before TEXT; repeatable"
    group.add_argument("--stop", metavar="TEXT", action="append", default=[], help=text)
    text = "treat each text as a message to a chat model; lists of messages are chats anyway"
    group.add_argument("--chat", action="store_true", help=text)
    group.add_argument("--system", metavar="TEXT", help="with --chat: the system message")
    group = parser.add_argument_group("embed, classify")
    group.add_argument("--prompt-name", metavar="NAME", help="a prompt of the folder")
    group.add_argument("--prompt", metavar="TEXT", help="what to put in front of each text")
    text = "cut texts that are too long silently, or make them errors (default: cut and say so)"
    group.add_argument("--truncate", action=argparse.BooleanOptionalAction, help=text)
    group.add_argument("--top", metavar="N", type=int, help="labels of each row (default: 1)")


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.batch import job
    from maxmod.batch.predictors import ERROR
    from maxmod.batch.rows import STANDARD, kind_of, rows_of
    from maxmod.batch.sinks import open_sink

    _check(options)
    kind = options.output_format
    if options.output == STANDARD:
        kind = kind or "jsonl"
    kind = kind_of(options.output, kind, "--output-format")
    if kind not in _FORMATS:
        raise ArgumentError(f"batch: --output: expected one of {', '.join(_FORMATS)}, got {kind}.")
    _draw_seed(options)
    first, rows = job.with_first(rows_of(options.input, options.input_format))
    predictor = _predictor(options, first)
    names = [] if first is None else list(first.fields)
    if first is not None:
        job.check_columns(names, predictor)
    columns = [*names, *predictor.new_columns, ERROR]
    taken = job.chosen(rows, options.limit, options.shuffle_seed)
    start = time.perf_counter()
    with open_sink(options.output, kind, columns, _about(options, predictor)) as sink:
        before = sink.rows
        try:
            with _progress(options, before) as advance:
                errors = job.run(predictor, taken, sink, advance)
        except KeyboardInterrupt:
            if options.output != STANDARD:
                print(
                    f"\nmaxmod: {_counted(sink.rows)} of {options.output} are written; the same "
                    "command goes on from there",
                    file=sys.stderr,
                )
            raise
    done, time_s = sink.rows - before, time.perf_counter() - start
    rate = f"{done / time_s:.1f}" if time_s > 0 else "?"
    earlier = f", {before} of an earlier run" if before else ""
    bad = "" if not errors else f", {errors} with an error"
    print(
        f"maxmod: {_counted(done)} in {time_s:.2f} s ({rate} rows/s){earlier}{bad}",
        file=sys.stderr,
    )
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuses options of other tasks, and numbers that are too small."""
    others = {name for names in _OPTIONS.values() for name in names} - {*_OPTIONS[options.task]}
    for name in sorted(others):
        if getattr(options, name) not in (None, [], False):
            tasks = [task for task, names in _OPTIONS.items() if name in names]
            raise ArgumentError(
                f"batch {options.task}: --{name.replace('_', '-')}: is an option of "
                f"{' and '.join(tasks)}."
            )
    for name, least in (("limit", 0), ("batch_size", 1), ("top", 1)):
        given = getattr(options, name)
        if given is not None and given < least:
            raise ArgumentError(
                f"batch: --{name.replace('_', '-')}: expected {least} or more, got {given}."
            )


def _draw_seed(options: argparse.Namespace) -> None:
    """Draws the seed of a run that has none; one that goes on has that of its start."""
    from maxmod.weights.json_files import read_json

    if options.task != "generate" or options.seed is not None:
        return
    options.seed = secrets.randbits(32)
    state = Path(f"{options.output}.state")
    if state.is_file():
        about = read_json(state).get("about")
        seed = about.get("seed") if isinstance(about, dict) else None
        options.seed = seed if isinstance(seed, int) else options.seed


def _predictor(options: argparse.Namespace, first: Row | None) -> Predictor:
    from maxmod import batch
    from maxmod.cli.options import chosen_device, chosen_dtype, given_path, rounding

    given: dict[str, Any] = {}
    for name in _OPTIONS[options.task]:
        if getattr(options, name) is not None:
            given[str(_NAMES.get(name, name))] = getattr(options, name)
    if options.batch_size is not None:
        given["batch_size"] = options.batch_size
    if options.output_column is not None:
        given["output"] = options.output_column
    names = [] if first is None else list(first.fields)
    column = options.column or next((name for name in _COLUMNS if name in names), _COLUMNS[0])
    kinds = {"generate": batch.Generate, "embed": batch.Embed, "classify": batch.Classify}
    return kinds[options.task](
        given_path("batch", "--model", options.model),
        column=column,
        on_error="column",
        device=chosen_device(options.device),
        dtype=chosen_dtype(options.dtype),
        loading={"strict_config": options.strict, **rounding(options)},
        **given,
    )


def _about(options: argparse.Namespace, predictor: Predictor) -> JsonObject:
    """What must be the same for a run that goes on: the input, the model and their options."""
    from maxmod.batch.rows import STANDARD

    without = ("command", "refuse", "debug", "batch_size", "output", "input")
    about = {name: value for name, value in vars(options).items() if name not in without}
    files = []
    for path in options.input:
        if path == STANDARD:
            files.append(path)
            continue
        found = Path(path).resolve().stat()
        files.append([str(Path(path).resolve()), found.st_size, found.st_mtime_ns])
    folder = Path(predictor.folder)
    model = str(folder.resolve()) if folder.exists() else predictor.folder
    return {**about, "model": model, "column": predictor.column, "input": files}


@contextlib.contextmanager
def _progress(options: argparse.Namespace, done: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar on a terminal, with rows a second and the time that is left."""
    bar: Any = None
    if sys.stderr is not None and sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            from tqdm import tqdm

            bar = tqdm(total=_total(options), initial=done, desc=options.task, unit="row")
    try:
        yield (lambda count: None) if bar is None else bar.update
    finally:
        if bar is not None:
            bar.close()


def _total(options: argparse.Namespace) -> int | None:
    """Returns how many rows there will be, if it can be known before."""
    from maxmod.batch.rows import count_of

    found = count_of(options.input, options.input_format)
    return found if found is None or options.limit is None else min(found, options.limit)


def _counted(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"
