"""Attention in float32: maxmod, NumPy, and PyTorch's `scaled_dot_product_attention`.

    python benchmarks/attention.py [--only plain,causal] [--peers numpy,torch] [--smoke]

| name | heads | queries | keys | width | mask |
| --- | ---: | ---: | ---: | ---: | --- |
| plain | 12 | 256 | 256 | 64 | |
| causal | 12 | 256 | 256 | 64 | causal |
| long | 12 | 1024 | 1024 | 64 | causal |
| decode | 12 | 1 | 1024 | 64 | |

maxmod finds the formula written in single ops, as NumPy computes it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import harness
import numpy as np
from harness import Call

from maxmod import DeviceRef, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.runtime.compiled import compile_function


class Case(NamedTuple):
    """One size."""

    heads: int
    queries: int
    keys: int
    width: int
    is_causal: bool


CASES = {
    "plain": Case(12, 256, 256, 64, False),
    "causal": Case(12, 256, 256, 64, True),
    "long": Case(12, 1024, 1024, 64, True),
    "decode": Case(12, 1, 1024, 64, False),
}
SMOKE = Case(2, 9, 40, 16, True)


def numpy_call(case: Case, q: Any, k: Any, v: Any) -> Call:
    """Returns the call in NumPy."""
    scores = harness.empty((case.heads, case.queries, case.keys))
    out = harness.empty((case.heads, case.queries, case.width))
    mask = np.tri(case.queries, case.keys, dtype=bool)
    scale = np.float32(1 / math.sqrt(case.width))

    def call() -> Any:
        np.matmul(q, k.transpose(0, 2, 1), out=scores)
        np.multiply(scores, scale, out=scores)
        if case.is_causal:
            np.copyto(scores, np.float32(-np.inf), where=~mask)
        np.subtract(scores, scores.max(-1, keepdims=True), out=scores)
        np.exp(scores, out=scores)
        np.divide(scores, scores.sum(-1, keepdims=True), out=scores)
        return np.matmul(scores, v, out=out)

    return call


def maxmod_call(case: Case, q: Any, k: Any, v: Any) -> tuple[Call, int]:
    """Returns the call of a compiled function, and its number of kernels."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.T * (1 / math.sqrt(case.width))
        if case.is_causal:
            row = F.arange(0, case.queries, dtype=DType.int64, device=q.device)
            column = F.arange(0, case.keys, dtype=DType.int64, device=q.device)
            scores = F.where(F.unsqueeze(row, 1) >= column, scores, -math.inf)
        return F.softmax(scores) @ v

    types = [TensorType(DType.float32, array.shape, DeviceRef.CPU()) for array in (q, k, v)]
    model = compile_function(attention, types, name="attention", parameters={})
    tensors = [Tensor.from_dlpack(array) for array in (q, k, v)]
    return lambda: model(*tensors).data, len(model.kernels)


def torch_call(case: Case, q: Any, k: Any, v: Any) -> Call:
    """Returns the call in PyTorch."""
    import torch

    tensors = [torch.from_numpy(array)[None] for array in (q, k, v)]
    attend = torch.nn.functional.scaled_dot_product_attention

    def call() -> Any:
        with torch.inference_mode():
            return attend(*tensors, is_causal=case.is_causal)[0]

    return call


def contenders(case: Case, peers: Sequence[str]) -> dict[str, Call]:
    """Returns the calls of a case by name, checked against NumPy."""
    q = harness.normal((case.heads, case.queries, case.width))
    k, v = (harness.normal((case.heads, case.keys, case.width), seed=seed) for seed in (1, 2))
    expected = np.array(numpy_call(case, q, k, v)())
    call, kernels = maxmod_call(case, q, k, v)
    calls = {harness.maxmod_name(kernels): call}
    if "numpy" in peers:
        calls["NumPy"] = numpy_call(case, q, k, v)
    if "torch" in peers:
        calls["PyTorch"] = torch_call(case, q, k, v)
    for name, made in calls.items():
        harness.check(name, made(), expected)
    return calls


def options() -> argparse.ArgumentParser:
    """Returns the parser of this script."""
    parser = harness.parser(__doc__)
    parser.add_argument("--only", default="", help=f"of {', '.join(CASES)}, comma-separated")
    return parser


def main() -> None:
    parser = options()
    args = harness.parse(parser)
    args.peers = [peer for peer in args.peers if peer in ("numpy", "torch")]
    names = [name.strip() for name in args.only.split(",") if name.strip()] or list(CASES)
    unknown = sorted(set(names) - set(CASES))
    if unknown:
        parser.error(f"--only: unknown {', '.join(unknown)}; expected {', '.join(CASES)}")
    facts = harness.machine(args.peers)
    harness.print_facts(facts)
    records = []
    for name in names:
        timings = harness.measure(
            contenders(SMOKE if args.smoke else CASES[name], args.peers), args.rounds
        )
        harness.print_timings(name, timings)
        records += [harness.record(t, workload=name, contender=c) for c, t in timings.items()]
    harness.save(args, "attention", facts, records)


if __name__ == "__main__":
    main()
