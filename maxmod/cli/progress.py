"""Says on standard error how far compiling is, if it takes more than a second."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

_LOGGER = "maxmod.compile"  # see `maxmod.backends.host.progress`


class _Shown(logging.Handler):
    """Keeps one line of a terminal up to date; elsewhere, writes the first message only."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._total = 0

    def emit(self, record: logging.LogRecord) -> None:
        numbers: dict[str, Any] = record.__dict__
        done, total = numbers["done"], numbers["total"]
        if sys.stderr.isatty():
            print(f"\r\x1b[Kmaxmod: {record.getMessage()}", end="", file=sys.stderr, flush=True)
            if done == total:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        elif total != self._total:
            self._total = total
            print(f"maxmod: {record.getMessage()}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def shown_progress() -> Iterator[None]:
    """Shows messages of the compiler's progress while a block runs."""
    logger = logging.getLogger(_LOGGER)
    handler, level, propagate = _Shown(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
