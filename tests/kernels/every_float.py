"""Tries functions of the host prelude on all floats: each of the 2^32 bit patterns.

    python tests/kernels/every_float.py [exp sin ...] [--part N]

The reference is glibc's double functions (libmvec, at most 4 units in the last place of a double).
For each function it prints the largest error in units of the last place of float, where the
distance of denormal numbers is the unit below FLT_MIN, and how many results are NaN, infinite or 0
where the reference, rounded to float, is not, or the other way round: that must be none. With
`--part N` only every Nth block of 65536 numbers is tried. The exit status is 1 if a bound of
`LIMITS` is exceeded.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile

from maxmod.kernel import text
from maxmod.kernel.text import Dialect

# The double expression, and the largest error that is allowed.
LIMITS = {
    "exp": ("exp(x)", 1.0),
    "sigmoid": ("x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x))", 2.5),
    "silu": ("x < 0 ? x * exp(x) / (1 + exp(x)) : x / (1 + exp(-x))", 2.5),
    "gelu_none": ("0.5 * x * erfc(x * -0x1.6a09e667f3bcdp-1)", 6.5),
    # The argument of the sigmoid is rounded to float, and up to 100 times its error remains.
    "gelu_tanh": (
        "x / (1 + exp(-x * (0x1.9884533d43651p+0 + 0x1.2444f2a4d8b4bp-4 * x * x)))",
        256.0,
    ),
    "gelu_quick": ("x / (1 + exp(-1.702 * x))", 256.0),
    "tanh": ("tanh(x)", 2.7),
    "erf": ("erf(x)", 1.5),
    "log": ("log(x)", 1.0),
    "log1p": ("log1p(x)", 1.6),
    "sin": ("sin(x)", 2.0),
    "cos": ("cos(x)", 2.0),
    "atanh": ("atanh(x)", 2.7),
    "acos": ("acos(x > 1 ? 1 : x < -1 ? -1 : x)", 1.5),
}
BLOCK = 1 << 16
_VECTOR = "\n".join(
    f"#pragma omp declare simd notinbranch\nextern double {name}(double);"
    for name in ("exp", "erfc", "erf", "tanh", "log", "log1p", "atanh", "acos")
)
_LOOP = """
typedef struct {{ double worst; uint32_t at; int64_t wrong; uint32_t wrong_at; }} report;
static __attribute__((noinline)) void got(const float *restrict x, float *restrict y)
{{
    #pragma omp simd
    for (int i = 0; i < {block}; i++) y[i] = mm_{name}(x[i]);
}}
static __attribute__((noinline)) void want(const float *restrict in, double *restrict y)
{{
    #pragma omp simd
    for (int i = 0; i < {block}; i++) {{ const double x = in[i]; y[i] = {reference}; }}
}}
void try_block(uint32_t block, report *found)
{{
    static float x[{block}], y[{block}];
    static double z[{block}];
    for (int i = 0; i < {block}; i++) x[i] = mm_as_float(block * {block}u + i);
    got(x, y);
    want(x, z);
    for (int i = 0; i < {block}; i++) {{
        const float rounded = (float)z[i];
        const bool wrong = (rounded != rounded) != (y[i] != y[i])
            || (__builtin_isinf(rounded) != __builtin_isinf(y[i]) && fabs(z[i]) < 3.4028233e38)
            || ((fabs(z[i]) > 1e-45) && y[i] == 0) || (z[i] == 0 && y[i] != 0);
        if (wrong) {{ found->wrong++; found->wrong_at = block * {block}u + i; continue; }}
        if (!(fabs(z[i]) < 3.4028234e38)) continue;
        const double a = fmax(fabs(z[i]), 0x1p-126);
        const double unit = mm_as_double(mm_as_bits64(a) & 0x7ff0000000000000u) * 0x1p-23;
        const double error = fabs(y[i] - z[i]) / unit;
        if (error > found->worst) {{ found->worst = error; found->at = block * {block}u + i; }}
    }}
}}
"""


class Report(ctypes.Structure):
    """What was found so far."""

    _fields_ = (
        ("worst", ctypes.c_double),
        ("at", ctypes.c_uint32),
        ("wrong", ctypes.c_int64),
        ("wrong_at", ctypes.c_uint32),
    )


def try_function(name: str, part: int, folder: str) -> Report:
    """Returns what was found for one function."""
    code = _VECTOR + _LOOP.format(name=name, reference=LIMITS[name][0], block=BLOCK)
    source = text.prelude(Dialect.HOST, f"mm_{name}(") + code
    library = pathlib.Path(folder, f"{name}.so")
    flags = ["-std=gnu11", "-O3", "-march=native", "-fPIC", "-shared", "-ffp-contract=fast"]
    flags += ["-fno-math-errno", "-fno-trapping-math", "-fwrapv", "-fno-strict-aliasing"]
    command = [os.environ.get("CC", "gcc"), *flags, "-fopenmp-simd", "-x", "c", "-"]
    subprocess.run([*command, "-o", library, "-lmvec", "-lm"], input=source.encode(), check=True)
    found = Report()
    loaded = ctypes.CDLL(str(library))
    for block in range(0, (1 << 32) // BLOCK, part):
        loaded.try_block(block, ctypes.byref(found))
    return found


def main() -> int:
    """Prints a line for each function."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*LIMITS])
    parser.add_argument("--part", type=int, default=1, help="try every Nth block only")
    args = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names:
            found = try_function(name, args.part, folder)
            bad += found.wrong > 0 or found.worst > LIMITS[name][1]
            print(
                f"{name:10} {found.worst:8.3f} ulp at {found.at:#010x}, {found.wrong} of another "
                f"class (such as {found.wrong_at:#010x})",
                flush=True,
            )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
