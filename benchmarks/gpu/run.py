"""Everything that needs a GPU, in parts of at most 8 minutes, the most wanted first.

    python benchmarks/gpu/run.py --part decode|gemv|attention|rows|prefill|load|tests|all --out DIR

Each part is a process of its own, which is ended after its time. Each number is a line of
DIR/numbers.jsonl as soon as it is known, so that nothing is lost where a part does not come to its
end: a kernel or a peer that fails is a line as well, and the others go on. The tests write
DIR/tests.xml for JUnit. At the end, and whenever a part is done, DIR/table.md has all numbers with
the limit, the goal and the best peer beside them. Weights are random and made on the device.

    decode      tokens per second of 8B, 1B and GPT-2 in bf16, int8 and int4; peer: transformers
    gemv        products of one row, of the shapes of these models; peer: PyTorch
    attention   of one query, and of as many as keys; peer: PyTorch
    rows        norms, softmax and element-wise kernels; peers: CuPy, PyTorch, torch.compile
    prefill     reading 2048 tokens
    load        16 GB from page-locked memory and from files; compiling cold and warm
    tests       `tests/gpu`
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import report

ROOT = Path(__file__).parents[2]
LIMIT_S = 480
PARTS = ("decode", "gemv", "attention", "rows", "prefill", "load", "tests")


def command(part: str, out: Path, *, is_small: bool) -> list[str]:
    """Returns what runs a part."""
    if part == "tests":
        junit = f"--junitxml={out / 'tests.xml'}"
        return [sys.executable, "-m", "pytest", "tests/gpu", "-q", "--require=gpu", junit]
    script = str(Path(__file__).parent / "parts.py")
    return [sys.executable, script, part, str(out), *(["--small"] if is_small else [])]


def run(part: str, out: Path, limit_s: float, *, is_small: bool = False) -> int:
    """Runs a part; notes if it fails or is ended. Returns its exit status."""
    start = time.monotonic()
    with (out / f"{part}.log").open("w", encoding="utf-8") as log:
        try:
            made = command(part, out, is_small=is_small)
            done = subprocess.run(
                made, cwd=ROOT, check=False, timeout=limit_s, stdout=log, stderr=subprocess.STDOUT
            )
            status = done.returncode
        except subprocess.TimeoutExpired:
            status = 124
    note = {"part": part, "exit_status": status, "seconds": round(time.monotonic() - start, 1)}
    report.append(out, note)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Runs parts and prints the table; 1 if one of them failed."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--part", default="all", choices=(*PARTS, "all"))
    made.add_argument("--out", type=Path, required=True, metavar="DIR")
    made.add_argument("--limit", type=float, default=LIMIT_S, metavar="SECONDS", help="of a part")
    options = made.parse_args(argv)
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for part in PARTS if options.part == "all" else (options.part,):
        if run(part, out, options.limit):
            failed.append(part)
        table = report.table(out)
        (out / "table.md").write_text(table, "utf-8")
        print(f"{part}: {'failed, see ' + str(out / part) + '.log' if part in failed else 'done'}")
    print(table)
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
