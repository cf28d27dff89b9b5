"""Logging for `MAXMOD_DEBUG`: one logger, one handler, and levels from 1 to 6."""

from __future__ import annotations

import logging
import sys

from maxmod import config

logger = logging.getLogger("maxmod")

DEVICES = 1  # devices, compilers, cache hits and misses
TIMES = 2  # time, bytes and bandwidth of each kernel
GRAPHS = 3  # graphs and fusion groups
SOURCES = 4  # kernel sources
PASSES = 5  # the graph after each pass
ASSEMBLY = 6  # output of the kernel compiler


def wants(level: int) -> bool:
    """True if messages of this level are shown."""
    return config.current().debug >= level


def show(level: int, message: str, *args: object) -> None:
    """Logs a message if `MAXMOD_DEBUG` is at least `level`.

    Messages go to the logger `maxmod`; if the program has set up no logging, to standard error.
    """
    if not wants(level):
        return
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("maxmod: %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.debug(message, *args)


def note(message: str) -> None:
    """Says a line that a user should see once, such as which options a file sets.

    It goes to the logger `maxmod` at the level INFO; if the program has set up no logging, to
    standard error.
    """
    if logger.hasHandlers():
        logger.info(message)
    else:
        print(f"maxmod: {message}", file=sys.stderr)
