"""Generated CUDA kernels against the copy speed of the GPU, CuPy, PyTorch and torch.compile.

    python benchmarks/gpu/run.py            # correctness first, then these timings
    python benchmarks/gpu/kernels.py --only softmax --rounds 9

Measured with events on the device: one sample is a run of calls, each on the next of several sets
of buffers that together are larger than any cache, divided by their number. The limit is a copy of
as many bytes as the workload reads and writes. Contenders take turns; results are compared with
NumPy in float64 before anything is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import harness
from harness import Timing

from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.devices import Accelerator
from maxmod.runtime.compiled import compile_function

RESULTS = Path(__file__).parents[1] / "results" / "gpu_kernels.json"
CACHE_NBYTES = 256 << 20  # more than the second-level cache of any GPU so far
SAMPLE_S = 5e-3
EPSILON = 1e-5
ROWS = 64  # compared with NumPy
TOLERANCE = {DType.float32: 1e-4, DType.bfloat16: 2e-2}

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A workload: `kind` is its function, `shape` that of its first argument."""

    name: str
    kind: str
    shape: tuple[int, int]
    dtype: DType


CASES = tuple(
    Case(f"{kind} {rows} x {columns} {dtype.name}", kind, (rows, columns), dtype)
    for kind, rows, columns in (
        ("gelu_chain", 8192, 4096),
        ("softmax", 32768, 1024),
        ("softmax", 8192, 4096),
        ("softmax", 1024, 32768),
        ("layer_norm", 32768, 1024),
        ("residual_rms_norm", 8192, 4096),
        ("row_sum", 8192, 4096),
        ("transpose_add", 4096, 4096),
    )
    for dtype in (DType.float32, DType.bfloat16)
)

# For each kind: the arguments besides x (m a matrix like x, r one row, t a transposed matrix), and
# how many matrices are read and written.
ARGUMENTS = {
    "gelu_chain": ("rm", 3),
    "softmax": ("", 2),
    "layer_norm": ("rr", 2),
    "residual_rms_norm": ("mr", 4),
    "row_sum": ("", 1),
    "transpose_add": ("t", 3),
}


# ---- the workloads -------------------------------------------------------------------------------


