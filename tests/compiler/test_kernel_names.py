"""Names of kernels: what the user called, once, and never longer than a line can show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiler.graphs import f32, traced
from helpers import run_op
from hypothesis import given
from hypothesis import strategies as st

from maxmod import Tensor
from maxmod import functional as F
from maxmod.compiler.groups.naming import MAX_LENGTH
from maxmod.compiler.pipeline import optimize
from maxmod.compiler.schedule import schedule
from maxmod.interpreters.trace import scope
from maxmod.kernel.source import Dialect
from maxmod.op import ir

W = Tensor(np.ones((64, 64), np.float32))
V = Tensor(np.ones(64, np.float32))
HEADS = f32("batch", 4, "length", 32)


def _softmax_by_hand(x: Tensor) -> Tensor:
    e = F.exp(x - F.max(x))
    return e / F.sum(e)


def _gelu_by_hand(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + F.tanh(0.7978845608 * (x + 0.044715 * x**3)))


def _attention_by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.softmax(q @ k.permute([0, 1, 3, 2]) * 0.125) @ v


def _turned(x: Tensor) -> Tensor:
    with scope("rotary"):
        return x * 2.0 - F.sin(x)


def _names(fn: Callable[..., Any], *types: Any) -> list[str]:
    graph = optimize(traced(fn, *types), run_op, Dialect.HOST)
    return [source.name for source in schedule(graph, Dialect.HOST).kernels]


@pytest.mark.parametrize(
    ("fn", "types", "expected"),
    [
        (F.softmax, [f32("n", 64)], "row_softmax"),
        (lambda x: F.softmax(x * 0.125 + 1), [f32("n", 64)], "row_mul_add_softmax"),
        (_softmax_by_hand, [f32("n", 64)], "row_max_sub_exp_sum_div"),
        (lambda x: F.layer_norm(x, V, V, 1e-5), [f32("n", 64)], "row_layer_norm"),
        (lambda x, y: F.rms_norm(x + y, V, 1e-6), [f32("n", 64)] * 2, "row_add_rms_norm"),
        (lambda x: F.softmax(F.softmax(x)), [f32("n", 64)], "row_softmax"),
        (_gelu_by_hand, [f32("n", 64)], "map_gelu"),
        (lambda x: F.gelu(x @ W + V), [f32("n", 64)], "matmul_bias_gelu"),
        (lambda x, y: F.gelu(x @ W + y), [f32("n", 64)] * 2, "matmul_add_gelu"),
        (F.scaled_dot_product_attention, [HEADS] * 3, "attention"),
        (_attention_by_hand, [HEADS] * 3, "attention"),
        (lambda x: x + 1.0, [f32("n", 64)], "map_add"),
        (lambda x: F.exp(_turned(x)), [f32("n", 64)], "map_rotary_exp"),
    ],
    ids=[
        "softmax",
        "softmax of a formula",
        "softmax by hand",
        "layer_norm",
        "rms_norm of a sum",
        "softmax twice",
        "gelu by hand",
        "linear and gelu",
        "sum of a product",
        "attention",
        "attention by hand",
        "one op",
        "named function",
    ],
)
def test_a_kernel_is_named_after_the_calls_of_the_user(
    fn: Callable[..., Any], types: list[Any], expected: str
) -> None:
    assert _names(fn, *types) == [expected]


def test_a_part_of_a_composite_op_names_the_composite_and_the_ops() -> None:
    """Kernels reduce the last axis only, so that softmax along another one is several steps."""
    names = _names(lambda x: F.softmax(x, axis=0), f32(8, 64))
    assert names == ["map_softmax_sub_exp", "map_softmax_div"]


def _optimized(fn: Callable[..., Any], *types: Any) -> ir.Graph:
    return optimize(traced(fn, *types), run_op, Dialect.HOST)


def test_nodes_keep_the_calls_of_the_user() -> None:
    graph = _optimized(lambda x: F.softmax(F.layer_norm(x * 2.0, V, V, 1e-5)), f32("n", 64))
    chains = [
        tuple(scope.name for scope in node.scope.chain) if node.scope else ()
        for node in graph.nodes
        if node.inputs
    ]
    assert chains[0] == ()
    assert ("layer_norm", "mean") in chains
    assert {chain[0] for chain in chains[1:]} == {"layer_norm", "softmax"}


def test_calls_of_one_op_are_told_apart() -> None:
    graph = _optimized(lambda x: F.softmax(F.softmax(x)), f32("n", 64))
    scopes = {node.scope for node in graph.nodes if node.op.name == "exp"}
    assert len(scopes) == 2


def test_a_scope_ends_with_the_block() -> None:
    graph = traced(lambda x: F.exp(_turned(x)), f32("n"))
    by_op = {node.op.name: node.scope for node in graph.nodes}
    assert by_op["sin"] is not None and by_op["sin"].name == "rotary"
    assert by_op["exp"] is None
    assert F.exp(_turned(Tensor([0.0]))).to_numpy().tolist() == [1.0]


UNARY = [F.exp, F.tanh, F.sqrt, F.relu, F.sigmoid, F.silu, F.floor, F.cos, lambda x: x * 3.0]


@given(st.lists(st.sampled_from(UNARY), min_size=1, max_size=30), st.booleans())
def test_names_are_short_identifiers_and_always_the_same(
    ops: list[Callable[[Any], Any]], is_row: bool
) -> None:
    def fn(x: Tensor) -> Tensor:
        for op in ops:
            x = op(x)
        return F.softmax(x) if is_row else x

    (name,) = _names(fn, f32("n", 64))
    assert name.isidentifier() and name.isascii()
    assert len(name) <= MAX_LENGTH
    assert name == _names(fn, f32("n", 64))[0]
    assert name.startswith("row_" if is_row else "map_")
    assert ("softmax" in name) == is_row
