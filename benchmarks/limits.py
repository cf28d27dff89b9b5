"""The limits of this machine: copying, reading, float32 arithmetic.

Everything else here is compared with these numbers, which are measured, not taken from a data
sheet:

- copy with streaming stores: what a fused kernel can move at best. A streaming store writes a line
  without reading it first; an ordinary store makes the CPU read each line that it writes, so
  a copy moves three bytes for two that are counted. Bytes count as read + written.
- copy with ordinary stores, and NumPy's `copyto`, which chooses for itself.
- read only: the limit of a matrix-vector product, whose weights are used once.
- float32 GEMM through NumPy, and the arithmetic peak: multiply-adds on registers alone.

Finding: GCC turns a plain copy loop into a call of memcpy, which uses streaming stores
itself; the option below keeps it a loop. Buffers must be touched before they are timed, and be
larger than the last cache together.

    python benchmarks/limits.py [--smoke] [--json FILE]
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import harness
import numpy as np
from harness import Call

from maxmod.backends.host import compiler as host_compiler
from maxmod.kernel.source import Dialect, KernelSource

COPY_NBYTES = 1 << 26  # of each of the two buffers
GEMM_SIZE = 2048
PEAK_STEPS = 1 << 16

# One entry for each probe; scalars[0] is the number of elements (steps, for the peak).
_PREAMBLE = """
#include <stdint.h>
#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
typedef float vec __attribute__((vector_size(4 * WIDTH)));
"""
# A task copies or reads the vectors from `first` to `end`.
_TASK = """
static void task(void *const *buffers, const int64_t *scalars, void *shared, char *room,
                 int64_t first, int64_t end)
{
"""
_ENTRY = """
void probe(void *const *buffers, const int64_t *scalars)
{
    mm_parallel(task, buffers, scalars, NULL, scalars[0] / WIDTH, 4096, 0);
}
"""
_COPY_STREAMING = (
    _TASK
    + """
    const float *x = buffers[0];
    float *y = buffers[1];
    for (int64_t i = first; i < end; i++) {
#if defined(__AVX512F__)
        _mm512_stream_ps(y + i * WIDTH, _mm512_load_ps(x + i * WIDTH));
#elif defined(__AVX__)
        _mm256_stream_ps(y + i * WIDTH, _mm256_load_ps(x + i * WIDTH));
#else
        *(vec *)(y + i * WIDTH) = *(const vec *)(x + i * WIDTH);
#endif
    }
#if defined(__AVX__)
    _mm_sfence();
#endif
}
"""
    + _ENTRY
)
_COPY_ORDINARY = (
    _TASK
    + """
    const float *x = buffers[0];
    float *y = buffers[1];
    for (int64_t i = first; i < end; i++)
        *(vec *)(y + i * WIDTH) = *(const vec *)(x + i * WIDTH);
}
"""
    + _ENTRY
)
_READ = (
    _TASK
    + """
    const uint32_t *x = buffers[0];
    uint32_t sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (int64_t i = first * WIDTH; i < end * WIDTH; i++)
        sum += x[i];
    __atomic_fetch_add((uint32_t *)buffers[1], sum, __ATOMIC_RELAXED);
}
"""
    + _ENTRY
)
# Twelve sums hide the latency of a multiply-add and leave room for the factor in 16 registers.
_PEAK = (
    _TASK
    + """
    float *y = buffers[1];
    for (int64_t item = first; item < end; item++) {
        vec sums[12], factor;
        for (int lane = 0; lane < WIDTH; lane++)
            factor[lane] = 0.5f;
        for (int k = 0; k < 12; k++)
            sums[k] = factor + (float)k;
        for (int64_t i = 0; i < scalars[0]; i++) {
            #pragma GCC unroll 12
            for (int k = 0; k < 12; k++)
                sums[k] = sums[k] * factor + factor;
        }
        for (int k = 1; k < 12; k++)
            sums[0] += sums[k];
        float total = 0;
        for (int lane = 0; lane < WIDTH; lane++)
            total += sums[0][lane];
        y[item] = total;
    }
}

