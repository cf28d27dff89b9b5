"""Files and log lines that show what the compiler did (`MAXMOD_DUMP`, `MAXMOD_DEBUG`)."""

from __future__ import annotations

import logging
import os

from maxmod import config, ir

log = logging.getLogger("maxmod.compiler")


def dump(graph: ir.Graph, stage: str) -> None:
    """Writes the graph as `<number>_<name>_<stage>.txt`, and logs it, as far as is asked for."""
    settings = config.current()
    if settings.debug >= 5:
        log.info("after %s\n%s", stage, graph)
    if settings.dump:
        os.makedirs(settings.dump, exist_ok=True)
        number = len(os.listdir(settings.dump))
        path = os.path.join(settings.dump, f"{number:03d}_{graph.name}_{stage}.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write(str(graph) + "\n")
