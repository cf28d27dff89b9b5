"""Products of a few rows with a matrix: the CUDA text on the host, and compiled by NVRTC."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cuda_registers import assert_no_spills
from cuda_template import CudaTemplate, build

from maxmod import DType, TensorType
from maxmod import functional as F
from maxmod.backends.cuda import nvrtc
from maxmod.compiler.codegen.cuda.contraction import emit_gemv
from maxmod.dtype import storage_dtype
from maxmod.values.device import CPU_REF

TOLERANCE = {DType.float32: 2e-6, DType.bfloat16: 5e-3, DType.float16: 8e-4}


@dataclass(frozen=True)
class Case:
    """A product [m, k] @ [k, n]; the matrix is stored as [n, k] if it is transposed."""

    dtype: DType
    transposed: bool
    n: int
    k: int
    rows: int | str = "m"

    @property
    def types(self) -> list[TensorType]:
        """Of left operand, matrix and bias."""
        matrix = [self.n, self.k] if self.transposed else [self.k, self.n]
        shapes: list[Any] = [[self.rows, self.k], matrix, [self.n]]
        return [TensorType(self.dtype, shape, CPU_REF) for shape in shapes]


# Odd depths and widths, one column, one element, several warps or lanes for a column, more than is
# staged at once.
CASES = [
    *(Case(DType.bfloat16, True, n, k) for n, k in ((33, 40), (9, 6200), (1, 1))),
    *(Case(DType.bfloat16, False, n, k) for n, k in ((200, 77), (33, 40), (8, 1700))),
    *(Case(DType.float32, True, n, k, 1) for n, k in ((64, 7), (4100, 36))),
    *(Case(DType.float32, False, n, k, 3) for n, k in ((64, 7), (1, 9))),
    Case(DType.float16, True, 130, 512, 8),
    Case(DType.float16, False, 136, 50, 1),
]


def _template(case: Case) -> CudaTemplate:
    def fn(x: Any, w: Any, b: Any) -> Any:
        return F.gelu(x @ (w.T if case.transposed else w) + b)

    return CudaTemplate(fn, case.types, emit_gemv)


@functools.cache
def _templates() -> dict[Case, CudaTemplate]:
    made = {case: _template(case) for case in CASES}
    build(list(made.values()))
    return made


def _run(case: Case, arrays: list[Any], order: int) -> Any:
    return _templates()[case](*arrays, order=order)


def _wanted(arrays: list[Any], transposed: bool) -> Any:
    x, w, b = (array.astype(np.float64) for array in arrays)
    sums = x @ (w.T if transposed else w) + b
    return 0.5 * sums * (1 + np.vectorize(math.erf)(sums / math.sqrt(2)))


@pytest.mark.parametrize("order", [0, 2, 3, 17])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_products(case: Case, order: int) -> None:
    """In step, and with each warp as far as it can go."""
    rng = np.random.default_rng(case.n)
    for rows in (1, 2, 3, 5, 8) if case.rows == "m" else (case.rows,):
        shapes = [(rows, case.k), case.types[1].sizes, (case.n,)]
        arrays = [rng.standard_normal(s).astype(storage_dtype(case.dtype)) for s in shapes]
        found, wanted = (
            _run(case, arrays, order).astype(np.float64),
            _wanted(arrays, case.transposed),
        )
        tolerance = TOLERANCE[case.dtype] * max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("transposed", [True, False])
def test_nan_and_infinity_stay_in_the_same_row_and_column(transposed: bool) -> None:
    case = CASES[0] if transposed else CASES[4]
    rng = np.random.default_rng(1)
    shapes = [(3, case.k), case.types[1].sizes, (case.n,)]
    arrays = [rng.standard_normal(s).astype(storage_dtype(case.dtype)) for s in shapes]
    arrays[0][1, 4] = np.nan
    matrix = arrays[1] if transposed else arrays[1].T
    matrix[7, 39] = np.inf
    found = _run(case, arrays, 0).astype(np.float64)
    assert np.isnan(found[1]).all()
    assert not np.isfinite(found[[0, 2], 7]).any()
    assert np.isfinite(np.delete(found[[0, 2]], 7, axis=1)).all()


def test_a_row_does_not_depend_on_how_many_there_are() -> None:
    """Batches of any size give the same bits."""
    case = CASES[1]
    rng = np.random.default_rng(2)
    shapes = [(8, case.k), case.types[1].sizes, (case.n,)]
    arrays = [rng.standard_normal(s).astype(storage_dtype(case.dtype)) for s in shapes]
    whole = _run(case, arrays, 0)
    for rows in (1, 2, 4, 7):
        part = _run(case, [arrays[0][:rows], *arrays[1:]], 3)
        np.testing.assert_array_equal(part, whole[:rows])


@pytest.mark.skipif(
    not nvrtc.is_available(), reason="needs NVRTC: pip install 'cuda-toolkit[nvrtc]'"
)
def test_no_spills() -> None:
    """With the matrices of an 8B model and those of GPT-2."""
    shapes = [(28672, 4096), (1024, 4096), (2304, 768)]
    cases = [
        *(Case(DType.bfloat16, True, n, k) for n, k in shapes[:2]),
        *(Case(DType.bfloat16, False, n, k) for n, k in shapes[::2]),
        *(Case(DType.float32, transposed, 28672, 4096) for transposed in (True, False)),
    ]
    # Two blocks of 256 threads on a multiprocessor.
    assert_no_spills([_template(case).source for case in cases], registers=128)
