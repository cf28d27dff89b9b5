"""Stores as results of generated kernels: in place, in order, at positions that are data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled, f32
from compiler.stores import SIZES, STORES
from helpers import ALL, assert_close, tensor, values, wide

import maxmod
from maxmod import BufferType, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.compiler.schedule import RunKernel
from maxmod.runtime.compiled import CompiledModel
from maxmod.values.device import CPU_REF

POSITION = TensorType(DType.int64, [], CPU_REF)


def check(model: CompiledModel, name: str, arrays: list[Any]) -> None:
    """Compares results and buffer with those of the oracle and of eager execution."""
    program = STORES[name]
    buffer, x, position = arrays
    compiled_buffer, eager_buffer = tensor(buffer.copy()), tensor(buffer.copy())
    memory = compiled_buffer.data
    wanted_buffer = wide(buffer).copy()
    found = model(compiled_buffer, tensor(x), tensor(position))
    eager = program.fn(eager_buffer, tensor(x), tensor(position))
    wanted = program.oracle(wanted_buffer, wide(x), position)
    assert compiled_buffer.data is memory
    pairs = [(compiled_buffer, eager_buffer, wanted_buffer)]
    if isinstance(wanted, list):
        pairs += zip(found, eager, wanted, strict=True)
    elif wanted is not None:
        pairs.append((found, eager, wanted))
    for one, other, want in pairs:
        assert one.type == other.type
        assert_close(one, want, length=8, ulps=4)
        np.testing.assert_allclose(wide(values(one)), wide(values(other)), rtol=1e-5, atol=1e-5)


def targets(model: CompiledModel) -> list[int]:
    """The buffers that kernels overwrite."""
    kernels = [step for step in model._schedule.steps if isinstance(step, RunKernel)]
    return [target for step in kernels for target in step.targets if target >= 0]


@pytest.mark.parametrize("name", STORES)
def test_values(name: str) -> None:
    """Sizes rise and fall on one compiled function."""
    program = STORES[name]
    with maxmod.configure(check=True):
        model = compiled(program.fn, *program.types(DType.float32))
        assert len(targets(model)) == program.in_kernels
        rng = np.random.default_rng(0)
        for sizes, position in SIZES:
            check(model, name, program.arguments(rng, DType.float32, sizes, position))


@pytest.mark.parametrize("dtype", ALL, ids=lambda d: d.name)
def test_buffers_of_every_dtype(dtype: DType) -> None:
    program = STORES["copied"]
    model = compiled(program.fn, *program.types(dtype))
    check(model, "copied", program.arguments(np.random.default_rng(1), dtype, *SIZES[0]))


@pytest.mark.parametrize("name", ["rows", "heads", "last axis", "normed", "computed position"])
def test_a_bad_position_is_refused_as_by_the_op(name: str) -> None:
    """The buffer stays as it was; the next call works."""
    program = STORES[name]
    model = compiled(program.fn, *program.types(DType.float32))
    rng = np.random.default_rng(2)
    arrays = program.arguments(rng, DType.float32, *SIZES[0])
    for position in (4, 6, -1, 2**62, -(2**62)):
        buffer = tensor(arrays[0].copy())
        bad = tensor(np.array(position))
        with pytest.raises(IndexError) as eager:
            program.fn(tensor(arrays[0].copy()), tensor(arrays[1]), bad)
        with pytest.raises(IndexError) as found:
            model(buffer, tensor(arrays[1]), bad)
        assert str(found.value) == str(eager.value)
        assert f"{position}:{position + 3} is out of range for an axis of size 6" in str(
            found.value
        )
        np.testing.assert_array_equal(values(buffer), arrays[0])
        check(model, name, arrays)


def test_kernels_run_again_after_a_refused_position(host_ops: list[str]) -> None:
    program = STORES["rows"]
    model = compiled(program.fn, *program.types(DType.float32))
    arrays = program.arguments(np.random.default_rng(5), DType.float32, *SIZES[0])
    buffer, rows, position = map(tensor, arrays)
    model(buffer, rows, position)
    host_ops.clear()
    with pytest.raises(IndexError):
        model(buffer, rows, tensor(np.array(99)))
    assert host_ops != []
    host_ops.clear()
    for _ in range(2):
        model(buffer, rows, position)
    assert host_ops == []


def test_more_rows_than_there_are() -> None:
    program = STORES["rows"]
    model = compiled(program.fn, *program.types(DType.float32))
    arrays = program.arguments(np.random.default_rng(3), DType.float32, {"n": 2, "s": 3}, 0)
    buffer = tensor(arrays[0].copy())
    for call in (program.fn, model):
        with pytest.raises(ValueError, match=r"update_rows: 3 rows do not fit into axis 0 of"):
            call(buffer, *map(tensor, arrays[1:]))
        np.testing.assert_array_equal(values(buffer), arrays[0])


def test_a_bad_lookup_refuses_the_store() -> None:
    def fn(buffer: Tensor, table: Tensor, tokens: Tensor, position: Tensor) -> None:
        rows = F.gather(table, tokens, axis=0) * 2
        F.buffer_store_slice(buffer, rows, [(slice(position, None), rows.shape[0])])

    model = compiled(
        fn,
        BufferType(DType.float32, ["n", 4], CPU_REF),
        f32("v", 4),
        TensorType(DType.int64, ["s"], CPU_REF),
        POSITION,
    )
    assert len(targets(model)) == 1
    table = tensor(np.ones((3, 4), np.float32))
    for token, position, message in [(3, 0, "position 3 out"), (0, 5, "5:6 is out")]:
        buffer = tensor(np.zeros((5, 4), np.float32))
        with pytest.raises(IndexError, match=message):
            model(buffer, table, tensor(np.array([token])), tensor(np.array(position)))
    buffer = tensor(np.zeros((5, 4), np.float32))
    model(buffer, table, tensor(np.array([-1])), tensor(np.array(4)))
    assert values(buffer)[:, 0].tolist() == [0, 0, 0, 0, 2]


@pytest.mark.parametrize("name", ["rows", "whole", "whole from itself", "heads"])
def test_a_buffer_with_gaps_is_written_through(name: str) -> None:
    """Kernels know row-major memory alone; what they write into a copy comes back."""
    program = STORES[name]
    model = compiled(program.fn, *program.types(DType.float32))
    sizes = {"n": 4, "b": 2, "s": 4 if name.startswith("whole") else 2}
    buffer, x, position = program.arguments(np.random.default_rng(4), DType.float32, sizes, 1)
    base = np.zeros([2 * size for size in buffer.shape], np.float32)
    view = base[(slice(None, None, 2),) * buffer.ndim]
    view[...] = buffer
    wanted = wide(buffer).copy()
    program.oracle(wanted, wide(x), position)
    model(Tensor.wrap(view, tensor(buffer).type), tensor(x), tensor(position))
    np.testing.assert_allclose(view, wanted, rtol=1e-5)
    assert not base[1::2].any()


def test_nothing_to_store() -> None:
    program = STORES["rows"]
    model = compiled(program.fn, *program.types(DType.float32))
    for position in (0, 3):
        arrays = program.arguments(
            np.random.default_rng(5), DType.float32, {"n": 3, "s": 0}, position
        )
        check(model, "rows", arrays)


def test_keys_and_values_are_stored_by_a_kernel_each() -> None:
    """What turns keys is done where they are stored, and nothing else writes into the cache."""

    def fn(keys: Tensor, x: Tensor, turn: Tensor, used: Tensor) -> Tensor:
        k = x.reshape([1, 1, 2, 8]).permute([0, 2, 1, 3])
        pair = (slice(used, None), 1)
        F.buffer_store_slice(keys, k * turn, [slice(None), slice(None), pair])
        F.buffer_store(used, used + 1)
        return F.sum(keys, axis=2)

    model = compiled(
        fn,
        BufferType(DType.float32, [1, 2, "length", 8], CPU_REF),
        f32(1, 1, 16),
        f32(8),
        BufferType(DType.int64, [], CPU_REF),
    )
    names = [
        model.kernels[step.kernel].name
        for step in model._schedule.steps
        if isinstance(step, RunKernel)
    ]
    assert names[0] == "map_mul_update_rows"
    assert len(targets(model)) == 2
    assert "stored in %keys" in model.explain(width=200)
    cache, used = tensor(np.zeros((1, 2, 5, 8), np.float32)), tensor(np.array(0))
    x, turn = np.arange(16, dtype=np.float32), np.arange(8, dtype=np.float32)
    for step in range(5):
        model(cache, tensor(x.reshape(1, 1, 16)), tensor(turn), used)
        assert used.item() == step + 1
        np.testing.assert_array_equal(values(cache)[0, :, step], x.reshape(2, 8) * turn)
        assert not values(cache)[0, :, step + 1 :].any()


def test_without_fusion_stores_are_kernels_too() -> None:
    program = STORES["rows"]
    with maxmod.configure(nofuse=True):
        model = compiled(program.fn, *program.types(DType.float32))
    assert len(targets(model)) == 1
    check(model, "rows", program.arguments(np.random.default_rng(6), DType.float32, *SIZES[0]))
