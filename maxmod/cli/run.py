"""`maxmod run`: runs a script written for MAX, whose `import max...` finds maxmod."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from types import TracebackType

from maxmod import compat
from maxmod.errors import ArgumentError
from maxmod.tensor import era

_OURS = (__file__, runpy.__file__, "<frozen runpy>")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = "Runs a script written for MAX: its imports of max find maxmod."
    add = parser.add_argument
    add("--force", action="store_true", help="hide an installed package named max")
    add(
        "--max",
        metavar="VERSION",
        choices=era.VERSIONS,
        help="follow the rules of this version of MAX where versions differ: "
        f"{', '.join(era.VERSIONS)}; by default, what the script imports tells",
    )
    add("script", metavar="SCRIPT", help="path of the script")
    add("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="arguments of the script")


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code.

    Raises:
        OSError: If the script cannot be read.
        ArgumentError: If MAX is installed and `--force` is not given.
        SystemExit: If the script raises it.
    """
    script = options.script
    os.stat(script)  # for the message, before anything is changed
    argv, path = sys.argv, list(sys.path)
    sys.argv = [script, *options.arguments]
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.abspath(script))
    try:
        return _run(script, options.force, options.max)
    finally:
        sys.argv, sys.path[:] = argv, path


def _run(script: str, force: bool, version: str | None) -> int:
    if not compat.install(force, version):
        raise ArgumentError(
            f"run: {compat.installed_path()} is installed as max. Hint: maxmod run --force SCRIPT "
            "uses maxmod instead."
        )
    try:
        runpy.run_path(script, run_name="__main__")
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        error.__traceback__ = _of_script(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _of_script(traceback: TracebackType | None) -> TracebackType | None:
    """Drops the frames that started the script."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename in _OURS:
        traceback = traceback.tb_next
    return traceback
