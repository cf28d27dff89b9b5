"""Hand-written CUDA kernels: products with a vector, and attention, against limits and peers.

    python benchmarks/gpu/handwritten.py --only "many" --rounds 9

What reads weights or a cache once is compared with a copy of as many bytes, attention of many
queries with one matrix product of as many operations (a causal mask halves them). Beside the kernel
that maxmod would choose runs what it would do without one, `maxmod, ops and library`: that decides
the limits in `maxmod/compiler/codegen/cuda/attention.py` and `cuda_contraction.py`. Results are
compared with NumPy in float64 first, attention at the last queries of the first and the last head.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import harness

import kernels
from kernels import Call
from maxmod import CPU, DType, Tensor, configure, random
from maxmod import functional as F
from maxmod.backends.devices import Accelerator
from maxmod.runtime.compiled import CompiledModel, compile_function

RESULTS = Path(__file__).parents[1] / "results" / "gpu_handwritten.json"
ROWS = 16  # compared with NumPy, of each of two heads
TOLERANCE = {DType.float32: 1e-4, DType.float16: 4e-3, DType.bfloat16: 2e-2}
CHOICES = "maxmod.compiler.choose_kernels"


@dataclass(frozen=True)
class Case:
    """A workload.

    Attributes:
        name: Its name.
        dtype: Of all operands.
        shapes: Of the operands: a vector and a matrix [out, in], or queries, keys and values
            [batch, heads, positions, width].
        is_causal: For attention.
    """

    name: str
    dtype: DType
    shapes: tuple[tuple[int, ...], ...]
    is_causal: bool = False

    @property
    def is_attention(self) -> bool:
        """False for a product."""
        return len(self.shapes) == 3

    @property
    def is_bound_by_memory(self) -> bool:
        """True if reading takes longer than computing."""
        return not self.is_attention or self.shapes[0][2] == 1

    @property
    def nbytes(self) -> int:
        """Bytes of the operands."""
        return sum(int(np.prod(shape)) for shape in self.shapes) * self.dtype.size_in_bytes

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        if not self.is_attention:
            return 2 * int(np.prod(self.shapes[1]))
        queries, keys, _ = self.shapes
        both = 4 * int(np.prod(queries)) * keys[2]
        return both // 2 if self.is_causal else both


def _attention(
    name: str,
    dtype: DType,
    heads: tuple[int, int],
    sizes: tuple[int, int],
    width: int,
    causal: bool,
) -> Case:
    (own, shared), (queries, keys) = heads, sizes
    shapes = ((1, own, queries, width), *(((1, shared, keys, width),) * 2))
    title = f"{name}, {own}/{shared} heads, {queries} x {keys}, width {width}, {dtype.name}"
    return Case(title + (", causal" if causal else ""), dtype, shapes, causal)


HALF, WIDE = DType.bfloat16, DType.float32
CASES = (
    *(
        Case(f"gemv {n} x {k} {dtype.name}", dtype, ((1, k), (n, k)))
        for n, k in ((6144, 4096), (28672, 4096), (4096, 14336))
        for dtype in (HALF, WIDE)
    ),
    *(
        _attention("few", HALF, (32, 8), (1, keys), 128, causal=False)
        for keys in (1024, 4096, 32768)
    ),
    _attention("few", WIDE, (12, 12), (1, 1024), 64, causal=False),
    *(
        _attention("many", dtype, (32, 8), (queries, queries), 128, causal=True)
        for queries in (512, 2048, 8192)
        for dtype in (HALF, DType.float16)
    ),
    _attention("many", HALF, (32, 8), (4096, 4096), 128, causal=False),
    _attention("many", HALF, (12, 12), (1024, 1024), 64, causal=True),
    _attention("many", HALF, (16, 16), (577, 577), 64, causal=False),
    _attention("many", HALF, (8, 4), (4096, 4096), 256, causal=True),
    _attention("many", WIDE, (12, 12), (1024, 1024), 64, causal=True),
)


def _function(case: Case) -> Callable[..., Tensor]:
    if case.is_attention:
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=case.is_causal)
    return lambda x, w: x @ w.T


@contextlib.contextmanager
def _without_kernels() -> Iterator[None]:
    """Leaves products and attention to ops and the matrix library."""
    with (
        mock.patch(f"{CHOICES}.kernel_for_many", lambda *args: None),
        mock.patch(f"{CHOICES}.FEW_QUERIES", 0),
        mock.patch(f"{CHOICES}.MOST_GEMV_ROWS", 0),
        configure(nocache=True),  # of the plan
    ):
        yield


def _compiled(case: Case, operands: Sequence[Tensor]) -> CompiledModel:
    types = [tensor.type for tensor in operands]
    return compile_function(_function(case), types, name=case.name.split()[0], parameters={})


def _sets(case: Case) -> list[list[Tensor]]:
    device = Accelerator()
    random.set_seed(0)  # each call makes the same numbers
    moved = [random.normal(shape, dtype=case.dtype, device=device) for shape in case.shapes]
    count = max(2, -(-kernels.CACHE_NBYTES // case.nbytes)) if case.is_bound_by_memory else 1
    return [moved, *[[t + 0 for t in moved] for _ in range(count - 1)]]


def _to_numpy(tensor: Tensor) -> Any:
    return tensor.to(CPU()).cast(DType.float32).to_numpy()


def contenders(case: Case, chosen: Sequence[str]) -> dict[str, tuple[Call, Callable[[Any], Any]]]:
    """Returns for each contender its call, and a function that brings results to NumPy."""
    sets = _sets(case)
    compiled = _compiled(case, sets[0])
    with _without_kernels():
        plain = _compiled(case, sets[0])
    made: dict[str, tuple[Call, Callable[[Any], Any]]] = {
        harness.maxmod_name(len(compiled.kernels)): (kernels.rotating(compiled, sets), _to_numpy),
        "ops and library": (kernels.rotating(plain, sets), _to_numpy),
    }
    if "torch" in chosen and importlib.util.find_spec("torch"):
        import torch
        from torch.nn import functional as nn

        torch.set_grad_enabled(False)
        tensors = [[torch.from_dlpack(tensor.data) for tensor in group] for group in sets]
        is_grouped = case.is_attention and case.shapes[0][1] != case.shapes[1][1]

        def attend(q: Any, k: Any, v: Any) -> Any:
            options = {"enable_gqa": True} if is_grouped else {}
            return nn.scaled_dot_product_attention(q, k, v, is_causal=case.is_causal, **options)

        function = attend if case.is_attention else lambda x, w: x @ w.T
        made["PyTorch"] = (
            kernels.rotating(function, tensors),
            lambda t: t.float().cpu().numpy(),
        )
    return made


def limit(case: Case) -> dict[str, Call]:
    """Returns a copy of as many bytes, or a product of as many operations."""
    if case.is_bound_by_memory:
        return {"limit: copy": kernels.copying(case.nbytes)}
    side = max(round((case.flops / 2) ** (1 / 3) / 128), 1) * 128
    rng = np.random.default_rng(1)
    host = [rng.standard_normal((side, side), np.float32) for _ in range(2)]
    x, y = (Tensor(a, device=CPU()).to(Accelerator()).cast(case.dtype) for a in host)
    return {f"limit: product of {side}^3": lambda: x @ y}


def expected(case: Case, operands: Sequence[Tensor]) -> Any:
    """Returns a part of the result in float64: the columns of a product, or heads and queries."""
    wide = [_to_numpy(tensor).astype(np.float64) for tensor in operands]
    if not case.is_attention:
        return wide[0] @ wide[1][:ROWS].T
    q, k, v = (x[0][[0, -1]] for x in wide)
    q = q[:, -ROWS:]
    scores = q @ k.swapaxes(1, 2) * q.shape[-1] ** -0.5
    if case.is_causal:
        queries, keys = case.shapes[0][2], case.shapes[1][2]
        seen = np.arange(queries)[-ROWS:, None] >= np.arange(keys)
        scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def check(case: Case, name: str, found: Any, wanted: Any) -> None:
    """Ends the benchmark if a result is not that of NumPy."""
    part = found[0][[0, -1]][:, -ROWS:] if case.is_attention else found[:, :ROWS]
    error = np.abs(part - wanted).max()
    if not error <= TOLERANCE[case.dtype] * max(1.0, np.abs(wanted).max()):
        raise SystemExit(f"{case.name}: {name} differs from NumPy by {error:.3g}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the workloads and prints a table for each."""
    made = argparse.ArgumentParser(description="Hand-written CUDA kernels against their peers.")
    made.add_argument("--only", default="", help="comma-separated parts of names")
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--peers", default="torch")
    made.add_argument("--json", type=Path, default=RESULTS, metavar="FILE")
    args = made.parse_args(argv)
    facts = kernels.facts()
    harness.print_facts(facts)
    wanted = [part for part in args.only.split(",") if part]
    rows = []
    for case in CASES:
        if wanted and not any(part in case.name for part in wanted):
            continue
        chosen = contenders(case, args.peers.split(","))
        right = expected(case, _sets(case)[0])
        for name, (call, to_numpy) in chosen.items():
            check(case, name, to_numpy(call()), right)
        calls = limit(case) | {name: call for name, (call, _) in chosen.items()}
        timings = kernels.measure(calls, args.rounds)
        harness.print_timings(case.name, timings)
        rows += [
            harness.record(
                t,
                workload=case.name,
                contender=n,
                gb_s=case.nbytes / t.median_s * 1e-9,
                tflop_s=case.flops / t.median_s * 1e-12,
            )
            for n, t in timings.items()
        ]
    args.json.parent.mkdir(parents=True, exist_ok=True)
    harness.save(args, "gpu_handwritten", facts, rows)


if __name__ == "__main__":
    main()