def _maxmod_residual(x: Tensor, y: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    total = x + y
    return total, F.rms_norm(total, g, EPSILON)


MAXMOD: dict[str, Callable[..., Any]] = {
    "gelu_chain": lambda x, b, r: F.gelu(x * 1.5 + b, approximate="tanh") + r,
    "softmax": lambda x: F.softmax(x),
    "layer_norm": lambda x, g, b: F.layer_norm(x, g, b, EPSILON),
    "residual_rms_norm": _maxmod_residual,
    "row_sum": lambda x: F.sum(x),
    "transpose_add": lambda x, y: x + y.T,
}


def _array_functions(xp: Any) -> dict[str, Callable[..., Any]]:
    """Returns the workloads for NumPy and CuPy."""

    def gelu_chain(x: Any, b: Any, r: Any) -> Any:
        h = x * 1.5 + b
        return 0.5 * h * (1 + xp.tanh(np.sqrt(2 / np.pi).item() * (h + 0.044715 * h**3))) + r

    def softmax(x: Any) -> Any:
        e = xp.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def layer_norm(x: Any, g: Any, b: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        return centred / xp.sqrt(variance + EPSILON) * g + b

    def residual_rms_norm(x: Any, y: Any, g: Any) -> Any:
        total = x + y
        return total, total / xp.sqrt((total * total).mean(-1, keepdims=True) + EPSILON) * g

    return {
        "gelu_chain": gelu_chain,
        "softmax": softmax,
        "layer_norm": layer_norm,
        "residual_rms_norm": residual_rms_norm,
        "row_sum": lambda x: x.sum(-1, keepdims=True),
        "transpose_add": lambda x, y: x + y.T,
    }


def _torch_functions() -> dict[str, Callable[..., Any]]:
    import torch
    from torch.nn import functional as nn

    def residual_rms_norm(x: Any, y: Any, g: Any) -> Any:
        total = x + y
        return total, nn.rms_norm(total, g.shape, g, EPSILON)

    return {
        "gelu_chain": lambda x, b, r: nn.gelu(x * 1.5 + b, approximate="tanh") + r,
        "softmax": lambda x: torch.softmax(x, -1),
        "layer_norm": lambda x, g, b: nn.layer_norm(x, g.shape, g, b, EPSILON),
        "residual_rms_norm": residual_rms_norm,
        "row_sum": lambda x: x.sum(-1, keepdim=True),
        "transpose_add": lambda x, y: x + y.T,
    }


# ---- buffers and contenders ----------------------------------------------------------------------


def _shapes(case: Case) -> list[tuple[int, ...]]:
    rows, columns = case.shape
    kinds = {"m": case.shape, "r": (columns,), "t": (columns, rows)}
    return [case.shape, *[kinds[kind] for kind in ARGUMENTS[case.kind][0]]]


def _nbytes(case: Case) -> int:
    """Bytes that must be read and written."""
    return ARGUMENTS[case.kind][1] * case.shape[0] * case.shape[1] * case.dtype.size_in_bytes


def _sets(case: Case) -> list[list[Tensor]]:
    """Returns sets of arguments on the GPU, together larger than its caches."""
    rng = np.random.default_rng(0)
    host = [rng.standard_normal(shape, np.float32) for shape in _shapes(case)]
    count = max(2, -(-CACHE_NBYTES // _nbytes(case)))
    moved = [Tensor(array, device=CPU()).to(Accelerator()).cast(case.dtype) for array in host]
    return [moved, *[[t + 0 for t in moved] for _ in range(count - 1)]]


def rotating(fn: Callable[..., Any], sets: Sequence[Sequence[Any]]) -> Call:
    """Returns a call that takes the next set of arguments each time."""
    turns = itertools.cycle(sets)
    return lambda: fn(*next(turns))


def contenders(case: Case, chosen: Sequence[str]) -> dict[str, tuple[Call, Callable[[Any], Any]]]:
    """Returns for each contender its call, and a function that brings results to NumPy."""
    import cupy

    sets = _sets(case)
    types = [tensor.type for tensor in sets[0]]
    compiled = compile_function(MAXMOD[case.kind], types, name=case.kind, parameters={})
    made: dict[str, tuple[Call, Callable[[Any], Any]]] = {
        harness.maxmod_name(len(compiled.kernels)): (
            rotating(compiled, sets),
            lambda t: t.to(CPU()).cast(DType.float32).to_numpy(),
        )
    }
    if "cupy" in chosen and case.dtype is DType.float32:
        arrays = [[tensor.data for tensor in group] for group in sets]
        functions = _array_functions(cupy)
        made["CuPy"] = (rotating(functions[case.kind], arrays), cupy.asnumpy)
    if "torch" in chosen and importlib.util.find_spec("torch"):
        import torch

        torch.set_grad_enabled(False)
        tensors = [[torch.from_dlpack(tensor.data) for tensor in group] for group in sets]
        function = _torch_functions()[case.kind]
        made["PyTorch"] = (rotating(function, tensors), lambda t: t.float().cpu().numpy())
        if "torch.compile" in chosen:
            made["torch.compile"] = (
                rotating(torch.compile(function), tensors),
                lambda t: t.float().cpu().numpy(),
            )
    return made


def copying(nbytes: int) -> Call:
    """Returns a copy that reads and writes `nbytes` together."""
    import cupy

    sets = [
        [cupy.zeros(nbytes // 2, np.uint8), cupy.zeros(nbytes // 2, np.uint8)]
        for _ in range(max(2, -(-CACHE_NBYTES // nbytes)))
    ]
    return rotating(lambda x, y: cupy.copyto(y, x), sets)


def check(case: Case, name: str, result: Any, to_numpy: Callable[[Any], Any]) -> None:
    """Ends the benchmark if a result is not that of NumPy in float64."""
    sets = _sets(case)[0]
    wide = [t.to(CPU()).cast(DType.float32).to_numpy().astype(np.float64) for t in sets]
    wide = [a[:ROWS] if a.shape == case.shape else a for a in wide]
    if case.kind == "transpose_add":
        wide[1] = wide[1][:, :ROWS]
    expected = _array_functions(np)[case.kind](*wide)
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = result if isinstance(result, (tuple, list)) else (result,)
    for one, other in zip(found, expected, strict=True):
        error = np.abs(to_numpy(one)[:ROWS] - other).max()
        if not error <= TOLERANCE[case.dtype] * max(1.0, np.abs(other).max()):
            raise SystemExit(f"{case.name}: {name} differs from NumPy by {error:.3g}")


# ---- timing --------------------------------------------------------------------------------------


def _elapsed_s(call: Call, number: int) -> float:
    """Returns the time of one call on the device."""
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(number):
        call()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / number * 1e-3


def measure(calls: dict[str, Call], rounds: int) -> dict[str, Timing]:
    """Times the contenders in turns."""
    numbers = {}
    for name, call in calls.items():
        _elapsed_s(call, 3)
        numbers[name] = max(3, round(SAMPLE_S / max(_elapsed_s(call, 10), 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds):
        random.Random(turn).shuffle(names)
        for name in names:
            samples[name].append(_elapsed_s(calls[name], numbers[name]))
    return {n: Timing(statistics.median(s), min(s), len(s)) for n, s in samples.items()}


def overhead(rounds: int) -> dict[str, Timing]:
    """Times a compiled call on eight numbers, as the host sees it; nothing waits for the device."""
    kind = TensorType(DType.float32, [8], Accelerator())
    compiled = compile_function(lambda x: x + 1, [kind], name="tiny", parameters={})
    x = Tensor.ones([8], dtype=DType.float32, device=Accelerator())
    calls: dict[str, Call] = {
        harness.maxmod_name(len(compiled.kernels)): lambda: compiled(x),
        "CuPy": lambda: x.data + 1,
    }
    if importlib.util.find_spec("torch"):
        import torch

        tensor = torch.from_dlpack(x.data)
        calls["PyTorch"] = lambda: tensor + 1
    found = {}
    for name, call in calls.items():
        times = []
        for _ in range(rounds):
            Accelerator().synchronize()
            start = time.perf_counter()
            for _ in range(500):
                call()
            times.append((time.perf_counter() - start) / 500)
        found[name] = Timing(statistics.median(times), min(times), rounds)
    return found


def facts() -> dict[str, Any]:
    """Returns facts that the numbers depend on: the machine, its GPU and the libraries."""
    import cupy

    found = harness.machine([p for p in ("torch",) if importlib.util.find_spec(p)])
    found["gpu"] = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    found["cupy"] = cupy.__version__
    found["driver"] = cupy.cuda.runtime.driverGetVersion()
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the workloads and prints a table for each."""
    made = argparse.ArgumentParser(description="Generated CUDA kernels against their peers.")
    made.add_argument("--only", default="", help="comma-separated parts of names")
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--peers", default="cupy,torch,torch.compile")
    made.add_argument("--json", type=Path, default=RESULTS, metavar="FILE")
    args = made.parse_args(argv)
    known = facts()
    harness.print_facts(known)
    wanted = [part for part in args.only.split(",") if part]
    rows = []
    for case in CASES:
        if wanted and not any(part in case.name for part in wanted):
            continue
        chosen = contenders(case, args.peers.split(","))
        for name, (call, to_numpy) in chosen.items():
            check(case, name, call(), to_numpy)
        calls = {"limit: copy": copying(_nbytes(case))}
        calls |= {name: call for name, (call, _) in chosen.items()}
        timings = measure(calls, args.rounds)
        harness.print_timings(case.name, timings)
        nbytes = _nbytes(case)
        rows += [
            harness.record(t, workload=case.name, contender=n, gb_s=nbytes / t.median_s * 1e-9)
            for n, t in timings.items()
        ]
    tiny = overhead(args.rounds)
    harness.print_timings("x + 1 on 8 numbers, host time", tiny)
    rows += [harness.record(t, workload="overhead", contender=n) for n, t in tiny.items()]
    args.json.parent.mkdir(parents=True, exist_ok=True)
    harness.save(args, "gpu_kernels", known, rows)


if __name__ == "__main__":
    main()
