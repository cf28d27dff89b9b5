"""A call that is refused stores nothing; bounds that only the call knows are checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled, f32
from helpers import tensor

import maxmod
from maxmod import BufferType, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.compiler.steps import RunKernel
from maxmod.values.device import CPU_REF

BUFFER = BufferType(DType.float32, ["m", 4], CPU_REF)
TABLE = f32("n", 4)
POSITIONS = TensorType(DType.int64, ["m"], CPU_REF)
ROWS = np.arange(20, dtype=np.float32).reshape(5, 4)
START = np.full((3, 4), 0.5, np.float32)


def _looked_up(buffer: Tensor, x: Tensor, k: Tensor) -> None:
    F.buffer_store(buffer, F.gather(x, k, axis=0) * 2.0)


def _looked_up_oracle(buffer: Any, x: Any, k: Any) -> Any:
    return x[k] * 2


def _row(buffer: Tensor, x: Tensor, k: Tensor) -> None:
    y = F.gather(x, k, axis=0)
    F.buffer_store(buffer, y - F.max(y))


def _row_oracle(buffer: Any, x: Any, k: Any) -> Any:
    return x[k] - x[k].max(-1, keepdims=True)


def _twice(buffer: Tensor, x: Tensor, k: Tensor) -> None:
    F.buffer_store(buffer, F.gather(x, F.gather(k, k, axis=0), axis=0) + 1.0)


def _twice_oracle(buffer: Any, x: Any, k: Any) -> Any:
    return x[k[k]] + 1


def _before(buffer: Tensor, x: Tensor, k: Tensor) -> Tensor:
    y = F.gather(x, k, axis=0)
    F.buffer_store(buffer, buffer + 1.0)
    return y * 2.0


def _after(buffer: Tensor, x: Tensor, k: Tensor) -> Tensor:
    F.buffer_store(buffer, buffer + 1.0)
    return F.gather(x, k, axis=0) * 2.0


def _added_oracle(buffer: Any, x: Any, k: Any) -> Any:
    return buffer + 1


def _branch(buffer: Tensor, x: Tensor, k: Tensor) -> Tensor:
    F.buffer_store(buffer, buffer + 1.0)
    on = F.squeeze(k[:1], 0) >= 0
    return F.cond(
        on, [buffer.type], lambda: F.gather(x, k, axis=0), lambda: F.gather(x, k * 0, axis=0)
    )[0]


def _of_sums(buffer: Tensor, x: Tensor, k: Tensor) -> None:
    """The positions are sums of rows: no kernel can check them before it stores."""
    sums = F.squeeze(F.sum(F.stack([k, k * 0], axis=1)), 1)
    F.buffer_store(buffer, F.gather(x, sums, axis=0) + 1.0)


def _of_sums_oracle(buffer: Any, x: Any, k: Any) -> Any:
    return x[k] + 1


PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "looked up": (_looked_up, _looked_up_oracle),
    "a row": (_row, _row_oracle),
    "a lookup of positions": (_twice, _twice_oracle),
    "a lookup before": (_before, _added_oracle),
    "a lookup after": (_after, _added_oracle),
    "a lookup in a branch": (_branch, _added_oracle),
    "positions of sums": (_of_sums, _of_sums_oracle),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_refused_lookup_stores_nothing(name: str) -> None:
    fn, oracle = PROGRAMS[name]
    model = compiled(fn, BUFFER, TABLE, POSITIONS)
    for k in ([1, 0, 2], [1, 7, 2], [2, 1, -6], [2, 1, 0]):
        buffer = tensor(START.copy())
        positions = np.array(k)
        if np.abs(positions).max() > 5:
            with pytest.raises(IndexError, match="gather: position -?[67] out of range"):
                model(buffer, tensor(ROWS), tensor(positions))
            np.testing.assert_array_equal(buffer, START)
        else:
            model(buffer, tensor(ROWS), tensor(positions))
            np.testing.assert_allclose(buffer, oracle(START, ROWS, positions), rtol=1e-6)


def test_stores_that_look_up_are_kernels_that_store_in_place() -> None:
    for name in ("looked up", "a row", "a lookup of positions"):
        (step,) = compiled(PROGRAMS[name][0], BUFFER, TABLE, POSITIONS)._schedule.steps
        assert isinstance(step, RunKernel) and step.targets[0] >= 0


def test_positions_are_checked_only_where_something_is_looked_up() -> None:
    model = compiled(_looked_up, BUFFER, f32("n", 4), POSITIONS)
    nothing = tensor(np.zeros((0, 4), np.float32))
    model(nothing, tensor(ROWS), tensor(np.zeros(0, np.int64)))


def test_two_stores_of_which_one_looks_up() -> None:
    def fn(a: Tensor, b: Tensor, x: Tensor, k: Tensor) -> None:
        F.buffer_store(b, F.gather(x, k, axis=0) * 2.0)
        F.buffer_store(a, a + 1.0)

    model = compiled(fn, BUFFER, BUFFER, TABLE, POSITIONS)
    a, b = tensor(START.copy()), tensor(START.copy())
    with pytest.raises(IndexError, match="position 7"):
        model(a, b, tensor(ROWS), tensor(np.array([1, 7, 2])))
    np.testing.assert_array_equal(a, START)
    np.testing.assert_array_equal(b, START)
    model(a, b, tensor(ROWS), tensor(np.array([1, 0, 2])))
    np.testing.assert_array_equal(a, START + 1)


@pytest.mark.parametrize("kernels", [True, False])
def test_slices_beyond_a_named_size_are_refused(kernels: bool) -> None:
    """A kernel would read behind the end of the memory."""

    def fn(buffer: Tensor, x: Tensor) -> Tensor:
        F.buffer_store(buffer, buffer + 1.0)
        return x[4:5] * 2.0

    with maxmod.configure(compile=kernels):
        model = compiled(fn, BUFFER, TABLE)
    buffer = tensor(START.copy())
    with pytest.raises(IndexError, match="4:5 is out of range for dimension size 3"):
        model(buffer, tensor(ROWS[:3]))
    np.testing.assert_array_equal(buffer, START)
    np.testing.assert_array_equal(model(buffer, tensor(ROWS)), ROWS[4:5] * 2)


@pytest.mark.parametrize("kernels", [True, False])
def test_slices_at_bounds_of_the_data_are_refused_as_eagerly(kernels: bool) -> None:
    def fn(x: Tensor, k: Tensor) -> Tensor:
        return x[(slice(k[0], k[1]), "count"),] * 2.0

    with maxmod.configure(compile=kernels):
        model = compiled(fn, TABLE, TensorType(DType.int64, [2], CPU_REF))
    for start, stop in [(0, 5), (1, 3), (-2, 5), (5, 5), (-5, -1), (2, 2)]:
        found = model(tensor(ROWS), tensor(np.array([start, stop])))
        np.testing.assert_array_equal(found, ROWS[start:stop] * 2)
    for start, stop in [(6, 5), (9, 9), (-6, 5), (-9, 2), (0, 6), (2, 9), (0, -6), (5, -9)]:
        bad = tensor(np.array([start, stop]))
        for call in (fn, model):
            with pytest.raises(IndexError, match="out of range"):
                call(tensor(ROWS), bad)


def test_stores_stay_kernels_though_one_computes_the_value_of_another() -> None:
    def fn(x: Tensor, k: Tensor, *buffers: Tensor) -> Tensor:
        for buffer in buffers:
            F.buffer_store_slice(buffer, x * 2.0, [(slice(k, None), 1)])
        return x + 1.0

    position = TensorType(DType.int64, [], CPU_REF)
    model = compiled(fn, f32(1, 4), position, *[BUFFER] * 30)
    assert all(isinstance(step, RunKernel) for step in model._schedule.steps)
    assert len(model._schedule.steps) < 8
    buffers = [tensor(START.copy()) for _ in range(30)]
    with pytest.raises(IndexError, match="out of range"):
        model(tensor(ROWS[:1]), tensor(np.array(3)), *buffers)
    for buffer in buffers:
        np.testing.assert_array_equal(buffer, START)
    model(tensor(ROWS[:1]), tensor(np.array(1)), *buffers)
    for buffer in buffers:
        np.testing.assert_array_equal(buffer.to_numpy()[1:2], ROWS[:1] * 2)


def test_views_in_readers_of_a_cache_leave_the_store_in_place() -> None:
    def step(cache: Tensor, x: Tensor, position: Tensor) -> Tensor:
        query, key = x[:, :8], x[:, 8:]
        F.buffer_store_slice(cache, key * 2.0, [(slice(position, None), 1)])
        return F.softmax(query.reshape([1, 8]) + F.sum(cache, axis=0)) * query

    cache = BufferType(DType.float32, ["length", 8], CPU_REF)
    model = compiled(step, cache, f32(1, 16), TensorType(DType.int64, [], CPU_REF))
    kernels = [step for step in model._schedule.steps if isinstance(step, RunKernel)]
    assert sum(target >= 0 for kernel in kernels for target in kernel.targets) == 1
    keys, x = tensor(np.zeros((3, 8), np.float32)), np.arange(16, dtype=np.float32).reshape(1, 16)
    model(keys, tensor(x), tensor(np.array(1)))
    np.testing.assert_array_equal(keys.to_numpy()[1], x[0, 8:] * 2)
