"""Matrix products through cuBLAS, for every layout that it can read where it lies.

cuBLAS wants columns one after another, our arrays have rows one after another; so the transposed
product is asked for, which is the same memory. Transposed operands and batches are described by
strides, without copies. `plan` is arithmetic on shapes and needs no GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from maxmod.dtype import DType, storage_dtype

# From library_types.h and cublas_api.h: data types, compute types, operations.
_DATA_TYPES = {
    storage_dtype(DType.float32): 0,
    storage_dtype(DType.float64): 1,
    storage_dtype(DType.float16): 2,
    storage_dtype(DType.bfloat16): 14,
}
_COMPUTE_32F = 68
_COMPUTE_64F = 70
_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT
_ONE = {np.float32: np.ones(1, np.float32), np.float64: np.ones(1, np.float64)}
_ZERO = {np.float32: np.zeros(1, np.float32), np.float64: np.zeros(1, np.float64)}


class Layout(NamedTuple):
    """Shape and strides of an array, both in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Operand(NamedTuple):
    """How cuBLAS reads a matrix: the operation (1 transposes), and the step between columns."""

    operation: int
    leading: int


class Batch(NamedTuple):
    """A run of equal products: how many, and the step from one to the next of each array."""

    count: int
    lhs: int
    rhs: int
    out: int


class Gemm(NamedTuple):
    """Products of matrices of the same shape.

    Attributes:
        m: Rows of the left matrix.
        n: Columns of the right matrix.
        k: Columns of the left matrix.
        lhs: How to read the left matrix.
        rhs: How to read the right matrix.
        leading: Step between rows of the result.
        batch: The products that one call does.
        offsets: Where each call starts, in elements of (lhs, rhs, out).
    """

    m: int
    n: int
    k: int
    lhs: Operand
    rhs: Operand
    leading: int
    batch: Batch
    offsets: tuple[tuple[int, int, int], ...]


def plan(lhs: Layout, rhs: Layout, out: Layout) -> Gemm | None:
    """Returns the cuBLAS calls that write `lhs @ rhs` into `out`, or None if there are none.

    Args:
        lhs: [..., m, k]; the leading axes broadcast.
        rhs: [..., k, n].
        out: [..., m, n], rows contiguous.
    """
    m, k = lhs.shape[-2:]
    n = rhs.shape[-1]
    sizes = out.shape[:-2]
    steps = [_batch_steps(layout, len(sizes)) for layout in (lhs, rhs, out)]
    batches = _merged([Batch(size, *step) for size, *step in zip(sizes, *steps, strict=True)])
    lhs_rows, lhs_columns = lhs.strides[-2:]
    if len(batches) == 1 and batches[0].rhs == 0 and _continues(batches[0], m, lhs, out):
        m *= batches.pop().count  # one product of many rows is faster than many products
    left = _operand(m, k, lhs_rows, lhs_columns)
    right = _operand(k, n, *rhs.strides[-2:])
    result = _operand(m, n, *out.strides[-2:])
    if left is None or right is None or result is None or result.operation:
        return None
    last = max(batches, key=lambda batch: batch.count) if batches else Batch(1, 0, 0, 0)
    others = [batch for batch in batches if batch is not last]
    return Gemm(m, n, k, left, right, result.leading, last, _starts(others))


def _batch_steps(layout: Layout, rank: int) -> list[int]:
    """Returns the steps of the leading axes, 0 where an axis broadcasts."""
    own = [0 if size == 1 else step for size, step in zip(layout.shape, layout.strides)][:-2]
    return [0] * (rank - len(own)) + own


def _merged(batches: Sequence[Batch]) -> list[Batch]:
    """Joins neighbouring axes that every array steps through evenly; drops axes of size 1."""
    found: list[Batch] = []
    for batch in batches:
        if batch.count == 1:
            continue
        count, *steps = batch
        if found and [count * step for step in steps] == list(found[-1][1:]):
            found[-1] = Batch(found[-1].count * count, *steps)
        else:
            found.append(batch)
    return found


