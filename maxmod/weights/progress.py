"""A progress bar in bytes, with GB/s; silent if standard error is not a terminal."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from maxmod import config

_LOG = logging.getLogger("maxmod.weights")
_DELAY_S = 0.5  # shorter work shows no bar


@contextlib.contextmanager
def progress(verb: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar while a block runs; yields a function to report finished bytes.

    The bar needs tqdm, a terminal, and ``configure(progress=True)``. Time and GB/s go to the
    logger `maxmod.weights` at level INFO in any case.

    Args:
        verb: Name of the action, such as `"load"`.
        total: Total bytes.
    """
    bar = _bar(verb, total)
    done = 0
    start = time.perf_counter()

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if bar is not None:
            bar.update(nbytes)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.close()
    time_s = time.perf_counter() - start
    bandwidth = done / 1e9 / time_s if time_s > 0 else 0.0
    _LOG.info("%s: %.3f GB in %.2f s (%.1f GB/s)", verb, done / 1e9, time_s, bandwidth)


def _bar(verb: str, total: int) -> Any:
    if not config.current().progress or sys.stderr is None or not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc=verb, unit="B", unit_scale=True, delay=_DELAY_S)
