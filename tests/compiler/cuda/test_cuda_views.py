"""Pointwise kernels: views, broadcasts, symbolic sizes, alignment, and the text for them."""

from __future__ import annotations

import functools
from typing import Any

import cuda_shim
import numpy as np
import pytest
from cuda_function import CudaFunction, build, sources_of
from cuda_programs import VIEWS, M, N, view_types
from helpers import assert_close, numbers, tensor, wide

from maxmod import functional as F
from maxmod.compiler.codegen.cuda.text import QUOTIENT
from maxmod.dtype import DType
from maxmod.kernel.source import SHARED_NBYTES, Grid, Launch
from maxmod.values.device import CPU_REF
from maxmod.values.dim import SymbolicDim
from maxmod.values.tensor_type import TensorType

SIZES = ((5, 8), (1, 1), (0, 4), (3, 7), (40, 100), (2, 2048))


def _function(name: str, dtype: DType) -> CudaFunction:
    fn, _, shapes = VIEWS[name]
    return CudaFunction(fn, *view_types(shapes, dtype))


@functools.cache
def _built() -> dict[tuple[str, DType], CudaFunction]:
    made = {
        (name, dtype): _function(name, dtype)
        for name in VIEWS
        for dtype in (DType.float32, DType.bfloat16)
    }
    build([*made.values()])
    return made


@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("name", VIEWS)
def test_values(name: str, dtype: DType) -> None:
    _, oracle, shapes = VIEWS[name]
    rng = np.random.default_rng(0)
    sizes = SIZES if any(N in shape for shape in shapes) else ((0, 0),)
    for n, m in sizes:
        known = {N: n, M: m}
        arrays = [numbers(rng, dtype, [known.get(s, s) for s in shape]) for shape in shapes]
        expected = oracle(*[wide(array) for array in arrays])
        for order in (0, 3):
            (found,) = _built()[name, dtype](*arrays, order=order)
            assert_close(tensor(found), expected, ulps=2)


def _code(name: str, dtype: DType = DType.float32) -> str:
    return _function(name, dtype).source.code


@pytest.mark.parametrize(
    ("name", "dtype", "width"),
    [
        ("row", DType.float32, 4),
        ("row", DType.bfloat16, 8),
        ("row", DType.float64, 2),
        ("row", DType.int8, 8),
        ("slice", DType.float32, 4),
        ("slice", DType.bfloat16, 4),  # starts 8 bytes into a row
        ("outer", DType.float32, 4),
        ("heads", DType.bfloat16, 8),
        ("odd_row", DType.float32, 1),
        ("odd_slice", DType.float32, 1),
        ("steps", DType.float32, 2),  # six results in a row, read from every third place
    ],
)
def test_vectors_are_as_wide_as_sizes_allow(name: str, dtype: DType, width: int) -> None:
    code = _code(name, dtype)
    assert ("constexpr int V = " in code) == (width > 1)
    assert width == 1 or f"constexpr int V = {width};" in code


def test_rows_of_prime_length_have_a_scalar_version() -> None:
    code = _code("prime")
    assert "mm_elements<4>(" in code
    assert "mm_elements<1>(" in code


def test_symbolic_rows_ask_whether_vectors_fit() -> None:
    assert "if (s_m % 4 == 0)" in _code("symbolic_row")
    assert "if (s_m % 8 == 0)" in _code("symbolic_row", DType.bfloat16)
    assert "% 4 == 0" not in _code("symbolic_rows")


def test_small_positions_have_32_bits() -> None:
    def code(*sizes: Any) -> str:
        return sources_of(lambda x: x + 1, TensorType(DType.int8, sizes, CPU_REF))[0].code

    assert "int64_t" not in code(1 << 14, 1 << 14)
    assert "int64_t mm_work" in code(1 << 16, 1 << 15)
    assert "int64_t mm_work" in code("n")


def test_mixed_types_share_one_width() -> None:
    """Four floats and four bytes, each read at once."""
    types = [TensorType(d, [64], CPU_REF) for d in (DType.float32, DType.bool)]
    (source,) = sources_of(lambda x, keep: F.where(keep, x, 0), *types)
    assert "constexpr int V = 4;" in source.code
    assert "mm_vector<uint8_t, V>" in source.code


# ---- launch rules --------------------------------------------------------------------------------


def test_grids_cover_the_elements_up_to_the_resident_threads() -> None:
    launch = _function("symbolic", DType.float32).source.launch
    assert launch.grid({"n": 0}, 1 << 20) == Grid(0, 256, 0)
    assert launch.grid({"n": 1}, 1 << 20) == Grid(1, 256, 0)
    assert launch.grid({"n": 1024}, 1 << 20).blocks == 1
    assert launch.grid({"n": 1025}, 1 << 20).blocks == 2
    assert launch.grid({"n": 1 << 40}, 132 * 2048) == Grid(132 * 8, 256, 0)
    assert launch.grid({"n": 1 << 40}, 1).blocks == 1


def test_short_rows_take_few_threads() -> None:
    x = TensorType(DType.float32, ["n", "m"], CPU_REF)
    launch = sources_of(lambda x: F.softmax(x), x)[0].launch
    threads = {m: launch.grid({"n": 9, "m": m}, 1 << 20).threads for m in (1, 128, 129, 600, 9999)}
    assert threads == {1: 32, 128: 32, 129: 64, 600: 256, 9999: 512}


def test_rows_that_do_not_fit_get_no_shared_memory() -> None:
    launch = Launch(4, 1, 512, SymbolicDim("n"))
    assert launch.grid({"n": SHARED_NBYTES}, 1 << 20).shared_nbytes == SHARED_NBYTES
    assert launch.grid({"n": SHARED_NBYTES + 4}, 1 << 20).shared_nbytes == 0


# ---- parts ---------------------------------------------------------------------------------------

_DIVIDE = """
extern "C" __global__ void divide(const int64_t *a, const int64_t *b, int64_t *c, int n)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        c[i] = mm_quotient(a[i], b[i]);
}
"""


def test_quotient_of_any_sizes() -> None:
    rng = np.random.default_rng(2)
    count = 4000
    a = np.abs(rng.integers(0, 1 << 62, count)) >> rng.integers(0, 62, count)
    b = np.maximum(rng.integers(0, 1 << 40, count) >> rng.integers(0, 40, count), 1)
    a[:8] = [0, 1, (1 << 32) - 1, 1 << 32, (1 << 62) - 1, 1 << 62, 7 << 40, (7 << 40) - 1]
    b[:8] = [1, 1, (1 << 32) - 1, 1 << 32, 3, 1, 7 << 40, 7 << 40]
    c = np.zeros(count, np.int64)
    module = cuda_shim.Module([cuda_shim.Code(QUOTIENT + _DIVIDE, "divide")])
    module.kernels[0]((1,), (64,), (a, b, c, np.int32(count)))
    np.testing.assert_array_equal(c, a // b)
