"""Compile time of the small graphs and of GPT-2 small: cold, warm, and where it goes.

    python benchmarks/compile_time.py [--only softmax,gpt2] [--peers torch.compile,jax] [--smoke]
    python benchmarks/compile_time.py --commands [--folder FOLDER ...]

With `--commands`, `maxmod generate` and `maxmod embed` run as a user runs them: `first_run.py`.

Each number comes from a new process. Cold: the cache folder is empty, so the C compiler is found,
tried and run. Warm: another process, the same folder, so nothing is compiled. Making the model and
importing the libraries is not counted; what `compile()` imports itself is.

- compile: the call of `compile()`; `first result`: that, and the first call with its checks, memory
  plan and first touch of memory, until the result is there. The latter is what can be compared with
  torch.compile and JAX, which compile in their first call; they get an empty cache folder of their
  own too (that of JAX is off unless asked for, here it is asked for).
- the stages are those of `compiled.stats`: trace, find (the C compiler: trying it when cold),
  lookup (of the whole graph), import (of the compiler itself), passes, plan (fusion and C text),
  store, build (running the C compiler, and loading), rest. A warm start has four of them.

Finding: the first process on a cold machine also reads the C compiler from the disk and
compiles Python source, so one process for each compiler comes first and does not count. "rest"
includes the import of the backend.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import first_run
import gpt2_prefill
import harness
import peers
import workloads
from harness import Call

GPT2 = "gpt2"
NAMES = (*workloads.BY_NAME, GPT2)
COMPILERS = ("maxmod", "torch.compile", "jax")
STAGES = ("trace", "find", "lookup", "import", "passes", "plan", "store", "build")


# ---- in the child --------------------------------------------------------------------------------


def run_child(compiler: str, name: str, smoke: bool) -> dict[str, float]:
    """Compiles once and returns the times in seconds."""
    if compiler == "maxmod":
        return _run_maxmod(name, smoke)
    call = _peer(compiler, name, smoke)
    start = time.perf_counter()
    call()
    return {"first_result": time.perf_counter() - start}


def _run_maxmod(name: str, smoke: bool) -> dict[str, float]:
    if name == GPT2:
        config, count = _gpt2_sizes(smoke)
        model, _ = gpt2_prefill.make_model(config)
        prompt = gpt2_prefill.make_tokens(config, count)
        types, tensors = [gpt2_prefill.token_type(count)], [peers.Tensor.from_dlpack(prompt)]
    else:
        case = workloads.BY_NAME[name]
        model, types, tensors = peers.maxmod_model(case.kind, workloads.inputs(case, smoke))
    start = time.perf_counter()
    compiled = model.compile(*types)
    compiled_s = time.perf_counter() - start
    compiled(*tensors)
    first_result_s = time.perf_counter() - start
    return {
        **{stage: compiled.stats.times_s.get(stage, 0.0) for stage in STAGES},
        "rest": compiled_s - compiled.stats.compile_s,
        "compile": compiled_s,
        "first_result": first_result_s,
        "kernels": len(compiled.kernels),
    }


def _peer(compiler: str, name: str, smoke: bool) -> Call:
    """Returns a call that compiles when it is made for the first time."""
    if name == GPT2:
        config, count = _gpt2_sizes(smoke)
        _, weights = gpt2_prefill.make_model(config)
        tokens = gpt2_prefill.make_tokens(config, count)
        return gpt2_prefill.peer_call(compiler, config, weights, tokens)
    case = workloads.BY_NAME[name]
    return peers.peer_call(compiler, case.kind, workloads.inputs(case, smoke))


def _gpt2_sizes(smoke: bool) -> tuple[Any, int]:
    return (gpt2_prefill.TINY, 8) if smoke else (gpt2_prefill.SMALL, 128)


# ---- in the parent -------------------------------------------------------------------------------


def time_compiles(compiler: str, name: str, rounds: int, smoke: bool) -> list[dict[str, Any]]:
    """Returns the median times of cold and of warm compiles."""
    arguments = ["--child", compiler, "--only", name, *(["--smoke"] if smoke else [])]
    found: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="maxmod-bench-") as folder:
            environ = {
                "MAXMOD_CACHE_DIR": folder,
                "TORCHINDUCTOR_CACHE_DIR": folder,
                "JAX_COMPILATION_CACHE_DIR": folder,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
            for state in ("cold", "warm"):
                found[state].append(harness.child(Path(__file__), *arguments, environ=environ))
    return [
        {
            "workload": name,
            "compiler": compiler,
            "cache": state,
            **{key: statistics.median(times[key] for times in all_times) for key in all_times[0]},
        }
        for state, all_times in found.items()
    ]


def print_results(rows: list[dict[str, Any]]) -> None:
    """Prints the compile times of all, then the stages of maxmod."""
    table = []
    for row in rows:
        compiled = harness.duration(row["compile"]) if "compile" in row else ""
        first = harness.duration(row["first_result"])
        table.append((row["workload"], row["compiler"], row["cache"], compiled, first))
    header = ("workload", "compiler", "cache", "compile", "first result")
    harness.print_table(header, table)
    stages = (*STAGES, "rest")
    table = [
        (
            row["workload"],
            row["cache"],
            str(int(row["kernels"])),
            *(f"{row[stage] * 1e3:.1f}" for stage in stages),
        )
        for row in rows
        if row["compiler"] == "maxmod"
    ]
    harness.print_table(("maxmod, stages in ms", "cache", "kernels", *stages), table)


def options() -> argparse.ArgumentParser:
    """Returns the parser of this script."""
    parser = harness.parser(__doc__)
    parser.add_argument("--only", default="", help="names of workloads, comma-separated")
    text = "time whole commands: the README's first, and one for each --folder"
    parser.add_argument("--commands", action="store_true", help=text)
    parser.add_argument("--folder", action="append", default=[], help="of weights; repeatable")
    parser.add_argument("--child", choices=COMPILERS, help=argparse.SUPPRESS)
    return parser


def _time_commands(args: argparse.Namespace) -> None:
    facts = harness.machine()
    harness.print_facts(facts)
    rows: list[dict[str, Any]] = []
    commands = first_run.commands(args.folder)
    first_run.time_command(
        "compiles Python source", next(iter(commands.values())), 1
    )  # does not count
    for name, arguments in commands.items():
        rows += first_run.time_command(name, arguments, 1 if args.smoke else min(args.rounds, 3))
    first_run.print_results(rows)
    harness.save(args, "first_run", facts, rows)


def main() -> None:
    parser = options()
    args = harness.parse(parser)
    default = (workloads.CASES[0].name,) if args.smoke else NAMES
    names = [name.strip() for name in args.only.split(",") if name.strip()] or list(default)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        parser.error(f"--only: unknown {', '.join(unknown)}; expected {', '.join(NAMES)}")
    if args.child:
        print(json.dumps(run_child(args.child, names[0], args.smoke)))
        return
    if args.commands:
        _time_commands(args)
        return
    chosen = ["maxmod", *(peer for peer in args.peers if peer in COMPILERS)]
    facts = harness.machine([peer for peer in chosen if peer != "maxmod"])
    harness.print_facts(facts)
    rounds = 1 if args.smoke else min(args.rounds, 3)
    rows = []
    for compiler in () if args.smoke else chosen:
        time_compiles(compiler, names[0], 1, smoke=True)  # does not count
    for name in names:
        for compiler in chosen:
            rows += time_compiles(compiler, name, rounds, args.smoke)
    print_results(rows)
    harness.save(args, "compile_time", facts, rows)


if __name__ == "__main__":
    main()
