"""What CUDA graphs and cuBLASLt bring on this GPU.

    python benchmarks/gpu/graphs.py

First a chain of small layers, as in decoding, called with recorded steps and with one launch for
each: number of launches, host time of a call, and time of a call on the device. Then products
through cuBLASLt and through CuPy, on arguments that lie in the caches of the GPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import harness
from harness import Timing

import maxmod
from kernels import measure
from maxmod import CPU, DType, Tensor, TensorType, backends
from maxmod import functional as F
from maxmod.backends.devices import Accelerator
from maxmod.compiler.steps import RunOp
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.values.device import DeviceRef

RESULTS = Path(__file__).parents[1] / "results" / "gpu_graphs.json"
LAYERS = 24
WIDTHS = (256, 1024)
CALLS = 200
PRODUCTS = ((1, 4096, 4096), (16, 4096, 4096), (512, 4096, 4096), (4096, 4096, 4096))


def chain(width: int) -> tuple[CompiledModel, Callable[[], Any]]:
    """Returns a compiled chain of layers with norms, and a call of it on one row."""
    rng = np.random.default_rng(0)
    kind = TensorType(DType.bfloat16, [1, width], Accelerator())

    def moved(*shape: int) -> Tensor:
        host = Tensor(rng.standard_normal(shape, np.float32) / width**0.5, device=CPU())
        return host.cast(DType.bfloat16).to(Accelerator())

    weights = {f"w{n}": moved(width, width) for n in range(LAYERS)}

    def fn(x: Tensor) -> Tensor:
        for weight in weights.values():
            normed = F.softmax(x)
            x = x + F.gelu(normed @ weight.T, approximate="tanh")
        return x

    compiled = compile_function(fn, [kind], name="chain", parameters=weights)
    x = moved(1, width)
    return compiled, lambda: compiled(x)


def launches(compiled: CompiledModel) -> int:
    """Counts the kernels and products of a call."""
    steps = compiled._schedule.steps
    return sum(not isinstance(step, RunOp) for step in steps)


def host_time(call: Callable[[], Any], rounds: int) -> Timing:
    """Times calls as the host sees them; nothing waits for the device meanwhile."""
    times = []
    for _ in range(rounds):
        Accelerator().synchronize()
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        times.append((time.perf_counter() - start) / CALLS)
    Accelerator().synchronize()
    return Timing(statistics.median(times), min(times), rounds)


def graphs(rounds: int) -> list[dict[str, Any]]:
    """Times recorded and plain calls of the chains."""
    rows = []
    for width in WIDTHS:
        calls, results = {}, []
        for name, on in (("maxmod, one graph", True), ("maxmod, launches", False)):
            with maxmod.configure(cuda_graphs=on):
                compiled, call = chain(width)
                for _ in range(3):
                    results.append(call().to(CPU()).cast(DType.float32).to_numpy())
            if on and not compiled.stats.replays:
                print("Nothing was recorded: MAXMOD_DEBUG=1 says why.")
            calls[name] = call
        if not all(np.array_equal(result, results[0]) for result in results):
            raise SystemExit("calls with and without graphs differ")
        count = launches(compiled)
        host = {f"{name}, host": host_time(call, rounds) for name, call in calls.items()}
        device = {f"{name}, device": t for name, t in measure(calls, rounds).items()}
        title = f"{LAYERS} layers of {width} bfloat16, {count} launches"
        harness.print_timings(title, host | device)
        rows += [harness.record(t, workload=title, contender=n) for n, t in (host | device).items()]
    return rows


def products(rounds: int) -> list[dict[str, Any]]:
    """Times matrix products."""
    import cupy

    backend = backends.get(DeviceRef.GPU())
    rows = []
    for m, n, k in PRODUCTS:
        rng = np.random.default_rng(0)
        for dtype in (DType.float32, DType.bfloat16):
            x, w = (
                Tensor(rng.standard_normal(s, np.float32), device=CPU()).cast(dtype)
                for s in ((m, k), (n, k))
            )
            lhs, rhs = x.to(Accelerator()).data, w.to(Accelerator()).data.T
            out = backend.empty(TensorType(dtype, (m, n), Accelerator()))
            calls = {
                "maxmod (cuBLASLt)": partial(backend.contract, lhs, rhs, out),
                "CuPy": partial(cupy.matmul, lhs, rhs),
            }
            timings = measure(calls, rounds)
            title = f"{m} x {k} x {n} {dtype.name}"
            harness.print_timings(title, timings)
            flops = 2 * m * n * k
            rows += [
                harness.record(t, workload=title, contender=c, tflops=flops / t.median_s * 1e-12)
                for c, t in timings.items()
            ]
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Runs both parts and prints a table for each workload."""
    made = argparse.ArgumentParser(description="CUDA graphs and products.")
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--json", type=Path, default=RESULTS, metavar="FILE")
    args = made.parse_args(argv)
    import cupy

    facts = harness.machine([])
    facts["gpu"] = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    facts["cupy"] = cupy.__version__
    harness.print_facts(facts)
    rows = [*graphs(args.rounds), *products(args.rounds)]
    args.json.parent.mkdir(parents=True, exist_ok=True)
    harness.save(args, "gpu_graphs", facts, rows)


if __name__ == "__main__":
    main()
