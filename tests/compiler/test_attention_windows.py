"""Attention to a window of keys, at drawn sizes and places: whole blocks of scores are left out.

Kernels skip what a mask certainly hides, in steps of panels and blocks. One key too many or too few
changes results only where the window ends next to such a step, so the windows are drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled
from cuda_template import CudaTemplate, build
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ops.samples_attention import attention

from maxmod import DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.compiler.codegen.cuda.attention import emit_few, emit_many, emit_mma
from maxmod.dtype import storage_dtype
from maxmod.values.device import CPU_REF

HEAD = 8
TOLERANCES = {DType.float32: 3e-6, DType.bfloat16: 1.6e-2}
EMITTERS = {
    "few": (emit_few, DType.float32),
    "many": (emit_many, DType.float32),
    "mma": (emit_mma, DType.bfloat16),
}


def windowed(q: Any, k: Any, v: Any, start: Any, width: Any) -> Any:
    """Query i is at position start + i and sees the last `width` keys up to there."""
    steps = F.arange(0, q.shape[-2], dtype=DType.int64, device=q.device)
    row = F.unsqueeze(steps, 1) + start
    column = F.arange(0, k.shape[-2], dtype=DType.int64, device=q.device)
    seen = F.logical_and(row >= column, column > row - width)
    return F.scaled_dot_product_attention(q, k, v, seen)


def types(dtype: DType) -> list[TensorType]:
    """Of queries, keys, values, the first position and the width of the window."""
    shapes = [["s", HEAD], ["t", HEAD], ["t", HEAD]]
    tensors = [TensorType(dtype, shape, CPU_REF) for shape in shapes]
    return [*tensors, *[TensorType(DType.int64, [1], CPU_REF)] * 2]


@functools.cache
def host() -> Callable[..., Any]:
    model = compiled(windowed, *types(DType.float32))
    assert [kernel.name for kernel in model.kernels] == ["attention"]
    return lambda *arrays: model(*map(Tensor, arrays)).to_numpy()


@functools.cache
def cuda(name: str) -> CudaTemplate:
    emit, dtype = EMITTERS[name]
    template = CudaTemplate(windowed, types(dtype), emit)
    assert "mm_is_masked" in template.source.code
    build([template])
    return template


def check(kernel: Callable[..., Any], dtype: DType, window: Sequence[int]) -> None:
    """Compares with NumPy in float64; a query that sees no key gives NaN."""
    queries, keys, start, width = window
    rng = np.random.default_rng(window)
    sizes = (queries, keys, keys)
    q, k, v = (rng.normal(size=(n, HEAD)).astype(storage_dtype(dtype)) for n in sizes)
    found = kernel(q, k, v, np.array([start]), np.array([width]))
    row, column = np.ogrid[start : start + queries, :keys]
    mask = (row >= column) & (column > row - width)
    with np.errstate(invalid="ignore"):
        wanted = attention(*(x.astype(np.float64) for x in (q, k, v)), mask)
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=0, atol=TOLERANCES[dtype])


def windows(most_queries: int, most_keys: int) -> Any:
    """Draws queries, keys, the position of the first query, and a width."""
    return st.tuples(
        st.integers(1, most_queries),
        st.integers(1, most_keys),
        st.integers(0, most_keys),
        st.integers(1, most_keys + 8),
    )


@example((80, 31, 0, 17))
@example((1, 97, 96, 96))
@example((3, 600, 300, 256))  # two blocks of keys
@settings(max_examples=300)
@given(windows(90, 300))
def test_host_windows(window: tuple[int, ...]) -> None:
    check(host(), DType.float32, window)


@pytest.mark.parametrize("name", EMITTERS)
@settings(max_examples=60)
@given(data=st.data())
def test_cuda_windows(name: str, data: st.DataObject) -> None:
    window = data.draw(windows(4 if name == "few" else 70, 140))
    check(cuda(name), EMITTERS[name][1], window)
