"""How far the C compiler is, for those who wait.

The logger `maxmod.compile` gets a message at the level INFO once a second, from the first second
on: `compiling: 12 of 44 kernels are built`, with the numbers as `record.done` and `record.total`,
and a last one when all are built. Python shows none of it unless a program asks for it:

    logging.getLogger("maxmod.compile").addHandler(handler)
    logging.getLogger("maxmod.compile").setLevel(logging.INFO)

The command `maxmod` does that. `configure(progress=False)` sends none.
"""

from __future__ import annotations

import logging
import threading

from maxmod import config

INTERVAL_S = 1.0  # a build that takes less time says nothing
_LOG = logging.getLogger("maxmod.compile")


class Progress:
    """Counts kernels that are built.

    Attributes:
        done: How many are built.
        total: How many there are to build.
    """

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self._is_told = False

    def advance(self, count: int) -> None:
        """Adds kernels that are done."""
        self.done += count

    def wait_for(self, threads: list[threading.Thread]) -> None:
        """Waits until threads have ended, and tells once a second how far they are."""
        for thread in threads:
            thread.join(INTERVAL_S)
            while thread.is_alive():
                self._tell()
                thread.join(INTERVAL_S)
        if self._is_told:
            self._tell()

    def _tell(self) -> None:
        if not config.current().progress:
            return
        self._is_told = True
        numbers = {"done": self.done, "total": self.total}
        _LOG.info("compiling: %d of %d kernels are built", self.done, self.total, extra=numbers)
