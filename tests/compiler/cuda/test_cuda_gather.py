"""Reads at positions that are data, in CUDA kernels."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from compiler.gathers import GATHERS, SIZES
from cuda_function import CudaFunction, build, sources_of
from emulated_cuda import emulated_cuda
from helpers import assert_close, tensor, values, wide

from maxmod import CPU, DType
from maxmod import functional as F
from maxmod.compiler.steps import RunOp
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.op import Kind
from maxmod.runtime.compiled import compile_function
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType

I64 = DType.int64


@pytest.mark.parametrize("order", [0, 3])
def test_programs(order: int) -> None:
    """All on one emulated device, so that their kernels are built together."""
    rng = np.random.default_rng(0)
    with emulated_cuda() as (device, backend):
        backend.cuda.order = order
        models = {
            name: compile_function(
                gather.fn, gather.types(DType.float32, I64, device), name="f", parameters={}
            )
            for name, gather in GATHERS.items()
        }
        for name, model in models.items():
            assert model.kernels
            assert {kernel.dialect for kernel in model.kernels} == {Dialect.CUDA}
            alone = [s.op.kind for s in model._schedule.all_steps if isinstance(s, RunOp)]
            assert Kind.INDEX not in alone
            for sizes in SIZES:
                arrays = GATHERS[name].arguments(rng, DType.float32, I64, sizes)
                found = model(*[tensor(array).to(device) for array in arrays])
                wanted = GATHERS[name].oracle(*map(wide, arrays))
                if not isinstance(wanted, list):
                    found, wanted = [found], [wanted]
                for one, want in zip(found, wanted, strict=True):
                    assert_close(one.to(CPU()), want, length=8, ulps=4)


@functools.cache
def _function(name: str, table: DType, positions: DType) -> CudaFunction:
    gather = GATHERS[name]
    return CudaFunction(gather.fn, *gather.types(table, positions))


CASES = [
    (name, table, positions)
    for name in ("alone", "normed", "of numbers", "made up")
    for table, positions in ((DType.float32, I64), (DType.bfloat16, DType.int32))
]


@functools.cache
def _built() -> dict[Any, CudaFunction]:
    functions = {case: _function(*case) for case in CASES}
    functions["u"] = _function("alone", DType.float32, DType.uint64)
    build([*functions.values()])
    return functions


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1].name}")
def test_positions_out_of_range_read_the_nearest_element(case: Any) -> None:
    """Arrays end at pages that cannot be read."""
    name, table, positions = case
    arrays = GATHERS[name].arguments(np.random.default_rng(1), table, positions, SIZES[0])
    edge = np.iinfo(arrays[1].dtype)
    for wrong in (5, 6, 9, -6, -7, edge.max, edge.min):
        arrays[1][0, :2] = wrong
        nearest = np.where(arrays[1] < 0, np.maximum(arrays[1], -5), np.minimum(arrays[1], 4))
        (found,) = _built()[case](*arrays)
        expected = GATHERS[name].oracle(wide(arrays[0]), nearest)
        if name == "made up":
            halves = np.maximum(arrays[1] // 2, 0)
            expected = wide(arrays[0])[np.minimum(halves, 4)]
        assert_close(tensor(found), expected, length=8, ulps=4)


def test_positions_without_a_sign_are_never_negative() -> None:
    table = np.arange(40, dtype=np.float32).reshape(5, 8)
    positions = np.array([[2**64 - 1, 2**63], [4, 0]], np.uint64)
    (found,) = _built()["u"](table, positions)
    assert values(tensor(found))[..., 0].tolist() == [[32, 32], [32, 0]]


def _code(name: str, dtype: DType = DType.float32) -> str:
    (source,) = sources_of(GATHERS[name].fn, *GATHERS[name].types(dtype, I64))
    return source.plain


@pytest.mark.parametrize(
    ("name", "dtype", "width"),
    [
        ("scaled", DType.float32, 4),
        ("scaled", DType.bfloat16, 8),
        ("normed", DType.float32, 4),
        ("static", DType.float32, 4),
        ("odd", DType.float32, 1),
    ],
)
def test_rows_of_a_table_are_read_as_vectors(name: str, dtype: DType, width: int) -> None:
    code = _code(name, dtype)
    assert (f"constexpr int V = {width};" in code) == (width > 1)
    assert ("= mm_read<V>(b0 + mm_i + t1 * " in code) == (width > 1)


def test_elements_in_any_order_are_read_one_by_one() -> None:
    """Their positions are still read as a vector."""
    source: KernelSource
    (source,) = sources_of(
        lambda w, p: F.gather(w, p, axis=0) + 1,
        TensorType(DType.float32, [100], CPU_REF),
        TensorType(I64, [64], CPU_REF),
    )
    assert "mm_read<V>(p + mm_i)" in source.code
    assert "const float v_w = w[at_p];" in source.code
