"""Files and log lines that show what the compiler did (`MAXMOD_DUMP`, `MAXMOD_DEBUG`)."""

from __future__ import annotations

import os

from maxmod import config, log
from maxmod.op import ir


def dump_graph(graph: ir.Graph, stage: str) -> None:
    """Shows a graph after a pass, and writes it as `<number>_<name>_<stage>.txt`."""
    if config.current().dump or log.wants(log.PASSES):
        text = str(graph)
        log.show(log.PASSES, "%s after %s\n%s", graph.name, stage, text)
        dump_text(graph.name, stage, text)


def dump_text(name: str, stage: str, text: str) -> None:
    """Writes a numbered file into the folder of `MAXMOD_DUMP`, if there is one."""
    folder = config.current().dump
    if not folder:
        return
    os.makedirs(folder, exist_ok=True)
    number = len(os.listdir(folder))
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    with open(os.path.join(folder, f"{number:03d}_{safe}_{stage}.txt"), "w", encoding="utf-8") as f:
        f.write(text + "\n")
