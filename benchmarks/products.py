"""Matrix products of floats over shapes and dtypes: maxmod, NumPy (OpenBLAS), PyTorch, JAX.

    python benchmarks/products.py [--shapes 1x768x3072,12:128x64x128] [--dtypes float32,bfloat16]
        [--layouts out_in,in_out] [--epilogues none,gelu] [--worst 30] [--prepare] [--smoke]
        [--quick] [--seconds 40 --json FILE]
    MAXMOD_CC="cc -mno-avx512f" python benchmarks/products.py   # as on a processor with AVX2

A shape is rows x depth x columns; `12:` before it is a batch of as many products, both operands
with three axes. The right operand is a weight of either layout: `out_in`, as Linear keeps it, or
`in_out`. The epilogue `gelu` is a vector added, then gelu by tanh, by every contender.

The table has the worst ratio first: the best time of the fastest other library divided by ours.
The last lines say how many products are below 0.9, 1.0 and 1.1. NumPy multiplies no half floats
with BLAS, and is left out there. `--prepare` compiles and checks everything, and times nothing:
the next run starts at once.

All of it takes an hour. `--quick` makes the threads of OpenBLAS sleep after half a millisecond, so
that no pause is needed before each turn, checks no numbers, and looks at each case for a tenth of a
second. With `--seconds`, a run ends after so long, and leaves out the cases that the file of
`--json` has: run it again and again.

A run is marked LOADED where other processes took more than 5 % of the processors meanwhile (on
Linux); each line has their share at its own time. Compare within a run only: contenders take turns.

Findings in float32 on 2 cores of an AMD EPYC (Zen 3, AVX2), December 2026, NumPy 2.4 with OpenBLAS:

- Of a call with one row, about 9 us are Python's part (NumPy: 1.2), which is most of 1 x 384 x 384.
  The kernel alone takes 4.2 us there (NumPy's call: 9.4), 18 us for 1 x 768 x 768 (20), and as long
  as NumPy for 1 x 2048 x 2048. 2 to 8 rows are 1.0 to 7.4 times as fast as NumPy.
- 9 to 64 rows: 0.83 to 1.7 times NumPy for `out_in`, 0.6 to 1.1 for `in_out`.
- Where a task reads less than 2 KB of each row of an `in_out` weight, a loop that prefetches 8 rows
  ahead takes 0.7 to 0.9 times as long for one row (it is in `gemm_few.h`); with 4 or 6 KB it took
  1.2 to 1.5 times as long. Prefetching columns of an `out_in` weight changed nothing.
- The first two thirds of the sweep in float32, `--quick`, against NumPy and PyTorch: of 127 bare
  products that take the other library 0.1 ms or more, 24 are below 0.9 and 57 below 1.0; shorter
  ones lose in Python's part of the call. The machine's speed changed by up to 2 between contenders:
  the lowest (0.51 for 64 x 768 x 768) is 0.99 to 1.05 in a run of its own. With gelu, of the first
  144 products, of all sizes, 5 are below 0.9, 13 below 1.0 and 26 below 1.1 (all 5 below 0.9 take
  26 us at most); the middle one is 1.29.
- bfloat16 and float16, `out_in`, against PyTorch: one row 1.2 to 2.5, 4 rows 3 to 5, 16 rows 5, 64
  rows 6 to 8; `in_out` 20 times and more, since PyTorch converts it.
- Packing the right operand takes 17 % of the samples of a run of products of 16 rows, 7 % of 64 and
  3 % of 256 (768 x 768, Python included). Weights that were packed once would save that, for a
  second copy in memory.
- Batches of matrices (12:128x64x128, 12:128x128x64, 32:33x65x31): 0.9 to 1.2 times the best of
  NumPy and PyTorch (MKL) bare, 1.05 to 1.9 for the kernel alone; 1.2 to 1.9 with `gelu`. Before
  `gemm_narrow.h` it was 0.67 to 0.86.

Findings in float32 on 2 cores of an Intel Emerald Rapids (AVX-512, 2 MB of L2 for each core),
December 2026, against NumPy 2.4 (OpenBLAS) and PyTorch 2.14 (MKL); its speed drifts by up to 2:

- The first sweep, `--quick`, float32 alone, a part of the processors taken by others meanwhile: 592
  products, 235 below 0.9, the middle one 0.98. Of those that take the other library 0.1 ms or more:
  bare 72 of 170 below 0.9, with gelu 13 of 209. It was not repeated as a whole after what follows.
- Many rows by few columns, deep, as multiples of PyTorch: 2048 x 4096 x 64 0.22 to 0.41, now 0.96
  to 1.18; 1000 x 4096 x 64 0.64 to 0.90, now 1.06 to 1.20; 2048 x 1024 x 128 0.74 to 1.00, now 1.06
  to 1.24. The largest part was 33 MB for the packed left operand, whose pages were new at each
  call.
- 9 to 16 rows of an `in_out` weight, 768 x 3072: 0.71 to 0.81, now 0.86 to 1.25; 16 x 768 x 768 and
  16 x 3072 x 768 stay at 0.65 to 0.8.
- 9 to 32 rows of an `out_in` weight, if rows x depth is below 49,152, unpacked as with AVX2, beside
  the packed form of before, best times of one or two turns of each (load was not recorded, speed
  varied by up to 2; left out are turns in which peers took tens of times as long as in others): 13
  x 384 x 1152 0.74, 13 x 384 x 1536 0.72, 13 x 1536 x 384 0.56, 9 x 768 x 768 0.65, 13 x 3072 x 768
  0.74, 13 x 768 x 3072 0.91, 24 x 1536 x 384 0.69, 24 x 384 x 384 0.65, 24 x 384 x 1536 and 32 rows
  of 384 x 1536 and 768 x 768 0.94 to 1.03. 25 to 31 rows and 32 x 384 x 384 were only measured on a
  loaded machine. Packed, 13 rows are tiles of 8, 4 and 1, of which the small ones probably wait for
  their sums (not measured). For 13 rows, MKL takes 0.97 to 2.3 times as long as this (0.62 to 1.8
  before). One sentence: `embed.py`.
- With `-mno-avx512f` products of many rows by few columns take 0.3 to 0.95 of the time of before.
- Still below 0.9: small products (Python's part of a call), 64 to 128 rows of 384 x 384 (0.56 to
  0.8) and of 4096 x 64 (0.5 to 0.9), 0.8 to 1.0 of MKL for large ones. Blocks of 512 columns in
  place of 128, tried together with two tiles of 8 rows in place of 14 and 2, gained nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import ml_dtypes
import numpy as np
from harness import Call
from peers import numpy_gelu

from maxmod import DeviceRef, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.host import compiler
from maxmod.runtime.compiled import compile_function

ROWS = (1, 2, 4, 8, 9, 16, 33, 64, 128, 513, 1000, 2048)
WIDTHS = (
    "64x64,100x10,384x384,384x1536,768x768,768x3072,3072x768,1024x4096,2048x2048,257x131,4096x64,"
    "64x4096"
)
BATCHED = "12:128x64x128,12:128x128x64,32:1x64x512,32:33x65x31,8:512x64x512,4:256x1024x256"
SMALL = "1x16x32,20x16x32,3:5x16x9"
MOST_TERMS = 2048 * 3072 * 768  # larger products of the sweep take too long
LAYOUTS = ("out_in", "in_out")
EPILOGUES = ("none", "gelu")
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}  # of the largest element
BUSY_LIMIT = 0.05
QUICK_PAUSE_S = 5e-3

Shape = tuple[int, int, int, int]  # batch (0 for none), rows, depth, columns


@dataclass(frozen=True)
class Case:
    """One product."""

    shape: Shape
    dtype: str
    layout: str
    epilogue: str

    def __str__(self) -> str:
        batch, *sizes = self.shape
        name = (f"{batch}:" if batch else "") + "x".join(map(str, sizes))
        return " ".join((name, self.dtype, self.layout, *self.epilogue.split("none")[:1])).strip()


@dataclass
class Operands:
    """Arrays of a case, and the right operand as [.., in, out]."""

    x: Any
    w: Any
    right: Any
    bias: Any


# ---- contenders ----------------------------------------------------------------------------------


def operands(case: Case) -> Operands:
    """Returns the arrays of a case."""
    batch, rows, depth, columns = case.shape
    lead = (batch,) if batch else ()
    is_out_in = case.layout == "out_in"

    def array(shape: Sequence[int], seed: int) -> Any:
        floats = harness.normal(shape, seed=seed)
        made = harness.empty(shape, DTYPES[case.dtype])
        made[...] = floats
        return made

    x = array((*lead, rows, depth), 0)
    w = array((*lead, columns, depth) if is_out_in else (*lead, depth, columns), 1)
    return Operands(x, w, w.swapaxes(-1, -2) if is_out_in else w, array((columns,), 2))


_models: dict[tuple[Any, ...], Any] = {}


def maxmod_call(case: Case, given: Operands) -> Call:
    """Returns the call of a compiled product; the number of rows is symbolic."""
    batch, _, depth, columns = case.shape
    key = (batch, depth, columns, case.dtype, case.layout, case.epilogue)
    x, w, bias = (_tensor(array) for array in (given.x, given.w, given.bias))

    def multiply(a: Any, weight: Any) -> Any:
        out = a @ (weight.T if case.layout == "out_in" else weight)
        return F.gelu(out + bias, approximate="tanh") if case.epilogue == "gelu" else out

    if key not in _models:
        host = DeviceRef.CPU()
        lead = (batch,) if batch else ()
        types = [TensorType(x.dtype, (*lead, "rows", depth), host)]
        types.append(TensorType(w.dtype, w.shape, host))
        _models.clear()
        _models[key] = compile_function(multiply, types, name="product", parameters={"bias": bias})
    model = _models[key]
    return lambda: model(x, w).data


def _tensor(array: Any) -> Tensor:
    if array.dtype == ml_dtypes.bfloat16:
        return Tensor(array)
    return Tensor.from_dlpack(array)


def numpy_call(case: Case, given: Operands) -> Call:
    """Returns the call in NumPy, into memory that it used before."""
    out = harness.empty((*given.x.shape[:-1], case.shape[-1]))
    scratch = harness.empty(out.shape)

    def call() -> Any:
        np.matmul(given.x, given.right, out=out)
        if case.epilogue == "gelu":
            np.add(out, given.bias, out=out)
            numpy_gelu(out, scratch)
        return out

    return call


def torch_call(case: Case, given: Operands) -> Call:
    """Returns the call in PyTorch, without gradients."""
    import torch
    from torch.nn import functional as nn

    def tensor(array: Any) -> Any:
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    x, w, bias = tensor(given.x), tensor(given.w), tensor(given.bias)
    right = w.swapaxes(-1, -2) if case.layout == "out_in" else w
    is_linear = case.layout == "out_in" and not case.shape[0]

    def call() -> Any:
        with torch.inference_mode():
            if case.epilogue == "none":
                return torch.matmul(x, right)
            out = nn.linear(x, w, bias) if is_linear else torch.matmul(x, right) + bias
            return nn.gelu(out, approximate="tanh")

    return call


def jax_call(case: Case, given: Operands) -> Call:
    """Returns the call with `jax.jit`."""
    import jax
    import jax.numpy as jnp

    def multiply(x: Any, w: Any, bias: Any) -> Any:
        out = x @ (jnp.swapaxes(w, -1, -2) if case.layout == "out_in" else w)
        return jax.nn.gelu(out + bias, approximate=True) if case.epilogue == "gelu" else out

    function = jax.jit(multiply)
    arrays = [jnp.asarray(array) for array in (given.x, given.w, given.bias)]
    return lambda: function(*arrays).block_until_ready()


PEERS: dict[str, Callable[[Case, Operands], Call]] = {
    "numpy": numpy_call,
    "torch": torch_call,
    "jax": jax_call,
}


def contenders(case: Case, peers: Sequence[str], checks: bool) -> dict[str, Call]:
    """Returns the calls of a case by name; the first one, ours, is checked against float64."""
    given = operands(case)
    calls = {"maxmod": maxmod_call(case, given)}
    for peer in peers:
        if peer in PEERS and (peer != "numpy" or case.dtype == "float32"):
            calls[harness.PEERS[peer]] = PEERS[peer](case, given)
    if checks:
        _check(case, given, calls["maxmod"]())
    return calls


def _check(case: Case, given: Operands, result: Any) -> None:
    rows = slice(0, 40)  # enough to have tiles of every height
    expected = given.x[..., rows, :].astype(np.float64) @ given.right.astype(np.float64)
    if case.epilogue == "gelu":
        expected += given.bias.astype(np.float64)
        numpy_gelu(expected, np.empty_like(expected))
    found = np.asarray(result)[..., rows, :].astype(np.float64)
    error = float(np.abs(found - expected).max())
    limit = TOLERANCES[case.dtype] * float(np.abs(expected).max())
    if not error <= limit:
        raise SystemExit(f"{case}: differs from float64 by {error:.3g}, more than {limit:.3g}")


# ---- other processes -----------------------------------------------------------------------------


class Neighbours:
    """What other processes take of the processors since it was made."""

    def __init__(self) -> None:
        self._start = self._now()

    def share(self) -> float:
        """Returns their part of all processors, 0 to 1; 0 where the system does not tell."""
        wall, busy, own = (b - a for a, b in zip(self._start, self._now(), strict=True))
        return max(0.0, busy - own) / max(wall, 1e-9)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds of all processors, those in use, and those of this process."""
        try:
            fields = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]
        except OSError:
            return 0.0, 0.0, 0.0
        ticks = [int(field) / 100 for field in fields]  # USER_HZ is 100 on every system
        idle = ticks[3] + ticks[4]
        return sum(ticks), sum(ticks) - idle, time.process_time()


