"""A command that several processes run together: the first one alone shows something."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from maxmod import config
from maxmod.errors import MaxmodError, MaxmodWarning

if TYPE_CHECKING:
    from maxmod.distributed import Group


def add_parallel(parser: argparse.ArgumentParser) -> None:
    """Adds the argument to a parser."""
    text = "divide the model among the processes that mpirun started: mpirun -n 2 maxmod ..."
    parser.add_argument("--parallel", action="store_true", help=text)


def run_together(options: argparse.Namespace, run: Callable[[Group | None], int]) -> int:
    """Runs a command, in all processes if `options.parallel` says so.

    Args:
        options: The arguments of the command.
        run: Runs it in a group; None for a process by itself.

    Returns:
        Its exit code. An error ends all processes.
    """
    if not options.parallel:
        return run(None)
    from maxmod.distributed import world

    group = world()
    try:
        with _quiet() if group.rank else contextlib.nullcontext():
            return run(group)
    except (MaxmodError, OSError, MemoryError) as error:
        if group.size > 1:
            if not isinstance(error, BrokenPipeError):  # the reader of our output has gone
                who = f"rank {group.rank} of {group.size}"
                print(f"maxmod: error: {who}: {error or type(error).__name__}", file=sys.stderr)
                sys.stderr.flush()
            group.abort()
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Shows nothing of what a block writes but errors."""
    ours, silent = logging.getLogger("maxmod"), logging.NullHandler()
    compiling = logging.getLogger("maxmod.compile")
    level = compiling.level
    ours.addHandler(silent)
    compiling.setLevel(logging.WARNING)
    try:
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            config.configure(progress=False),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", MaxmodWarning)
            yield
    finally:
        ours.removeHandler(silent)
        compiling.setLevel(level)
