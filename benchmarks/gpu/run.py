"""Everything that needs a GPU, in one command: correctness, then timings.

    python benchmarks/gpu/run.py

Runs `tests/gpu` on the real device and stops if anything fails; then runs `graphs.py` (CUDA graphs
against plain launches, cuBLASLt), `kernels.py` (generated kernels) and `handwritten.py` (attention,
products with a vector), which write their numbers to `benchmarks/results`. Further arguments go to
the last two.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Runs all of them, each in a separate process."""
    tests = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "--require=gpu"]
    graphs = [sys.executable, "benchmarks/gpu/graphs.py"]
    timings = [
        [sys.executable, f"benchmarks/gpu/{script}.py", *sys.argv[1:]]
        for script in ("kernels", "handwritten")
    ]
    for command in (tests, graphs, *timings):
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
