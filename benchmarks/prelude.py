"""The functions of the host prelude, on one thread: against libmvec, libm and the memory.

    python benchmarks/prelude.py [--only exp,tanh] [--smoke] [--json FILE]

Each loop reads 2048 floats and writes 2048 floats in the first-level cache, so arithmetic alone is
timed, in nanoseconds an element. The first two rows say what reading and writing costs: in the
cache, and through memory with streaming stores. A function below the second is hidden by the memory
in a kernel that reads and writes one array.

libmvec is the vector library of glibc, which GCC calls under -ffast-math; libm are its functions of
one number. Accuracy is not the same: ours are within 2.7 units in the last place (exp 0.9), libmvec
promises 4, libm 1.

Finding: the multiply-add pipes are the limit, so the polynomial degree decides; comparing
and selecting, also for NaN and overflow, costs next to nothing on AVX-512. A division costs as much
as five multiply-adds. A reduction declared with `omp declare reduction` goes through memory: keep
the maximum and "was there a NaN" in two built-in reductions.

Every operation counts: on a Zen 3 (AVX2) one more costs 0.02 ns an element. A power of two as the
product of two normal ones keeps subnormal results without a comparison; nanoseconds an element in
the first-level cache, with comparisons / with two factors, alternating in one run (December 2026):

    exp 0.45 / 0.39   silu 0.60 / 0.51   sigmoid 0.61 / 0.51   gelu_tanh 0.70 / 0.66
    gelu_none 1.07 / 0.88   (0.23 for exp without any care for results that are no normal number)
"""

from __future__ import annotations

import ctypes
import functools

import harness
import numpy as np
from harness import Call

from maxmod.backends.host import compiler as host_compiler
from maxmod.kernel.source import Dialect, KernelSource

COUNT = 2048  # floats in one block: two arrays of 8 KB
ROUNDS = 32  # so that the call itself does not count
MEMORY_COUNT = 1 << 24  # floats, 64 MB: more than the caches
FUNCTIONS = (
    "exp",
    "sigmoid",
    "tanh",
    "erf",
    "gelu_none",
    "gelu_tanh",
    "log",
    "log1p",
    "atanh",
    "acos",
    "sin",
    "cos",
    "rsqrt",
    "pow",
)
IN_LIBM = ("exp", "tanh", "erf", "log", "log1p", "atanh", "acos", "sin", "cos", "pow")

_LOOP = """
void mm_kernel(void *const *buffers, const int64_t *scalars)
{{
    const float *restrict x = buffers[0];
    float *restrict y = buffers[1];
    for (int64_t round = 0; round < scalars[1]; round++) {{
        #pragma omp simd
        for (int64_t i = 0; i < scalars[0]; i++)
            y[i] = {value};
        __asm__ volatile("" ::: "memory"); // every round is one that counts
    }}
}}
"""
_MEMORY = """
void mm_kernel(void *const *buffers, const int64_t *scalars)
{
    const float *restrict x = buffers[0];
    float *restrict y = buffers[1];
    for (int64_t first = 0; first < scalars[0]; first += 2048) {
        _Alignas(64) float row[2048];
        #pragma omp simd
        for (int64_t i = 0; i < 2048; i++)
            row[i] = x[first + i] * 1.5f;
        mm_stream_row(y + first, row, sizeof row);
    }
    mm_fence();
}
"""
_REDUCE = """
#pragma omp declare reduction(largest : float : omp_out = mm_max(omp_out, omp_in)) \\
    initializer(omp_priv = -INFINITY)
void mm_kernel(void *const *buffers, const int64_t *scalars)
{{
    const float *restrict x = buffers[0];
    for (int64_t round = 0; round < scalars[1]; round++) {{
        float m = -INFINITY;
        int nan = 0;
        #pragma omp simd {clauses}
        for (int64_t i = 0; i < scalars[0]; i++) {{
            {body}
        }}
        *(float *)buffers[1] = nan ? NAN : m;
        __asm__ volatile("" ::: "memory");
    }}
}}
"""
# With this declaration of a C library function, GCC calls the vector form in libmvec.
_VECTOR = """
#pragma omp declare simd notinbranch
extern float {name}f({parameters});
"""


def _arguments(name: str, second: str) -> str:
    return f"x[i], {second}" if name == "pow" else "x[i]"


