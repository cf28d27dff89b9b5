"""The generated kernels on a real GPU: `python -m pytest tests/gpu --require=gpu`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from cuda_programs import ROWS, VIEWS, M, N, op_cases, op_program, row_types, view_types
from helpers import HALVES, WIDE_FLOATS, assert_close, numbers, wide
from ops.oracles import ORACLES

from maxmod import CPU, Tensor, TensorType
from maxmod.backends.devices import Accelerator
from maxmod.dtype import DType
from maxmod.kernel.source import Dialect
from maxmod.op import lookup
from maxmod.runtime.compiled import CompiledModel, compile_function

pytestmark = pytest.mark.gpu

# A GPU computes exp, sin and others within a few units, and fuses multiply and add.
ULPS = 4
SIZE = 1003


def _compiled(fn: Any, types: Sequence[TensorType]) -> CompiledModel:
    moved = [TensorType(t.dtype, t.shape, Accelerator()) for t in types]
    compiled = compile_function(fn, moved, name="f", parameters={})
    assert {kernel.dialect for kernel in compiled.kernels} == {Dialect.CUDA}
    return compiled


def _run(compiled: CompiledModel, arrays: Sequence[np.ndarray[Any, Any]]) -> list[Tensor]:
    results = compiled(*[Tensor(array, device=CPU()).to(Accelerator()) for array in arrays])
    results = results if isinstance(results, (list, tuple)) else [results]
    return [result.to(CPU()) for result in results]


@pytest.mark.parametrize(
    "dtype", [DType.int8, DType.int32, DType.uint64, *WIDE_FLOATS, *HALVES], ids=lambda d: d.name
)
def test_elementwise_ops(dtype: DType) -> None:
    rng = np.random.default_rng(7)
    wrong = []
    for name, number in op_cases(dtype):
        op, oracle = lookup(name), ORACLES[name]
        fn, types = op_program(name, number, dtype, SIZE)
        arrays = [numbers(rng, t.dtype, [SIZE], *op.meaning.domain) for t in types]
        if name == "pow" and dtype.is_integral():
            arrays[1] = np.abs(arrays[1]) % 4
        if name == "cast" and dtype.is_float():
            arrays[0] = np.abs(arrays[0])
        with np.errstate(all="ignore"):
            expected = oracle.fn(*[wide(array) for array in arrays], **oracle.attrs[number])
        if name == "cast" and not oracle.attrs[number]["dtype"].is_float():
            target = oracle.attrs[number]["dtype"]
            expected = expected != 0 if target is DType.bool else np.trunc(expected)
        try:
            (found,) = _run(_compiled(fn, types), arrays)
            assert_close(found, expected, ulps=ULPS)
        except AssertionError as error:
            wrong.append(f"{name} {oracle.attrs[number]}: {error}")
    assert not wrong, "\n\n".join(wrong)


def _check_rows(name: str, compiled: CompiledModel, rows: int, size: int, dtype: DType) -> None:
    _, oracle, kinds = ROWS[name]
    rng = np.random.default_rng(size)
    shapes = {"r": (rows, size), "w": (size,)}
    arrays = [numbers(rng, dtype, shapes[kind]) for kind in kinds]
    expected = oracle(*[wide(array) for array in arrays])
    expected = expected if isinstance(expected, list) else [expected]
    for found, wanted in zip(_run(compiled, arrays), expected, strict=True):
        scale = 3.0 if name == "sum" else None
        assert_close(found, wanted, length=size + 8, scale=scale, ulps=ULPS)


@pytest.mark.parametrize("dtype", [DType.float32, *HALVES], ids=lambda d: d.name)
@pytest.mark.parametrize("name", ROWS)
def test_rows_of_known_length(name: str, dtype: DType) -> None:
    fn, _, kinds = ROWS[name]
    for size in (1, 3, 31, 768, 1023, 1024, 1025, 4096, 16384, 50000):
        compiled = _compiled(fn, row_types(kinds, 300, size, dtype))
        _check_rows(name, compiled, 300, size, dtype)


@pytest.mark.parametrize("dtype", [DType.float32, *HALVES], ids=lambda d: d.name)
@pytest.mark.parametrize("name", ROWS)
def test_rows_of_any_length(name: str, dtype: DType) -> None:
    fn, _, kinds = ROWS[name]
    compiled = _compiled(fn, row_types(kinds, "n", "m", dtype))
    for rows, size in [(4096, 768), (1, 1), (3, 50001), (100000, 8), (7, 1023), (1, 11000)]:
        _check_rows(name, compiled, rows, size, dtype)


@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("name", VIEWS)
def test_views(name: str, dtype: DType) -> None:
    fn, oracle, shapes = VIEWS[name]
    compiled = _compiled(fn, view_types(shapes, dtype))
    sizes = ((5, 8), (0, 4), (301, 700), (2, 4096)) if any(N in s for s in shapes) else ((0, 0),)
    rng = np.random.default_rng(0)
    for n, m in sizes:
        known = {N: n, M: m}
        arrays = [numbers(rng, dtype, [known.get(s, s) for s in shape]) for shape in shapes]
        expected = oracle(*[wide(array) for array in arrays])
        (found,) = _run(compiled, arrays)
        assert_close(found, expected, ulps=ULPS)
