"""Rows and maps on the host: generated kernels against copying as many bytes.

    python benchmarks/rows.py [--only softmax,gelu] [--dtypes float32] [--shapes 8192x1024]

Each kernel is called without Python around it, and takes turns with a copy by all threads that
reads and writes as many bytes: with `memcpy` and with streaming stores, the faster of the two. The
worst ratio comes first. Shapes go from the first-level cache to far beyond the last one; few long
rows, many short ones, odd lengths.

Loops before / after (blocks of 512 elements, early requests for the next row, tiles of columns,
shares by the inverse; both with today's prelude) in float32, as times of the copy, alternating in
one run on 2 cores of a Zen 3 (AVX2, December 2026). The copy itself varies twofold between runs of
this shared machine, so that only the two columns of a pair compare well:

                   8192 x 1024     512 x 1024      20000 x 48
    copy             1.04  0.93      0.72  0.67      0.79  0.73
    gelu_chain       1.56  1.55      1.64  1.45      1.67  1.46
    softmax          2.55  2.08      2.09  1.89      2.89  2.80
    layer_norm       1.49  1.13      1.48  1.40      1.81  1.60
    rms_norm         1.16  0.95      1.05  0.80      1.06  0.81
    exp              1.48  1.36      1.59  1.38      1.57  1.29
    silu             1.77  1.73      2.34  2.05      1.86  1.57
    gelu             2.74  2.75      3.18  2.95      2.89  2.71
    transpose + 1   31.27  3.42     20.13  2.77      6.88  2.72
    to_bfloat16      4.35  2.92      4.31  2.13      4.83  2.24
    to_float16       8.97  1.94     10.79  1.07     11.89  1.12

After / before for 8192 x 1024 in float16 and, in another run, bfloat16:

    softmax 0.27 0.58   layer_norm 0.19 0.55   gelu_chain 0.36 0.77   silu 0.32 0.58
    transpose + 1 0.12 0.26   sums of rows 0.51 0.69

What is above 1.3 there mostly computes longer than the memory takes: exp costs 0.39 ns an element
and thread, copying 0.2 (caches) to 0.35 (memory). Not measured with AVX-512.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import harness
import ml_dtypes
import numpy as np

import maxmod.functional as F
from maxmod import DeviceRef, DType, Module, Tensor, TensorType
from maxmod.backends.host import compiler as host_compiler
from maxmod.kernel.source import Dialect, KernelSource

SHAPES = ("4x1024", "64x1023", "512x1024", "20000x48", "8192x1024", "8191x1025", "16x524288")
SMOKE_SHAPES = ("3x65",)
SAMPLE_S = 2e-4
DTYPES = ("float32", "bfloat16", "float16")

_COPY = """
static void task(void *const *buffers, const int64_t *scalars, void *shared, char *room,
                 int64_t first, int64_t end)
{
    const char *const from = buffers[0];
    char *const to = buffers[1];
    const int64_t nbytes = scalars[0];
    for (int64_t n = first; n < end; n++) {
        const size_t count = (size_t)mm_min_i64(4096, nbytes - 4096 * n);
        if (scalars[1])
            mm_stream_row(to + 4096 * n, from + 4096 * n, count);
        else
            memcpy(to + 4096 * n, from + 4096 * n, count);
    }
    if (scalars[1])
        mm_fence();
}