def _source(kind: str, name: str) -> str:
    """Returns the kernel of a contender: `maxmod`, `libmvec` or `libm`."""
    if kind == "maxmod":
        return _LOOP.format(value=f"mm_{name}({_arguments(name, '1.5f')})")
    declaration = ""
    if kind == "libmvec":
        parameters = "float, float" if name == "pow" else "float"
        declaration = _VECTOR.format(name=name, parameters=parameters)
    return declaration + _LOOP.format(value=f"{name}f({_arguments(name, '1.5f')})")


REDUCTIONS = {
    "maximum, two built-in reductions": (
        "reduction(max : m) reduction(| : nan)",
        "m = x[i] > m ? x[i] : m; nan |= x[i] != x[i];",
    ),
    "maximum, declared reduction": ("reduction(largest : m)", "m = mm_max(m, x[i]);"),
    "sum": ("reduction(+ : m)", "m += x[i];"),
}


def _call(code: str, count: int, rounds: int) -> tuple[Call, int]:
    """Returns a call of a kernel, and the number of elements that it handles."""
    kernel = host_compiler.build(KernelSource("probe", Dialect.HOST, code, "mm_kernel", 2, 2))
    # One allocation, so that all contenders have the same distance between the arrays: stores
    # that end like the address of a later load, in the lowest 12 bits, delay it.
    both = harness.empty((2 * count + 512,))
    both[:] = np.random.default_rng(0).uniform(0.01, 0.99, both.size)
    buffers = (ctypes.c_void_p * 2)(both.ctypes.data, both[count + 512 :].ctypes.data)
    scalars = (ctypes.c_int64 * 2)(count, rounds)
    call = functools.partial(kernel.call, ctypes.addressof(buffers), ctypes.addressof(scalars))
    call.keep = (both, buffers, scalars)  # type: ignore[attr-defined]
    return call, count * rounds


def contenders(names: list[str], memory_count: int) -> dict[tuple[str, str], tuple[Call, int]]:
    """Returns the calls to time, by row and column, with their numbers of elements."""
    copy = _LOOP.format(value="x[i] * 1.5f")
    found = {
        ("read and write in the cache", "maxmod"): _call(copy, COUNT, ROUNDS),
        ("read and write memory, streaming", "maxmod"): _call(_MEMORY, memory_count, 1),
    }
    for title, (clauses, body) in REDUCTIONS.items():
        found[title, "maxmod"] = _call(_REDUCE.format(clauses=clauses, body=body), COUNT, ROUNDS)
    for name in names:
        found[name, "maxmod"] = _call(_source("maxmod", name), COUNT, ROUNDS)
        if name in IN_LIBM:
            found[name, "libm"] = _call(_source("libm", name), COUNT, ROUNDS)
            try:
                found[name, "libmvec"] = _call(_source("libmvec", name), COUNT, ROUNDS)
            except OSError:  # another C library
                continue
    return found


def main() -> None:
    """Prints the table."""
    parser = harness.parser(__doc__)
    parser.add_argument("--only", default="", help="comma-separated names of functions")
    args = harness.parse(parser)
    if host_compiler.unavailable_reason():
        raise SystemExit(host_compiler.unavailable_reason())
    names = [
        name for name in FUNCTIONS if name in (args.only.split(",") if args.only else FUNCTIONS)
    ]
    facts = harness.machine()
    harness.print_facts(facts)
    found = contenders(names, COUNT * 16 if args.smoke else MEMORY_COUNT)
    timings = harness.measure(
        {f"{a}/{b}": call for (a, b), (call, _) in found.items()}, args.rounds
    )
    rows, records = [], []
    times: dict[tuple[str, str], float] = {}
    for (row, column), (_, count) in found.items():
        timing = timings[f"{row}/{column}"]
        times[row, column] = timing.best_s / count * 1e9
        records.append(
            harness.record(timing, function=row, by=column, ns_per_element=times[row, column])
        )
    bound = times["read and write memory, streaming", "maxmod"]
    for row in dict.fromkeys(row for row, _ in found):
        own = times[row, "maxmod"]
        others = [times.get((row, column)) for column in ("libmvec", "libm")]
        cells = [harness.ratio(other, own) if other else "" for other in others]
        rows.append((row, f"{own:.3f}", harness.ratio(own, bound), *cells))
    header = ("one thread, best", "ns/element", "of memory", "libmvec", "libm")
    harness.print_table(header, rows)
    harness.save(args, "prelude", facts, records)


if __name__ == "__main__":
    main()
