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


# ---- numbers that are read along the queries -----------------------------------------------------


def spanned(q: Any, k: Any, v: Any, starts: Any, ends: Any) -> Any:
    """Query i sees the keys from starts[i] to ends[i]."""
    column = F.arange(0, k.shape[-2], dtype=DType.int64, device=q.device)
    seen = F.logical_and(column >= F.unsqueeze(starts, 1), column < F.unsqueeze(ends, 1))
    return F.scaled_dot_product_attention(q, k, v, seen)


def span_types(dtype: DType) -> list[TensorType]:
    return [*types(dtype)[:3], *[TensorType(DType.int64, ["s"], CPU_REF)] * 2]


@functools.cache
def host_spans() -> Callable[..., Any]:
    model = compiled(spanned, *span_types(DType.float32))
    assert [kernel.name for kernel in model.kernels] == ["attention"]
    return lambda *arrays: model(*map(Tensor, arrays)).to_numpy()


@functools.cache
def cuda_spans(name: str) -> CudaTemplate:
    emit, dtype = EMITTERS[name]
    template = CudaTemplate(spanned, span_types(dtype), emit)
    build([template])
    return template


def check_spans(kernel: Callable[..., Any], dtype: DType, keys: int, spans: Any) -> None:
    """Compares with NumPy in float64: texts one after another, in any order, some of them empty."""
    rng = np.random.default_rng(len(spans))
    starts, ends = np.array(spans, np.int64).T.copy()
    q, k, v = (
        rng.normal(size=(n, HEAD)).astype(storage_dtype(dtype)) for n in (len(spans), keys, keys)
    )
    found = kernel(q, k, v, starts, ends)
    column = np.arange(keys)
    mask = (column >= starts[:, None]) & (column < ends[:, None])
    with np.errstate(invalid="ignore"):
        wanted = attention(*(x.astype(np.float64) for x in (q, k, v)), mask)
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=0, atol=TOLERANCES[dtype])


def spans(most_queries: int, most_keys: int) -> Any:
    """Draws keys, and for groups of neighbouring queries the same first and last key."""

    def of(keys: int) -> Any:
        places = st.tuples(st.integers(0, keys), st.integers(0, keys + 3))
        groups = st.lists(st.tuples(places, st.integers(1, 20)), min_size=1, max_size=8)
        listed = groups.map(lambda found: [span for span, count in found for _ in range(count)])
        return st.tuples(st.just(keys), listed.map(lambda found: found[:most_queries]))

    return st.integers(1, most_keys).flatmap(of)


@example((600, [(0, 20)] * 20 + [(20, 45)] * 25 + [(255, 257)] * 2 + [(300, 600)] * 30))
@example((40, [(0, 17), (16, 32), (39, 40), (8, 8)]))
@settings(max_examples=200)
@given(spans(90, 600))
def test_host_spans(case: tuple[int, Any]) -> None:
    check_spans(host_spans(), DType.float32, *case)


def test_host_texts_one_after_another() -> None:
    """700 keys are three blocks, and more queries than a task has."""
    lengths = [5, 1, 16, 17, 300, 90, 255, 16]
    ends = np.cumsum(lengths)
    case = np.stack([ends - lengths, ends], 1).repeat(lengths, 0)
    check_spans(host_spans(), DType.float32, int(ends[-1]), case)


@pytest.mark.parametrize("name", EMITTERS)
@settings(max_examples=40)
@given(data=st.data())
def test_cuda_spans(name: str, data: st.DataObject) -> None:
    case = data.draw(spans(4 if name == "few" else 70, 140))
    check_spans(cuda_spans(name), EMITTERS[name][1], *case)
