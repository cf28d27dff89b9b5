"""Every elementwise op, as a CUDA kernel of its own, against its oracle."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from cuda_function import CudaFunction, build
from cuda_programs import op_cases, op_program
from helpers import ALL, FLOATS8, HALVES, WIDE_FLOATS, assert_close, narrow, numbers, tensor, wide
from ops.oracles import ORACLES

from maxmod.device import CPU_REF
from maxmod.dtype import DType
from maxmod.op import REGISTRY, lookup
from maxmod.tensor_type import TensorType

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
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-7, 42]


@functools.cache
def _built(dtype: DType) -> dict[tuple[str, int], CudaFunction]:
    functions = {}
    for case in op_cases(dtype):
        fn, types = op_program(*case, dtype, SIZE)
        functions[case] = CudaFunction(fn, *types)
    build([*functions.values()])
    return functions


def _operands(name: str, number: int, dtype: DType) -> list[np.ndarray[Any, Any]]:
    op, oracle = lookup(name), ORACLES[name]
    rng = np.random.default_rng(7)
    arrays = []
    for position in range(len(op.tensor_names)):
        kind = oracle.first if position == 0 and oracle.first is not None else dtype
        arrays.append(numbers(rng, kind, [SIZE], *op.domain))
    if name == "pow" and dtype.is_integral():
        arrays[1] = np.abs(arrays[1]) % 4
    target = oracle.attrs[number].get("dtype", dtype)
    is_exact = target.is_float() and target.size_in_bits >= 32
    if name == "cast" and dtype.is_float():
        arrays[0] = np.abs(arrays[0])  # a negative float as unsigned is unspecified
    if dtype in (*WIDE_FLOATS, *HALVES) and (name != "cast" or is_exact):
        line = narrow(SPECIAL, dtype)
        if name == "select":
            arrays[1][: len(line)] = line
        else:
            for position, array in enumerate(arrays):
                array[: len(line) ** 2] = (
                    np.repeat(line, len(line)) if position else np.tile(line, len(line))
                )
    return arrays


def _expected(name: str, number: int, dtype: DType, arrays: list[Any]) -> Any:
    oracle = ORACLES[name]
    attrs = oracle.attrs[number]
    wides = [wide(array) for array in arrays]
    if name == "cast":
        if attrs["dtype"] is DType.bool:
            return wides[0] != 0
        if not attrs["dtype"].is_float() and dtype.is_float():
            return np.trunc(wides[0]).astype(np.int64)
        return wides[0]
    if name == "acos" and dtype is not DType.float64:
        return np.arccos(np.clip(wides[0], -1, 1))
    with np.errstate(all="ignore"):
        return oracle.fn(*wides, **attrs)


def test_every_elementwise_op_has_text() -> None:
    assert all(REGISTRY[name].scalar for name in ORACLES)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_values(dtype: DType) -> None:
    wrong = []
    for (name, number), function in _built(dtype).items():
        arrays = _operands(name, number, dtype)
        (found,) = function(*arrays)
        expected = _expected(name, number, dtype, arrays)
        length = 2 if ORACLES[name].cancels else 1
        try:
            assert_close(tensor(found), expected, length=length)
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
