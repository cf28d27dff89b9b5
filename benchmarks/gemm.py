"""Matrix products in float32: maxmod's own kernels, NumPy (OpenBLAS), PyTorch.

    python benchmarks/gemm.py [--shapes 128x1024x4096,1x768x768] [--layout out_in] [--smoke]

A shape is rows x depth x columns. The right operand is a weight of either layout: `out_in`, as
Linear keeps it, or `in_out`. The depth of every sum is the same for all contenders, the order of
its terms is not.

How to read it: `limit` is the machine's peak of multiply-adds (see limits.py) for many rows, and
reading the weight once for few; between 8 and 64 rows neither is near.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import harness
import limits
import numpy as np
from harness import Call

from maxmod import DeviceRef, Tensor, TensorType
from maxmod.runtime.compiled import compile_function

SHAPES = (
    "1x1024x4096,1x4096x1024,1x768x50257,4x1024x4096,16x1024x4096,32x1024x4096,"
    "128x768x768,128x768x2304,128x768x3072,128x3072x768,128x1024x4096,128x4096x1024,512x1024x1024"
)
SMALL = "1x16x32,20x16x33"
LAYOUTS = ("out_in", "in_out")
FEW_ROWS = 8  # up to here, reading the weight dominates


def contenders(
    sizes: Sequence[int], layout: str, peers: Sequence[str]
) -> tuple[dict[str, Call], dict[str, Any]]:
    """Returns the calls of one product by name, checked against NumPy."""
    rows, depth, columns = sizes
    x = harness.normal((rows, depth))
    w = harness.normal((columns, depth) if layout == "out_in" else (depth, columns), seed=1)
    right = w.T if layout == "out_in" else w
    out = harness.empty((rows, columns))
    host = DeviceRef.CPU()
    weight = Tensor.from_dlpack(w)
    model = compile_function(
        lambda a: a @ (weight.T if layout == "out_in" else weight),
        [TensorType(Tensor.from_dlpack(x).dtype, (rows, depth), host)],
        name="product",
        parameters={"weight": weight},
    )
    argument = Tensor.from_dlpack(x)
    calls: dict[str, Call] = {}
    if rows <= FEW_ROWS:
        reading = limits.reading(w.nbytes)
        if reading is not None:
            calls[f"limit: reading {w.nbytes / 1e6:.0f} MB"] = reading
    calls[harness.maxmod_name(len(model.kernels))] = lambda: model(argument).data
    if "numpy" in peers:
        calls["NumPy"] = lambda: np.matmul(x, right, out=out)
    if "torch" in peers:
        calls["PyTorch"] = _torch_call(x, right)
    expected = x @ right
    for name, call in calls.items():
        if not name.startswith("limit"):
            harness.check(name, call(), expected)
    return calls, {"flops": 2 * rows * depth * columns}


def _torch_call(x: Any, right: Any) -> Call:
    import torch

    a, b = torch.from_numpy(x), torch.from_numpy(right)

    def call() -> Any:
        with torch.inference_mode():
            return torch.matmul(a, b)

    return call


def options() -> argparse.ArgumentParser:
    """Returns the parser of this script."""
    parser = harness.parser(__doc__)
    parser.add_argument("--shapes", default="", help="rows x depth x columns, comma-separated")
    parser.add_argument("--layout", choices=LAYOUTS, help="of the weight; both by default")
    return parser


def main() -> None:
    args = harness.parse(options())
    args.peers = [peer for peer in args.peers if peer in ("numpy", "torch")]
    facts = harness.machine(args.peers)
    harness.print_facts(facts)
    shapes = (args.shapes or (SMALL if args.smoke else SHAPES)).split(",")
    records = []
    for shape in shapes:
        sizes = [int(size) for size in shape.split("x")]
        for layout in (args.layout,) if args.layout else LAYOUTS:
            calls, numbers = contenders(sizes, layout, args.peers)
            timings = harness.measure(calls, args.rounds)
            own = next(t for name, t in timings.items() if name.startswith("maxmod"))
            rate = numbers["flops"] / own.best_s / 1e9
            harness.print_timings(f"{shape} {layout}, {rate:.0f} GFLOP/s", timings)
            records += [
                harness.record(t, shape=shape, layout=layout, contender=name, **numbers)
                for name, t in timings.items()
            ]
    harness.save(args, "gemm", facts, records)


if __name__ == "__main__":
    main()
