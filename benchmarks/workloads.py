"""Small graphs side by side: maxmod, NumPy, PyTorch, torch.compile, JAX and the machine's limit.

    python benchmarks/workloads.py [--only gelu_chain,softmax] [--peers numpy,torch] [--smoke]

The workloads are the building blocks of a transformer, in float32:

| name | what | limit |
| --- | --- | --- |
| gelu_chain | gelu(x * 1.5 + b) + r, 4096 x 4096 | copying its 201 MB |
| softmax | rows of 8192 x 1024 | copying its 67 MB |
| layer_norm | rows of 8192 x 1024 | copying its 67 MB |
| mlp | 1024 - gelu 4096 - 1024, batch 128 | its two products through NumPy |
| mlp_1 | the same, batch 1 | reading its 34 MB of weights |
| attention | 12 heads of 256 x 64, no mask | its products through NumPy |
| linear | Linear 10-20-5, batch 5: nothing but overhead | |

A copy limit uses streaming stores (see limits.py) and takes its turns with the contenders. The
products through NumPy are OpenBLAS, which is not a hard limit: JAX can be faster.

How to read it: `x limit` is time / time of the limit, `/ maxmod` is the time of a contender divided
by that of maxmod, so above 1 maxmod is faster. maxmod shows how many generated kernels ran; with
none, its ops ran one by one because there is no C compiler.

Finding: without `--keep-pages`, PyTorch and JAX pay for fresh pages in every call with a
result above 32 MB, because glibc gives such blocks back to the system at once; that is what their
users see. With it the table shows their kernels alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import harness
import limits
import numpy as np
import peers
from harness import Call


@dataclass(frozen=True)
class Case:
    """One workload at one size.

    Attributes:
        name: Its name.
        kind: The function in `peers`.
        sizes: Its sizes; their meaning depends on `kind`.
        small: The sizes of a smoke run.
    """

    name: str
    kind: str
    sizes: tuple[int, ...]
    small: tuple[int, ...]


CASES = (
    Case("gelu_chain", "gelu_chain", (4096, 4096), (7, 64)),
    Case("softmax", "softmax", (8192, 1024), (7, 64)),
    Case("layer_norm", "layer_norm", (8192, 1024), (7, 64)),
    Case("mlp", "mlp", (128, 1024, 4096, 1024), (3, 16, 32, 16)),
    Case("mlp_1", "mlp", (1, 1024, 4096, 1024), (1, 16, 32, 16)),
    Case("attention", "attention", (12, 256, 64), (2, 8, 16)),
    Case("linear", "linear", (5, 10, 20, 5), (5, 10, 20, 5)),
)
BY_NAME = {case.name: case for case in CASES}
MLP_SCALE = 0.03  # about 1 / sqrt(1024): results of the size of the inputs


def inputs(case: Case, smoke: bool = False) -> dict[str, np.ndarray[Any, Any]]:
    """Returns the operands of a case by name, in the order in which its functions take them."""
    sizes = case.small if smoke else case.sizes
    normal = harness.normal
    if case.kind == "gelu_chain":
        bias = normal(sizes[1:], seed=1)
        return {"x": normal(sizes), "b": bias, "r": normal(sizes, seed=2)}
    if case.kind == "softmax":
        return {"x": normal(sizes)}
    if case.kind == "layer_norm":
        gamma, beta = normal(sizes[1:], seed=1), normal(sizes[1:], seed=2)
        return {"x": normal(sizes), "gamma": gamma, "beta": beta}
    if case.kind == "attention":
        return {name: normal(sizes, seed=seed) for seed, name in enumerate("qkv")}
    batch, width, hidden, out = sizes
    return {
        "x": normal((batch, width)),
        "w1": normal((hidden, width), MLP_SCALE, seed=1),
        "b1": normal((hidden,), seed=2),
        "w2": normal((out, hidden), MLP_SCALE, seed=3),
        "b2": normal((out,), seed=4),
    }


def limit(case: Case, arrays: dict[str, np.ndarray[Any, Any]]) -> tuple[str, Call] | None:
    """Returns the limit of a case: its name, and a call that takes as long."""
    if case.kind in ("gelu_chain", "softmax", "layer_norm"):
        nbytes = sum(array.nbytes for array in arrays.values()) + arrays["x"].nbytes
        call = limits.streaming_copy(nbytes)
        return call and (f"copy of {nbytes / 1e6:.0f} MB", call)
    if case.name == "mlp_1":
        nbytes = sum(array.nbytes for array in arrays.values())
        call = limits.reading(nbytes)
        return call and (f"reading {nbytes / 1e6:.0f} MB", call)
    if case.kind == "linear":
        return None
    if case.kind == "attention":
        q, k, v = arrays.values()
        return "products in NumPy", _products(q, k.transpose(0, 2, 1), v)
    return "products in NumPy", _products(arrays["x"], arrays["w1"].T, arrays["w2"].T)


def _products(x: Any, y: Any, z: Any) -> Call:
    """Returns a call of x @ y @ z."""
    first = harness.empty((*x.shape[:-1], y.shape[-1]))
    second = harness.empty((*x.shape[:-1], z.shape[-1]))

    def call() -> None:
        np.matmul(x, y, out=first)
        np.matmul(first, z, out=second)

    return call


def contenders(case: Case, chosen: Sequence[str], smoke: bool) -> dict[str, Call]:
    """Returns the calls of a case by name, checked against NumPy; the limit comes first."""
    arrays = inputs(case, smoke)
    expected = np.array(peers.numpy_call(case.kind, arrays)())
    call, kernels = peers.maxmod_call(case.kind, arrays)
    calls = {harness.maxmod_name(kernels): call}
    for peer in chosen:
        calls[harness.PEERS[peer]] = peers.peer_call(peer, case.kind, arrays)
    for name, made in calls.items():
        harness.check(f"{case.name}, {name}", made(), expected)
    bound = limit(case, arrays)
    return ({f"limit: {bound[0]}": bound[1]} if bound else {}) | calls


def options() -> argparse.ArgumentParser:
    """Returns the parser of this script."""
    parser = harness.parser(__doc__)
    parser.add_argument("--only", default="", help="names of workloads, comma-separated")
    return parser


def main() -> None:
    parser = options()
    args = harness.parse(parser)
    names = [name.strip() for name in args.only.split(",") if name.strip()] or list(BY_NAME)
    unknown = sorted(set(names) - set(BY_NAME))
    if unknown:
        parser.error(f"--only: unknown {', '.join(unknown)}; expected {', '.join(BY_NAME)}")
    facts = harness.machine(args.peers)
    harness.print_facts(facts)
    records = []
    for name in names:
        case = BY_NAME[name]
        timings = harness.measure(contenders(case, args.peers, args.smoke), args.rounds)
        harness.print_timings(name, timings)
        records += [harness.record(t, workload=name, contender=c) for c, t in timings.items()]
    harness.save(args, "workloads", facts, records)


if __name__ == "__main__":
    main()
