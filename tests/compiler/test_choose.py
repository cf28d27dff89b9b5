"""Kernels that choose tokens, on the host and in the CUDA text, against sorting in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cuda_shim
import numpy as np
import pytest
from cuda_function import CudaFunction, build
from ops.samples_choose import OPTIONS, choose, operands

from maxmod import CPU, DType, Tensor, TensorType
from maxmod.ops.choose import choose_tokens
from maxmod.runtime.compiled import compile_function
from maxmod.values.device import CPU_REF

# Below, at and above the threads of a warp, of a block, and the block of a host's loop.
SIZES = (1, 2, 31, 33, 128, 1000, 1024, 2049, 6001)
Run = Callable[..., Any]


def types(rows: int | str, size: int | str) -> list[TensorType]:
    """The types of the operands."""
    return [
        TensorType(DType.float32, [rows, size], CPU_REF),
        TensorType(DType.float64, [4], CPU_REF),
        TensorType(DType.uint64, [], CPU_REF),
        TensorType(DType.uint64, [rows], CPU_REF),
    ]


def _host() -> Run:
    compiled = compile_function(choose_tokens, types("n", "size"), name="f", parameters={})
    assert [kernel.name for kernel in compiled.kernels] == ["choose_tokens"]
    return lambda *arrays: compiled(*[Tensor(a, device=CPU()) for a in arrays]).to_numpy()


@functools.cache
def _cuda() -> CudaFunction:
    function = CudaFunction(choose_tokens, *types("n", "size"))
    build([function])
    return function


@pytest.fixture(scope="module", params=["host", "cuda-0", "cuda-2"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a kernel; that of CUDA with threads in one order or another."""
    dialect, _, order = request.param.partition("-")
    if dialect == "host":
        return _host()
    if cuda_shim.unavailable_reason():
        pytest.skip(cuda_shim.unavailable_reason())
    return lambda *arrays: _cuda()(*arrays, order=int(order))[0]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tokens(run: Run, options: Any) -> None:
    rng = np.random.default_rng(5)
    for size in SIZES:
        arrays = operands(rng, (3, size), options)
        np.testing.assert_array_equal(run(*arrays), choose(*arrays), err_msg=str(size))


def test_rows_without_elements(run: Run) -> None:
    arrays = operands(np.random.default_rng(0), (0, 8), OPTIONS[3])
    assert run(*arrays).shape == (0,)


def test_infinities_and_nan(run: Run) -> None:
    """All but one at -inf; all; several at +inf, which share everything; a NaN anywhere."""
    inf, nan = np.inf, np.nan
    rows = np.full((7, 70), -inf, np.float32)
    rows[0, 65] = -4
    rows[2, [3, 69]] = inf
    rows[3, [5, 6]] = 2, 2
    rows[4:] = 1
    rows[4, 0] = rows[5, 69] = nan
    rows[6, 33], rows[6, 34] = inf, nan
    for options in OPTIONS:
        _, *others = operands(np.random.default_rng(1), (7, 70), options)
        found = run(rows, *others)
        np.testing.assert_array_equal(found, choose(rows, *others))
        assert found[0] == 65
        assert found[2] in (3, 69)
        assert found[3] in (5, 6)
        assert found[4:].tolist() == [-1, -1, -1]


def test_ties(run: Run) -> None:
    """Top-k keeps all as large as the last of them; top-p keeps the first of equal ones."""
    counters = np.arange(60, dtype=np.uint64)
    seed = np.array(1, np.uint64)
    logits = np.tile(np.array([1, 2, 2, 2, 0], np.float32), (60, 1))
    found = run(logits, np.array([1.0, 2, 1, 0]), seed, counters)
    assert set(found.tolist()) == {1, 2, 3}
    for size, top_p, kept in ((8, 0.25, 2), (10, 0.3, 3), (10, 0.31, 4)):
        found = run(np.zeros((60, size), np.float32), np.array([1, 0, top_p, 0]), seed, counters)
        assert set(found.tolist()) == set(range(kept))
    many = np.zeros((8, 2000), np.float32)
    found = run(many, np.array([1.0, 0, 0.5, 0]), seed, counters[:8])
    assert 500 < found.max() < 1000
    assert run(many, np.zeros(4), seed, counters[:8]).tolist() == [0] * 8


def test_all_zero_and_negative_zero(run: Run) -> None:
    logits = np.array([[-0.0, 0.0, -1.0]] * 50, np.float32)
    counters = np.arange(50, dtype=np.uint64)
    found = run(logits, np.array([1.0, 1, 1, 0]), np.array(0, np.uint64), counters)
    assert set(found.tolist()) == {0, 1}