# ---- the sweep -----------------------------------------------------------------------------------


def parse_shape(text: str) -> Shape:
    """Returns the sizes of `rows x depth x columns` with an optional `batch:` before."""
    batch, _, sizes = text.rpartition(":")
    rows, depth, columns = (int(size) for size in sizes.split("x"))
    return int(batch or 0), rows, depth, columns


def default_shapes() -> list[Shape]:
    """Returns the sweep: rows for each pair of widths, then batches."""
    widths = [tuple(int(n) for n in text.split("x")) for text in WIDTHS.split(",")]
    plain = [(0, rows, k, n) for (k, n) in widths for rows in ROWS if rows * k * n <= MOST_TERMS]
    return [*plain, *map(parse_shape, BATCHED.split(","))]


def cases(args: argparse.Namespace) -> list[Case]:
    """Returns the cases that the options choose; those of one kernel follow each other."""
    text = args.shapes or (SMALL if args.smoke else "")
    shapes = [parse_shape(s) for s in text.split(",")] if text else default_shapes()
    by_kernel: dict[tuple[int, int, int], list[Shape]] = {}
    for shape in shapes:
        by_kernel.setdefault((shape[0], *shape[2:]), []).append(shape)
    return [
        Case(shape, *rest)
        for group in by_kernel.values()
        for rest in itertools.product(args.dtypes, args.layouts, args.epilogues)
        for shape in group
    ]


