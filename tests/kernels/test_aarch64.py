"""Quantised products built for AArch64 by zig and run by QEMU: the bits of the rule."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ops.samples_quantized import integers
from quantized_rule import linear

from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.runtime.compiled import compile_function

ZIG = (
    [sys.executable, "-m", "ziglang"]
    if importlib.util.find_spec("ziglang")
    else [found]
    if (found := shutil.which("zig"))
    else []
)
QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
pytestmark = pytest.mark.skipif(not ZIG or not QEMU, reason="needs ziglang and qemu-user")

ROWS, DEPTH, COLUMNS = 9, 160, 21
# Reads x, codes and scales from a file, each after its size, and writes the results.
MAIN = """
#include <stdio.h>

static void run(
    mm_task *task, void *const *buffers, const int64_t *scalars, void *shared, int64_t count,
    int64_t step, size_t room)
{
    char *const memory = aligned_alloc(64, (room + 127) / 64 * 64);
    task(buffers, scalars, shared, memory, 0, count);
    free(memory);
}

static int64_t one(void) { return 1; }

int main(int count, char **names)
{
    static const mm_thread_functions functions = {run, one};
    static float results[1 << 16];
    void *table[5] = {0};
    FILE *const from = fopen(names[1], "rb");
    for (int i = 0; i < 3; i++) {
        int64_t nbytes;
        fread(&nbytes, 8, 1, from);
        table[1 + i] = malloc(nbytes);
        fread(table[1 + i], 1, nbytes, from);
    }
    table[4] = results;
    mm_threads = &functions;
    const int64_t rows = atoi(names[2]);
    mm_kernel(table + 1, &rows);
    fwrite(results, 4, rows * atoi(names[3]), stdout);
    return 0;
}
"""


def _run(*command: object) -> bytes:
    return subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=300).stdout


@pytest.mark.parametrize("group", [None, 32])
@pytest.mark.parametrize("features", ["generic", "generic+dotprod"])
def test_quantised_products(group: int | None, features: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weight: Any = rng.normal(size=(COLUMNS, DEPTH)).astype(np.float32)
    x: Any = rng.normal(size=(ROWS, DEPTH)).astype(np.float32)
    x[1, 60], x[2], x[3, 5], x[4, 9] = 1e9, 0, np.inf, np.nan
    codes, scales = F.quantize_weight(
        Tensor(weight, device=CPU()), "int4" if group else "int8", group
    )
    types = [TensorType(DType.float32, ["n", DEPTH], CPU()), codes.type, scales.type]
    model = compile_function(F.quantized_linear, types, name="f", parameters={})
    (kernel,) = model.kernels
    (tmp_path / "k.c").write_text(kernel.full_text() + MAIN, "utf-8")
    with (tmp_path / "in").open("wb") as file:
        for array in (x, codes.to_numpy(), scales.to_numpy()):
            file.write(np.int64(array.nbytes).tobytes() + array.tobytes())
    flags = ("-std=gnu11", "-O1", "-ffp-contract=fast", "-fwrapv", "-fno-strict-aliasing", "-w")
    target = ("-target", "aarch64-linux-musl")
    _run(
        *ZIG,
        "cc",
        *target,
        f"-mcpu={features}",
        *flags,
        "-c",
        tmp_path / "k.c",
        "-o",
        tmp_path / "k.o",
    )
    _run(*ZIG, "cc", *target, tmp_path / "k.o", "-o", tmp_path / "k", "-lm")
    whole = integers(codes.to_numpy(), scales.to_numpy())
    wanted = linear(x, whole, scales.to_numpy(), group)
    for rows in (1, 3, ROWS):
        found = np.frombuffer(
            _run(QEMU, tmp_path / "k", tmp_path / "in", rows, COLUMNS), np.float32
        )
        np.testing.assert_array_equal(found.reshape(rows, COLUMNS), wanted[:rows])
