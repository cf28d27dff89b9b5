"""Graph passes: each changes what it should, and no pass changes a result."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from compiler.graphs import f32, op_names, traced
from helpers import run_op

from maxmod import DType, Tensor
from maxmod import functional as F
from maxmod.compiler.passes.eliminate_dead import eliminate_dead
from maxmod.compiler.passes.expand_composites import expand_composites
from maxmod.compiler.passes.fold_constants import FOLD_LIMIT_NBYTES, fold_constants
from maxmod.compiler.passes.merge_common import merge_common
from maxmod.compiler.passes.recognize_gelu import recognize_gelu
from maxmod.compiler.passes.simplify import simplify
from maxmod.op import Kind, ir
from maxmod.values.device import CPU_REF

PASSES = (
    eliminate_dead,
    merge_common,
    simplify,
    expand_composites,
    recognize_gelu,
    partial(fold_constants, run=run_op),
)


def layer(x: Tensor, w: Tensor) -> Tensor:
    unused = F.exp(x)
    assert unused is not None
    h = F.layer_norm(x, w, w * 0.0, 1e-5) * 1.0 + F.softmax(x @ x.T) @ x
    return (h**2 + F.mean(h)).T.T + Tensor.arange(4, dtype=DType.float32, device=CPU_REF)


@pytest.mark.parametrize("transform", PASSES, ids=lambda p: getattr(p, "func", p).__name__)
def test_no_pass_changes_the_result(transform: Callable[[ir.Graph], ir.Graph]) -> None:
    graph = traced(layer, f32("n", 4), f32(4))
    changed = ir.verify(transform(graph))
    rng = np.random.default_rng(0)
    args = [rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)]
    (before,) = ir.interpret(graph, run_op, args, {}, {"n": 5})
    (after,) = ir.interpret(changed, run_op, args, {}, {"n": 5})
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_dead_nodes_and_constants_go() -> None:
    c = Tensor(np.ones(3, np.float32))

    def fn(x: Tensor) -> Tensor:
        assert (x * c).rank == 1
        return F.exp(x)

    graph = eliminate_dead(traced(fn, f32(3)))
    assert op_names(graph) == ["exp"]
    assert not graph.constants


def test_equal_calls_are_merged_but_signed_zeros_are_not() -> None:
    graph = merge_common(traced(lambda x: F.exp(x) + F.exp(x), f32(3)))
    assert op_names(graph) == ["exp", "add"]
    graph = merge_common(traced(lambda x: (x * 0.0) / (x * -0.0), f32(3)))
    assert op_names(graph).count("full") == 2


def test_masks_made_of_positions_stay_formulas_for_kernels() -> None:
    def fn(x: Tensor) -> Tensor:
        row = F.arange(0, 4, dtype=DType.int64, device=CPU_REF)
        seen = row.reshape([4, 1]) >= row
        waves = F.sin(F.cast(row, DType.float32) * 2.0)  # costly: folded with what it is made of
        return F.where(seen, x, 0.0) + waves

    graph = traced(fn, f32(4, 4))
    assert op_names(fold_constants(graph, run_op)).count("greater_equal") == 0
    kept = op_names(eliminate_dead(fold_constants(graph, run_op, keep_formulas=True)))
    assert kept.count("greater_equal") == 1
    assert "sin" not in kept
    assert "cast" not in kept


def test_constants_are_folded_up_to_the_limit() -> None:
    small = Tensor(np.ones(4, np.float32))
    graph = fold_constants(traced(lambda x: x + F.exp(small * 2.0), f32(4)), run_op)
    assert op_names(eliminate_dead(graph)) == ["add"]
    big = Tensor(np.ones(FOLD_LIMIT_NBYTES // 4 + 1, np.float32))
    graph = fold_constants(traced(lambda x: x + F.exp(big), f32(1)), run_op)
    assert "exp" in op_names(graph)


def test_composites_are_written_out_down_to_ops_with_kernels() -> None:
    graph = expand_composites(
        traced(lambda x, w: F.layer_norm(F.softmax(x), w, w, 1e-5), f32("n", 4), f32(4))
    )
    assert all(node.op.kind is not Kind.COMPOSITE for node in graph.nodes)
    assert all(node.source is not None for node in graph.nodes)


# A function, and the ops that are left of it.
SIMPLIFIED: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "times one": (lambda x: x * 1.0, []),
    "one times": (lambda x: 1.0 * x, []),
    "minus zero": (lambda x: x - 0.0, []),
    "plus negative zero": (lambda x: x + -0.0, []),
    "plus zero": (lambda x: x + 0.0, ["add"]),  # would turn -0.0 into 0.0
    "divided by one": (lambda x: x / 1.0, []),
    "power of one": (lambda x: x**1, []),
    "power of two": (lambda x: x**2, ["mul"]),
    "negated twice": (lambda x: F.negate(F.negate(x)), []),
    "transposed twice": (lambda x: x.T.T, []),
    "permuted twice": (lambda x: x.permute([1, 0]).permute([0, 1]), ["permute"]),
    "reshaped twice": (lambda x: x.reshape([12]).reshape([2, 6]), ["reshape"]),
    "reshaped to its shape": (lambda x: x.reshape([3, 4]), []),
    "cast to a wider dtype and back": (
        lambda x: x.cast(DType.float64).cast(DType.float32),
        [],
    ),
    "cast to a narrower dtype and back": (
        lambda x: x.cast(DType.float16).cast(DType.float32),
        ["cast", "cast"],
    ),
    "times ones of a larger shape": (
        lambda x: x * Tensor.ones([2, 3, 4], dtype=DType.float32, device=CPU_REF),
        ["mul"],
    ),
}


@pytest.mark.parametrize("name", SIMPLIFIED)
def test_simplify(name: str) -> None:
    fn, left = SIMPLIFIED[name]
    graph = eliminate_dead(simplify(traced(lambda x: F.exp(fn(x)), f32(3, 4))))
    names = [n for n in op_names(graph) if n not in ("full", "broadcast", "exp")]
    assert names == left


K = 0.7978845608028654
GELUS = {
    "transformers": lambda x: 0.5 * x * (1.0 + F.tanh(K * (x + 0.044715 * F.pow(x, 3.0)))),
    "half last": lambda x: x * (F.tanh((x * x * x * 0.044715 + x) * 0.79788456) + 1) * 0.5,
    "half of the sum": lambda x: x * (0.5 * (1 + F.tanh(K * x + (K * 0.044715) * x**3))),
    "factored": lambda x: (x / 2) * (1 + F.tanh(K * x * (1 + 0.044715 * x * x))),
    "half first": lambda x: 0.5 * (x * (1 + F.tanh(K * (x + 0.044715 * (x * (x * x)))))),
}
OTHERS = {
    "another constant": lambda x: 0.5 * x * (1 + F.tanh(K * (x + 0.0447 * x**3))),
    "another factor": lambda x: 0.25 * x * (1 + F.tanh(K * (x + 0.044715 * x**3))),
    "minus": lambda x: 0.5 * x * (1 - F.tanh(K * (x + 0.044715 * x**3))),
    "of something else": lambda x: 0.5 * (x + 1) * (1 + F.tanh(K * (x + 0.044715 * x**3))),
    "a constant inside": lambda x: 0.5 * x * (1 + F.tanh(K * (x + 0.044715 * x**3) + 1)),
    "erf": lambda x: 0.5 * x * (1 + F.erf(x * 0.7071067811865476)),
    "a column": lambda x: 0.5 * x[:, :1] * (1 + F.tanh(K * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize("name", [*GELUS, *OTHERS])
def test_gelu_by_tanh_is_recognised(name: str) -> None:
    """In any order of factors, of a value that is itself a product and a sum."""
    fn = {**GELUS, **OTHERS}[name]
    before = traced(lambda x: fn(x * 2 + 1), f32("n", 4))
    after = ir.verify(eliminate_dead(recognize_gelu(simplify(before))))
    assert ("gelu" in op_names(after)) == (name in GELUS)
    assert ("tanh" in op_names(after)) == (name in OTHERS and name != "erf")
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    x[0] = [np.nan, np.inf, -np.inf, 0]
    with np.errstate(all="ignore"):
        (wanted,), (found,) = (ir.interpret(g, run_op, [x], {}, {"n": 50}) for g in (before, after))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
