"""Groups that a hand-written kernel computes: that they are found, and what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled, f32, traced
from ops.samples_attention import attention

from maxmod import DType, Tensor, TensorType, configure
from maxmod import functional as F
from maxmod.compiler.fusion.plan import plan_groups
from maxmod.compiler.groups.group import Attention
from maxmod.compiler.passes.expand_composites import expand_composites
from maxmod.compiler.passes.merge_common import merge_common
from maxmod.kernel.source import Dialect
from maxmod.runtime.compiled import CompiledModel
from maxmod.values.device import CPU_REF


def _random(*shape: int, seed: int = 4) -> Any:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def _attentions(fn: Callable[..., Any], *types: TensorType) -> int:
    graph = merge_common(expand_composites(traced(fn, *types)))
    groups = plan_groups(graph, template_dialect=Dialect.HOST)
    return sum(isinstance(group.template, Attention) for group in groups)


def _is_one_kernel(model: CompiledModel) -> bool:
    return [kernel.name for kernel in model.kernels] == ["attention"] and (
        "call" not in model.explain().split("== steps")[1].split("== memory")[0]
    )


def _close(found: Tensor, wanted: Any, tolerance: float = 3e-6) -> None:
    scale = max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0)))
    np.testing.assert_allclose(
        np.asarray(found.to_numpy(), np.float64), wanted, rtol=tolerance, atol=tolerance * scale
    )


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.softmax(q @ k.T * 0.25) @ v


def _by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.permute([0, 1, 3, 2]) * 0.25
    e = F.exp(scores - F.max(scores))
    return e / F.sum(e) @ v


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, scale=0.25, is_causal=True)


def _window(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    row = F.unsqueeze(F.arange(0, q.shape[-2], dtype=DType.int64, device=q.device), 1)
    column = F.arange(0, k.shape[-2], dtype=DType.int64, device=q.device)
    seen = F.logical_and(row >= column, column > row - 5)
    return F.softmax(F.where(seen, q @ k.T * 0.25, -math.inf)) @ v


def _window_mask(rows: int, columns: int) -> Any:
    row, column = np.ogrid[:rows, :columns]
    return (row >= column) & (column > row - 5)


# ---- attention ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [_plain, _by_hand, _causal, _window])
def test_attention_is_one_kernel(fn: Any) -> None:
    """At sizes around those of tiles, panels and blocks."""
    model = compiled(fn, f32("b", 2, "s", 16), f32("b", 2, "t", 16), f32("b", 2, "t", 24))
    assert _is_one_kernel(model)
    for b, s, t in [(1, 1, 1), (2, 3, 7), (1, 14, 33), (1, 31, 300), (3, 300, 31), (1, 40, 600)]:
        q, k, v = _random(b, 2, s, 16), _random(b, 2, t, 16, seed=5), _random(b, 2, t, 24)
        mask = _window_mask(s, t) if fn is _window else None
        with np.errstate(all="ignore"):
            wanted = attention(
                *(x.astype(np.float64) for x in (q, k, v)), mask, 0.25, fn is _causal
            )
        _close(model(*(Tensor(x) for x in (q, k, v))), wanted)


def test_attention_reads_and_writes_through_views() -> None:
    """Queries, keys and values are parts of one array, and heads end side by side."""

    def fn(x: Tensor) -> Tensor:
        b, s, _ = x.shape
        parts = [p.reshape([b, s, 3, 8]).permute([0, 2, 1, 3]) for p in F.chunk(x, 3, axis=-1)]
        y = F.scaled_dot_product_attention(*parts, is_causal=True)
        return y.permute([0, 2, 1, 3]).reshape([b, s, 24])

    model = compiled(fn, f32("b", "s", 72))
    assert _is_one_kernel(model)
    assert model.memory_plan(b=2, s=9).arena_nbytes == 0
    x = _random(2, 9, 72)
    parts = [p.reshape(2, 9, 3, 8).transpose(0, 2, 1, 3) for p in np.split(x.astype("d"), 3, -1)]
    wanted = attention(*parts, is_causal=True).transpose(0, 2, 1, 3).reshape(2, 9, 24)
    _close(model(Tensor(x)), wanted)


def test_ops_after_attention_are_another_kernel() -> None:
    model = compiled(lambda q, k, v: F.exp(_plain(q, k, v)).T, *[f32(2, 3, 8, 16)] * 3)
    assert [kernel.name for kernel in model.kernels] == ["attention", "map_exp"]
    q, k, v = (_random(2, 3, 8, 16, seed=n) for n in range(3))
    wanted = np.exp(attention(*(x.astype("d") for x in (q, k, v)), scale=0.25)).swapaxes(-1, -2)
    _close(model(Tensor(q), Tensor(k), Tensor(v)), wanted)


@pytest.mark.parametrize("repeat", [False, True])
def test_query_heads_share_key_heads(repeat: bool) -> None:
    def fn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if repeat:
            b, s = k.shape[0], k.shape[2]
            k, v = (
                F.broadcast_to(F.unsqueeze(x, 2), [b, 2, 3, s, 16]).reshape([b, 6, s, 16])
                for x in (k, v)
            )
        return F.scaled_dot_product_attention(q, k, v)

    model = compiled(fn, f32("b", 6, "s", 16), f32("b", 2, "s", 16), f32("b", 2, "s", 16))
    assert _is_one_kernel(model)
    q, k, v = _random(2, 6, 9, 16), _random(2, 2, 9, 16), _random(2, 2, 9, 16, seed=6)
    wanted = attention(*(x.astype("d") for x in (q, k, v)))
    _close(model(*(Tensor(x) for x in (q, k, v))), wanted)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks_are_read_in_the_kernel(kind: str) -> None:
    dtype = DType.bool if kind == "bool" else DType.float32
    mask_type = TensorType(dtype, ["b", 1, 1, "t"], CPU_REF)
    model = compiled(
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m, is_causal=True),
        f32("b", 2, "s", 16),
        f32("b", 2, "t", 16),
        f32("b", 2, "t", 16),
        mask_type,
    )
    assert _is_one_kernel(model)
    q, k, v = _random(3, 2, 40, 16), _random(3, 2, 40, 16, seed=7), _random(3, 2, 40, 16, seed=8)
    mask = np.random.default_rng(0).integers(0, 2, (3, 1, 1, 40)).astype(bool)
    mask[..., 0] = True
    mask = mask if kind == "bool" else np.where(mask, 0, -1e9).astype(np.float32)
    wanted = attention(*(x.astype("d") for x in (q, k, v)), mask, is_causal=True)
    _close(model(*(Tensor(x) for x in (q, k, v, mask))), wanted)


def test_a_tensor_position_moves_the_mask() -> None:
    """Decoding: the position of the query is an argument."""

    def fn(q: Tensor, k: Tensor, v: Tensor, start: Tensor) -> Tensor:
        row = F.unsqueeze(F.arange(0, q.shape[-2], dtype=DType.int64, device=q.device), 1) + start
        column = F.arange(0, k.shape[-2], dtype=DType.int64, device=q.device)
        return F.softmax(F.where(row >= column, q @ k.T * 0.25, -math.inf)) @ v

    start = TensorType(DType.int64, [1], CPU_REF)
    model = compiled(fn, f32(2, "s", 16), f32(2, "t", 16), f32(2, "t", 16), start)
    q, k, v = _random(2, 3, 16), _random(2, 500, 16), _random(2, 500, 16, seed=9)
    for first in (0, 40, 255, 256, 497):
        found = model(Tensor(q), Tensor(k), Tensor(v), Tensor([first], dtype=DType.int64))
        mask = np.arange(3)[:, None] + first >= np.arange(500)
        _close(found, attention(*(x.astype("d") for x in (q, k, v)), mask, 0.25))


def test_keys_that_are_neighbours_in_memory() -> None:
    """The keys of a cache that is kept transposed."""
    model = compiled(
        lambda q, k, v: F.softmax(q @ k * 0.25) @ v,
        f32(2, "s", 16),
        f32(2, 16, "t"),
        f32(2, "t", 16),
    )
    assert _is_one_kernel(model)
    for s, t in ((1, 300), (3, 33), (20, 300), (40, 7)):
        q, k, v = _random(2, s, 16), _random(2, 16, t), _random(2, t, 16)
        wanted = attention(*(x.astype("d") for x in (q, k.swapaxes(1, 2), v)), scale=0.25)
        _close(model(Tensor(q), Tensor(k), Tensor(v)), wanted)


MASKS: list[tuple[str, Callable[..., Any], Callable[..., Any]]] = [
    ("before", lambda i, j: i > j, lambda i, j: i > j),
    ("from here", lambda i, j: j >= i, lambda i, j: j >= i),
    ("not", lambda i, j: F.logical_not(j > i + 40), lambda i, j: j <= i + 40),
    (
        "two bands",
        lambda i, j: F.logical_or(i - j > 70, j - 90 > i),
        lambda i, j: (i - j > 70) | (j - 90 > i),
    ),
    (
        "prefix",
        lambda i, j: F.logical_or(i >= j, j < 50),
        lambda i, j: (i >= j) | (j < 50),
    ),
    ("mirrored", lambda i, j: 100 - i >= j, lambda i, j: 100 - i >= j),
    ("sum", lambda i, j: i - (j - i) >= 0, lambda i, j: 2 * i >= j),
    ("mixed", lambda i, j: (i - j) * (i - j) >= 400, lambda i, j: (i - j) ** 2 >= 400),
]


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(("name", "fn", "oracle"), MASKS, ids=[name for name, _, _ in MASKS])
def test_masks_made_of_positions(name: str, fn: Any, oracle: Any, inverted: bool) -> None:
    """Blocks are left out only where all scores are masked."""

    def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        i = F.unsqueeze(F.arange(0, q.shape[-2], dtype=DType.int64, device=q.device), 1)
        j = F.arange(0, k.shape[-2], dtype=DType.int64, device=q.device)
        scores = q @ k.T * 0.25
        if inverted:
            scores = F.where(F.logical_not(fn(i, j)), -math.inf, scores)
        else:
            scores = F.where(fn(i, j), scores, -math.inf)
        return F.softmax(scores) @ v

    model = compiled(masked, f32(2, "s", 16), f32(2, "t", 16), f32(2, "t", 16))
    assert _is_one_kernel(model)
    found_test = "return false;" not in model.kernels[0].code
    assert found_test == (name != "mixed")
    for s, t in ((2, 300), (300, 280)):
        q, k, v = _random(2, s, 16), _random(2, t, 16), _random(2, t, 16, seed=3)
        i, j = np.ogrid[:s, :t]
        with np.errstate(all="ignore"):
            wanted = attention(*(x.astype("d") for x in (q, k, v)), oracle(i, j), 0.25)
        _close(model(Tensor(q), Tensor(k), Tensor(v)), wanted)


@pytest.mark.parametrize("dtype", [DType.bfloat16, DType.float16])
def test_half_types_are_computed_in_float32(dtype: DType) -> None:
    t = TensorType(dtype, ["b", 2, "s", 16], CPU_REF)
    model = compiled(lambda q, k, v: F.scaled_dot_product_attention(q, k, v), t, t, t)
    assert _is_one_kernel(model)
    arrays = [Tensor(_random(2, 2, 40, 16, seed=n)).cast(dtype) for n in range(3)]
    wanted = attention(*(a.cast(DType.float64).to_numpy() for a in arrays))
    found = model(*arrays)
    assert found.dtype is dtype
    _close(found.cast(DType.float32), wanted, float(DType.finfo(dtype).eps))


def test_nan_and_infinity_behave_as_in_softmax() -> None:
    model = compiled(_window, *[f32(1, "s", 16)] * 3)
    q, k, v = _random(1, 600, 16), _random(1, 600, 16, seed=1), _random(1, 600, 16, seed=2)
    q[0, 5] = np.nan
    q[0, 300, 0] = np.inf
    k[0, 400, 0] = -np.inf
    scores = np.where(_window_mask(600, 600), (q @ k.swapaxes(1, 2)).astype("d") * 0.25, -np.inf)
    with np.errstate(all="ignore"):
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        wanted = weights / weights.sum(-1, keepdims=True) @ v
    assert np.isnan(wanted).any(axis=-1).sum() > 2
    _close(model(Tensor(q), Tensor(k), Tensor(v)), wanted)


def test_queries_without_keys_give_nan() -> None:
    def fn(q: Tensor, k: Tensor, v: Tensor, m: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, m)

    mask_type = TensorType(DType.bool, ["s", "t"], CPU_REF)
    model = compiled(fn, f32(2, "s", 16), f32(2, "t", 16), f32(2, "t", 16), mask_type)
    mask = np.ones((20, 40), bool)
    mask[3] = False
    q, k = Tensor(_random(2, 20, 16)), Tensor(_random(2, 40, 16))
    found = model(q, k, k, Tensor(mask)).to_numpy()
    assert np.isnan(found[:, 3]).all()
    assert not np.isnan(np.delete(found, 3, axis=1)).any()


H = f32("b", 2, "s", 16)


NO_ATTENTION = {
    "the weights are a result": lambda q, k, v: (F.softmax(q @ k.T) @ v, F.softmax(q @ k.T)),
    "softmax of another axis": lambda q, k, v: F.softmax(q @ k.T, axis=-2) @ v,
    "more than pointwise between": lambda q, k, v: F.softmax(F.softmax(q @ k.T)) @ v,
    "exp in place of softmax": lambda q, k, v: F.exp(q @ k.T) @ v,
    "scores used twice": lambda q, k, v: F.softmax(q @ k.T + (q @ k.T).permute([0, 1, 3, 2])) @ v,
}


@pytest.mark.parametrize("name", NO_ATTENTION)
def test_similar_graphs_are_not_taken_for_attention(name: str) -> None:
    assert _attentions(NO_ATTENTION[name], H, H, H) == 0


def test_attention_of_a_causal_mask_leaves_blocks_out() -> None:
    text = compiled(_causal, H, H, H).kernels[0].code
    assert "return (!(corner0 >= corner2));" in text
    assert "return false;" in compiled(_plain, H, H, H).kernels[0].code


# ---- matrix products -----------------------------------------------------------------------------


def _names(model: CompiledModel) -> list[str]:
    return [kernel.name for kernel in model.kernels]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (40, 33), (513, 130), (16, 64), (7, 200)])
def test_products_of_any_number_of_rows(transposed: bool, k: int, n: int) -> None:
    """Around the sizes of vectors, tiles, panels, and where few rows become many."""
    w = _random(n, k) if transposed else _random(k, n)

    def fn(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.gelu(x @ (w.T if transposed else w) + b)

    model = compiled(fn, f32("m", k), f32(*w.shape), f32(n))
    assert _names(model) == ["matmul_bias_gelu"]
    b = _random(n, seed=9)
    for m in (1, 2, 3, 4, 7, 16, 17, 31, 45, 250):
        x = _random(m, k, seed=m)
        sums = x.astype("d") @ (w.T if transposed else w).astype("d") + b
        wanted = 0.5 * sums * (1 + np.vectorize(math.erf)(sums / math.sqrt(2)))
        _close(model(Tensor(x), Tensor(w), Tensor(b)), wanted, 4e-7 * math.sqrt(k))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("k", "n"), [(1, 3), (33, 65), (160, 31), (257, 16)])
def test_products_of_bfloat16(transposed: bool, k: int, n: int) -> None:
    """Where the CPU can, pairs are multiplied at once; a last one may be half."""
    sizes = (n, k) if transposed else (k, n)
    kind = DType.bfloat16
    model = compiled(
        lambda x, w: x @ (w.T if transposed else w),
        TensorType(kind, ["m", k], CPU_REF),
        TensorType(kind, sizes, CPU_REF),
    )
    assert _names(model) == ["matmul"]
    w = Tensor(_random(*sizes)).cast(kind)
    wide = w.cast(DType.float64).to_numpy()
    for m in (1, 2, 3, 6, 9, 14, 37):
        x = Tensor(_random(m, k, seed=m)).cast(kind)
        wanted = x.cast(DType.float64).to_numpy() @ (wide.T if transposed else wide)
        found = model(x, w)
        assert found.dtype is kind
        _close(found.cast(DType.float32), wanted, float(DType.finfo(kind).eps))


def test_nan_and_infinity_in_products_of_bfloat16() -> None:
    kind = TensorType(DType.bfloat16, ["m", 64], CPU_REF)
    model = compiled(lambda x, w: x @ w.T, kind, TensorType(DType.bfloat16, [40, 64], CPU_REF))
    for m in (2, 20):
        x, w = _random(m, 64), _random(40, 64, seed=1)
        x[0, 3], x[1, 5], w[7, 9] = np.nan, np.inf, -np.inf
        with np.errstate(all="ignore"):
            wanted = np.isfinite(x.astype("d") @ w.astype("d").T)
        found = model(Tensor(x).cast(DType.bfloat16), Tensor(w).cast(DType.bfloat16))
        np.testing.assert_array_equal(np.isfinite(found.cast(DType.float32).to_numpy()), wanted)


def test_more_rows_than_are_packed_at_once() -> None:
    model = compiled(lambda x, w: x @ w.T, f32("m", 16384), f32(40, 16384))
    x, w = _random(260, 16384), _random(40, 16384)
    _close(model(Tensor(x), Tensor(w)), x.astype("d") @ w.T, 1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_more_rows_than_a_task_takes(transposed: bool) -> None:
    sizes = (140, 300) if transposed else (300, 140)
    model = compiled(lambda x, w: x @ (w.T if transposed else w), f32("m", 300), f32(*sizes))
    x, w = _random(4001, 300), _random(*sizes)
    wanted = x.astype("d") @ (w.T if transposed else w)
    _close(model(Tensor(x), Tensor(w)), wanted, 1e-5)


def test_products_with_two_results() -> None:
    """The first epilogue value is also a result; an operand is read through a view."""

    def fn(x: Tensor, w: Tensor, r: Tensor) -> Any:
        y = x @ w.T + 1.0
        return y, F.exp(y) * r.permute([1, 0, 2])

    model = compiled(fn, f32("b", "s", 8), f32(24, 8), f32("s", "b", 24))
    assert _names(model) == ["matmul_add_exp_mul"]
    x, w, r = _random(2, 20, 8), _random(24, 8), _random(20, 2, 24)
    y = x.astype("d") @ w.T + 1
    first, second = model(Tensor(x), Tensor(w), Tensor(r))
    _close(first, y)
    _close(second, np.exp(y) * r.swapaxes(0, 1))


def test_a_product_that_is_a_result_stays_alone() -> None:
    def fn(x: Tensor, w: Tensor) -> Any:
        y = x @ w.T
        return y, F.exp(y)

    model = compiled(fn, f32("b", 8), f32(24, 8))
    assert sorted(_names(model)) == ["map_exp", "matmul"]
    x, w = _random(20, 8), _random(24, 8)
    for found, wanted in zip(model(Tensor(x), Tensor(w)), (x @ w.T, np.exp(x @ w.T))):
        _close(found, wanted, 1e-5)


def test_gated_products_and_residuals() -> None:
    def fn(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return x + (F.silu(x @ gate.T) * (x @ up.T)) @ down.T

    model = compiled(fn, f32("b", "s", 16), f32(40, 16), f32(40, 16), f32(16, 40))
    assert sorted(_names(model)) == ["matmul_add", "matmul_silu_matmul_mul"]
    gate, up, down = _random(40, 16), _random(40, 16, seed=2), _random(16, 40)
    for b, s in ((1, 1), (2, 30)):
        x = _random(b, s, 16)
        g = x.astype("d") @ gate.T
        wanted = x + (g / (1 + np.exp(-g)) * (x @ up.T.astype("d"))) @ down.T
        _close(model(*(Tensor(a) for a in (x, gate, up, down))), wanted, 1e-5)


@pytest.mark.parametrize("dtype", [DType.bfloat16, DType.float16])
@pytest.mark.parametrize("transposed", [False, True])
def test_half_products_are_summed_in_float32(dtype: DType, transposed: bool) -> None:
    def fn(x: Tensor, w: Tensor) -> Tensor:
        return F.relu(x @ (w.T if transposed else w))

    def half(*shape: int) -> Tensor:
        return Tensor(_random(*shape)).cast(dtype)

    w = half(70, 50) if transposed else half(50, 70)
    types = [TensorType(dtype, shape, CPU_REF) for shape in (["m", 50], w.shape)]
    model = compiled(fn, *types)
    assert _names(model) == ["matmul_relu"]
    wide = w.cast(DType.float64).to_numpy()
    for m in (1, 5, 40):
        x = half(m, 50)
        wanted = np.maximum(x.cast(DType.float64).to_numpy() @ (wide.T if transposed else wide), 0)
        _close(model(x, w).cast(DType.float32), wanted, float(DType.finfo(dtype).eps))


def test_products_without_a_kernel_are_calls() -> None:
    double = TensorType(DType.float64, ["m", 4], CPU_REF)
    whole = TensorType(DType.int32, ["m", 4], CPU_REF)
    for fn, types in (
        (lambda x: x @ x.T, [double]),
        (lambda x: x @ x.T, [whole]),
        (lambda x: x @ x[0], [f32("m", 4)]),
    ):
        assert compiled(fn, *types).kernels == ()


def test_nan_and_infinity_go_through_products() -> None:
    model = compiled(lambda x, w: x @ w.T, f32("m", 40), f32(33, 40))
    for m in (1, 30):
        x, w = _random(m, 40), _random(33, 40)
        x[0, 3], w[2, 39] = np.nan, np.inf
        with np.errstate(all="ignore"):
            wanted = x.astype("d") @ w.T
        _close(model(Tensor(x), Tensor(w)), wanted)


def test_results_do_not_depend_on_the_call() -> None:
    model = compiled(lambda x, w: F.softmax(x @ w.T), f32("m", 100), f32(200, 100))
    w = Tensor(_random(200, 100))
    for m in (3, 150):
        x = Tensor(_random(m, 100))
        first = model(x, w).to_numpy()
        assert all((model(x, w).to_numpy() == first).all() for _ in range(5))


def test_check_compares_kernels_with_graphs() -> None:
    with configure(check=True):
        model = compiled(
            lambda x, w: F.scaled_dot_product_attention(x @ w.T, x, x, is_causal=True),
            f32(2, "s", 8),
            f32(8, 8),
        )
        model(Tensor(_random(2, 9, 8)), Tensor(_random(8, 8)))
    assert sorted(_names(model)) == ["attention", "matmul"]


def test_a_mask_of_positions_that_wrap_around() -> None:
    """Blocks must not be left out: after 127 comes -128."""
    count = 300

    def fn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        positions = F.arange(0, count, dtype=DType.int64, device=q.device)
        rows = F.reshape(positions, [count, 1]).cast(DType.int8)
        seen = positions.reshape([1, count]).cast(DType.int8) <= rows
        return F.softmax(F.where(seen, q @ k.T, -math.inf)) @ v

    model = compiled(fn, *[f32(count, 8)] * 3)
    assert [kernel.name for kernel in model.kernels] == ["attention"]
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, count, 8)).astype(np.float32)
    places = np.arange(count).astype(np.int8)
    scores = np.where(places[None] <= places[:, None], q.astype(np.float64) @ k.T, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    wanted = weights / weights.sum(-1, keepdims=True) @ v
    found = model(*map(Tensor, (q, k, v))).to_numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
