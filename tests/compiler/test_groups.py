"""Fusion groups: they never change, and say what a kernel reads and writes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from compiler.graphs import f32, traced

from maxmod import functional as F
from maxmod.backends import run
from maxmod.compiler import pipeline
from maxmod.compiler.fusion.conditions import start
from maxmod.compiler.groups import lower as lowering
from maxmod.compiler.groups.group import FusionGroup
from maxmod.compiler.groups.instructions import Lowered
from maxmod.compiler.groups.lower import Attempts, attempt, lower
from maxmod.kernel.source import Dialect
from maxmod.op import ir
from maxmod.op.affine import Unfusable


def _nodes(fn: Any, *sizes: int) -> list[ir.Node]:
    return list(traced(fn, f32(*sizes)).nodes)


def test_a_larger_group_does_not_change_the_smaller_one() -> None:
    exp, sin = _nodes(lambda x: F.sin(F.exp(x)), 3, 4)
    small = start(sin, 1)
    assert small.inputs == exp.outputs
    large = small.with_node(exp, 0, is_output=False)
    assert (large.ordered, large.inputs, large.outputs) == ((exp, sin), exp.inputs, sin.outputs)
    assert (small.ordered, small.inputs, small.outputs) == ((sin,), exp.outputs, sin.outputs)


def test_a_group_cannot_be_changed() -> None:
    (exp,) = _nodes(F.exp, 3)
    with pytest.raises(FrozenInstanceError):
        start(exp, 0).is_row = True  # type: ignore[misc]


def test_a_value_that_others_need_becomes_an_output() -> None:
    exp, sin = _nodes(lambda x: F.sin(F.exp(x)), 3, 4)
    group = start(sin, 1).with_node(exp, 0, is_output=True)
    assert group.outputs == (*sin.outputs, *exp.outputs)


def test_a_reduction_makes_a_row_group() -> None:
    total, square = _nodes(lambda x: F.sqrt(F.sum(x, axis=1)), 3, 4)
    group = start(square, 1).with_node(total, 0, is_output=False)
    assert group.is_row
    assert group.domain == (3, 4)
    assert Attempts().is_kernel(group)


def test_a_buffer_that_is_overwritten_is_not_read() -> None:
    (add,) = _nodes(lambda x: x + x, 3)
    (x,) = set(add.inputs)
    group = start(add, 0)
    storing = group.with_target(add.output, x)
    assert (group.reads, storing.reads) == ((x,), ())
    assert storing.targets == {add.output: x}
    assert not group.targets


def test_an_attempt_gives_the_kernel_or_the_reason() -> None:
    exp, total = _nodes(lambda x: F.sum(F.exp(x), axis=1), 3, 4)
    assert isinstance(attempt(lower, start(total, 1)), Lowered)
    wrong = FusionGroup({exp: 0, total: 1}, (3, 4), total.outputs)  # rows, but no row group
    reason = attempt(lower, wrong)
    assert isinstance(reason, Unfusable)
    assert "is read at another row" in str(reason) or "in the domain" in str(reason)
    assert not Attempts().is_kernel(wrong)


def test_groups_that_compute_the_same_are_lowered_once() -> None:
    """Planning a model of many layers takes what one of them takes."""

    def layers(count: int) -> Any:
        def fn(x: Any) -> Any:
            for _ in range(count):
                heads = F.permute(F.reshape(x, (6, 2, 4)), (1, 0, 2))
                seen = F.permute(F.scaled_dot_product_attention(heads, heads, heads), (1, 0, 2))
                x = F.softmax(x + F.reshape(seen, (6, 8)))
            return x

        return fn

    def attempts(count: int, monkeypatch: pytest.MonkeyPatch) -> int:
        calls: list[object] = []
        with monkeypatch.context() as patch:
            patch.setattr(lowering, "attempt", lambda *args: calls.append(args) or attempt(*args))
            graph = traced(layers(count), f32(6, 8))
            pipeline.plan_graph(graph, Dialect.HOST, run, lambda _: nullcontext())
        return len(calls)

    with pytest.MonkeyPatch.context() as monkeypatch:
        few, more = attempts(2, monkeypatch), attempts(6, monkeypatch)
    assert 0 < more <= few + 2, (few, more)  # the first layer and the last have other neighbours
