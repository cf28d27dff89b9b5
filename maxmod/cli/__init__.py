"""The command `maxmod`: runs a subcommand, and shows warnings and errors as one line each.

Each subcommand is a module here; `maxmod.cli.parser` has the table of them.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from maxmod.cli.parser import new_parser, subcommand
from maxmod.cli.progress import shown_progress
from maxmod.errors import MaxmodError, MaxmodWarning

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: The arguments after the command's name; those of the process by default.

    Returns:
        The exit code: 0, or 1 for an error, 2 for wrong usage, 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = new_parser(arguments)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        refuse = parser.error if options.command is None else options.refuse
        refuse(f"unrecognized arguments: {' '.join(unknown)}")
    if options.command is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", MaxmodWarning)
            warnings.showwarning = _show_warning
            with shown_progress():
                code = subcommand(options.command).run(options)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        print("\nmaxmod: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone. Keep Python from failing on it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except (MaxmodError, OSError, MemoryError) as error:
        if options.debug:
            raise
        print(f"maxmod: error: {error or type(error).__name__}", file=sys.stderr)
        return EXIT_ERROR


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Shows our own warnings as one line, and others as Python does."""
    if issubclass(category, MaxmodWarning):
        print(f"maxmod: note: {message}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))
