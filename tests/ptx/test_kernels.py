"""Hand-written kernels as PTX: every way through them, against float64."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from compiler.cuda import test_cuda_attention, test_cuda_gemv
from cuda_template import CudaTemplate

from maxmod.backends.cuda import nvrtc
from maxmod.compiler.codegen.cuda.attention import emit_few, emit_many, emit_mma
from maxmod.dtype import storage_dtype
from maxmod.op.ir import bind_type
from maxmod.values.dim import evaluate
from ptx import Buffer, Counts, Grid, launch
from ptx.compiling import kernels_of
from ptx.text import Kernel

pytestmark = pytest.mark.skipif(
    not nvrtc.is_available(), reason="needs NVRTC: pip install 'cuda-toolkit[nvrtc]'"
)
RESIDENT_THREADS = 4096
# By depth and by column; one row, some and many; one chunk of K and two; several warps a column.
GEMV = [test_cuda_gemv.CASES[n] for n in (0, 1, 4, 6, 8, 11)]
# One part and two, of which the last block adds up; masks; copies and products of tensor cores.
ATTENTION = {
    "few, grouped": (emit_few, test_cuda_attention.FEW[0], (1, 1, 300)),
    "few, causal": (emit_few, test_cuda_attention.FEW[5], (1, 3, 37)),
    "many": (emit_many, test_cuda_attention.MANY[2], (1, 33, 40)),
    "mma, grouped": (emit_mma, test_cuda_attention.MMA[2], (1, 33, 40)),
    "mma, padded": (emit_mma, test_cuda_attention.MMA[5], (1, 33, 40)),
}


@functools.cache
def _made() -> dict[Any, tuple[CudaTemplate, Kernel]]:
    templates: dict[Any, CudaTemplate] = {case: test_cuda_gemv._template(case) for case in GEMV}
    for name, (emit, case, _) in ATTENTION.items():
        fn = test_cuda_attention._function(case)
        templates[name] = CudaTemplate(fn, case.types, emit)
    kernels = kernels_of([template.source for template in templates.values()])
    return dict(zip(templates, zip(templates.values(), kernels, strict=True), strict=True))


def _run(key: Any, arrays: list[Any], dims: dict[str, int]) -> tuple[Any, Counts]:
    template, kernel = _made()[key]
    source, group = template.source, template.group
    given = dict(zip(template.graph.inputs, arrays, strict=True)) | dict(template.graph.constants)
    type = bind_type(group.outputs[0].type, dims)
    made = Buffer.made(type.sizes, storage_dtype(type.dtype))
    buffers = [*(np.asarray(given[value], order="C") for value in group.inputs), made]
    scratch, counters = (evaluate(n, dims) for n in (source.scratch_floats, source.counters))
    buffers += [Buffer.made((scratch,), np.float32)] if scratch else []
    buffers += [Buffer(np.zeros(counters, np.uint32))] if counters else []
    scalars = [np.int64(dims[name]) for name in source.symbols]
    grid = Grid(*source.launch.grid(dims, RESIDENT_THREADS))
    counts = launch(kernel, grid, [*buffers, *scalars])
    assert not counters or not buffers[-1].array.any(), "counters must be left at 0"
    return made.array.astype(np.float64), counts


@pytest.mark.parametrize("case", GEMV, ids=str)
def test_products(case: Any) -> None:
    rng = np.random.default_rng(case.n)
    for rows in (1, 3, 5) if case.rows == "m" else (case.rows,):
        shapes = [(rows, case.k), case.types[1].sizes, (case.n,)]
        arrays = [rng.standard_normal(s).astype(storage_dtype(case.dtype)) for s in shapes]
        found, counts = _run(case, arrays, {"m": rows})
        wanted = test_cuda_gemv._wanted(arrays, case.transposed)
        tolerance = test_cuda_gemv.TOLERANCE[case.dtype] * max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)
        assert counts.pass_ratio <= 1.1


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str) -> None:
    _, case, sizes = ATTENTION[name]
    arrays = test_cuda_attention._arrays(case, *sizes)
    found, counts = _run(name, arrays, dict(zip("bst", sizes, strict=True)))
    wanted = test_cuda_attention._wanted(case, arrays)
    tolerance = test_cuda_attention.TOLERANCE[case.dtype]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)
    assert counts.pass_ratio <= 1.25
