"""Mutable buffers in compiled graphs: stores happen in program order, and in place."""

from __future__ import annotations

import numpy as np
import pytest
from compiler.graphs import compiled, f32, traced

from maxmod import BufferType, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.errors import TraceError
from maxmod.runtime.compiled import CompiledModel
from maxmod.values.device import CPU_REF

BUFFER = BufferType(DType.float32, ["n", 4], CPU_REF)


def buffer(rows: int = 3) -> Tensor:
    return Tensor(np.arange(rows * 4, dtype=np.float32).reshape(rows, 4))


def stores_in_kernels(model: CompiledModel) -> int:
    """The number of buffers that kernels overwrite; no op does."""
    steps = model._schedule.steps
    assert not any(getattr(step, "in_place", False) for step in steps)
    targets = [target for step in steps for target in getattr(step, "targets", ())]
    return sum(target >= 0 for target in targets)


def test_a_slice_is_stored_in_place() -> None:
    def fn(cache: Tensor, x: Tensor) -> Tensor:
        F.buffer_store_slice(cache, F.exp(x), [slice(1, 2)])
        return cache.sum(axis=None)

    model = compiled(fn, BUFFER, f32(1, 4))
    assert stores_in_kernels(model) == 1
    cache = buffer()
    memory = cache.data
    total = model(cache, np.zeros((1, 4), np.float32))
    want = np.arange(12, dtype=np.float32).reshape(3, 4)
    want[1] = 1
    assert cache.data is memory
    np.testing.assert_array_equal(memory, want)
    assert total.item() == want.sum()


def test_reads_and_stores_keep_program_order() -> None:
    def fn(cache: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        before = cache.sum(axis=None)
        F.buffer_store_slice(cache, x, [slice(0, 1)])
        between = cache * 2.0
        F.buffer_store_slice(cache, x + 1.0, [slice(0, 1)])
        return before, between, cache.sum(axis=None)

    model = compiled(fn, BUFFER, f32(1, 4))
    cache, start = buffer(), buffer().to_numpy().copy()
    x = np.full((1, 4), 10, np.float32)
    before, between, after = model(cache, x)
    assert before.item() == start.sum()
    first = start.copy()
    first[0] = 10
    np.testing.assert_array_equal(between.to_numpy(), first * 2)
    first[0] = 11
    assert after.item() == first.sum()
    np.testing.assert_array_equal(cache.to_numpy(), first)


def test_the_old_contents_can_be_returned() -> None:
    def fn(cache: Tensor) -> Tensor:
        old = cache * 1.0
        F.buffer_store(cache, cache + 1.0)
        return old

    cache = buffer()
    model = compiled(fn, BUFFER)
    for step in range(3):
        old = model(cache)
        np.testing.assert_array_equal(old.to_numpy(), buffer().to_numpy() + step)
    np.testing.assert_array_equal(cache.to_numpy(), buffer().to_numpy() + 3)


def test_a_function_may_only_store() -> None:
    def fn(cache: Tensor) -> None:
        F.buffer_store(cache, F.exp(cache))

    cache = buffer()
    assert compiled(fn, BUFFER)(cache) is None
    np.testing.assert_allclose(cache.to_numpy(), np.exp(buffer().to_numpy()), rtol=1e-6)


def test_rows_move_within_a_buffer() -> None:
    """The source is read before the target is written, although both are the same memory."""

    def fn(cache: Tensor) -> None:
        F.buffer_store_slice(cache, cache[:-1], [slice(1, None)])

    cache = buffer(5)
    compiled(fn, BUFFER)(cache)
    want = np.concatenate([buffer(5).to_numpy()[:1], buffer(5).to_numpy()[:-1]])
    np.testing.assert_array_equal(cache.to_numpy(), want)


def test_the_graph_text_names_the_stores() -> None:
    def fn(cache: Tensor) -> None:
        F.buffer_store(cache, cache * 2.0)

    assert "store %cache = %" in str(traced(fn, BUFFER))


def test_only_buffers_can_be_changed() -> None:
    def fn(x: Tensor) -> Tensor:
        F.buffer_store(x, x * 2.0)
        return x

    with pytest.raises(TraceError, match="only arguments of a BufferType"):
        traced(fn, f32(3))


def test_stores_are_checked_when_traced() -> None:
    def fn(cache: Tensor, x: Tensor) -> Tensor:
        F.buffer_store_slice(cache, x, [slice(0, 2)])
        return x

    with pytest.raises(ValueError, match="shape of the slice"):
        traced(fn, BUFFER, f32(1, 4))


def test_a_store_beyond_a_symbolic_size_fails_at_run_time() -> None:
    def fn(cache: Tensor, x: Tensor) -> Tensor:
        F.buffer_store_slice(cache, x, [slice(2, 3)])
        return x

    model = compiled(fn, BUFFER, f32(1, 4))
    with pytest.raises(ValueError, match="out of range for dimension size 2"):
        model(buffer(2), np.zeros((1, 4), np.float32))


def test_rows_are_stored_in_place_at_a_tensor_position() -> None:
    """One compile and one program; each call stores somewhere else."""

    def fn(cache: Tensor, x: Tensor, position: Tensor) -> Tensor:
        F.buffer_store_slice(cache, x * 2.0, [(slice(position, None), 1)])
        seen = F.arange(0, cache.shape[0], dtype=DType.int64, device=CPU_REF) <= position
        return F.where(F.unsqueeze(seen, 1), cache, 0.0).sum(axis=0)

    model = compiled(fn, BUFFER, f32(1, 4), TensorType(DType.int64, [], CPU_REF))
    assert stores_in_kernels(model) == 1
    cache, want = buffer(5), buffer(5).to_numpy().copy()
    memory = cache.data
    for position in (4, 0, 2):
        x = np.full((1, 4), position + 0.5, np.float32)
        total = model(cache, x, Tensor(position, dtype=DType.int64))
        want[position] = x * 2
        np.testing.assert_array_equal(memory, want)
        np.testing.assert_array_equal(total.to_numpy()[0], want[: position + 1].sum(axis=0))
    assert model.stats.programs == 1
    with pytest.raises(IndexError, match="5:6 is out of range for an axis of size 5"):
        model(cache, x, Tensor(5, dtype=DType.int64))
