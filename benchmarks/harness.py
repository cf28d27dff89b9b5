"""Shared parts of the benchmarks: options, interleaved timing, a check, tables, JSON.

Method:

- All contenders run in one process on the same 64-byte aligned arrays, and take turns in rounds, so
  that a neighbour who loads the machine hits all of them alike. Compare within one run only.
- Every result is compared with NumPy's before anything is timed.
- Before each turn the process sleeps: idle threads of OpenBLAS spin for 100 ms after their last
  work and take a core from the next contender (a kernel of 0.11 ms took 0.33 ms within 100 ms of a
  product by NumPy). Then calls are made that do not count, until the cores are awake again.
- A call that takes less than a millisecond is repeated in a loop and divided. Results are dropped
  at once, so that libraries which keep memory can use it again.
- Reported are the median and the best of all samples.
"""

from __future__ import annotations

import argparse
import atexit
import ctypes
import datetime
import functools
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

SETTLE_S = 0.15  # longer than the threads of OpenBLAS spin: 2^28 ticks, 103 ms at 2.6 GHz
WARM_S = 4e-3  # after a pause, the first milliseconds are up to ten times slower
SAMPLE_S = 1e-3  # shorter calls are repeated in a loop until it takes about this long
TURN_S = 0.1  # per contender and round, but at least one sample
TURN_SAMPLES = 10
TOLERANCE = 1e-4  # difference in units of the largest element; the tests are stricter

ALIGNMENT = 64
PEERS = {"numpy": "NumPy", "torch": "PyTorch", "torch.compile": "torch.compile", "jax": "JAX"}

Call = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """The samples of one contender, in seconds for one call."""

    median_s: float
    best_s: float
    samples: int


# ---- options -------------------------------------------------------------------------------------


def parser(text: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the options of every benchmark.

    Args:
        text: The docstring of the script; its first line is shown.
    """
    made = argparse.ArgumentParser(description=(text or "").partition("\n")[0])
    made.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    made.add_argument("--rounds", type=int, help="how often the contenders take turns")
    made.add_argument("--threads", type=int, help="CPUs to use; all by default")
    made.add_argument(
        "--peers",
        default="",
        help=f"comma-separated, of {', '.join(PEERS)}; by default all that are installed",
    )
    made.add_argument(
        "--keep-pages",
        action="store_true",
        help="keep freed memory in the process (glibc), for libraries that do not do it themselves",
    )
    return made


def parse(made: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the options and applies those that concern the process.

    With `--threads` the process restarts on fewer CPUs: every library reads their number when
    it is loaded.
    """
    args = made.parse_args(argv)
    args.rounds = args.rounds or (1 if args.smoke else 7)
    chosen = [name.strip() for name in args.peers.split(",") if name.strip()]
    unknown = sorted(set(chosen) - set(PEERS))
    if unknown:
        made.error(f"--peers: unknown {', '.join(unknown)}; expected {', '.join(PEERS)}")
    args.peers = chosen or (["numpy"] if args.smoke else [n for n in PEERS if is_installed(n)])
    if args.threads and args.threads != processors():
        use_processors(args.threads)
    if args.keep_pages:
        keep_pages()
    return args


def is_installed(peer: str) -> bool:
    """True if the library of a peer can be imported."""
    return importlib.util.find_spec(peer.partition(".")[0]) is not None


def processors() -> int:
    """Returns the number of CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def use_processors(count: int) -> None:
    """Restarts this script on `count` CPUs."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("--threads: this system cannot restrict CPUs.")
    available = sorted(os.sched_getaffinity(0))
    if count > len(available):
        raise SystemExit(f"--threads: expected at most {len(available)}, got {count}.")
    os.sched_setaffinity(0, available[:count])
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keep_pages() -> None:
    """Makes glibc's allocator keep freed memory instead of returning it to the system.

    PyTorch, JAX and NumPy ask it for every large result, and then pay for the first touch of fresh
    pages in every call. This shows what their kernels take without that.
    """
    if platform.libc_ver()[0] != "glibc":
        raise SystemExit("--keep-pages: needs glibc.")
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)


