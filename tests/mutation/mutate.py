"""Mutation testing: changes one place of a file, runs the tests of that file, reports survivors.

    python tests/mutation/mutate.py generate --count 20 --seed 1
    python tests/mutation/mutate.py maxmod/generate/sampling.py --list
    python tests/mutation/mutate.py generate --again survivors.json

A mutant that no test notices is a missing test, or it is equivalent: nothing that anybody can see
changes. The working tree stays as it is: everything happens in a copy of its files. Mutants run one
after the other, each until the first failure; one that takes much longer than the unchanged tests
counts as caught, as does one that does not compile. `targets.py` lists files and their tests.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutants import Mutant, mutants_of
from targets import AREAS

ROOT = Path(__file__).parents[2]
PASSED, NOTHING_RAN = 0, 5  # exit codes of pytest
SLOWER = 3  # times the unchanged tests, and at least a minute: a loop that does not end


@dataclass(frozen=True, slots=True)
class Target:
    """A mutant of a file, and the tests that should notice it."""

    path: str
    source: bytes
    tests: tuple[str, ...]
    mutant: Mutant

    def described(self) -> str:
        """Returns the file, the line and the change."""
        return f"{self.path}:{self.mutant.described(self.source)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if a mutant survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("what", nargs="+", help=f"a file, or one of {', '.join(AREAS)}")
    parser.add_argument("--count", type=int, help="number of mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--limit", type=float, metavar="S", help="trust the tests: do not time them"
    )
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    parser.add_argument("--again", type=Path, metavar="FILE", help="only the survivors in FILE")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the survivors to FILE")
    options = parser.parse_args(arguments)
    targets = _drawn(_all_targets(options.what), options.count, options.seed)
    if options.again:
        known = set(json.loads(options.again.read_text("utf-8")))
        targets = [t for t in _all_targets(options.what) if t.described() in known]
    if options.list:
        print(*(target.described() for target in targets), sep="\n")
        return 0
    survivors = _survivors(targets, options.limit)
    if options.save:
        options.save.write_text(json.dumps(survivors, indent=1), "utf-8")
    print(f"{len(targets) - len(survivors)} of {len(targets)} mutants were caught")
    return bool(survivors)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def _all_targets(what: Sequence[str]) -> list[Target]:
    files = {path: tests for area in AREAS.values() for path, tests in area.items()}
    paths = [path for name in what for path in AREAS.get(name, [name])]
    sources = {path: (ROOT / path).read_bytes() for path in paths}
    return [
        Target(path, source, files[path], mutant)
        for path, source in sources.items()
        for mutant in mutants_of(path, source)
    ]


def _drawn(targets: list[Target], count: int | None, seed: int) -> list[Target]:
    """Returns a random sample, file by file, so that the tests are timed once for each."""
    if count is None or count >= len(targets):
        return targets
    numbers = random.Random(seed).sample(range(len(targets)), count)
    return [targets[number] for number in sorted(numbers)]


def _survivors(targets: Sequence[Target], limit_s: float | None) -> list[str]:
    survivors = []
    with _copied() as folder:
        limits: dict[tuple[str, ...], float] = {}
        for target in targets:
            if target.tests not in limits:
                limits[target.tests] = limit_s or _limit(folder, target.tests)
            result = _result(folder, target, limits[target.tests])
            print(f"{result:<9} {target.described()}", flush=True)
            if result == "SURVIVED":
                survivors.append(target.described())
    return survivors


@contextlib.contextmanager
def _copied() -> Iterator[Path]:
    """Copies the files of the checkout that git knows or would add."""
    with tempfile.TemporaryDirectory(prefix="maxmod-mutants-") as name:
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True)
        for path in filter(None, done.stdout.split("\0")):
            if (ROOT / path).is_file():
                Path(name, path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, Path(name, path))
        yield Path(name)


def _limit(folder: Path, tests: tuple[str, ...]) -> float:
    """Returns the seconds after which a mutant counts as endless."""
    start = time.monotonic()
    code = _run(folder, tests, 3600)
    if code != PASSED:
        sys.exit(f"the tests fail without a mutant ({code}): {' '.join(tests)}")
    time_s = time.monotonic() - start
    print(f"          {' '.join(tests)}: {time_s:.0f} s", flush=True)
    return max(60.0, SLOWER * time_s)


def _result(folder: Path, target: Target, limit_s: float) -> str:
    path = folder / target.path
    path.write_bytes(target.mutant.applied(target.source))
    code = _run(folder, target.tests, limit_s)
    path.write_bytes(target.source)
    if code == NOTHING_RAN:
        sys.exit(f"there are no tests in {' '.join(target.tests)}")
    return {PASSED: "SURVIVED", None: "timed out"}.get(code, "caught")


def _run(folder: Path, tests: Sequence[str], limit_s: float) -> int | None:
    """Returns the exit code of pytest, or None if it took too long."""
    # No .pyc files: a mutant of the same size and second would be taken for the original.
    changes = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "CI": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "--ff", "-q", "-n", "0", *tests]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **changes},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
