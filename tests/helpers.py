"""What tests of numbers share: operands of any dtype, and one tolerance table.

The oracle is always NumPy in float64 (int64 for integers); its result is rounded once to the dtype
of the tensor that is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from maxmod import backends
from maxmod.dtype import DType, compute_dtype, storage_dtype
from maxmod.interpreters.trace import trace
from maxmod.op import Op
from maxmod.op.ir import interpret, verify
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF
from maxmod.values.dim import SymbolicDim
from maxmod.values.tensor_type import TensorType

BOOL = (DType.bool,)
SIGNED = (DType.int8, DType.int16, DType.int32, DType.int64)
UNSIGNED = (DType.uint8, DType.uint16, DType.uint32, DType.uint64)
INTEGERS = (*SIGNED, *UNSIGNED)
WIDE_FLOATS = (DType.float32, DType.float64)
HALVES = (DType.float16, DType.bfloat16)
FLOATS8 = (
    DType.float8_e4m3fn,
    DType.float8_e4m3fnuz,
    DType.float8_e5m2,
    DType.float8_e5m2fnuz,
)
FLOATS = (*WIDE_FLOATS, *HALVES, *FLOATS8)
NUMERIC = (*FLOATS, *INTEGERS)
ALL = (*NUMERIC, *BOOL)

# Relative error in units of the last place: library functions of float32 and float64 may be some
# units off; narrower floats are computed in float32 and rounded once, which is at most one unit
# from the rounded oracle.
ULPS = {DType.float64: 16, DType.float32: 16, DType.float16: 1, DType.bfloat16: 1}
ULPS_FLOAT8 = 1


def wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the values in the type of the oracle: float64, int64, uint64 or bool."""
    if array.dtype.kind in "iub":
        return array if array.dtype in (np.bool_, np.uint64) else array.astype(np.int64)
    return array.astype(np.float64)


def narrow(expected: Any, dtype: DType) -> np.ndarray[Any, Any]:
    """Rounds a result of the oracle to a dtype; integers wrap."""
    with np.errstate(all="ignore"):
        return np.asarray(expected).astype(storage_dtype(dtype))


def numbers(
    rng: np.random.Generator,
    dtype: DType,
    shape: Sequence[int],
    low: float = -3.0,
    high: float = 3.0,
) -> np.ndarray[Any, Any]:
    """Returns random values of a dtype; integers are drawn from -9..9 or 0..9."""
    shape = tuple(shape)
    if dtype is DType.bool:
        return np.asarray(rng.integers(0, 2, shape)).astype(np.bool_)
    if not dtype.is_float():
        smallest = -9 if dtype.is_signed_integral() else 0
        return np.asarray(rng.integers(smallest, 10, shape)).astype(storage_dtype(dtype))
    return narrow(rng.uniform(low, high, shape), dtype)


def tensor(array: Any, dtype: DType | None = None) -> Tensor:
    """Wraps an array, strided ones as they are."""
    array = np.asarray(array) if dtype is None else np.asarray(array, dtype=storage_dtype(dtype))
    found = DType.from_numpy(array.dtype)
    return Tensor.wrap(array, TensorType.of(found, tuple(array.shape), CPU_REF))


def strided(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the same values in memory with gaps, in another order of the axes."""
    if array.ndim == 0:
        return array
    base = np.empty([2 * size for size in reversed(array.shape)], dtype=array.dtype)
    view = base[(slice(None, None, 2),) * array.ndim].T
    view[...] = array
    return view


def values(x: Any) -> np.ndarray[Any, Any]:
    """Returns the data of a tensor or array on the host."""
    return np.asarray(x._host() if isinstance(x, Tensor) else x)


def assert_close(
    actual: Tensor,
    expected: Any,
    *,
    length: int = 1,
    scale: float | None = None,
    ulps: int = 1,
) -> None:
    """Compares a tensor with what the oracle gives.

    Args:
        actual: The tensor.
        expected: The oracle's result in its wide type; rounded to the dtype of the tensor here.
        length: Number of terms in the longest sum behind one element.
        scale: Size of the terms, if they are larger than the result.
        ulps: Factor of the relative tolerance, where an op rounds more than once.
    """
    dtype = actual.dtype
    found = values(actual)
    wanted = narrow(expected, dtype)
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    if not dtype.is_float():
        np.testing.assert_array_equal(found, wanted)
        return
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    finite = wanted[np.isfinite(wanted)]
    size = scale if scale is not None else float(np.abs(finite).max(initial=0.0))
    info = ml_dtypes.finfo(storage_dtype(dtype))
    computed = ml_dtypes.finfo(storage_dtype(compute_dtype(dtype)))
    rtol = ulps * ULPS.get(dtype, ULPS_FLOAT8) * float(info.eps)
    # Sums lose up to one unit of the compute type for each term.
    atol = 4 * (length - 1) * float(computed.eps) * size + float(info.smallest_subnormal)
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)


def run_op(
    op: Op, arrays: Sequence[Any], attrs: dict[str, Any], types: Sequence[TensorType]
) -> Sequence[Any]:
    """Runs one op eagerly on the host; what `ir.interpret` calls for each node."""
    return backends.get(CPU_REF).run(op, arrays, attrs, types)


def interpreted(fn: Any, types: Sequence[TensorType], *args: Tensor) -> list[Tensor]:
    """Traces a function for types with named sizes and runs the graph op by op.

    Args:
        fn: Takes one tensor for each type and returns a tensor or a list of them.
        types: The types of the arguments.
        *args: The arguments; their sizes give the names their values.
    """
    found = trace(
        fn,
        lambda tracer: [tracer.argument(type) for type in types],
        name="test",
        parameters={},
        flatten=lambda value: list(value) if isinstance(value, (list, tuple)) else [value],
    )
    dims: dict[str, int] = {}
    for type, arg in zip(types, args, strict=True):
        for size, actual in zip(type.sizes, arg.sizes, strict=True):
            if isinstance(size, SymbolicDim):
                dims[size.name] = int(actual)
    graph = verify(found.graph)
    arrays = interpret(graph, run_op, [arg.data for arg in args], {}, dims)
    return [tensor(array) for array in arrays]