# ---- inputs and results --------------------------------------------------------------------------


def empty(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """Returns an array whose first element is aligned to 64 bytes, as JAX needs it to share it."""
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def normal(shape: Sequence[int], scale: float = 1.0, seed: int = 0) -> np.ndarray[Any, Any]:
    """Returns float32 numbers of a normal distribution."""
    array = empty(shape)
    np.random.default_rng(seed).standard_normal(dtype=np.float32, out=array)
    array *= np.float32(scale)
    return array


def check(name: str, result: Any, expected: np.ndarray[Any, Any]) -> None:
    """Ends the benchmark if a result differs from NumPy's.

    Args:
        name: The contender.
        result: Anything that NumPy can convert.
        expected: NumPy's result for the same inputs.
    """
    found = np.asarray(result)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise SystemExit(
            f"{name}: expected {expected.dtype} {expected.shape}, got {found.dtype} {found.shape}"
        )
    error = float(np.abs(found - expected).max(initial=0.0))
    limit = TOLERANCE * float(np.abs(expected).max(initial=0.0))
    if not error <= limit:
        raise SystemExit(f"{name}: differs from NumPy by {error:.3g}, more than {limit:.3g}")


# ---- timing --------------------------------------------------------------------------------------


def measure(
    calls: Mapping[str, Call], rounds: int, settle_s: float = SETTLE_S
) -> dict[str, Timing]:
    """Times the contenders in turns.

    Args:
        calls: The contenders by name.
        rounds: Number of turns of each.
        settle_s: Pause before each turn.
    """
    timers = {name: timeit.Timer(call) for name, call in calls.items()}
    numbers = {name: _calls_in_a_sample(timer) for name, timer in timers.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds):
        gc.collect()
        random.Random(turn).shuffle(names)  # so that nobody always comes after the same one
        for name in names:
            time.sleep(settle_s)
            samples[name] += _turn(timers[name], numbers[name])
    return {
        name: Timing(statistics.median(found), min(found), len(found))
        for name, found in samples.items()
    }


def _calls_in_a_sample(timer: timeit.Timer) -> int:
    timer.timeit(2)  # the first calls fill caches and pools
    once = max(timer.timeit(1), 1e-8)
    number = max(1, round(SAMPLE_S / once))
    once = timer.timeit(number) / number  # more exact for what takes microseconds
    return max(1, round(SAMPLE_S / max(once, 1e-9)))


def _turn(timer: timeit.Timer, number: int) -> list[float]:
    start = time.perf_counter()
    while True:
        timer.timeit(number)
        if time.perf_counter() - start >= WARM_S:
            break
    found: list[float] = []
    end = time.perf_counter() + TURN_S
    while not found or (len(found) < TURN_SAMPLES and time.perf_counter() < end):
        found.append(timer.timeit(number) / number)
    return found


# ---- children ------------------------------------------------------------------------------------


@functools.cache
def child_environ() -> dict[str, str]:
    """Returns the variables of child processes, in which Python keeps compiled source.

    Where that is switched off (`PYTHONDONTWRITEBYTECODE`, as in many containers), every process
    would compile every imported file again: `import maxmod` took twice as long. Users rarely run
    so; children then keep it in a temporary folder, which the first child fills.
    """
    environ = dict(os.environ)
    if environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        folder = tempfile.mkdtemp(prefix="maxmod-bench-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        environ["PYTHONPYCACHEPREFIX"] = folder
    return environ


def child(script: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Any:
    """Runs a script in a new process and returns the JSON of the last line that it prints.

    Args:
        script: Its path.
        *arguments: Its arguments.
        environ: Variables to set on top of those of this process.
    """
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        env={**child_environ(), **(environ or {})},
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{script.name} {' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# ---- output --------------------------------------------------------------------------------------


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table that reads well in a terminal and in Markdown; numbers are right-aligned."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join((first, *others)) + " |"

    print(line(header))
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    print("| " + " | ".join(rules) + " |")
    for row in rows:
        print(line(row))
    print(flush=True)


def print_timings(title: str, timings: Mapping[str, Timing]) -> None:
    """Prints the contenders of one workload, with their ratios to the limit and to maxmod.

    The ratio of the best samples is the one to trust where other processes take CPU time: a
    median then tells who was interrupted more often.

    Args:
        title: Name of the workload.
        timings: By contender; the limit is called `limit: ...`, and maxmod as by `maxmod_name`.
    """
    bound = next((t for name, t in timings.items() if name.startswith("limit")), None)
    own = next(t for name, t in timings.items() if name.startswith("maxmod"))
    rows = [
        (
            name,
            duration(timing.median_s),
            duration(timing.best_s),
            ratio(timing.median_s, bound.median_s) if bound else "",
            ratio(timing.median_s, own.median_s),
            ratio(timing.best_s, own.best_s),
        )
        for name, timing in timings.items()
    ]
    print_table((title, "median", "best", "x limit", "/ maxmod", "best / best"), rows)


def maxmod_name(kernels: int) -> str:
    """Returns how a compiled model is listed, with its number of generated kernels."""
    return f"maxmod ({kernels} kernel{'s' * (kernels != 1)})" if kernels else "maxmod (op by op)"


def duration(seconds: float) -> str:
    """Returns a duration with three digits and a unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{_digits(seconds * factor)} {unit}"
    return f"{_digits(seconds * 1e9)} ns"


def ratio(value: float, base: float) -> str:
    """Returns how many times `base` a value is."""
    return f"{_digits(value / base)}x"


def _digits(value: float) -> str:
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def print_facts(facts: Mapping[str, Any]) -> None:
    """Prints what a reader must know about machine and libraries to judge the numbers."""
    for name, value in facts.items():
        print(f"{name}: {value}")
    print(flush=True)


def machine(peers: Sequence[str] = ()) -> dict[str, Any]:
    """Returns facts about the machine, the libraries and the settings of this run."""
    facts: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "processors": processors(),
        "load": _load(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for name in ("maxmod", "numpy", *_libraries(peers)):
        facts[name] = importlib.metadata.version(name)
    facts["maxmod"] += _commit()
    facts["blas"] = _blas()
    threads = [k for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if k in os.environ]
    for name in (*threads, *sorted(k for k in os.environ if k.startswith("MAXMOD_"))):
        facts[name] = os.environ[name]
    return facts


def save(args: argparse.Namespace, script: str, facts: Mapping[str, Any], rows: Any) -> None:
    """Writes facts and numbers to the file of `--json`, if there is one.

    Args:
        args: The options.
        script: Name of the benchmark.
        facts: From `machine`.
        rows: One mapping for each measured number; times are in seconds.
    """
    if args.json is None:
        return
    content = {"benchmark": script, "options": vars(args), "machine": dict(facts), "rows": rows}
    args.json.write_text(json.dumps(content, indent=1, default=str) + "\n", "utf-8")


def record(timing: Timing, **names: Any) -> dict[str, Any]:
    """Returns a row for `save`."""
    return {**names, **asdict(timing)}


def _libraries(peers: Sequence[str]) -> list[str]:
    return sorted({peer.partition(".")[0] for peer in peers} - {"numpy"})


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return platform.processor()
    names = [line for line in text.splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def _load() -> str:
    try:
        return f"{os.getloadavg()[0]:.2f} before this run"
    except (OSError, AttributeError):
        return "unknown"


def _blas() -> str:
    found = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{found['name']} {found['version']}"


def _commit() -> str:
    """Returns the commit of the checkout, and whether files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return f" ({done.stdout.strip()})" if done.returncode == 0 else ""
