"""Matrix products with cuBLASLt, for every layout that it can read without a copy.

The library is column-major and our arrays are row-major, so the transposed product is computed, on
the same memory. Transposed operands and batches are described by strides, without copies. `plan` is
arithmetic on shapes and needs no GPU. Without cuBLASLt, CuPy's cuBLAS does the same, except while a
CUDA graph is captured. A question that the library leaves open during a capture is asked again
after it.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from maxmod.backends.cuda import cublaslt
from maxmod.backends.cuda.cublaslt import (
    ALIGNMENT,
    COMPUTE_32F,
    COMPUTE_64F,
    NO_EPILOGUE,
    Epilogue,
    Matrix,
)
from maxmod.dtype import DType, storage_dtype
from maxmod.values.array import Array, ArrayModule

_DATA_TYPES = {
    storage_dtype(DType.float32): cublaslt.FLOAT32,
    storage_dtype(DType.float64): cublaslt.FLOAT64,
    storage_dtype(DType.float16): cublaslt.FLOAT16,
    storage_dtype(DType.bfloat16): cublaslt.BFLOAT16,
}
_CALLS_LIMIT = 4096  # plans that are kept
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
    """Equal products in a row: how many, and the stride between them of each array."""

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


def can_multiply(lhs: Array, rhs: Array, out: Array) -> bool:
    """True if cuBLAS has a product for the dtypes, accumulated in float32 or float64."""
    return lhs.dtype == rhs.dtype == out.dtype and out.dtype in _DATA_TYPES


class Done(enum.IntEnum):
    """What did a product."""

    NOT = 0
    BY_CUPY = 1
    BY_LIBRARY = 2


class _Request(NamedTuple):
    """What the library is asked for a plan; see `cublaslt.Products.plan`."""

    kind: int
    transposed: tuple[int, int]
    matrices: Sequence[Matrix]
    epilogue: Epilogue
    bias: int


class Multiplier:
    """The products of one device; plans are cached by shape.

    Args:
        cupy: The module.
        index: The device, which is current in every call.
    """

    def __init__(self, cupy: ArrayModule, index: int) -> None:
        self.cupy = cupy
        self._products: cublaslt.Products | None = None
        library = cublaslt.load(cupy.cuda.runtime.runtimeGetVersion() // 1000)
        if library is not None:
            capability = int(cupy.cuda.Device(index).compute_capability)
            self._products = cublaslt.Products(cupy, library, capability)
        self._current_stream = cupy.cuda.get_current_stream
        self._calls: dict[Hashable, tuple[Gemm, cublaslt.Plan | None] | None] = {}
        # What a capture needed and was not told.
        self._open: dict[Hashable, tuple[Gemm, _Request]] = {}

    def __call__(
        self,
        lhs: Array,
        rhs: Array,
        out: Array,
        bias: Array | None = None,
        addend: Array | None = None,
        activation: str = "",
    ) -> Done:
        """Writes `activation(lhs @ rhs + bias + addend)` into `out`, on the current stream.

        Args:
            lhs: Array [..., m, k] of a dtype that `can_multiply`.
            rhs: Array [..., k, n].
            out: Contiguous array [..., m, n].
            bias: Array of n elements, or None.
            addend: Array of the shape of `out`, or None.
            activation: A key of `cublaslt.ACTIVATION_BITS`.

        Returns:
            `NOT` if there is no such product with this epilogue, and nothing was written.

        Raises:
            UnansweredError: If a CUDA graph is captured for which a plan is missing.
        """
        if out.size == 0:
            return Done.BY_LIBRARY
        epilogue, more, extra = NO_EPILOGUE, (None, None), ()
        if bias is not None or addend is not None or activation:
            epilogue = Epilogue(bias is not None, addend is not None, activation)
            more = self._contiguous(bias), self._contiguous(addend)
            extra = tuple(0 if array is None else _alignment(array) for array in more)
        if lhs.shape[-1] == 0:
            return self._fill(out, epilogue)
        key = (*_key(lhs), *_key(rhs), *_key(out), out.dtype, epilogue, *extra)
        call = self._calls.get(key)
        if call is None and key not in self._calls:
            call = self._prepare(key, lhs, rhs, out, epilogue, more)
        if call is None:  # a matrix with gaps in both directions
            copies = self.cupy.ascontiguousarray(lhs), self.cupy.ascontiguousarray(rhs)
            return self(*copies, out, bias, addend, activation)
        gemm, planned = call
        if planned is None:
            if epilogue is not NO_EPILOGUE:
                return Done.NOT
            _call_cublas(self.cupy, gemm, lhs, rhs, out)
            return Done.BY_CUPY
        nbytes = out.dtype.itemsize
        left, right, result = lhs.data.ptr, rhs.data.ptr, out.data.ptr
        added, start = (0 if array is None else array.data.ptr for array in more)
        stream = self._current_stream().ptr
        for lhs_start, rhs_start, out_start in gemm.offsets:
            planned(
                right + rhs_start * nbytes,
                left + lhs_start * nbytes,
                result + out_start * nbytes,
                stream,
                added,
                start and start + out_start * nbytes,
            )
        return Done.BY_LIBRARY

    def _contiguous(self, array: Array | None) -> Array | None:
        if array is None or array.flags.c_contiguous:
            return array
        return self.cupy.ascontiguousarray(array)

    def _fill(self, out: Array, epilogue: Epilogue) -> Done:
        if epilogue is not NO_EPILOGUE:
            return Done.NOT
        out.fill(0)
        return Done.BY_LIBRARY

    def ask_again(self) -> None:
        """Asks what the library left open during a capture, which has ended."""
        while self._open:
            key, (gemm, request) = self._open.popitem()
            with contextlib.suppress(cublaslt.UnansweredError):
                self._keep(key, (gemm, self._plan(request)))

    def _keep(self, key: Hashable, call: tuple[Gemm, cublaslt.Plan | None] | None) -> None:
        if len(self._calls) == _CALLS_LIMIT:
            self._calls.clear()
        self._calls[key] = call

    def _plan(self, request: _Request) -> cublaslt.Plan | None:
        return None if self._products is None else self._products.plan(*request)

    def _prepare(
        self,
        key: Hashable,
        lhs: Array,
        rhs: Array,
        out: Array,
        epilogue: Epilogue,
        more: Sequence[Array | None],
    ) -> tuple[Gemm, cublaslt.Plan | None] | None:
        """Returns how a product is done, and keeps that, unless the library did not know."""
        gemm = plan(_layout(lhs), _layout(rhs), _layout(out))
        if gemm is None:
            self._keep(key, None)
            return None
        request = self._request(gemm, lhs, rhs, out, epilogue, more)
        captures = self._products is not None and self._current_stream().is_capturing()
        try:
            planned = self._plan(request)
            if planned is None and captures:
                raise cublaslt.UnansweredError("cuBLASLt chose no algorithm during a capture.")
        except cublaslt.UnansweredError:
            if not captures:
                return gemm, None
            self._open[key] = gemm, request
            raise
        self._keep(key, (gemm, planned))
        return gemm, planned

    def _request(
        self,
        gemm: Gemm,
        lhs: Array,
        rhs: Array,
        out: Array,
        epilogue: Epilogue,
        more: Sequence[Array | None],
    ) -> _Request:
        bias, addend = more
        matrices = _matrices(gemm, lhs, rhs, out, out if addend is None else addend)
        transposed = (gemm.rhs.operation, gemm.lhs.operation)
        kind = _DATA_TYPES[out.dtype]
        address = 0 if bias is None else bias.data.ptr
        return _Request(kind, transposed, matrices, epilogue, address)


def _key(array: Array) -> tuple[Hashable, ...]:
    return array.shape, array.strides, _alignment(array)


def _alignment(array: Array) -> int:
    """Returns the largest power of 2, up to `ALIGNMENT`, that divides the address of an array."""
    address = array.data.ptr
    return min(address & -address, ALIGNMENT) or ALIGNMENT


def _matrices(gemm: Gemm, lhs: Array, rhs: Array, out: Array, addend: Array) -> list[Matrix]:
    """Describes the matrices in the order of the library: right, left, addend, result."""
    m, n, k, left, right = gemm[:5]
    count, lhs_step, rhs_step, out_step = gemm.batch
    lhs_starts, rhs_starts, out_starts = zip(*gemm.offsets)
    right_size = (k, n) if right.operation else (n, k)
    left_size = (m, k) if left.operation else (k, m)
    return [
        _matrix(rhs, right_size, right.leading, count, rhs_step, rhs_starts),
        _matrix(lhs, left_size, left.leading, count, lhs_step, lhs_starts),
        *(
            _matrix(array, (n, m), gemm.leading, count, out_step, out_starts)
            for array in (addend, out)
        ),
    ]


def _matrix(
    array: Array,
    size: tuple[int, int],
    leading: int,
    count: int,
    step: int,
    starts: Sequence[int],
) -> Matrix:
    """Describes one; all numbers are elements, `starts` are those of each call."""
    moves = [start * array.dtype.itemsize for start in (*starts, step) if start]
    alignment = min([_alignment(array), *(move & -move for move in moves)])
    return Matrix(*size, leading, count, step, alignment)


def _layout(array: Array) -> Layout:
    nbytes = array.dtype.itemsize
    return Layout(tuple(array.shape), tuple(step // nbytes for step in array.strides))


def _call_cublas(cupy: ArrayModule, gemm: Gemm, lhs: Array, rhs: Array, out: Array) -> None:
    from cupy_backends.cuda.libs import cublas

    nbytes = out.dtype.itemsize
    kind = _DATA_TYPES[out.dtype]
    is_double = nbytes == 8
    number = np.float64 if is_double else np.float32
    one, zero = _ONE[number].ctypes.data, _ZERO[number].ctypes.data
    compute = COMPUTE_64F if is_double else COMPUTE_32F
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
