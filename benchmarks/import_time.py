"""Import time: `import maxmod` in new processes, with the share of NumPy.

    python benchmarks/import_time.py [--rounds 15] [--smoke]

Each sample is a new process. "alone" is the import in an interpreter that has loaded nothing else;
maxmod needs NumPy, whose import takes most of that time, so "after NumPy" is what maxmod adds.
"process" is everything from starting to the end of the interpreter; an empty program is the first
row. Files are in the memory of the system already, since the first round does not count.

Finding: what maxmod adds doubles where Python may not keep compiled source
(`PYTHONDONTWRITEBYTECODE`, set in many containers, or a package folder that cannot be written);
children of the benchmarks always keep it, see `harness.child_environ`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import harness

_CHILD = """
import time
start = time.perf_counter()
{first}
middle = time.perf_counter()
{second}
end = time.perf_counter()
print(middle - start, end - middle)
"""
OWN = ("maxmod", "maxmod.nn", "maxmod.models")


def sample(first: str, second: str) -> tuple[float, float, float]:
    """Runs two statements in a new process; returns the time of each and of the process."""
    code = _CHILD.format(first=first, second=second)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=harness.child_environ(),
        check=False,
    )
    total = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{first}; {second} failed:\n{done.stderr}")
    before, after = done.stdout.split()
    return float(before), float(after), total


def time_imports(modules: Sequence[str], rounds: int) -> dict[str, dict[str, float]]:
    """Returns the median times in seconds of each module.

    Args:
        modules: Their names.
        rounds: Number of samples after the first, which does not count.
    """
    programs = [("", "pass", "pass")]
    for module in modules:
        programs.append((module, f"import {module}", "pass"))
        if module != "numpy":
            programs.append((module, "import numpy", f"import {module}"))
    samples: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for _ in range(rounds + 1):
        for program in programs:
            samples.setdefault(program, []).append(sample(*program[1:]))
    medians = {
        program: [statistics.median(column) for column in zip(*found[1:], strict=True)]
        for program, found in samples.items()
    }
    found: dict[str, dict[str, float]] = {}
    for (module, first, second), (first_s, second_s, process_s) in medians.items():
        row = found.setdefault(module or "(nothing)", {})
        if second != "pass":
            row["after_numpy"] = second_s
            continue
        row["process"] = process_s
        if first != "pass":
            row["alone"] = first_s
    return found


def main() -> None:
    args = harness.parse(harness.parser(__doc__))
    facts = harness.machine(args.peers)
    harness.print_facts(facts)
    own = OWN[:1] if args.smoke else OWN
    modules = ["numpy", *own, *(peer for peer in ("torch", "jax") if peer in args.peers)]
    times = time_imports(modules, 1 if args.smoke else max(args.rounds, 11))
    keys = ("alone", "after_numpy", "process")
    rows = [
        (module, *(harness.duration(found[key]) if key in found else "" for key in keys))
        for module, found in times.items()
    ]
    harness.print_table(("import", "alone", "after NumPy", "process"), rows)
    share = times["numpy"]["alone"] / times["maxmod"]["alone"]
    print(f"NumPy is {100 * share:.0f} % of `import maxmod`.")
    records = [{"module": module, **found} for module, found in times.items()]
    harness.save(args, "import_time", facts, records)


if __name__ == "__main__":
    main()