def instructions() -> str:
    """Returns the widest of the instruction sets that host kernels are compiled for."""
    found = compiler.find()
    if found is None:
        return "none: there is no C compiler"
    names = {line.split()[1] for line in _macros(found.path, found.flags) if " " in line}
    known = ("AVX512BF16", "AVX512VNNI", "AVX512F", "AVXVNNI", "AVX2", "FMA", "ARM_NEON", "SSE4_2")
    return " ".join(name for name in known if {f"__{name}__", f"__{name}"} & names) or "basic"


def _macros(path: str, flags: Sequence[str]) -> list[str]:
    command = [path, *(f for f in flags if f.startswith("-m")), "-dM", "-E", "-xc", "-"]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def report(rows: list[dict[str, Any]], worst: int) -> None:
    """Prints the cases with the lowest ratios, and how many are below the goals."""
    rows = sorted(rows, key=lambda row: row["ratio"])
    table = [
        (
            row["case"],
            harness.duration(row["maxmod"]),
            f"{row['gflops']:.0f}",
            row["best"],
            harness.duration(row[row["best"]]),
            f"{row['ratio']:.2f}x",
            f"{row['neighbours']:.0%}",
        )
        for row in rows[:worst]
    ]
    header = ("product", "maxmod", "GFLOP/s", "best other", "time", "ratio", "neighbours")
    harness.print_table(header, table)
    below = [sum(row["ratio"] < limit for row in rows) for limit in (0.9, 1.0, 1.1)]
    middle = rows[len(rows) // 2]["ratio"]
    print(f"{len(rows)} products; below 0.9x: {below[0]}, 1.0x: {below[1]}, 1.1x: {below[2]}")
    print(f"the middle one: {middle:.2f}x", flush=True)


def options() -> argparse.ArgumentParser:
    """Returns the parser of this script."""
    parser = harness.parser(__doc__)
    parser.add_argument("--shapes", default="", help="[batch:]rows x depth x columns, with commas")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="of the weight")
    parser.add_argument("--epilogues", default=",".join(EPILOGUES))
    parser.add_argument("--worst", type=int, default=40, help="how many lines are printed")
    parser.add_argument("--prepare", action="store_true", help="compile and check only")
    parser.add_argument("--quick", action="store_true", help="short pauses, no checks")
    parser.add_argument("--seconds", type=float, help="go on another time, with --json")
    return parser


