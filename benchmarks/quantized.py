"""Products with quantised weights: int8, int4 and float32, against reading the weights once.

    python benchmarks/quantized.py [--shapes 1x768x3072] [--group-size 32] [--smoke]

A shape is rows x depth x columns. One call multiplies with several weights of that shape in turn,
as many as are needed so that no cache holds them, as the layers of a model do. GB/s counts codes
and scales, or floats; `limit` reads as many bytes. The last column is the time of float32 divided
by that of the row: what quantising brings where the product is all there is.

Findings on 2 cores of an AMD EPYC (Zen 4: AVX-512 with VNNI), November 2026:

- Prefetching into the first-level cache is bound by its few outstanding lines: 1 x 3072 x 768 took
  115 us, and 71 with a prefetch of 8192 bytes ahead into the second-level cache.
- Weights below 4 MB get no huge pages from NumPy, and took 83 us where 71 is with huge pages.

Findings on one core of an AMD EPYC (Zen 3: AVX2, no VNNI), December 2026, in CPU time, the best of
several, for 768 x 3072 and 2048 x 2048 from the caches. Products of floats, of codes that became
floats, were replaced by exact sums of integers of 16 bits. Time after / before:

    rows   int8          int4
       1   0.74  0.66    0.73  0.71
       2   0.68  0.72    0.85  0.90
       4   0.67  0.69    0.65  0.68
       8   0.62  0.56    0.52  0.55
       9   0.68  0.66    0.78  0.76
      16   0.61  0.65    0.73  0.76
      64   0.65  0.63    0.80  0.79
     128   0.63  0.64    0.79  0.81
     512   0.62  0.57    0.76  0.75

Times of our float32 / those of int8 and int4, in one run (NumPy takes 0.9 to 1.3 of our float32):

    9 x 768 x 3072      1.81  1.93
    16 x 768 x 3072     1.69  1.64
    64 x 768 x 3072     1.42  1.22
    64 x 2048 x 2048    1.50  1.25
    512 x 768 x 3072    1.23  1.05
    512 x 576 x 1536    1.21  1.02

- AVX2 multiplies 16 pairs of 16 bits in an instruction. It multiplies 32 pairs of bytes, but they
  need a second multiplication to become sums of 32 bits, so that digits of 8 bits are no faster.
  31 bits, as the digits for VNNI had before, take twice the instructions.
- A large weight that no cache holds is at the limit with one row: 576 x 49152 of int8 takes 1.82 ms
  on one core, before 1.85.
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

ROWS = (1, 2, 4, 8, 16, 64, 128, 512)
SHAPES = ",".join(
    ("1x3072x768,1x768x50257,1x2048x8192,1x8192x2048", *(f"{rows}x768x3072" for rows in ROWS))
)
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
