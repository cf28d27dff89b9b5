"""Functions of thousands of ops: nothing recurses along a chain, and kernels stay short."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from compiler.graphs import compiled, f32
from helpers import tensor

from maxmod import DType, Tensor
from maxmod import functional as F
from maxmod.compiler.fusion.plan import MAX_NODES
from maxmod.compiler.steps import RunKernel
from maxmod.op import Kind
from maxmod.runtime.compiled import CompiledModel

X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)


@contextlib.contextmanager
def shallow(frames: int = 75) -> Iterator[None]:
    """Python can nest only this many more calls."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def chain(count: int, step: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def fn(x: Tensor) -> Tensor:
        for _ in range(count):
            x = step(x)
        return x

    return fn


def in_shallow_python(fn: Callable[[Tensor], Tensor]) -> CompiledModel:
    compiled(lambda x: F.tanh(x) * 2.0, f32(3))  # imports what there is to import
    with shallow():
        return compiled(fn, f32(8, 8))


STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "elementwise": lambda x: x * 1.001 + 0.01,
    "products of numbers": lambda x: x * 0.999,  # each of them could be a part of gelu
    "where": lambda x: F.where(x > 0.5, x, x + 0.125),
    "views": lambda x: (x.reshape([4, 16]) * 1.001).reshape([8, 8]).permute([1, 0]) + 0.01,
    "rows": lambda x: x - F.mean(x),
    "lookups": lambda x: F.gather(x, F.argsort(x[:, 0]), axis=0) + 0.01,
    "conversions": lambda x: x.cast(DType.bfloat16).cast(DType.float32) * 1.01,
    "concatenations": lambda x: F.concat([x[1:], x[:1] * 0.5], axis=0),
}


@pytest.mark.parametrize("name", STEPS)
def test_no_part_of_the_compiler_recurses_along_a_chain(name: str) -> None:
    fn = chain(100, STEPS[name])
    model = in_shallow_python(fn)
    np.testing.assert_allclose(model(tensor(X)), fn(tensor(X)), rtol=1e-4, atol=1e-5)


def test_a_chain_of_thousands_of_ops_shares_kernels_of_limited_length() -> None:
    model = compiled(chain(1000, lambda x: x * 1.0001 + 0.001), f32(8, 8))
    assert len(model.kernels) == 2  # equal pieces, and the rest
    groups = [step.group for step in model._schedule.steps if isinstance(step, RunKernel)]
    assert len(groups) == len(model._schedule.steps)  # numbers are part of the kernels
    for group in groups:
        assert group is not None
        assert sum(node.op.kind is not Kind.SOURCE for node in group.nodes) <= MAX_NODES
    factor = float(np.float32(1.0001))
    added = float(np.float32(0.001)) * (factor**1000 - 1) / (factor - 1)
    np.testing.assert_allclose(model(tensor(X)), X * factor**1000 + added, rtol=1e-4)


def test_a_chain_of_products_and_of_postponed_ops() -> None:
    fn = chain(300, lambda x: F.tanh(x @ x.T * 0.1))
    np.testing.assert_allclose(
        in_shallow_python(fn)(tensor(X)), fn(tensor(X)), rtol=1e-4, atol=1e-6
    )
    x = tensor(X)
    with F.lazy():
        y = chain(2000, lambda x: x * 1.001)(x)
    with shallow():
        found = y.to_numpy()
    np.testing.assert_allclose(found, X * float(np.float32(1.001)) ** 2000, rtol=1e-3)
    assert not y._thunk
