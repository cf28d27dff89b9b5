"""Compiling and tracing modules: weights, names, ties, captured tensors, errors."""

from __future__ import annotations

import copy
import logging

import ml_dtypes
import numpy as np
import pytest

from maxmod import CPU, DType, MaxmodWarning, Tensor, TensorType, default_dtype, module_dataclass
from maxmod.errors import ForwardError, WeightsError
from maxmod.interpreters.lazy import lazy
from maxmod.nn import Embedding, LayerNorm, Linear, Module, ModuleList, Sequential


def rows(size, dtype=DType.float32):
    return TensorType(dtype, ["batch", size], CPU())


def assert_same(found, expected):
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), rtol=1e-6, atol=1e-6)


def test_any_size_of_a_named_dimension():
    m = Sequential(Linear(3, 4), LayerNorm(4), Linear(4, 2)).to(CPU())
    compiled = m.compile(rows(3))
    for count in (1, 7, 0, 2):
        x = Tensor.full([count, 3], 0.5)
        assert compiled(x).shape == [count, 2]
        assert_same(compiled(x), m(x))


def test_both_styles_of_call():
    class Old(Module):
        def __init__(self):
            self.w = Tensor.full([2], 3.0)

        def __call__(self, x):
            return x * self.w

    class New(Old):
        __call__ = Module.__call__

        def forward(self, x):
            return x + self.w

    x = Tensor.ones([1, 2])
    assert Old().compile(rows(2))(x).to_numpy().tolist() == [[3, 3]]
    assert New().compile(rows(2))(x).to_numpy().tolist() == [[4, 4]]


def test_a_module_without_a_call():
    with pytest.raises(ForwardError, match=r"ModuleList must implement forward\(\)"):
        ModuleList().compile(rows(1))


def test_the_number_of_types_must_fit_the_call():
    with pytest.raises(TypeError):
        Linear(1, 1).compile(rows(1), rows(1))
    with pytest.raises(TypeError):
        Linear(1, 1).compile()


def test_a_tensor_in_place_of_a_type_is_refused():
    with pytest.raises(TypeError, match="expected a TensorType"):
        Linear(1, 1).compile(Tensor.ones([1, 1]))


def test_the_call_runs_once_and_the_module_is_untouched():
    class Counting(Module):
        calls = 0

        def __init__(self):
            self.fc = Linear(2, 2)

        def forward(self, x):
            self.calls += 1
            return self.fc(x)

    m = Counting()
    before = dict(m.parameters)
    compiled = m.compile(rows(2))
    compiled(Tensor.ones([1, 2]))
    compiled(Tensor.ones([2, 2]))
    assert m.calls == 1
    assert all(tensor is before[name] for name, tensor in m.parameters)


def test_the_module_is_untouched_if_the_call_fails():
    class Failing(Module):
        def __init__(self):
            self.w = Tensor.ones([2])

        def forward(self, x):
            return x if (x * self.w)[0, 0].item() > 0 else -x

    m = Failing()
    w = m.w
    with pytest.raises(TypeError, match="Can't realize"):
        m.compile(rows(2))
    assert m.w is w
    assert m(Tensor.ones([1, 2])).real


def test_later_changes_have_no_effect():
    m = Linear(1, 1, bias=False)
    m.weight = Tensor.full([1, 1], 2.0)
    compiled = m.compile(rows(1))
    m.weight = Tensor.full([1, 1], 5.0)
    assert compiled(Tensor.ones([1, 1])).item() == 2
    m.load_state_dict({"weight": np.full([1, 1], 7, np.float32)})
    assert compiled(Tensor.ones([1, 1])).item() == 2
    assert m.compile(rows(1))(Tensor.ones([1, 1])).item() == 7


def test_names():
    class Net(Module):
        def forward(self, x):
            return x + 1

    assert Net().compile(rows(1)).__name__ == Net.__qualname__
    assert Net().compile(rows(1), name="other").__name__ == "other"
    assert Net().trace(rows(1), name="other").graph.name == "other"


def test_results_keep_structure():
    class Many(Module):
        def forward(self, x):
            return {"pair": (x, x + 1), "list": [x * 2], "note": "static", "none": None}

    found = Many().compile(rows(1))(Tensor.full([1, 1], 3.0))
    assert found["note"] == "static"
    assert found["none"] is None
    assert [t.item() for t in found["pair"]] == [3, 4]
    assert type(found["pair"]) is tuple
    assert [t.item() for t in found["list"]] == [6]


