"""Runs statements over arrays in both kernel dialects: what the tests of the preludes share."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import cuda_shim
import numpy as np

from maxmod.backends.host import compiler as host_compiler
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource

ENTRY = "mm_kernel"
THREADS = 256
C_NAMES = {
    "bool": "uint8_t",
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
    "uint64": "uint64_t",
    "float32": "float",
    "float64": "double",
}


def host_source(types: Sequence[str], statements: Sequence[str]) -> KernelSource:
    """Returns a kernel with one loop over `i` for each statement; buffers are `a0`, `a1`, ..."""
    lines = [f"void {ENTRY}(void *const *buffers, const int64_t *scalars)", "{"]
    for number, kind in enumerate(types):
        lines.append(f"    {kind} *restrict a{number} = buffers[{number}];")
    lines.append("    const int64_t n = scalars[0];")
    for statement in statements:
        lines += [
            "    #pragma omp simd",
            "    for (int64_t i = 0; i < n; i++) {",
            f"        {statement}",
            "    }",
        ]
    code = "\n".join([*lines, "}", ""])
    return KernelSource("prelude", Dialect.HOST, code, ENTRY, len(types), 1)


def cuda_source(types: Sequence[str], statements: Sequence[str]) -> KernelSource:
    """Returns the same for CUDA: each thread handles one position `i`."""
    parameters = ", ".join(f"{kind} *a{number}" for number, kind in enumerate(types))
    lines = [
        f'extern "C" __global__ void {ENTRY}({parameters}, long long n)',
        "{",
        "    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;",
        "    if (i >= n)",
        "        return;",
        *(f"    {{ {statement} }}" for statement in statements),
        "}",
        "",
    ]
    return KernelSource("prelude", Dialect.CUDA, "\n".join(lines), ENTRY, len(types), 1)


def c_types(arrays: Sequence[np.ndarray[Any, Any]]) -> list[str]:
    """Returns the C types of array elements."""
    return [C_NAMES[array.dtype.name] for array in arrays]


def run_host(statements: Sequence[str], arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    """Runs statements on arrays, which they change."""
    kernel = host_compiler.build(host_source(c_types(arrays), statements))
    buffers = (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])
    kernel(buffers, (ctypes.c_int64 * 1)(arrays[0].size))


def run_cuda(statements: Sequence[str], arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    """Runs statements on arrays, which they change, as CUDA threads on the host."""
    source = cuda_source(c_types(arrays), statements)
    code = cuda_shim.Code(source.plain, ENTRY)
    module = cuda_shim.Module([code], kernel_text.prelude(Dialect.CUDA))
    size = arrays[0].size
    blocks = -(-size // THREADS)
    module.kernels[0]((blocks,), (THREADS,), (*arrays, np.int64(size)))


Runner = Callable[[Sequence[str], Sequence[np.ndarray[Any, Any]]], None]
RUNNERS: dict[str, Runner] = {"host": run_host, "cuda": run_cuda}


def unavailable_reason(dialect: str) -> str:
    """Why a dialect cannot run here; empty if it can."""
    if dialect == "cuda":
        return cuda_shim.unavailable_reason()
    return host_compiler.unavailable_reason()
