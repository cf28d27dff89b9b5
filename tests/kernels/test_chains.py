"""Chains of host kernels: one call from Python for many, with their results and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled

import maxmod
from maxmod import BufferType, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.host import compiler as host_compiler
from maxmod.backends.host.chain import HostChain
from maxmod.backends.host.launch import LoadedKernel
from maxmod.errors import OutOfMemoryError
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.runtime.chains import ChainOfKernels
from maxmod.runtime.compiled import CompiledModel
from maxmod.values.device import CPU_REF

pytestmark = pytest.mark.skipif(
    bool(host_compiler.unavailable_reason()), reason="there is no C compiler"
)

# Adds scalars[0] to a number; sleeps, sets a flag, or says that memory is missing, if asked to.
CODE = """
#include <time.h>

void mm_kernel(void *const *buffers, const int64_t *scalars)
{
    *(int64_t *)buffers[0] += scalars[0];
    const struct timespec pause = {.tv_nsec = scalars[1]};
    nanosleep(&pause, NULL);
    if (scalars[2])
        mm_report_no_memory(buffers, 77);
    *(int64_t *)buffers[1] = scalars[3];
}
"""
SOURCE = KernelSource("add", Dialect.HOST, CODE, "mm_kernel", 2, 4)
LONG_NS = 30_000_000  # longer than a chain goes on


def chain_of(*scalars: tuple[int, int, int, int], flagged: int = -1) -> tuple[HostChain, Any]:
    """Returns a chain whose kernels add to the number at the one address, and the flag."""
    kernel = LoadedKernel(host_compiler.build(SOURCE))
    flag, other = np.zeros(1, np.int64), np.zeros(1, np.int64)
    launches = [kernel.bind(2, numbers) for numbers in scalars]
    for n, launch in enumerate(launches):
        launch.keep(1, flag if n == flagged else other)
    fillings = [(n, 0, 0) for n in range(len(launches))]
    return HostChain(launches, fillings, {flagged: flag} if flagged >= 0 else {}), flag


def test_every_kernel_runs_once_in_each_call() -> None:
    chain, _ = chain_of((1, 0, 0, 0), (10, 0, 0, 0), (100, 0, 0, 0))
    for number in (np.zeros(1, np.int64), np.full(1, 5, np.int64)):
        before = int(number[0])
        assert chain(0, [number.ctypes.data]) == 3
        assert number[0] == before + 111


def test_signals_are_handled_between_long_kernels() -> None:
    chain, _ = chain_of((1, LONG_NS, 0, 0), (1, LONG_NS, 0, 0), (1, 0, 0, 0))
    number = np.zeros(1, np.int64)
    assert chain(0, [number.ctypes.data]) == 1
    assert chain(1, [number.ctypes.data]) == 2
    assert chain(2, [number.ctypes.data]) == 3
    assert number[0] == 3


def test_a_flag_ends_a_chain_until_the_next_call() -> None:
    chain, flag = chain_of((1, 0, 0, 0), (10, 0, 0, 7), (100, 0, 0, 7), flagged=1)
    number = np.zeros(1, np.int64)
    assert chain(0, [number.ctypes.data]) == 2
    assert (number[0], flag[0]) == (11, 7)
    assert chain(2, [number.ctypes.data]) == 3
    assert number[0] == 111


def test_missing_memory_is_an_error_and_later_calls_work() -> None:
    chain, _ = chain_of((1, 0, 0, 0), (10, 0, 1, 0), (100, 0, 0, 0))
    number = np.zeros(1, np.int64)
    for _ in range(2):
        with pytest.raises(OutOfMemoryError, match="kernel add, which needs 77 bytes"):
            chain(0, [number.ctypes.data])
    assert number[0] == 22  # the third kernel did not run


# ---- compiled models ---------------------------------------------------------------------------

ROWS, WIDTH = 6, 16


def program(table: Any, ids: Any, x: Any, cache: Any) -> Any:
    """Several kernels: a gather, sums of rows, a store, and what is read after it."""
    rows = F.gather(table, ids, 0)
    y = F.softmax(rows * x)
    cache[...] = cache + F.exp(y - y.max(1))
    total = F.reshape(y.T.sum(1), [WIDTH])
    return F.layer_norm(cache + total, Tensor.ones([WIDTH]), Tensor.ones([WIDTH]), 1e-5)


def oracle(table: Any, ids: Any, x: Any, cache: Any) -> tuple[Any, Any]:
    """The results of `program` in float64: what it returns, and the cache afterwards."""
    z = np.exp(table[ids].astype(np.float64) * x)
    y = z / z.sum(1, keepdims=True)
    cache = cache + np.exp(y - y.max(1, keepdims=True))
    z = cache + y.sum(0)
    spread = z.var(1, keepdims=True)
    return (z - z.mean(1, keepdims=True)) / np.sqrt(spread + 1e-5) + 1, cache


def model() -> CompiledModel:
    matrix = TensorType(DType.float32, [ROWS, WIDTH], CPU_REF)
    ids = TensorType(DType.int64, [ROWS], CPU_REF)
    return compiled(program, matrix, ids, matrix, BufferType(DType.float32, matrix.shape, CPU_REF))


def chains(found: CompiledModel) -> int:
    (bound,) = found._programs.values()
    return sum(isinstance(action, ChainOfKernels) for action in bound.actions)


def arguments(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    table, x, cache = (rng.standard_normal((ROWS, WIDTH)).astype(np.float32) for _ in range(3))
    return [table, rng.integers(0, ROWS, ROWS), x, cache]


def expect_right(
    found: CompiledModel, arrays: list[np.ndarray], *, transposed: int | None = None
) -> None:
    """Compares a call with the oracle; one argument may be a view with its axes exchanged."""
    wanted, cache = oracle(*arrays)
    tensors = [Tensor(array) for array in arrays]
    if transposed is not None:
        tensors[transposed] = Tensor(arrays[transposed].T.copy()).T
        assert not tensors[transposed].data.flags.c_contiguous
    np.testing.assert_allclose(found(*tensors).to_numpy(), wanted, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(tensors[-1].to_numpy(), cache, rtol=1e-5, atol=1e-6)


def test_a_model_with_new_arrays_in_every_call() -> None:
    found = model()
    for seed in range(4):
        expect_right(found, arguments(seed))
    assert chains(found) == 1


def test_arrays_that_are_not_contiguous_are_copied() -> None:
    found = model()
    for seed, transposed in enumerate((None, 2, None, 3, 2)):
        expect_right(found, arguments(seed), transposed=transposed)


def test_a_wrong_index_is_an_error_and_later_calls_work() -> None:
    found = model()
    expect_right(found, arguments(0))
    table, ids, x, cache = arguments(1)
    ids[3] = ROWS
    with pytest.raises(IndexError, match=str(ROWS)):
        found(Tensor(table), Tensor(ids), Tensor(x), Tensor(cache))
    expect_right(found, arguments(2))


@pytest.mark.parametrize("setting", ["check", "sync"])
def test_steps_that_are_watched_run_one_by_one(setting: str) -> None:
    with maxmod.configure(**{setting: True}):
        found = model()
        expect_right(found, arguments(0))
        assert chains(found) == 0
