"""The `linalg` extension.

Products, norms, traces and cross products consist of ops and work wherever those do. Solvers and
decompositions (`cholesky`, `det`, `eigh`, `eigvalsh`, `inv`, `matrix_rank`, `pinv`, `qr`,
`slogdet`, `solve`, `svd`, `svdvals`, and the norms that need singular values) are computed by NumPy
on the host, wherever the array lives, and cannot be traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from maxmod import functional as F
from maxmod.array_api.array import Array, arrays, operand, tensor_of
from maxmod.array_api.creation import eye
from maxmod.array_api.dtypes import FLOATS, is_float, is_numeric, number
from maxmod.array_api.manipulation import Axes, normalized_axes
from maxmod.array_api.products import matmul, matrix_transpose, tensordot, vecdot
from maxmod.array_api.statistics import along
from maxmod.array_api.statistics import sum as sum_along
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DTypeError, ShapeError, TraceError
from maxmod.op.rules import normalize_axis
from maxmod.ops.context import active_trace
from maxmod.ops.shape import slice_axis
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]


def _matrix(name: str, x: Array) -> Tensor:
    tensor = tensor_of(name, x)
    if tensor.rank < 2:
        raise ShapeError(f"{name}: expected a matrix, got {tensor.type.short()}.")
    return tensor


# ---- made of ops -------------------------------------------------------------------------------


def outer(x1: Array, x2: Array, /) -> Array:
    """Product of every element of a vector with every element of another."""
    return Array(F.outer(*arrays("outer", x1, x2, is_numeric)))


def cross(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """Cross product of vectors of three elements along an axis; the other axes broadcast."""
    first, second = arrays("cross", x1, x2, is_numeric)
    place = normalize_axis("cross", axis, max(first.rank, second.rank))
    place -= max(first.rank, second.rank)
    for tensor in (first, second):
        if -place > tensor.rank or tensor.sizes[place] != 3:
            raise ShapeError(f"cross: axis {axis} of {tensor.type.short()} must have size 3.")
    a, b = ([slice_axis(t, t.rank + place, i, i + 1) for i in range(3)] for t in (first, second))
    turns = [(1, 2), (2, 0), (0, 1)]
    parts = [F.sub(F.mul(a[i], b[j]), F.mul(a[j], b[i])) for i, j in turns]
    return Array(F.concat(parts, place))


def diagonal(x: Array, /, *, offset: int = 0) -> Array:
    """The diagonal number `offset` of each matrix, as a last axis."""
    tensor = _matrix("diagonal", x)
    rows, columns = (int(size) for size in tensor.sizes[-2:])
    first, skip = max(-offset, 0), max(offset, 0)
    count = max(min(rows - first, columns - skip), 0)
    flat = tensor.reshape((*tensor.sizes[:-2], rows * columns))
    start = first * columns + skip if count else 0
    places = [start + i * (columns + 1) for i in range(count)]
    chosen = Tensor(places, dtype=DType.int64, device=tensor.type.device) if count else None
    if chosen is None:
        return Array(slice_axis(flat, flat.rank - 1, 0, 0))
    return Array(F.gather(flat, chosen, axis=-1))


def trace(x: Array, /, *, offset: int = 0, dtype: DType | None = None) -> Array:
    """Sum of the diagonal number `offset` of each matrix, with the dtype rules of `sum`."""
    return sum_along(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def matrix_power(x: Array, n: int, /) -> Array:
    """The product of n equal square matrices; of their inverses, if n is negative."""
    tensor = _matrix("matrix_power", x)
    size = tensor.sizes[-1]
    if tensor.sizes[-2] != size:
        raise ShapeError(f"matrix_power: expected square matrices, got {tensor.type.short()}.")
    if n < 0:
        x, n = inv(x), -n
    base = x.tensor
    unit = eye(int(size), dtype=tensor.dtype, device=tensor.type.device).tensor
    result = unit.broadcast_to(tensor.sizes)
    while n:
        if n & 1:
            result = F.matmul(result, base)
        n >>= 1
        base = F.matmul(base, base) if n else base
    return Array(result)


def vector_norm(x: Array, /, *, axis: Axes = None, keepdims: bool = False, ord: float = 2) -> Array:
    """Norm of vectors along axes: (sum |x| ** ord) ** (1 / ord).

    For an infinite order the largest or smallest size, for order 0 the number of elements that are
    not 0.
    """
    tensor = operand("vector_norm", x, is_float)
    axes = normalized_axes("vector_norm", axis, tensor.rank)
    size = F.abs(tensor)
    if math.isinf(ord):
        return Array(along("vector_norm", F.max if ord > 0 else F.min, size, axes, keepdims))
    if ord == 0:
        powers = F.not_equal(size, 0).cast(tensor.dtype)
        return Array(along("vector_norm", F.sum, powers, axes, keepdims))
    exponent = number(ord, tensor.dtype, tensor.type.device)
    powers = F.mul(size, size) if ord == 2 else size if ord == 1 else size**exponent
    total = along("vector_norm", F.sum, powers, axes, keepdims)
    if ord == 2:
        return Array(F.sqrt(total))
    return Array(total if ord == 1 else total ** number(1 / ord, tensor.dtype, tensor.type.device))


def matrix_norm(x: Array, /, *, keepdims: bool = False, ord: Any = "fro") -> Array:
    """Norm of each matrix.

    Args:
        x: Float array [..., m, n].
        keepdims: Keep the last two axes with size 1.
        ord: `"fro"` square root of the sum of squares; 1, -1 largest and smallest sum of sizes of
            a column; inf, -inf of a row; 2, -2, `"nuc"` largest, smallest and sum of the singular
            values, by NumPy on the host.
    """
    tensor = operand("matrix_norm", x, is_float)
    _matrix("matrix_norm", x)
    if ord == "fro" or ord is None:
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in (1, -1, math.inf, -math.inf):
        lines = -2 if abs(ord) == 1 else -1
        sums = along("matrix_norm", F.sum, F.abs(tensor), lines, keepdims=True)
        result = along("matrix_norm", F.max if ord > 0 else F.min, sums, (-2, -1), keepdims)
        return Array(result)
    if ord not in (2, -2, "nuc"):
        raise ArgumentError(f"matrix_norm: ord: expected fro, nuc, 1, -1, 2, -2, inf, got {ord!r}.")
    values = svdvals(x).tensor
    op = {2: F.max, -2: F.min, "nuc": F.sum}[ord]
    result = along("matrix_norm", op, values, -1, keepdims=True)
    sizes = tensor.sizes[:-2]
    return Array(result.reshape([*sizes, 1, 1] if keepdims else sizes))


# ---- by NumPy ----------------------------------------------------------------------------------


class EighResult(NamedTuple):
    """What `eigh` returns."""

    eigenvalues: Array
    eigenvectors: Array


class QRResult(NamedTuple):
    """What `qr` returns."""

    Q: Array
    R: Array


class SlogdetResult(NamedTuple):
    """What `slogdet` returns."""

    sign: Array
    logabsdet: Array


class SVDResult(NamedTuple):
    """What `svd` returns."""

    U: Array
    S: Array
    Vh: Array


def _by_numpy(name: str, fn: Callable[..., Any], *arrays: Array) -> list[Array]:
    """Runs a function of NumPy on the host and brings the results back to the device."""
    if active_trace() is not None:
        raise TraceError(f"{name}: computed by NumPy on the host, so it cannot be traced.")
    tensors = [operand(name, x, is_float) for x in arrays]
    if any(tensor.dtype not in FLOATS for tensor in tensors):
        raise DTypeError(f"{name}: expected float32 or float64.")
    found = fn(*[tensor.to(CPU_REF).to_numpy() for tensor in tensors])
    listed = found if isinstance(found, tuple) else (found,)
    device = tensors[0].type.device
    return [Array(Tensor(np.array(one, order="C"), device=CPU_REF).to(device)) for one in listed]


def _limit(rtol: float | Array | None) -> Any:
    return rtol.tensor.to(CPU_REF).to_numpy() if isinstance(rtol, Array) else rtol


def cholesky(x: Array, /, *, upper: bool = False) -> Array:
    """L of x = L L^T for symmetric positive matrices, or its transpose."""
    return _by_numpy("cholesky", lambda a: np.linalg.cholesky(a, upper=upper), x)[0]


def det(x: Array, /) -> Array:
    """Determinant of each matrix."""
    return _by_numpy("det", np.linalg.det, x)[0]


def eigh(x: Array, /) -> EighResult:
    """Eigenvalues, smallest first, and eigenvectors of symmetric matrices."""
    return EighResult(*_by_numpy("eigh", lambda a: tuple(np.linalg.eigh(a)), x))


def eigvalsh(x: Array, /) -> Array:
    """Eigenvalues of symmetric matrices, smallest first."""
    return _by_numpy("eigvalsh", np.linalg.eigvalsh, x)[0]


def inv(x: Array, /) -> Array:
    """Inverse of each matrix."""
    return _by_numpy("inv", np.linalg.inv, x)[0]


def matrix_rank(x: Array, /, *, rtol: float | Array | None = None) -> Array:
    """Number of singular values above rtol times the largest one, int64."""
    limit = _limit(rtol)
    return _by_numpy("matrix_rank", lambda a: np.linalg.matrix_rank(a, rtol=limit), x)[0]


def pinv(x: Array, /, *, rtol: float | Array | None = None) -> Array:
    """Pseudo-inverse of each matrix; singular values up to rtol times the largest count as 0."""
    limit = _limit(rtol)
    return _by_numpy("pinv", lambda a: np.linalg.pinv(a, rtol=limit), x)[0]


def qr(x: Array, /, *, mode: str = "reduced") -> QRResult:
    """Orthogonal Q and upper triangular R with x = Q R; `mode` is `"reduced"` or `"complete"`."""
    if mode not in ("reduced", "complete"):
        raise ArgumentError(f"qr: mode: expected 'reduced' or 'complete', got {mode!r}.")
    return QRResult(*_by_numpy("qr", lambda a: tuple(np.linalg.qr(a, mode=mode)), x))


def slogdet(x: Array, /) -> SlogdetResult:
    """Sign and logarithm of the size of each determinant."""
    return SlogdetResult(*_by_numpy("slogdet", lambda a: tuple(np.linalg.slogdet(a)), x))


def solve(x1: Array, x2: Array, /) -> Array:
    """The x of x1 x = x2; x2 is a vector or holds matrices."""
    first, second = arrays("solve", x1, x2, is_float)
    return _by_numpy("solve", np.linalg.solve, Array(first), Array(second))[0]


def svd(x: Array, /, *, full_matrices: bool = True) -> SVDResult:
    """Singular values, largest first, with x = U diag(S) Vh."""
    return SVDResult(*_by_numpy("svd", lambda a: tuple(np.linalg.svd(a, full_matrices)), x))


def svdvals(x: Array, /) -> Array:
    """Singular values, largest first."""
    return _by_numpy("svdvals", np.linalg.svdvals, x)[0]