def choices() -> argparse.Namespace:
    """Returns the options of this run."""
    made = options()
    made.set_defaults(rounds=2)
    args = harness.parse(made)
    if args.smoke:
        args.dtypes = "float32"
    for name, known in (("dtypes", DTYPES), ("layouts", LAYOUTS), ("epilogues", EPILOGUES)):
        chosen = getattr(args, name).split(",")
        if set(chosen) - set(known):
            raise SystemExit(f"--{name}: expected some of {', '.join(known)}, got {chosen}")
        setattr(args, name, chosen)
    return args


def use_quick_threads() -> None:
    """Starts this process again with threads of OpenBLAS that spin shortly."""
    name = "OPENBLAS_THREAD_TIMEOUT"
    if name not in os.environ:
        os.environ[name] = "20"  # they spin for 2^20 ticks
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def measured(case: Case, calls: dict[str, Call], args: argparse.Namespace) -> dict[str, Any] | None:
    """Returns the row of a case; None where no other library multiplies it."""
    if len(calls) == 1:
        print(f"{case}: left out, since no other library of this run multiplies it")
        return None
    near = Neighbours()
    pause = QUICK_PAUSE_S if args.quick else harness.SETTLE_S
    timings = harness.measure(calls, args.rounds, pause)
    found = {name: timing.best_s for name, timing in timings.items()}
    best = min((name for name in found if name != "maxmod"), key=lambda name: found[name])
    batch, *sizes = case.shape
    flops = 2 * max(batch, 1) * float(np.prod(sizes))
    row = {"case": str(case), "dtype": case.dtype, "best": best, **found}
    row |= {"ratio": found[best] / found["maxmod"], "gflops": flops / found["maxmod"] / 1e9}
    return row | {"neighbours": near.share()}


