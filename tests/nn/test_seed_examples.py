"""The examples of the documentation that this package implements, in our own words, on the host."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from maxmod import CPU, DType, Tensor, TensorType
from maxmod.nn import Embedding, LayerNorm, Linear, Module, Sequential, module_dataclass
from maxmod.tensor import defaults


@pytest.fixture(autouse=True)
def _on_the_host(no_accelerator):
    """These examples are about values, so they run with the defaults of the host."""


@module_dataclass
class Affine(Module):
    weight: Tensor
    bias: Tensor | int = 0

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


@module_dataclass
class MLP(Module):
    fc1: Linear
    fc2: Linear

    def __call__(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


def test_embedding_of_vectors_and_of_matrices():
    tokens = Tensor.ones([10], dtype=DType.uint64)
    assert Embedding(vocab_size=1000, dim=128)(tokens).shape == [10, 128]
    assert Embedding(vocab_size=1000, dims=[16, 128])(tokens).shape == [10, 16, 128]


def test_linear():
    model = Linear(5, 10)
    assert dict(model.parameters) == {"weight": model.weight, "bias": model.bias}
    assert model(Tensor.ones([5])).shape == [10]


def test_a_module_of_ones_own(capsys):
    linear = Affine(Tensor.zeros([5, 4]))
    print(linear)
    print(linear(Tensor.constant([1, 2, 3, 4])))
    printed = capsys.readouterr().out
    assert printed.startswith("Affine(")
    assert "Tensor([0 0 0 0 0]" in printed


def test_apply_to_parameters():
    model = MLP(fc1=Linear(10, 20), fc2=Linear(20, 5))
    seen = []
    model.apply_to_parameters(lambda name, t: seen.append(name) or t.to(CPU()))
    assert seen == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert model(Tensor.ones([10])).shape == [5]


def test_compile():
    linear = Affine(weight=Tensor.zeros([10, 5]), bias=Tensor.ones([10]))
    _, device = defaults()
    model = linear.compile(TensorType(DType.float32, [3, 5], device=device))
    result = model(Tensor.ones([3, 5], dtype=DType.float32))
    np.testing.assert_array_equal(result.to_numpy(), np.ones([3, 10]))


def test_load_state():
    model = Linear(2, 3)
    weights = {"weight": Tensor.zeros([3, 2]), "bias": Tensor.zeros([3])}
    model.load_state(weights.__getitem__)
    assert model(Tensor.ones([2])).to_numpy().tolist() == [0, 0, 0]


def test_load_state_dict():
    linear = Affine(weight=Tensor.ones([10, 5]), bias=Tensor.ones([10]))
    weights = {"weight": Tensor.zeros([10, 5]), "bias": Tensor.zeros([10])}
    linear.load_state_dict(weights)
    assert linear.weight is weights["weight"]
    with pytest.raises(ValueError, match="did not use"):
        linear.load_state_dict({**weights, "other": Tensor.zeros([1])})
    with pytest.raises(KeyError):
        linear.load_state_dict({"weight": weights["weight"]}, strict=False)


def test_map_parameters():
    model = Linear(2, 3)
    moved = model.map_parameters(lambda _, t: t.to(CPU()))
    assert moved is not model
    assert dict(moved.parameters) == dict(model.parameters)


def test_count_parameters():
    model = MLP(fc1=Linear(10, 20), fc2=Linear(20, 5))
    total = sum(param.num_elements() for _, param in model.parameters)
    assert total == 10 * 20 + 20 + 20 * 5 + 5


def test_to(emulated_accelerator):
    model = Linear(2, 3).to(CPU())
    assert all(tensor.device == CPU() for _, tensor in model.parameters)
    model.to(emulated_accelerator)
    assert all(tensor.device == emulated_accelerator for _, tensor in model.parameters)


def test_sequential():
    model = Sequential(Linear(5, 10), LayerNorm(10), Linear(10, 5))
    assert model(Tensor.ones([5])).shape == [5]
    dims = [5, 10, 15, 20]
    model = Sequential(*(Linear(a, b) for a, b in itertools.pairwise(dims)))
    assert len(model) == 3
    assert model(Tensor.ones([5])).shape == [20]