void probe(void *const *buffers, const int64_t *scalars)
{
    const int64_t items = mm_threads->count();
    ((float *)buffers[0])[0] = (float)(WIDTH * items);
    mm_parallel(task, buffers, scalars, NULL, items, 1, 0);
}
"""
)
_PEAK_FLOPS = 2 * 12  # for each step and lane


@functools.cache
def _probes() -> dict[str, host_compiler.HostKernel]:
    """Builds the probes; empty without a C compiler."""
    if host_compiler.find() is None:
        return {}
    texts = {"streaming": _COPY_STREAMING, "ordinary": _COPY_ORDINARY, "read": _READ, "peak": _PEAK}
    sources = [
        KernelSource(
            name=f"probe_{name}",
            dialect=Dialect.HOST,
            plain=_PREAMBLE + text,
            entry="probe",
            buffers=2,
            scalars=1,
            options=("-fno-tree-loop-distribute-patterns",),
        )
        for name, text in texts.items()
    ]
    return dict(zip(texts, host_compiler.build_all(sources), strict=True))


def _bind(probe: str, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], count: int) -> Call | None:
    if probe not in _probes():
        return None
    table = (ctypes.c_void_p * 2)(x.ctypes.data, y.ctypes.data)
    scalars = (ctypes.c_int64 * 1)(count)
    kernel = _probes()[probe]

    def call() -> None:
        kernel(ctypes.addressof(table), ctypes.addressof(scalars))

    call.arrays = (x, y)  # type: ignore[attr-defined]  # keeps them alive
    return call


def streaming_copy(nbytes: int) -> Call | None:
    """Returns a call that reads half of `nbytes` and writes half; None without a C compiler."""
    x, y = _buffers(nbytes // 2)
    return _bind("streaming", x, y, x.size)


def reading(nbytes: int) -> Call | None:
    """Returns a call that reads `nbytes`; None without a C compiler."""
    x, _ = _buffers(nbytes)
    return _bind("read", x, np.zeros(16, np.float32), x.size)


def _buffers(nbytes: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x, y = harness.empty((nbytes // 4,)), harness.empty((nbytes // 4,))
    x.fill(1)
    y.fill(2)
    return x, y


def _peak_probe(steps: int) -> tuple[Call | None, float]:
    """Returns the probe of arithmetic and its number of operations: all lanes of all threads."""
    lanes, sums = np.zeros(1, np.float32), np.zeros(256, np.float32)  # one sum for each thread
    call = _bind("peak", lanes, sums, steps)
    if call is not None:
        call()
    return call, float(lanes[0]) * steps * _PEAK_FLOPS


def probes(copy_nbytes: int, gemm_size: int) -> dict[str, tuple[Call, float, str]]:
    """Returns the probes by name: a call, the work of one call in units of 1e9, and the unit."""
    x, y = _buffers(copy_nbytes)
    n = gemm_size
    a, b = harness.normal((n, n)), harness.normal((n, n), seed=1)
    c = harness.empty((n, n))
    steps = PEAK_STEPS if copy_nbytes == COPY_NBYTES else 64
    peak, peak_flops = _peak_probe(steps)
    copied = 2 * copy_nbytes
    candidates: dict[str, tuple[Callable[[], Any] | None, float, str]] = {
        "copy, streaming stores": (_bind("streaming", x, y, x.size), copied, "GB/s"),
        "copy, ordinary stores": (_bind("ordinary", x, y, x.size), copied, "GB/s"),
        "copy, NumPy copyto": (lambda: np.copyto(y, x), copied, "GB/s"),
        "read": (_bind("read", x, np.zeros(16, np.float32), x.size), copy_nbytes, "GB/s"),
        "float32 GEMM, NumPy": (lambda: np.matmul(a, b, out=c), 2 * n**3, "GFLOP/s"),
        "float32 multiply-adds": (peak, peak_flops, "GFLOP/s"),
    }
    return {name: (c, work / 1e9, unit) for name, (c, work, unit) in candidates.items() if c}


def main() -> None:
    args = harness.parse(harness.parser(__doc__))
    facts = harness.machine()
    harness.print_facts(facts)
    if not _probes():
        print("No C compiler: only what NumPy reaches is shown.\n")
    found = probes(1 << 20, 128) if args.smoke else probes(COPY_NBYTES, GEMM_SIZE)
    timings = harness.measure({name: call for name, (call, _, _) in found.items()}, args.rounds)
    rows = []
    records = []
    for name, (_, work, unit) in found.items():
        timing = timings[name]
        median, best = work / timing.median_s, work / timing.best_s
        rows.append((name, unit, f"{median:.1f}", f"{best:.1f}"))
        records.append(harness.record(timing, probe=name, unit=unit, median=median, best=best))
    harness.print_table(("limit", "unit", "median", "best"), rows)
    harness.save(args, "limits", facts, records)


if __name__ == "__main__":
    main()
