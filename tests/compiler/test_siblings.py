"""Sibling elementwise kernels become one, unless one needs the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled, f32
from emulated_cuda import emulated_cuda
from helpers import assert_close, numbers, tensor

import maxmod
from maxmod import CPU, BufferType, DType, TensorType
from maxmod import functional as F
from maxmod.compiler.steps import RunKernel
from maxmod.runtime.compiled import compile_function
from maxmod.values.device import CPU_REF

SIZES = [1, 3, 64]


def _sum_first(x: Any) -> Any:
    total = F.sum(F.exp(x), axis=0)  # another kernel, or none, comes between the two
    return [total + x, F.exp(x)]


# Functions of one matrix, the same in NumPy, and their number of elementwise kernels.
PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[..., Any], int]] = {
    "siblings": (lambda x: [F.exp(x), x + 1], lambda x: [np.exp(x), x + 1], 1),
    "three": (
        lambda x: [F.exp(x), x + 1, F.floor(x) * 2],
        lambda x: [np.exp(x), x + 1, np.floor(x) * 2],
        1,
    ),
    "moved": (lambda x: [x[:, :4] + 1, x[:, 4:] * 2], lambda x: [x[:, :4] + 1, x[:, 4:] * 2], 1),
    "other sizes": (lambda x: [x + 1, x[:, :2] * 2], lambda x: [x + 1, x[:, :2] * 2], 2),
    "one after the other": (_sum_first, lambda x: [np.exp(x).sum(0) + x, np.exp(x)], 2),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_beside_each_other(name: str) -> None:
    fn, oracle, kernels = PROGRAMS[name]
    with maxmod.configure(check=True):
        model = compiled(fn, f32("n", 8))
        assert sum(isinstance(step, RunKernel) for step in model._schedule.steps) == kernels
        for size in SIZES:
            x = numbers(np.random.default_rng(size), DType.float32, [size, 8])
            for found, wanted in zip(model(tensor(x)), oracle(x.astype(np.float64)), strict=True):
                assert_close(found, wanted, length=size, ulps=8)


def _two_caches(keys: Any, values: Any, x: Any, position: Any) -> None:
    at = (slice(position, None), x.shape[0])
    F.buffer_store_slice(keys, x[:, :8] * 2, [at])
    F.buffer_store_slice(values, x[:, 8:], [at])


def _types(device: Any) -> list[TensorType]:
    cache = BufferType(DType.float32, ["length", 8], device)
    x = TensorType(DType.float32, ["n", 16], device)
    return [cache, cache, x, TensorType(DType.int64, [], device)]


def _check_two_caches(model: Any, device: Any) -> None:
    assert len(model.kernels) == 1
    rng = np.random.default_rng(0)
    for length, size, position in [(8, 3, 2), (8, 1, 7), (3, 3, 0)]:
        x = numbers(rng, DType.float32, [size, 16])
        caches = [numbers(rng, DType.float32, [length, 8]) for _ in range(2)]
        args = [tensor(array.copy()).to(device) for array in (*caches, x, np.array(position))]
        model(*args)
        for array, part in zip(caches, (x[:, :8] * 2, x[:, 8:])):
            array[position : position + size] = part
        for found, wanted in zip(args, caches):
            np.testing.assert_array_equal(found.to(CPU()).to_numpy(), wanted)


def test_stores_at_one_position() -> None:
    """Keys and values of a token take one launch."""
    _check_two_caches(compiled(_two_caches, *_types(CPU_REF)), CPU())


def test_stores_at_one_position_in_cuda() -> None:
    with emulated_cuda() as (device, _):
        model = compile_function(_two_caches, _types(device), name="f", parameters={})
        _check_two_caches(model, device)


def test_a_store_stays_after_reads_of_the_old_contents() -> None:
    def fn(buffer: Any, x: Any) -> Any:
        old = buffer * 2 + x
        F.buffer_store(buffer, x + 1)
        return old

    model = compiled(fn, BufferType(DType.float32, ["n", 8], CPU_REF), f32("n", 8))
    rng = np.random.default_rng(0)
    for size in SIZES:
        buffer, x = (numbers(rng, DType.float32, [size, 8]) for _ in range(2))
        changed = tensor(buffer.copy())
        assert_close(model(changed, tensor(x)), buffer * 2.0 + x, length=1, ulps=2)
        np.testing.assert_array_equal(changed.to_numpy(), x + 1)
