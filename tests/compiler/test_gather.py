"""Reads at positions that are data, inside generated kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiler.gathers import GATHERS, SIZES
from compiler.graphs import compiled, f32
from helpers import ALL, INTEGERS, assert_close, tensor, values, wide

import maxmod
from maxmod import DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.compiler.steps import RunKernel, RunOp
from maxmod.op import Kind
from maxmod.runtime.compiled import CompiledModel
from maxmod.values.device import CPU_REF

I64 = DType.int64


def check(model: CompiledModel, name: str, arrays: list[Any]) -> None:
    """Compares a compiled program with the eager one, and with the oracle."""
    found = model(*map(tensor, arrays))
    eager = GATHERS[name].fn(*map(tensor, arrays))
    wanted = GATHERS[name].oracle(*map(wide, arrays))
    if not isinstance(wanted, list):
        found, eager, wanted = [found], [eager], [wanted]
    for one, other, want in zip(found, eager, wanted, strict=True):
        assert one.type == other.type
        assert_close(one, want, length=8, ulps=4)
        np.testing.assert_allclose(wide(values(one)), wide(values(other)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", GATHERS)
def test_values(name: str) -> None:
    """Sizes rise and fall on one compiled function; no op runs on its own but products."""
    gather = GATHERS[name]
    with maxmod.configure(check=True):
        model = compiled(gather.fn, *gather.types(DType.float32, I64))
    assert not [
        step.op.name
        for step in model._schedule.steps
        if isinstance(step, RunOp) and step.op.kind is Kind.INDEX
    ]
    rng = np.random.default_rng(0)
    for sizes in SIZES:
        check(model, name, gather.arguments(rng, DType.float32, I64, sizes))


@pytest.mark.parametrize("dtype", ALL, ids=lambda d: d.name)
def test_tables_of_every_dtype(dtype: DType) -> None:
    gather = GATHERS["alone"]
    model = compiled(gather.fn, *gather.types(dtype, I64))
    check(model, "alone", gather.arguments(np.random.default_rng(1), dtype, I64, SIZES[0]))


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: d.name)
def test_positions_of_every_dtype(dtype: DType) -> None:
    gather = GATHERS["scaled"]
    model = compiled(gather.fn, *gather.types(DType.float32, dtype))
    rng = np.random.default_rng(2)
    for sizes in SIZES:
        check(model, "scaled", gather.arguments(rng, DType.float32, dtype, sizes))


def test_the_norm_kernel_reads_the_embedding() -> None:
    def fn(table: Tensor, places: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = F.gather(table, tokens, axis=0) + F.gather(places, F.arange(0, 4, dtype=I64), axis=0)
        return x, F.rms_norm(x, table[0], 1e-6)

    model = compiled(fn, f32("v", 16), f32(9, 16), TensorType(I64, ["b", 4], CPU_REF))
    (step,) = model._schedule.steps
    assert isinstance(step, RunKernel)
    assert "gather joins: elements are loaded where they are used" in model.explain()
    # Positions that only count need no variable, and no check.
    assert model.kernels[0].code.count("mm_position(") == 1


def test_missing_numbers_in_a_table_stay() -> None:
    table = np.array([[np.nan, np.inf], [-np.inf, -0.0], [1, 2]], np.float32)
    model = compiled(
        lambda w, p: F.gather(w, p, axis=0), f32("v", 2), TensorType(I64, ["s"], CPU_REF)
    )
    found = model(tensor(table), tensor(np.array([1, -3, 2])))
    assert values(found).tobytes() == table[[1, 0, 2]].tobytes()


# ---- positions out of range ----------------------------------------------------------------------

BAD = {
    DType.int64: (5, -6, 2**62, -(2**63), 2**63 - 1),
    DType.int32: (5, -6, 2**31 - 1, -(2**31)),
    DType.int8: (5, -6, 127, -128),
    DType.uint64: (5, 2**63 - 1, 2**63, 2**64 - 1),
    DType.uint8: (5, 255),
}


@pytest.mark.parametrize("dtype", BAD, ids=lambda d: d.name)
@pytest.mark.parametrize("name", ["scaled", "normed", "along rows", "of numbers", "product"])
def test_a_bad_position_is_refused_as_by_the_op(name: str, dtype: DType) -> None:
    """Whatever it is, nothing outside the table is read; the next call works."""
    gather = GATHERS[name]
    model = compiled(gather.fn, *gather.types(DType.float32, dtype))
    rng = np.random.default_rng(3)
    table, positions = gather.arguments(rng, DType.float32, dtype, SIZES[0])
    for position in BAD[dtype]:
        wrong = positions.copy()
        wrong.flat[-1] = position
        with pytest.raises(IndexError) as eager:
            gather.fn(tensor(table), tensor(wrong))
        with pytest.raises(IndexError) as found:
            model(tensor(table), tensor(wrong))
        assert str(found.value) == str(eager.value)
        assert f"position {position} out of range for an axis of size 5" in str(found.value)
        check(model, name, [table, positions])


def test_kernels_run_again_after_a_refused_position(host_ops: list[str]) -> None:
    """Only the call with the bad position runs op by op, to find the op that refuses it."""
    gather = GATHERS["normed"]
    model = compiled(gather.fn, *gather.types(DType.float32, I64))
    arrays = gather.arguments(np.random.default_rng(4), DType.float32, I64, SIZES[0])
    table, positions, bad = map(tensor, (*arrays, np.full_like(arrays[1], 99)))
    model(table, positions)
    host_ops.clear()
    with pytest.raises(IndexError):
        model(table, bad)
    assert host_ops[-1] == "gather"
    host_ops.clear()
    for _ in range(2):
        model(table, positions)
    assert host_ops == []


def test_a_bad_position_among_many_threads_is_found() -> None:
    model = compiled(
        lambda w, p: F.gather(w, p, axis=0) + 1, f32("v", 64), TensorType(I64, ["s"], CPU_REF)
    )
    table = np.zeros((7, 64), np.float32)
    for place in (0, 999, 1999):
        positions = np.zeros(2000, np.int64)
        positions[place] = 7
        with pytest.raises(IndexError, match="position 7 out of range"):
            model(tensor(table), tensor(positions))


def test_an_empty_table_has_no_positions() -> None:
    gather = GATHERS["sums"]
    model = compiled(gather.fn, *gather.types(DType.float32, I64))
    table = np.zeros((0, 8), np.float32)
    with pytest.raises(IndexError, match="position 0 out of range for an axis of size 0"):
        model(tensor(table), tensor(np.zeros((1, 1), np.int64)))
    assert model(tensor(table), tensor(np.zeros((1, 0), np.int64))).shape == [1, 0, 1]


def test_the_sum_of_nothing_from_an_empty_table_is_0() -> None:
    model = compiled(
        lambda w, p: F.sum(F.gather(w, p, axis=1)), f32(2, "v"), TensorType(I64, ["s"], CPU_REF)
    )
    found = model(tensor(np.zeros((2, 0), np.float32)), tensor(np.zeros(0, np.int64)))
    assert values(found).tolist() == [[0], [0]]
