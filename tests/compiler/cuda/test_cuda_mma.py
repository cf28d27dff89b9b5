"""Tensor cores, matrix loads and copies under the shim, against the figures of the PTX ISA.

The shim computes positions with formulas; here they are written down as the figures show them.
Source: PTX ISA 8.7, "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix".
"""

from __future__ import annotations

import functools
from typing import Any

import cuda_shim
import ml_dtypes
import numpy as np
import pytest

from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect

# Which lane has an element of a matrix of 8 x 8: two neighbours of a row are in one register.
LANES = np.array(
    [
        [0, 0, 1, 1, 2, 2, 3, 3],
        [4, 4, 5, 5, 6, 6, 7, 7],
        [8, 8, 9, 9, 10, 10, 11, 11],
        [12, 12, 13, 13, 14, 14, 15, 15],
        [16, 16, 17, 17, 18, 18, 19, 19],
        [20, 20, 21, 21, 22, 22, 23, 23],
        [24, 24, 25, 25, 26, 26, 27, 27],
        [28, 28, 29, 29, 30, 30, 31, 31],
    ]
)
# The first element of a lane (a0 to a7, b0 to b3, c0 to c3) in each part of 8 x 8 of a matrix.
LEFT = [[0, 4], [2, 6]]
RIGHT = [[0], [2]]
SUMS = [[0], [2]]

TEXT = """
extern "C" __global__ void multiply_float16(
    const uint32_t *left, const uint32_t *right, const float *given, float *out)
{
    const int lane = threadIdx.x;
    uint32_t a[4];
    float c[4];
    for (int i = 0; i < 4; i++) {
        a[i] = left[4 * lane + i];
        c[i] = given[4 * lane + i];
    }
    mm_multiply<false>(c, a, right[2 * lane], right[2 * lane + 1]);
    for (int i = 0; i < 4; i++)
        out[4 * lane + i] = c[i];
}
"""
LOAD = """
extern "C" __global__ void load_plain(const uint16_t *rows, uint32_t *out)
{
    __shared__ mm_eight eights[33];
    uint16_t *const shared = eights[0].v;
    const int lane = threadIdx.x;
    for (int i = 0; i < 8; i++)
        shared[(31 - lane) * 8 + i] = rows[8 * lane + i]; // in no order that might help
    __syncthreads();
    uint32_t r[4];
    mm_load_matrices<false>(r, reinterpret_cast<const mm_eight *>(shared + (31 - lane) * 8));
    for (int i = 0; i < 4; i++)
        out[4 * lane + i] = r[i];
}
"""
COPY = """
extern "C" __global__ void copy(const uint16_t *from, uint16_t *early, uint16_t *late)
{
    __shared__ mm_eight shared[32];
    const int lane = threadIdx.x;
    mm_copy_later(shared + lane, from + 8 * lane, lane % 2 == 0);
    for (int i = 0; i < 8; i++)
        early[8 * lane + i] = shared[lane].v[i];
    mm_wait_for_copies();
    for (int i = 0; i < 8; i++)
        late[8 * lane + i] = shared[lane].v[i];
}
"""
PACK = """
extern "C" __global__ void pack(const float *x, uint32_t *float16, uint32_t *bfloat16)
{
    const int lane = threadIdx.x;
    float16[lane] = mm_pack<false>(x[2 * lane], x[2 * lane + 1]);
    bfloat16[lane] = mm_pack<true>(x[2 * lane], x[2 * lane + 1]);
}
"""
CODES = {
    "multiply_float16": TEXT,
    "multiply_bfloat16": TEXT.replace("float16", "bfloat16").replace("<false>", "<true>"),
    "load_plain": LOAD,
    "load_transposed": LOAD.replace("plain", "transposed").replace("<false>", "<true>"),
    "load_unaligned": LOAD.replace("plain", "unaligned").replace(
        "shared + (31 - lane) * 8)", "shared + (31 - lane) * 8 + 1)"
    ),
    "copy": COPY,
    "pack": PACK,
}


@functools.cache
def _kernels() -> dict[str, cuda_shim.Kernel]:
    codes = [cuda_shim.Code(text, name) for name, text in CODES.items()]
    prelude = kernel_text.prelude(Dialect.CUDA) + kernel_text.read("cuda/mma.h")
    return dict(zip(CODES, cuda_shim.Module(codes, prelude).kernels, strict=True))


