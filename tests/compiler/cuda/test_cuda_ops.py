"""Every elementwise op, as a separate CUDA kernel, against its oracle."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from cuda_function import CudaFunction, build
from cuda_programs import op_cases, op_expected, op_operands, op_program
from helpers import ALL, FLOATS8, HALVES, WIDE_FLOATS, assert_close, numbers, tensor, wide
from ops.oracles import ORACLES

from maxmod.dtype import DType
from maxmod.op import REGISTRY
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType

# One type of each kind; the others differ in the number of bits only.
DTYPES = (
    DType.bool,
    DType.int8,
    DType.int32,
    DType.int64,
    DType.uint8,
    DType.uint64,
    *WIDE_FLOATS,
    *HALVES,
    DType.float8_e4m3fn,
)
SIZE = 1003  # 250 vectors of four, and a tail; 125 of eight


@functools.cache
def _built(dtype: DType) -> dict[tuple[str, int], CudaFunction]:
    functions = {}
    for case in op_cases(dtype):
        fn, types = op_program(*case, dtype, SIZE)
        functions[case] = CudaFunction(fn, *types)
    build([*functions.values()])
    return functions


def test_every_elementwise_op_has_text() -> None:
    assert all(REGISTRY[name].lowering.scalar for name in ORACLES)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_values(dtype: DType) -> None:
    wrong = []
    for (name, number), function in _built(dtype).items():
        arrays = op_operands(name, number, dtype, SIZE)
        (found,) = function(*arrays)
        expected = op_expected(name, number, dtype, arrays)
        try:
            assert_close(tensor(found), expected)
        except AssertionError as error:
            wrong.append(f"{name} {ORACLES[name].attrs[number]}: {error}")
    assert not wrong, "\n\n".join(wrong)


def test_sums_of_every_stored_type() -> None:
    """Loads, converts and stores each type; the order of threads makes no difference."""
    functions = {}
    for dtype in ALL:
        types = [TensorType(dtype, [77, 5], CPU_REF)] * 2
        is_bool = dtype is DType.bool
        functions[dtype] = CudaFunction(
            (lambda x, y: x ^ y) if is_bool else (lambda x, y: x + y), *types
        )
    build([*functions.values()])
    rng = np.random.default_rng(3)
    for dtype, function in functions.items():
        x, y = (numbers(rng, dtype, [77, 5]) for _ in range(2))
        expected = wide(x) ^ wide(y) if dtype is DType.bool else wide(x) + wide(y)
        for order in (0, 2, 3):
            assert_close(tensor(function(x, y, order=order)[0]), expected)


def _cast_from_float32(dtype: DType) -> CudaFunction:
    return CudaFunction(lambda x: x.cast(dtype), TensorType(DType.float32, ["n"], CPU_REF))


def test_rounding_is_to_nearest_even() -> None:
    """Every upper half of a float32, numbers half-way between those, and their neighbours."""
    functions = {dtype: _cast_from_float32(dtype) for dtype in (*HALVES, *FLOATS8)}
    build([*functions.values()])
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    x = np.concatenate([upper | low for low in (0, 0x0800, 0x1000, 0x8000, 0x8001)])
    for function in functions.values():
        (found,) = function(x.view(np.float32))
        assert_close(tensor(found), x.view(np.float32), ulps=0)
