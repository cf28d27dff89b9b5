"""Arguments by name, when a function is compiled and when it is called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiler.graphs import f32
from helpers import tensor

import maxmod
from maxmod import Module, Tensor
from maxmod import functional as F
from maxmod.compat.compilation import compile
from maxmod.runtime.compiled import CompiledModel


class Scaled(Module):
    """Scales, and adds what there is to add."""

    def forward(
        self, x: Tensor, scale: Any = 3.0, *, added: Tensor | None = None, tanh: bool = False
    ) -> Tensor:
        y = x * scale
        y = y if added is None else y + added
        return F.tanh(y) if tanh else y


X = tensor(np.array([1.0, 2.0], np.float32))
TEN = tensor(np.array([10.0, 10.0], np.float32))


@pytest.fixture(autouse=True)
def op_by_op() -> Any:
    with maxmod.configure(compile=False):
        yield


def refused(model: CompiledModel, message: str, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(TypeError, match=message):
        model(*args, **kwargs)


def test_positional_arguments_can_be_given_by_name() -> None:
    model = Scaled().compile(f32("n"), f32())
    for found in (model(X, 2.0), model(X, scale=2.0), model(scale=2.0, x=X)):
        assert found.to_numpy().tolist() == [2.0, 4.0]
    refused(model, r"expected 2 arguments \(x, scale\), got scale twice", X, 2.0, scale=2.0)
    refused(model, r"expected 2 arguments \(x, scale\), got size=float", X, 2.0, size=2.0)
    refused(model, "got none for scale", x=X)
    refused(model, "expected 2 arguments, got 3", X, 2.0, X)


def test_defaults_that_were_compiled_can_be_given() -> None:
    model = Scaled().compile(f32("n"))
    assert model(X).to_numpy().tolist() == [3.0, 6.0]
    assert model(X, added=None, tanh=False).to_numpy().tolist() == [3.0, 6.0]
    refused(model, "added was not given when .* default None. Hint: compile it", X, added=TEN)
    refused(model, "tanh was not given", X, tanh=True)


def test_types_by_name() -> None:
    model = Scaled().compile(f32("n"), added=f32("n"))
    assert model.in_layouts == [f32("n"), f32("n")]
    assert "%added" in str(model.graph)
    for found in (model(X, added=TEN), model(added=TEN, x=X)):
        assert found.to_numpy().tolist() == [13.0, 16.0]
    refused(model, "got none for added", X)
    with pytest.raises(ValueError, match=r"argument 1: .*added.*float32\[n\]|ranks differ"):
        model(X, added=tensor(np.ones((2, 2), np.float32)))
    by_name = Scaled().compile(f32("n"), scale=f32("n"))
    for found in (by_name(X, TEN), by_name(X, scale=TEN)):
        assert found.to_numpy().tolist() == [10.0, 20.0]
    refused(by_name, "got 3 in order", X, TEN, TEN)
    with pytest.raises(TypeError, match="unexpected keyword argument 'scales'"):
        Scaled().compile(f32("n"), scales=f32("n"))


def test_static_values_by_name() -> None:
    model = Scaled().compile(f32("n"), scale=2.0, tanh=True)
    np.testing.assert_allclose(model(X, scale=2.0, tanh=True), np.tanh([2.0, 4.0]), rtol=1e-6)
    with pytest.raises(ValueError, match="static value differs from the one compiled"):
        model(X, scale=2.5, tanh=True)
    assert "float32[n]" in str(Scaled().trace(f32("n"), scale=2.0))


def test_plain_functions_take_names_too() -> None:
    model = compile(lambda x, *, y: x - y, f32("n"), y=f32("n"))
    assert model(X, y=TEN).to_numpy().tolist() == [-9.0, -8.0]


def test_other_dtypes_are_refused_and_fitting_numbers_converted() -> None:
    model = Scaled().compile(f32("n"), f32())
    for wrong in (np.array([1.0, 2.0]), np.array([1, 2]), np.array([True, False])):
        with pytest.raises(ValueError, match="cast it first"):
            model(wrong, scale=1.0)
    with pytest.raises(ValueError, match="cast it first"):
        model(X, scale=np.array(0.1))
    assert model(X, scale=np.float64(0.5)).to_numpy().tolist() == [0.5, 1.0]
    assert model(X, scale=2).to_numpy().tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match="16777217"):
        model(X, scale=16777217)
