"""The first run of a command on a machine: `maxmod generate` and `maxmod embed`, cold and warm.

Used by `compile_time.py --commands`. Each run is a process of its own, from its start to its end,
which is what a user waits for. Cold: with an empty cache folder. CPU seconds are those of the
process and of every compiler that it starts; a small script in front of the compiler counts them.

December 2026, 2 cores of an AMD EPYC (Zen 3, AVX2), GCC 12, a machine that was not idle. Before,
and since kernels are built many at a time and what products share once (s, CPU s, compilers):

| command | before | | | now | | |
|---|---|---|---|---|---|---|
| generate "123+456=" | 5.3 | 9.1 | 30 | 2.5 | 4.1 | 8 |
| embed, all-MiniLM-L6-v2 float32 | 2.3 | 3.5 | 12 | 1.8 | 2.5 | 5 |
| generate, SmolLM2-135M bfloat16 | 10.1 | 14.3 | 42 | 5.5 | 7.5 | 8 |

Since products with quantised weights share their text as well, and both steps of generation are
built side by side (the same month, a slower hour of the same machine, one or two runs each, which
differ by a sixth: only the last row is a gain beyond doubt; s, CPU s):

| command | before | | now | |
|---|---|---|---|---|
| generate "123+456=" | 3.0 | 4.6 | 3.0 | 4.9 |
| generate, SmolLM2-135M bfloat16 | 6.9 | 8.8 | 6.1 | 9.4 |
| generate, SmolLM2-135M 4 bits | 10.4 | 16.7 | 6.8 | 11.0 |

With -O2 and its vectoriser in place of -O3, compilers take a sixth less, but kernels that turn
matrices take 12 to 15 % longer, attention of one query 11 %, sine and cosine 5 %.

Of 4.1 CPU seconds of the first command, 0.6 are those of a warm run; a product is 0.5 for what all
of them share and 0.1 each, attention 0.4, the choice of tokens 0.2, sine and cosine 0.2, the
threads 0.13.
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
