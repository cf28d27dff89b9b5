"""The first run of a command on a machine: `maxmod generate` and `maxmod embed`, cold and warm.

Used by `compile_time.py --commands`. Each run is a process of its own, from its start to its end,
which is what a user waits for. Cold: with an empty cache folder. CPU seconds are those of the
process and of every compiler that it starts; a small script in front of the compiler counts them.

December 2026, 2 cores of an AMD EPYC (Zen 3, AVX2), GCC 12, on a machine that others used, too.
Before kernels were built many at a time and what products share once:

| command | cold | CPU | compilers | now | CPU | compilers |
|---|---|---|---|---|---|---|
| generate "123+456=" | 4.5 s | 8.0 s | 30 | 2.4 s | 3.7 s | 10 |
| generate, SmolLM2-135M bfloat16 | 9.3 s | 13.2 s | 42 | 4.0 s | 5.6 s | 11 |
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

_ENCODERS = ("bert",)
_COUNTING = '#!/bin/sh\necho >> "{log}"\nexec {compiler} "$@"\n'


def commands(folders: list[str]) -> dict[str, list[str]]:
    """Returns the arguments of each command by its name: the README's first, then one a folder."""
    found = {"generate adder": ["generate", "123+456="]}
    for folder in folders:
        config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
        kind = "embed" if config["model_type"] in _ENCODERS else "generate"
        more = ["--max-new-tokens", "2"] if kind == "generate" else []
        arguments = [kind, "11 12 13 14 15", "--token-ids", "--model", folder, *more]
        found[f"{kind} {Path(folder).resolve().name}"] = arguments
    return found


def time_command(name: str, arguments: list[str], rounds: int) -> list[dict[str, Any]]:
    """Returns the medians of a cold and of a warm run."""
    found: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="maxmod-bench-") as folder:
            environ = _environ(Path(folder))
            for state in found:
                found[state].append(_run(arguments, environ, Path(folder) / "log"))
    return [
        {
            "command": name,
            "cache": state,
            **{key: statistics.median(run[key] for run in runs) for key in runs[0]},
        }
        for state, runs in found.items()
    ]


def _environ(folder: Path) -> dict[str, str]:
    """Returns variables for an empty cache, and a compiler that counts how often it is started."""
    environ = {**harness.child_environ(), "MAXMOD_CACHE_DIR": str(folder / "cache")}
    compiler = next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)
    if compiler and os.name == "posix":
        script = folder / "cc"
        script.write_text(_COUNTING.format(log=folder / "log", compiler=compiler), "utf-8")
        script.chmod(0o700)
        environ["MAXMOD_CC"] = str(script)
    return environ


def _run(arguments: list[str], environ: dict[str, str], log: Path) -> dict[str, float]:
    """Runs the command once and returns its seconds, CPU seconds, and starts of the compiler."""
    log.write_text("")
    before, start = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "maxmod", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    time_s, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    cpu_s = sum(after[2:4]) - sum(before[2:4])  # of children, user and system
    return {"time": time_s, "cpu": cpu_s, "compilers": len(log.read_text().splitlines())}


def print_results(rows: list[dict[str, Any]]) -> None:
    """Prints a line for each command and state of the cache."""
    table = [
        (
            row["command"],
            row["cache"],
            f"{row['time']:.2f}",
            f"{row['cpu']:.2f}",
            str(int(row["compilers"])),
        )
        for row in rows
    ]
    header = ("command", "cache", "s", "CPU s", "compilers started")
    harness.print_table(header, table)