void probe(void *const *buffers, const int64_t *scalars)
{
    const int64_t count = (scalars[0] + 4095) / 4096;
    mm_parallel(task, buffers, scalars, NULL, count, mm_portion(count, 1024), 0);
}
"""

Build = Callable[..., Any]


def _silu(x: Tensor) -> Tensor:
    return F.silu(x)


CASES: dict[str, tuple[Build, tuple[str, ...]]] = {
    "copy": (lambda x: x * 1.5, ("x",)),
    "gelu_chain": (lambda x, b, r: F.gelu(x * 1.5 + b, approximate="tanh") + r, ("x", "b", "x")),
    "gelu": (F.gelu, ("x",)),
    "silu": (_silu, ("x",)),
    "exp": (F.exp, ("x",)),
    "tanh": (F.tanh, ("x",)),
    "sigmoid": (F.sigmoid, ("x",)),
    "sin": (F.sin, ("x",)),
    "erf": (F.erf, ("x",)),
    "log": (F.log, ("x",)),
    "softmax": (F.softmax, ("x",)),
    "log_softmax": (F.logsoftmax, ("x",)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, w, b, epsilon=1e-5), ("x", "b", "b")),
    "rms_norm": (lambda x, w: F.rms_norm(x, w, 1e-5), ("x", "b")),
    "argmax": (lambda x: F.argmax(x, axis=-1), ("x",)),
    "sum_rows": (lambda x: F.sum(x, axis=-1), ("x",)),
    "sum_columns": (lambda x: F.sum(x, axis=0), ("x",)),
    "max_rows": (lambda x: F.max(x, axis=-1), ("x",)),
    "transpose": (lambda x: F.transpose(x, 0, 1) + 1, ("x",)),
    "gather": (lambda x, i: F.gather(x, i, axis=0), ("x", "i")),
    "to_float32": (lambda x: F.cast(x, DType.float32), ("x",)),
    "to_bfloat16": (lambda x: F.cast(x, DType.bfloat16), ("x",)),
    "to_float16": (lambda x: F.cast(x, DType.float16), ("x",)),
}


class _Function(Module[..., Any]):
    def __init__(self, function: Build) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        """Calls the function."""
        return self.function(*args)


@dataclass(frozen=True)
class Job:
    """One kernel with its buffers, and the copy of as many bytes.

    Attributes:
        name: Case, dtype and shape.
        call: Runs the kernel.
        copies: Run the two copies.
        nbytes: Bytes that the kernel reads and writes.
    """

    name: str
    call: Callable[[], Any]
    copies: tuple[Callable[[], Any], ...]
    nbytes: int


def sources(case: str, dtype: DType, shape: tuple[int, int]) -> tuple[KernelSource, ...]:
    """Returns the kernels of a case."""
    build, operands = CASES[case]
    cpu = DeviceRef.CPU()
    types = {
        "x": TensorType(dtype, shape, cpu),
        "b": TensorType(dtype, shape[1:], cpu),
        "i": TensorType(DType.int64, shape[:1], cpu),
    }
    return _Function(build).compile(*(types[name] for name in operands)).kernels


def _values(type: TensorType) -> np.ndarray[Any, Any]:
    """Returns an array for an input: positive and negative numbers, or rows in random order."""
    shape = tuple(int(size) for size in type.shape)
    is_brain = type.dtype is DType.bfloat16
    dtype = ml_dtypes.bfloat16 if is_brain else type.dtype.to_numpy()
    array = harness.empty(shape, dtype)
    rng = np.random.default_rng(0)
    if type.dtype is DType.int64:
        array[...] = rng.permutation(shape[0])
    else:
        array[...] = rng.standard_normal(shape, np.float32)
    return array


@functools.cache
def _copy_kernel() -> host_compiler.HostKernel:
    return host_compiler.build(KernelSource("copy", Dialect.HOST, _COPY, "probe", 2, 2))


def _bound(kernel: host_compiler.HostKernel, arrays: list[Any], *scalars: int) -> Callable[[], Any]:
    table = (ctypes.c_void_p * (len(arrays) + 2))(None, *(a.ctypes.data for a in arrays), None)
    flag = np.zeros(1, np.int64)
    table[len(arrays) + 1] = flag.ctypes.data
    numbers = (ctypes.c_int64 * max(len(scalars), 1))(*scalars)
    call = functools.partial(kernel.call, ctypes.addressof(table) + 8, ctypes.addressof(numbers))
    call.keep = (table, numbers, arrays, flag)  # type: ignore[attr-defined]
    return call


def job(name: str, source: KernelSource) -> Job:
    """Builds a kernel and its buffers."""
    group = source.reading.group  # type: ignore[union-attr]
    ins = [_values(value.type) for value in group.inputs]
    outs = [_values(value.type) for value in group.outputs]
    kernel = host_compiler.build(source)
    nbytes = sum(array.nbytes for array in [*ins, *outs])
    half = (nbytes + 1) // 2
    both = [harness.empty((half,), np.uint8) for _ in range(2)]
    for array in both:
        array.fill(1)
    copies = tuple(_bound(_copy_kernel(), both, half, stream) for stream in (0, 1))
    return Job(name, _bound(kernel, [*ins, *outs]), copies, nbytes)


def _timed(call: Callable[[], Any], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def measure(found: Job, rounds: int) -> tuple[float, float]:
    """Returns the best time of the kernel and that of the better copy, taken in turns."""
    calls = [found.call, *found.copies]
    counts = [max(1, int(SAMPLE_S / max(_timed(call, 2), 1e-9))) for call in calls]
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for n, call in enumerate(calls):
            best[n] = min(best[n], _timed(call, counts[n]))
    return best[0], min(best[1:])


def _jobs(args: argparse.Namespace) -> list[tuple[str, KernelSource]]:
    found = []
    for case in args.only.split(",") if args.only else CASES:
        for dtype in args.dtypes.split(","):
            for text in args.shapes.split(","):
                rows, columns = map(int, text.split("x"))
                for source in sources(case, DType[dtype], (rows, columns)):
                    found.append((f"{case} {dtype} {text}", source))
    return found


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", default="", help=f"comma-separated, of {', '.join(CASES)}")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--shapes", default="")
    args = harness.parse(parser)
    args.shapes = args.shapes or ",".join(SMOKE_SHAPES if args.smoke else SHAPES)
    facts = harness.machine()
    harness.print_facts(facts)
    rows, records = [], []
    jobs = _jobs(args)
    host_compiler.build_all([source for _, source in jobs])
    for name, source in jobs:
        found = job(name, source)
        own, copy = measure(found, args.rounds)
        rows.append((own / copy, (name, harness.duration(own), harness.ratio(own, copy))))
        records.append({"name": name, "nbytes": found.nbytes, "own_s": own, "copy_s": copy})
    rows.sort(key=lambda row: -row[0])
    header = ("kernel", "best", "of copying")
    harness.print_table(header, [cells for _, cells in rows])
    harness.save(args, "rows", facts, records)


if __name__ == "__main__":
    main()
