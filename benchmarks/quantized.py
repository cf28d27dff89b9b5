"""Products with quantised weights: int8, int4 and float32, against reading the weights once.

    python benchmarks/quantized.py [--shapes 1x768x3072] [--group-size 32] [--smoke]

A shape is rows x depth x columns. One call multiplies with several weights of that shape in turn,
as many as are needed so that no cache holds them, as the layers of a model do. GB/s counts codes
and scales, or floats; `limit` reads as many bytes. The last column is the time of float32 divided
by that of the row: what quantising brings where the product is all there is.

Findings on 2 cores of an AMD EPYC (Zen 4), November 2026:

- int8 by way of floats is bound by instructions: three for 16 codes, and loads of 512 bits, of
  which there is one in a cycle. 1 x 768 x 50257 was at half the limit. Products of bytes, with the
  row as four digits of a byte, need one for 64 codes and a digit, and are at the limit (1.09 ms).
- Prefetching into the first-level cache is bound by its few outstanding lines: 1 x 3072 x 768 took
  115 us, and 71 with a prefetch of 8192 bytes ahead into the second-level cache.
- Weights below 4 MB get no huge pages from NumPy, and took 83 us where 71 is with huge pages.
- int4 is still bound by instructions (20 GB/s). With products of bytes the sums of each group would
  become floats on their own, four digits each: hardly fewer instructions for groups of 32 than now.

Findings on 2 cores of an AMD EPYC (Zen 3: AVX2, no VNNI), December 2026: what it costs that a row
has the same bits in any batch. Time after / before, alternating in one run, for 768 x 3072 and
2048 x 2048:

    rows   int8          int4
       1   0.99  0.93    0.99  1.00
       8   1.02  1.04    0.90  1.00
       9   0.77  0.71    0.66  0.69
      64   1.28  1.19    1.20  1.16
     128   1.32  1.24    1.28  1.22
     512   1.44  1.56    1.33  1.32

The prompt of a quantised model pays for it; a faster tile in the order of one row is missing.
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
from maxmod import functional as F
from maxmod.runtime.compiled import compile_function

SHAPES = "1x768x3072,1x3072x768,1x768x50257,1x2048x8192,1x8192x2048,4x768x3072,128x768x3072"
SMALL = "1x64x48,20x64x33"
CODE_BYTES = 96 << 20  # of the int8 weights of one call: three times the last cache of a server


def contenders(sizes: Sequence[int], count: int, group_size: int) -> dict[str, tuple[Call, int]]:
    """Returns calls with the bytes of the weights that they read, checked against NumPy."""
    rows, depth, columns = sizes
    x = harness.normal((rows, depth))
    argument = Tensor.from_dlpack(x)
    floats = [harness.normal((columns, depth), seed=1 + i) for i in range(count)]
    weights = [Tensor.from_dlpack(w) for w in floats]
    models: dict[str, tuple[Any, dict[str, Tensor]]] = {
        "float32": (lambda x, w: x @ w.T, {f"w{i}": w for i, w in enumerate(weights)})
    }
    exact = {"float32": x @ floats[-1].T}
    for name, group in (("int8", None), (f"int4, groups of {group_size}", group_size)):
        pairs = [F.quantize_weight(w, name[:4], group) for w in weights]
        named = {f"{kind}{i}": t for i, pair in enumerate(pairs) for kind, t in zip("ws", pair)}
        models[name] = (F.quantized_linear, named)
        exact[name] = x @ F.dequantize_weight(*pairs[-1]).to_numpy().T
    calls: dict[str, tuple[Call, int]] = {}
    for name, (product, named) in models.items():
        operands = list(named.values())
        each = len(operands) // count
        model = compile_function(
            lambda a, product=product, operands=operands, each=each: [
                product(a, *operands[i : i + each]) for i in range(0, len(operands), each)
            ],
            [TensorType(argument.dtype, (rows, depth), DeviceRef.CPU())],
            name="products",
            parameters=named,
        )
        nbytes = sum(int(t.type.nbytes) for t in operands)
        harness.check(name, model(argument)[-1].to_numpy(), exact[name])
        calls[name] = (lambda model=model: model(argument)[-1].data, nbytes)
        reading = limits.reading(nbytes) if rows == 1 else None
        if reading is not None:
            calls[f"limit: reading {nbytes / 1e6:.0f} MB"] = (reading, nbytes)
    return calls


def options() -> argparse.ArgumentParser:
    """Returns the parser of this script."""
    parser = harness.parser(__doc__)
    parser.add_argument("--shapes", default="", help="rows x depth x columns, comma-separated")
    parser.add_argument("--group-size", type=int, default=32, help="of int4")
    return parser


def main() -> None:
    args = harness.parse(options())
    facts = harness.machine()
    harness.print_facts(facts)
    records = []
    for shape in (args.shapes or (SMALL if args.smoke else SHAPES)).split(","):
        sizes = [int(size) for size in shape.split("x")]
        count = 2 if args.smoke else -(-CODE_BYTES // (sizes[1] * sizes[2]))
        calls = contenders(sizes, count, args.group_size)
        timings = harness.measure({name: call for name, (call, _) in calls.items()}, args.rounds)
        rows = []
        for name, (_, nbytes) in calls.items():
            timing = timings[name]
            times = timings["float32"].median_s / timing.median_s
            rate = nbytes / np.float64(timing.median_s) / 1e9
            rows.append(
                (name, f"{timing.median_s / count * 1e3:.3f}", f"{rate:.1f}", f"{times:.2f}")
            )
            records.append(
                harness.record(timing, shape=shape, contender=name, weights=count, nbytes=nbytes)
            )
        print(f"{shape}, {count} weights")
        harness.print_table(("contender", "ms a weight", "GB/s", "x float32"), rows)
    harness.save(args, "quantized", facts, records)


if __name__ == "__main__":
    main()
