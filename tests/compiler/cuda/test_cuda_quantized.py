"""Products with quantised weights: the CUDA text on the host, and compiled by NVRTC."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cuda_shim
import numpy as np
import pytest
from compiler.graphs import traced
from cuda_registers import assert_no_spills
from emulated_cuda import emulated_cuda
from helpers import tensor
from ops.samples_quantized import linear4, linear8, linear_with_minimums

import maxmod
from maxmod import CPU, DType, TensorType
from maxmod import functional as F
from maxmod.backends.cuda import nvrtc
from maxmod.compiler.codegen.cuda.contraction import emit_gemv
from maxmod.compiler.fusion.plan import plan_groups
from maxmod.compiler.groups.group import Contraction
from maxmod.dtype import storage_dtype
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.ops.weight_quantization import quantized_types
from maxmod.runtime.compiled import compile_function
from maxmod.values.device import CPU_REF

RESIDENT_THREADS = 4096  # of a small GPU, so that blocks go over several columns
ORACLES = {"int8": linear8, "int4": linear_with_minimums, "int4_symmetric": linear4}
TOLERANCE = {DType.float32: 4e-6, DType.bfloat16: 5e-3}


@dataclass(frozen=True)
class Case:
    """relu(x @ w.T + b) of x [m, k] and w [n, k], in groups if it is int4."""

    dtype: DType
    group: int | None
    n: int
    k: int
    rows: int | str = "m"
    scheme: str = "int4"

    @property
    def types(self) -> list[TensorType]:
        """Of x, codes, scales and b."""
        weight = TensorType(DType.float32, [self.n, self.k], CPU_REF)
        codes, scales = quantized_types(weight, self.scheme, self.group)
        x = TensorType(self.dtype, [self.rows, self.k], CPU_REF)
        return [x, codes, scales, TensorType(self.dtype, [self.n], CPU_REF)]


CASES = [
    Case(DType.bfloat16, None, 33, 48, scheme="int8"),
    Case(DType.bfloat16, None, 9, 6200, scheme="int8"),
    Case(DType.float32, None, 5, 7, scheme="int8"),
    Case(DType.float32, None, 4100, 64, 1, scheme="int8"),
    Case(DType.bfloat16, 64, 33, 192, scheme="int8"),
    Case(DType.float32, 32, 5, 2048, scheme="int8"),
    Case(DType.float32, 64, 4100, 128, 1, scheme="int8"),
    Case(DType.bfloat16, 32, 33, 96),
    Case(DType.bfloat16, 64, 9, 6208),
    Case(DType.bfloat16, 64, 9, 6208, scheme="int4_symmetric"),
    Case(DType.float32, 32, 5, 2048, scheme="int4_symmetric"),
    Case(DType.float32, 32, 5, 2048),
    Case(DType.float32, 128, 4100, 128, 1),
]


def _source(case: Case) -> tuple[KernelSource, list[str]]:
    """The kernel, and the types of its inputs in order."""

    def fn(x: Any, w: Any, s: Any, b: Any) -> Any:
        return F.relu(F.quantized_linear(x, w, s) + b)

    groups = plan_groups(traced(fn, *case.types), template_dialect=Dialect.CUDA)
    (group,) = [group for group in groups if isinstance(group.template, Contraction)]
    assert isinstance(group.template, Contraction)
    source = emit_gemv(group, group.template, "quantized_linear_add_relu")
    return source, [str(value.type) for value in group.inputs]


@functools.cache
def _kernels() -> dict[Case, cuda_shim.Kernel]:
    codes = [cuda_shim.Code(_source(case)[0].plain, "mm_kernel") for case in CASES]
    module = cuda_shim.Module(codes, kernel_text.prelude(Dialect.CUDA))
    return dict(zip(CASES, module.kernels, strict=True))


@pytest.mark.parametrize("order", [0, 17])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_products(case: Case, order: int) -> None:
    """In step, and with each warp as far as it can go."""
    rng = np.random.default_rng(case.n)
    weight = rng.standard_normal((case.n, case.k)).astype(np.float32)
    made = [t.data for t in F.quantize_weight(tensor(weight), case.scheme, case.group)]
    bias = rng.standard_normal(case.n).astype(storage_dtype(case.dtype))
    source, names = _source(case)
    for rows in (1, 2, 5, 8) if case.rows == "m" else (case.rows,):
        assert isinstance(rows, int)
        x = rng.standard_normal((rows, case.k)).astype(storage_dtype(case.dtype))
        by_type = dict(zip(map(str, case.types), [x, *made, bias], strict=True))
        out = np.full((rows, case.n), np.nan, storage_dtype(case.dtype))
        grid = source.launch.grid({"m": rows}, RESIDENT_THREADS)
        scalars = [np.int64(rows)] if source.symbols else []
        arrays = [*(by_type[name] for name in names), out, *scalars]
        shape = (grid.blocks,), (grid.threads,)
        _kernels()[case](*shape, arrays, grid.shared_nbytes, order=order)
        oracle = ORACLES[case.scheme]
        sums = oracle(x.astype(np.float64), made[0].astype(np.int64), made[1].astype(np.float64))
        wanted = np.maximum(sums + bias.astype(np.float64), 0)
        tolerance = TOLERANCE[case.dtype] * max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(out.astype(np.float64), wanted, rtol=0, atol=tolerance)


# ---- as the planner uses it ----------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["m", 3, 12])
@pytest.mark.parametrize(
    ("dtype", "group"),
    [(DType.float32, None), (DType.float32, 64), (DType.bfloat16, 32), (DType.float64, 32)],
    ids=["int8", "int4", "bfloat16", "float64"],
)
def test_few_rows_read_codes_and_many_rows_read_floats(
    rows: int | str, dtype: DType, group: int | None
) -> None:
    """What follows is done by our kernel, or by the library. Sums in float64 are the library's."""
    case = Case(dtype, group, 24, 128, rows)
    weight = np.random.default_rng(1).standard_normal((case.n, case.k)).astype(np.float32)
    made = F.quantize_weight(tensor(weight), "int4" if group else "int8", group)
    oracle = linear_with_minimums if group else linear8
    with emulated_cuda() as (device, backend):
        codes, scales = (t.to(device) for t in made)
        types = [TensorType(t.dtype, t.shape, device) for t in (case.types[0], case.types[3])]

        def fn(x: Any, b: Any) -> Any:
            return F.gelu(F.quantized_linear(x, codes, scales) + b, approximate="tanh")

        weights = {"codes": codes, "scales": scales}
        with maxmod.configure(check=True):
            compiled = compile_function(fn, types, name="f", parameters=weights)
            for count in (3, 12, 8, 9) if rows == "m" else (rows,):
                assert isinstance(count, int)
                rng = np.random.default_rng(count)
                arrays = [rng.standard_normal(s) for s in ((count, case.k), (case.n,))]
                arrays = [array.astype(storage_dtype(dtype)) for array in arrays]
                backend.cuda.products.calls.clear()
                found = compiled(*[tensor(array).to(device) for array in arrays]).to(CPU())
                x, b = (array.astype(np.float64) for array in arrays)
                codes_and_scales = [np.asarray(t.data).astype(np.float64) for t in made]
                y = oracle(x, codes_and_scales[0].astype(np.int64), codes_and_scales[1]) + b
                wanted = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
                # A weight in bfloat16 is rounded, beyond what its codes are.
                tolerance = {DType.bfloat16: 0.02}.get(dtype, 4e-6) * np.abs(wanted).max()
                values = np.asarray(found.data).astype(np.float64)
                np.testing.assert_allclose(values, wanted, rtol=0, atol=tolerance)
                is_ours = count <= 8 and dtype is not DType.float64
                products = [call for call in backend.cuda.products.calls if call[-2] != 1]
                assert len(products) == (0 if is_ours or dtype is DType.float64 else 1)
                if is_ours:
                    assert not backend.cuda.products.calls
        names = [kernel.name for kernel in compiled.kernels]
        has_ours = rows != 12 and dtype is not DType.float64
        assert ("quantized_linear_bias_gelu" in names) == has_ours


@pytest.mark.skipif(
    not nvrtc.is_available(), reason="needs NVRTC: pip install 'cuda-toolkit[nvrtc]'"
)
def test_no_spills() -> None:
    """With matrices of an 8B model and of GPT-2."""
    cases = [
        *(Case(DType.bfloat16, group, 28672, 4096) for group in (None, 128)),
        *(Case(DType.bfloat16, group, 1024, 4096) for group in (None, 32)),
        *(Case(DType.float32, group, 2304, 768) for group in (None, 32)),
    ]
    # Two blocks of 256 threads on a multiprocessor.
    assert_no_spills([_source(case)[0] for case in cases], registers=128)
