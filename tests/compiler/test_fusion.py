"""Fusion: what becomes one kernel, what stays apart, and that both compute the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled, f32, traced

import maxmod
from maxmod import DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.compiler.fusion.plan import plan_groups
from maxmod.compiler.passes.expand_composites import expand_composites
from maxmod.compiler.passes.merge_common import merge_common
from maxmod.op.affine import (
    Index,
    Loop,
    SplitNeeded,
    Unfusable,
    matching_blocks,
    of_loop,
    reversed_index,
    split_loop,
    through_reshape,
)
from maxmod.values.device import CPU_REF
from maxmod.values.dim import Dim, as_size


def groups(fn: Callable[..., Any], *types: TensorType) -> list[tuple[bool, int]]:
    """(is a row kernel, number of results) of each kernel."""
    graph = merge_common(expand_composites(traced(fn, *types)))
    return sorted((g.is_row, len(g.outputs)) for g in plan_groups(graph))


W = Tensor(np.linspace(0.5, 1.5, 8, dtype=np.float32))
N = f32("n", 8)


# A function, the types of its arguments, and the groups made of it.
GROUPS: dict[str, tuple[Callable[..., Any], tuple[TensorType, ...], list[tuple[bool, int]]]] = {
    "pointwise": (lambda x: F.gelu(x * 1.5 + W) + x, (N,), [(False, 1)]),
    "softmax": (lambda x: F.softmax(x), (N,), [(True, 1)]),
    "layer norm": (lambda x: F.layer_norm(x, W, W, 1e-5), (N,), [(True, 1)]),
    "RMS norm": (lambda x: F.rms_norm(x, W, 1e-5), (N,), [(True, 1)]),
    "pointwise before softmax": (lambda x, y: F.softmax(x * 0.5 + y), (N, N), [(True, 1)]),
    "softmax written by hand": (
        lambda x: F.exp(x - F.max(x)) / F.sum(F.exp(x - F.max(x))),
        (N,),
        [(True, 1)],
    ),
    "norm written by hand": (
        lambda x: (x - F.mean(x)) * F.rsqrt(F.mean(x * x) + 1e-6),
        (N,),
        [(True, 1)],
    ),
    # The sum of residual and update is normalised and used again: one kernel, two results.
    "residual and its norm": (
        lambda x, y: (x + y, F.layer_norm(x + y, W, W, 1e-5)),
        (N, N),
        [(True, 2)],
    ),
    "softmax of softmax": (lambda x: F.softmax(F.softmax(x) * 2.0), (N,), [(True, 1)]),
    "two results": (lambda x: (F.exp(x), F.exp(x) + 1.0), (N,), [(False, 2)]),
    # Views cost nothing inside a kernel.
    "transposed and reshaped": (lambda x: F.exp(x.T.reshape([-1])) * 2.0, (N,), [(False, 1)]),
    "slices": (
        lambda x: F.exp(x)[1:, ::2] + F.tanh(x[1:, 1::2]),
        (f32(4, 8),),
        [(False, 1)],
    ),
    # Rows of another shape, and another axis, are kernels or calls of their own; the division
    # of the first softmax is cheap enough to move into the second kernel.
    "softmax of both axes": (
        lambda x: F.softmax(F.softmax(x).T),
        (f32(4, 8),),
        [(True, 1), (True, 2)],
    ),
    "sum of columns": (
        lambda x: F.exp(F.sum(F.exp(x), axis=0)),
        (N,),
        [(False, 1), (False, 1)],
    ),
    # A matrix product ends a kernel.
    "product between": (
        lambda x: F.exp(F.exp(x) @ x.T),
        (f32(8, 8),),
        [(False, 1), (False, 1)],
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups(name: str) -> None:
    fn, types, expected = GROUPS[name]
    assert groups(fn, *types) == expected
    rng = np.random.default_rng(1)
    sizes = [[5 if not isinstance(s, int) else s for s in t.sizes] for t in types]
    args = [Tensor(rng.normal(size=shape).astype(np.float32)) for shape in sizes]
    found, want = compiled(fn, *types)(*args), fn(*args)
    pairs = zip(found, want) if isinstance(want, tuple) else [(found, want)]
    for one, other in pairs:
        np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), rtol=2e-5, atol=2e-5)


def test_kernels_never_wait_for_each_other() -> None:
    """A value that a matmul needs and the kernel after it reads again must not join that kernel."""

    def fn(x: Tensor) -> Tensor:
        a = F.exp(x)
        return a @ a.T @ a + a

    model = compiled(fn, f32(8, 8))
    x = np.random.default_rng(2).normal(size=(8, 8)).astype(np.float32) * 0.1
    a = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(model(x).to_numpy(), a @ a.T @ a + a, rtol=1e-5)


def test_kernels_do_not_wait_for_each_other_through_views() -> None:
    """A view that a kernel makes itself is read outside as well, by what the kernel needs."""

    def fn(x: Tensor) -> Tensor:
        return F.softmax(abs(x).T, axis=0)

    x = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    found = compiled(fn, f32(4, 4))(x).to_numpy()
    np.testing.assert_allclose(found, fn(Tensor(x)).to_numpy(), rtol=1e-5)


def test_equal_layers_share_kernels() -> None:
    def fn(x: Tensor) -> Tensor:
        for _ in range(3):
            x = F.gelu(F.layer_norm(x, W, W, 1e-5) @ Tensor.ones([8, 8], device=CPU_REF))
        return x

    model = compiled(fn, N)
    assert len(model.kernels) == 4  # norm; product, twice; gelu + norm, twice; product + gelu
    assert sum("gelu" in kernel.name for kernel in model.kernels) == 2


def test_explain_shows_graph_kernels_reasons_and_lines() -> None:
    text = compiled(lambda x: F.softmax(F.softmax(x).T), f32(4, 8)).explain()
    assert "== graph" in text
    assert "stays out: it reduces rows of another shape" in text
    assert "test_fusion.py:" in text
    assert "#pragma omp simd" in text


def test_memory_plan_reuses_space() -> None:
    def fn(x: Tensor) -> Tensor:
        for _ in range(6):
            x = F.exp(x @ x)
        return x

    plan = compiled(fn, f32(16, 16)).memory_plan()
    assert plan.arena_nbytes == 2 * 16 * 16 * 4
    assert plan.output_nbytes == 16 * 16 * 4
    named = compiled(fn, f32("n", "n")).memory_plan(n=32)
    assert named.arena_nbytes == 2 * 32 * 32 * 4


def test_programs_for_other_sizes_do_not_mix() -> None:
    model = compiled(lambda x: F.softmax(x @ x.T), f32("n", 8))
    rng = np.random.default_rng(3)
    for n in (1, 7, 3, 7, 40, 1):
        x = rng.normal(size=(n, 8)).astype(np.float32)
        s = x.astype(np.float64) @ x.T
        e = np.exp(s - s.max(-1, keepdims=True))
        np.testing.assert_allclose(model(x).to_numpy(), e / e.sum(-1, keepdims=True), atol=1e-5)
    assert model.stats.programs == 4
    assert model.stats.calls == 6


def test_results_are_fresh_in_every_call() -> None:
    model = compiled(lambda x: (x, x + 1.0, x.reshape([-1])), f32(2, 2))
    x = np.zeros((2, 2), np.float32)
    first = [t.to_numpy().copy() for t in model(x)]
    results = model(x)
    for t in results:
        t.data[...] = 5
    assert (x == 0).all() or results[0].data is not x
    for again, before in zip(model(np.zeros((2, 2), np.float32)), first):
        np.testing.assert_array_equal(again.to_numpy(), before)


def test_half_types_are_computed_in_float32() -> None:
    t = TensorType(DType.bfloat16, ["n", 8], CPU_REF)
    x = Tensor(np.linspace(-3, 3, 24, dtype=np.float32).reshape(3, 8)).cast(DType.bfloat16)
    model = compiled(lambda x: F.softmax(x * 3.0), t)
    wide = x.cast(DType.float32).to_numpy().astype(np.float64) * 3
    e = np.exp(wide - wide.max(-1, keepdims=True))
    want = e / e.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(model(x), dtype=np.float64), want, rtol=2**-7, atol=1e-3)


# ---- flips ---------------------------------------------------------------------------------------

# A function of x [n, 8] that reads backward, and the same in NumPy.
FLIPS: dict[str, tuple[Callable[..., Any], Callable[..., Any], int]] = {
    "alone": (lambda x: F.flip(x), lambda x: x[::-1, ::-1], 1),
    "fused": (lambda x: F.exp(F.flip(x * 2, 0)) + x, lambda x: np.exp(x[::-1] * 2) + x, 1),
    "of a reshape": (
        lambda x: F.flip(x.reshape([-1])).reshape([-1, 4]) + x.reshape([-1, 4])[:, ::-1],
        lambda x: x.reshape(-1)[::-1].reshape(-1, 4) + x.reshape(-1, 4)[:, ::-1],
        1,
    ),
    "softmax": (
        lambda x: F.softmax(x[::-1])[:, ::-1],
        lambda x: (np.exp(x) / np.exp(x).sum(-1, keepdims=True))[::-1, ::-1],
        1,
    ),
    "sums": (
        lambda x: F.flip(F.sum(F.flip(x) * x)),
        lambda x: (x[::-1, ::-1] * x).sum(-1, keepdims=True)[::-1],
        -1,
    ),
    "products": (
        lambda x: F.flip(x) @ F.flip(x.T, 0) + F.flip(x @ x.T, -1),
        lambda x: x[::-1, ::-1] @ x.T[::-1] + (x @ x.T)[:, ::-1],
        -1,
    ),
    "steps": (lambda x: x[::-2, 6:1:-2] + 1, lambda x: x[::-2, 6:1:-2] + 1, 1),
    "lookup": (
        lambda x: F.gather(x, F.flip(F.arange(0, 8, dtype=DType.int64, device=x.device)), axis=1),
        lambda x: x[:, ::-1],
        1,
    ),
    "joined": (
        lambda x: F.concat([x, F.flip(x, 0)], axis=0)[::-1],
        lambda x: np.concatenate([x, x[::-1]])[::-1],
        -1,
    ),
}


@pytest.mark.parametrize("name", FLIPS)
def test_flips(name: str) -> None:
    fn, oracle, kernels = FLIPS[name]
    with maxmod.configure(check=True):
        model = compiled(fn, N)
        assert kernels in (-1, len(model.kernels))
        for rows in (5, 1, 0, 8):
            x = np.random.default_rng(rows).normal(size=(rows, 8)).astype(np.float32)
            want = oracle(x.astype(np.float64))
            for found in (model(x), fn(Tensor(x))):
                assert found.shape == list(want.shape)
                np.testing.assert_allclose(found.to_numpy(), want, rtol=1e-5, atol=1e-5)


# ---- affine indices ------------------------------------------------------------------------------


def test_matching_blocks_follow_names() -> None:
    b, s = Dim("b"), Dim("s")
    assert matching_blocks((b, s, 768), (b, s, 12, 64)) == [
        ([0], [0]),
        ([1], [1]),
        ([2], [2, 3]),
    ]
    assert matching_blocks((as_size(b * s), 4), (b, s, 4)) == [([0], [0, 1]), ([1], [2])]


def test_reshape_asks_for_the_split_that_keeps_indices_affine() -> None:
    loop = Loop("x", 768)
    with pytest.raises(SplitNeeded) as asked:
        through_reshape([of_loop(loop)], (768,), (12, 64))
    assert asked.value.loop == loop
    assert asked.value.inner == 64
    with pytest.raises(Unfusable):
        through_reshape([of_loop(Loop("x", 6)), of_loop(Loop("y", 35))], (6, 35), (10, 21))


@pytest.mark.parametrize(
    ("shape", "to"),
    [((4, 6), (24,)), ((24,), (4, 6)), ((2, 3, 4), (6, 4)), ((6, 4), (2, 3, 4)), ((4, 6), (8, 3))],
)
def test_flips_stay_affine_through_reshapes(shape: tuple[int, ...], to: tuple[int, ...]) -> None:
    """Every mixture of loops that are read forward and backward, against NumPy's positions."""
    source = np.arange(24).reshape(shape)
    for axes in range(1 << len(to)):
        backward = [axis for axis in range(len(to)) if axes >> axis & 1]
        loops = [Loop(f"x{axis}", size) for axis, size in enumerate(to)]
        start = [of_loop(loop) for loop in loops]
        for _ in range(9):
            indices = [
                reversed_index(index, size) if axis in backward else index
                for axis, (index, size) in enumerate(zip(start, to, strict=True))
            ]
            try:
                found = through_reshape(indices, to, shape)
                break
            except SplitNeeded as split:
                high, low, index = split_loop(split.loop, split.inner)
                loops = [
                    x for loop in loops for x in ((high, low) if loop == split.loop else (loop,))
                ]
                start = [one.substituted({split.loop: index}) for one in start]
        sizes = [int(loop.extent) for loop in loops]
        positions = np.indices(sizes).reshape(len(sizes), -1)
        places = [
            sum((int(f) * positions[loops.index(v)] for v, f in index.terms), int(index.const))
            for index in found
        ]
        want = np.flip(source.reshape(to), backward).reshape(-1)
        np.testing.assert_array_equal(source[tuple(places)], want)