def _continues(batch: Batch, m: int, lhs: Layout, out: Layout) -> bool:
    """True if the rows of the next matrix follow evenly after the last row of this one."""
    return batch.lhs == m * lhs.strides[-2] and batch.out == m * out.strides[-2]


def _operand(rows: int, columns: int, row_step: int, column_step: int) -> Operand | None:
    """Describes a matrix, or None if neither its rows nor its columns are contiguous."""
    if (columns == 1 or column_step == 1) and (rows == 1 or row_step >= columns):
        return Operand(0, max(row_step if rows > 1 else columns, columns, 1))
    if (rows == 1 or row_step == 1) and (columns == 1 or column_step >= rows):
        return Operand(1, max(column_step if columns > 1 else rows, rows, 1))
    return None


def _starts(batches: Sequence[Batch]) -> tuple[tuple[int, int, int], ...]:
    starts = []
    for position in itertools.product(*[range(batch.count) for batch in batches]):
        steps = list(zip(position, batches))
        starts.append(
            (
                sum(i * batch.lhs for i, batch in steps),
                sum(i * batch.rhs for i, batch in steps),
                sum(i * batch.out for i, batch in steps),
            )
        )
    return tuple(starts)


def can_multiply(lhs: Any, rhs: Any, out: Any) -> bool:
    """True if cuBLAS has a product for the dtypes, accumulated in float32 or float64."""
    return lhs.dtype == rhs.dtype == out.dtype and out.dtype in _DATA_TYPES


def multiply(cupy: Any, lhs: Any, rhs: Any, out: Any) -> None:
    """Writes `lhs @ rhs` into `out`, on the current device and stream.

    Args:
        cupy: The module.
        lhs: Array [..., m, k] of a dtype that `can_multiply`.
        rhs: Array [..., k, n].
        out: Contiguous array [..., m, n].
    """
    if out.size == 0:
        return
    if lhs.shape[-1] == 0:
        out.fill(0)
        return
    gemm = plan(_layout(lhs), _layout(rhs), _layout(out))
    if gemm is None:  # a matrix with gaps in both directions
        lhs, rhs = cupy.ascontiguousarray(lhs), cupy.ascontiguousarray(rhs)
        gemm = plan(_layout(lhs), _layout(rhs), _layout(out))
    assert gemm is not None, "contiguous matrices always have a plan"
    _call(cupy, gemm, lhs, rhs, out)


def _layout(array: Any) -> Layout:
    nbytes = array.dtype.itemsize
    return Layout(tuple(array.shape), tuple(step // nbytes for step in array.strides))


def _call(cupy: Any, gemm: Gemm, lhs: Any, rhs: Any, out: Any) -> None:
    from cupy_backends.cuda.libs import cublas

    nbytes = out.dtype.itemsize
    kind = _DATA_TYPES[out.dtype]
    is_double = nbytes == 8
    number = np.float64 if is_double else np.float32
    one, zero = _ONE[number].ctypes.data, _ZERO[number].ctypes.data
    compute = _COMPUTE_64F if is_double else _COMPUTE_32F
    handle = cupy.cuda.Device().cublas_handle
    # Right before left, because the transposed product is computed.
    shape = (gemm.rhs.operation, gemm.lhs.operation, gemm.n, gemm.m, gemm.k)
    for lhs_start, rhs_start, out_start in gemm.offsets:
        a = rhs.data.ptr + rhs_start * nbytes
        b = lhs.data.ptr + lhs_start * nbytes
        c = out.data.ptr + out_start * nbytes
        left, right = (a, kind, gemm.rhs.leading), (b, kind, gemm.lhs.leading)
        result = (c, kind, gemm.leading)
        end = (compute, _ALGORITHM)
        if gemm.batch.count == 1:
            cublas.gemmEx(handle, *shape, one, *left, *right, zero, *result, *end)
            continue
        count, lhs_step, rhs_step, out_step = gemm.batch
        cublas.gemmStridedBatchedEx(
            handle,
            *shape,
            one,
            *left,
            rhs_step,
            *right,
            lhs_step,
            zero,
            *result,
            out_step,
            count,
            *end,
        )