def mark(neighbours: Neighbours) -> float:
    """Says so if others took much of the processors; returns their part."""
    share = neighbours.share()
    if share > BUSY_LIMIT:
        print(f"LOADED: other processes took {share:.0%} of the processors during this run.")
    return share


def measured_before(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns the rows of the runs before this one."""
    if not args.seconds or not args.json or not args.json.exists():
        return []
    return json.loads(args.json.read_text("utf-8"))["rows"]


def main() -> None:
    args = choices()
    if args.quick:
        use_quick_threads()
    facts = {**harness.machine(args.peers), "instructions": instructions()}
    harness.print_facts(facts)
    rows = measured_before(args)
    known = {row["case"] for row in rows}
    end = time.monotonic() + (args.seconds or math.inf)
    whole = Neighbours()
    todo = [case for case in cases(args) if str(case) not in known]
    for number, case in enumerate(todo):
        if time.monotonic() > end:
            print(f"{len(todo) - number} cases are left for another run", flush=True)
            break
        calls = contenders(case, args.peers, checks=not args.quick)
        row = None if args.prepare else measured(case, calls, args)
        rows += [] if row is None else [row]
    if rows:
        report(rows, args.worst)
    share = mark(whole)
    harness.save(args, "products", {**facts, "neighbours": share}, rows)


if __name__ == "__main__":
    main()