def test_a_flip_of_a_size_that_may_shrink_stays_out() -> None:
    n = Dim("n")
    loop = Loop("x", as_size(n - 1))
    backward = reversed_index(of_loop(loop), as_size(n - 1))
    assert backward.render(str) == "x * -1 + n + -2"
    with pytest.raises(Unfusable, match="the sign of"):
        through_reshape([backward, of_loop(Loop("y", 3))], (as_size(n - 1), 3), (3, as_size(n - 1)))
    with pytest.raises(Unfusable, match="the sign of"):
        reversed_index(of_loop(loop).scaled(as_size(n - 1)), as_size(n * n))


def test_index_arithmetic() -> None:
    x, y = Loop("x", 4), Loop("y", Dim("n"))
    index = of_loop(x).scaled(3) + of_loop(y) + Index((), 2)
    assert index.render(str) == "x * 3 + y + 2"
    assert (index + of_loop(x).scaled(-3)).render(str) == "y + 2"
    assert index.scaled(0) == Index()


def test_switches_that_help_to_find_a_wrong_kernel() -> None:
    def fn(x: Tensor) -> Tensor:
        return F.exp(F.tanh(x) * 2.0) @ F.sin(x).T

    x = np.random.default_rng(4).normal(size=(3, 8)).astype(np.float32)
    want = np.exp(np.tanh(x.astype(np.float64)) * 2) @ np.sin(x.astype(np.float64)).T
    for option, count in (({"nofuse": True}, 5), ({"fuse_limit": 1}, 1), ({"fuse_limit": 0}, 0)):
        with maxmod.configure(**option):
            model = compiled(fn, N)
        assert len(model.kernels) == count
        np.testing.assert_allclose(model(x).to_numpy(), want, rtol=1e-5)


def test_times_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with maxmod.configure(debug=2), caplog.at_level("DEBUG", logger="maxmod"):
        compiled(lambda x: F.exp(x) + 1.0, N)(np.ones((2, 8), np.float32))
    assert re.search(r"ms .* MB .* GB/s  map_exp_add", caplog.text)


def test_views_that_two_kernels_share() -> None:
    """A value read through the same views by two kernels belongs to neither alone."""
    c, s = (Tensor(np.linspace(0, 1, 4, dtype=np.float32) + n) for n in (0, 1))

    def fn(x: Tensor) -> Tensor:
        normed = F.layer_norm(x, W, W, 1e-5)
        a, b = normed[:, :4], normed[:, 4:]
        return F.concat([F.exp(a * c) - b * s, a * s + F.exp(b * c)], axis=-1)

    x = np.random.default_rng(5).normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_allclose(
        compiled(fn, N)(x).to_numpy(), fn(Tensor(x)).to_numpy(), rtol=2e-5, atol=2e-5
    )