def _run(name: str, *args: Any) -> None:
    _kernels()[name]((1,), (32,), args)


def _place(first: list[list[int]], row: int, column: int, *, by_columns: bool) -> tuple[int, int]:
    """Returns the lane of an element and its number there."""
    r, c = row % 8, column % 8
    r, c = (c, r) if by_columns else (r, c)  # two neighbours of a column are in one register
    return int(LANES[r, c]), first[row // 8][column // 8] + c % 2


def _spread(matrix: Any, first: list[list[int]], *, by_columns: bool = False) -> Any:
    """Returns [lane, element] of a matrix."""
    rows, columns = matrix.shape
    found = np.zeros((32, rows * columns // 32), matrix.dtype)
    for row in range(rows):
        for column in range(columns):
            place = _place(first, row, column, by_columns=by_columns)
            found[place] = matrix[row, column]
    return found


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_products(name: str) -> None:
    rng = np.random.default_rng(1)
    dtype = np.dtype(np.float16 if name == "float16" else ml_dtypes.bfloat16)
    left, right = (rng.standard_normal(shape).astype(dtype) for shape in ((16, 16), (16, 8)))
    given = rng.standard_normal((16, 8)).astype(np.float32)
    out = np.zeros((32, 4), np.float32)
    a = _spread(left, LEFT).view(np.uint32)
    b = _spread(right, RIGHT, by_columns=True).view(np.uint32)
    _run(f"multiply_{name}", a, b, _spread(given, SUMS), out)
    wanted = left.astype(np.float64) @ right.astype(np.float64) + given
    np.testing.assert_array_equal(out, _spread(wanted.astype(np.float32), SUMS))


def test_formulas_give_the_place_of_every_fragment() -> None:
    """Lane 5 has groupID 1 and threadID_in_group 1."""
    left = [(1, 2), (1, 3), (9, 2), (9, 3), (1, 10), (1, 11), (9, 10), (9, 11)]
    right = [(2, 1), (3, 1), (10, 1), (11, 1)]
    sums = [(1, 2), (1, 3), (9, 2), (9, 3)]
    for number, place in enumerate(left):
        assert _place(LEFT, *place, by_columns=False) == (5, number)
    for number, place in enumerate(right):
        assert _place(RIGHT, *place, by_columns=True) == (5, number)
    for number, place in enumerate(sums):
        assert _place(SUMS, *place, by_columns=False) == (5, number)


@pytest.mark.parametrize("name", ["plain", "transposed"])
def test_loads(name: str) -> None:
    """Lanes 0 to 7 point to the rows of the first matrix, lanes 8 to 15 to those of the second."""
    rows = np.arange(32 * 8, dtype=np.uint16)
    out = np.zeros((32, 4), np.uint32)
    _run(f"load_{name}", rows, out)
    found = out.view(np.uint16).reshape(32, 4, 2)
    for number, matrix in enumerate(rows.reshape(4, 8, 8)):
        wanted = _spread(matrix.T if name == "transposed" else matrix, [[0]])
        np.testing.assert_array_equal(found[:, number], wanted)


def test_a_row_that_is_not_aligned_is_refused() -> None:
    with pytest.raises(cuda_shim.ShimError, match="not a multiple of 16"):
        _run("load_unaligned", np.zeros(256, np.uint16), np.zeros(128, np.uint32))


def test_copies_arrive_late() -> None:
    rows = np.arange(32 * 8, dtype=np.uint16).reshape(32, 8)
    early, late = np.zeros_like(rows), np.zeros_like(rows)
    _run("copy", rows, early, late)
    assert (early == 0xFFFF).all()  # what shared memory starts with
    np.testing.assert_array_equal(late[::2], rows[::2])
    assert not late[1::2].any()


def test_two_floats_in_a_register() -> None:
    x = np.random.default_rng(2).standard_normal(64).astype(np.float32)
    x[:4] = [np.inf, -np.inf, 1e6, np.nan]
    halves, bfloats = np.zeros(32, np.uint32), np.zeros(32, np.uint32)
    _run("pack", x, halves, bfloats)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(halves.view(np.float16), x.astype(np.float16))
    np.testing.assert_array_equal(
        bfloats.view(ml_dtypes.bfloat16).astype(np.float32),
        x.astype(ml_dtypes.bfloat16).astype(np.float32),
    )