def test_tied_parameters_are_one_weight():
    class Language(Module):
        def __init__(self):
            self.wte = Embedding(4, dim=2)
            self.lm_head = Linear(2, 4, bias=False)
            self.lm_head.weight = self.wte.weight

        def forward(self, tokens):
            return self.lm_head(self.wte(tokens))

    m = Language()
    tokens = TensorType(DType.int64, ["n"], CPU())
    assert list(m.trace(tokens).graph.weights) == ["wte.weight"]
    compiled = m.compile(tokens, weights={"lm_head.weight": np.ones([4, 2], np.float32)})
    found = compiled(Tensor([3], dtype=DType.int64))
    assert found.to_numpy().tolist() == [[2, 2, 2, 2]]


def test_tensors_that_are_not_parameters_become_constants():
    outside = Tensor.full([2], 10.0)

    class Shift(Module):
        def __init__(self):
            self.tables = {Tensor.full([2], 5.0)}

        def forward(self, x):
            (table,) = self.tables
            return x + outside + table

    with pytest.warns(MaxmodWarning, match=r"compile: .* tables \(set\)") as caught:
        compiled = Shift().compile(rows(2))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert not compiled.weights
    assert compiled(Tensor.ones([1, 2])).to_numpy().tolist() == [[16, 16]]


def test_frozen_modules():
    @module_dataclass(frozen=True, eq=False)
    class Scale(Module):
        weight: Tensor

        def forward(self, x):
            return x * self.weight

    compiled = Scale(Tensor.full([1], 2.0)).compile(rows(1))
    assert compiled(Tensor.ones([1, 1])).item() == 2


class TestTrace:
    def test_no_values_are_needed(self):
        with lazy():
            m = Linear(3, 2)
        staged = m.trace(rows(3))
        assert list(staged.graph.weights) == ["weight", "bias"]
        assert staged.out_layouts[0].sizes[1] == 2
        assert "matmul" in str(staged)
        assert not m.weight.real

    def test_extensions_are_refused(self):
        for method in (Linear(1, 1).trace, Linear(1, 1).compile):
            with pytest.raises(NotImplementedError, match="custom_extensions"):
                method(rows(1), custom_extensions=["kernels.mojopkg"])
            method(rows(1), custom_extensions=[], allow_subgraphs=False, is_device_graph=True)
        Linear(1, 1).compile(rows(1), session=object())


class TestWeights:
    def test_given_weights_replace_the_module_values(self):
        m = Linear(2, 1)
        before = dict(m.parameters)
        given = {"weight": np.ones([1, 2], np.float32), "bias": Tensor.full([1], 3.0)}
        compiled = m.compile(rows(2), weights=given | {"unused": np.ones(1)})
        assert compiled(Tensor.ones([1, 2])).item() == 5
        assert all(tensor is before[name] for name, tensor in m.parameters)

    def test_lazy_parameters_are_never_made(self):
        with lazy():
            m = Linear(2, 1)
        given = {"weight": np.ones([1, 2], np.float32), "bias": np.ones([1], np.float32)}
        compiled = m.compile(rows(2), weights=given)
        assert compiled(Tensor.ones([1, 2])).item() == 3
        assert not any(tensor.real for _, tensor in m.parameters)

    def test_missing_ones(self):
        with pytest.raises(KeyError, match=r"compile: .*\n.*\n  Weight 'bias' is missing"):
            Linear(2, 1).compile(rows(2), weights={"weight": np.ones([1, 2], np.float32)})

    def test_wrong_types(self):
        given = {"weight": np.ones([2, 1], np.float32), "bias": np.ones([1])}
        with pytest.raises(ValueError, match="2 mismatched") as caught:
            Linear(2, 1).compile(rows(2), weights=given)
        assert isinstance(caught.value, WeightsError)
        assert str(caught.value).count("not assignable") == 2

    def test_auto_cast(self, caplog):
        with default_dtype(DType.bfloat16):
            m = Linear(2, 1)
        given = {"weight": np.ones([1, 2], np.float32), "bias": np.ones([1], np.float32)}
        with pytest.raises(ValueError, match="auto_cast=True"):
            m.compile(rows(2, DType.bfloat16), weights=given)
        with caplog.at_level(logging.WARNING, logger="maxmod"):
            compiled = m.compile(rows(2, DType.bfloat16), weights=given, auto_cast=True)
        assert "2 parameter(s) from float32 to bfloat16 (precision loss)" in caplog.text
        found = compiled(Tensor(np.ones([1, 2], ml_dtypes.bfloat16)))
        assert found.dtype is DType.bfloat16
        assert found.item() == 3


def test_a_compiled_model_can_be_an_attribute():
    m = Linear(1, 1)
    m.fast = m.compile(rows(1))
    assert [name for name, _ in m.parameters] == ["weight", "bias"]
    assert copy.copy(m).fast is m.fast
