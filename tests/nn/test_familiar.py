"""Names of PyTorch's modules that mean the same here, and differences that are documented."""

from __future__ import annotations

import numpy as np
import pytest

import maxmod
from maxmod import DType, Tensor, nn
from maxmod import functional as F


def _model() -> nn.Sequential:
    first = nn.Linear(3, 3)
    second = nn.Linear(3, 3)
    second.weight = first.weight
    return nn.Sequential(first, F.relu, nn.Dropout(0.1), second)


def test_parameters_as_property_and_as_call() -> None:
    model = _model()
    pairs = list(model.parameters)
    assert [name for name, _ in pairs] == ["0.weight", "0.bias", "3.weight", "3.bias"]
    tensors = list(model.parameters())
    assert len(tensors) == 3  # a tied one once, as in PyTorch
    assert all(isinstance(tensor, Tensor) for tensor in tensors)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "3.bias"]
    assert dict(pairs).keys() == model.state_dict().keys()
    assert next(model.parameters)[0] == "0.weight"
    with pytest.raises(TypeError, match="Hint: model.local_parameters"):
        model.parameters(recurse=False)


def test_modules_and_children() -> None:
    model = _model()
    assert [name for name, _ in model.children] == ["0", "2", "3"]
    assert [type(child).__name__ for child in model.children()] == ["Linear", "Dropout", "Linear"]
    assert [name for name, _ in model.named_modules()] == ["", "0", "2", "3"]
    assert next(iter(model.modules())) is model
    assert list(model.buffers()) == list(model.named_buffers()) == []


def test_calls_that_change_nothing() -> None:
    model = _model()
    before = [id(tensor) for tensor in model.parameters()]
    with maxmod.no_grad(), maxmod.inference_mode():
        assert model.eval() is model.train(False) is model.requires_grad_(False) is model
    assert before == [id(tensor) for tensor in model.parameters()]
    assert not model.training
    for wrong in (lambda: model.train(True), lambda: model.requires_grad_(True)):
        with pytest.raises(TypeError, match="Hint"):
            wrong()


def test_no_grad_as_a_decorator() -> None:
    @maxmod.no_grad()
    def called(x: int) -> int:
        return x + 1

    @maxmod.inference_mode
    def bare(x: int) -> int:
        return x + 1

    assert called(1) == bare(1) == 2


def test_a_state_dict_is_loaded_again() -> None:
    model, other = _model(), _model()
    other.load_state_dict(model.state_dict())
    x = Tensor.ones([2, 3])
    np.testing.assert_array_equal(model(x).to_numpy(), other(x).to_numpy())


def test_activations() -> None:
    x = Tensor([[-1.0, 0.5, 2.0]])
    for layer, wanted in (
        (nn.GELU(), F.gelu(x)),
        (nn.GELU("tanh"), F.gelu(x, "tanh")),
        (nn.ReLU(inplace=True), F.relu(x)),
        (nn.SiLU(), F.silu(x)),
        (nn.Sigmoid(), F.sigmoid(x)),
        (nn.Tanh(), F.tanh(x)),
        (nn.Softmax(dim=-1), F.softmax(x)),
        (nn.LogSoftmax(-1), F.logsoftmax(x)),
        (nn.Identity(7, a=1), x),
        (nn.Dropout(0.9), x),
    ):
        np.testing.assert_array_equal(layer(x).to_numpy(), wanted.to_numpy())
        assert list(layer.parameters) == []
    assert repr(nn.Softmax(dim=1)) == "Softmax(dim=1)"


def test_documented_differences_from_pytorch() -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = Tensor(a.copy())
    assert x.sum().to_numpy().tolist() == a.sum(-1, keepdims=True).tolist()
    assert x.sum(axis=None).item() == a.sum()
    np.testing.assert_allclose(x.std(axis=0).to_numpy(), a.std(0, keepdims=True))
    np.testing.assert_allclose(x.std(dim=0).to_numpy(), a.std(0, ddof=1))
    assert F.max(x, 3).shape == [2, 3]
    assert Tensor([1, 2]).dtype is F.arange(3).dtype is DType.float32
    images = Tensor.ones([1, 8, 8, 3])
    assert F.max_pool2d(images, (2, 2)).shape == [1, 7, 7, 3]
    assert nn.Conv2d(3, in_channels=3, out_channels=16)(images).shape == [1, 6, 6, 16]
    y = x
    y += 1
    assert x.to_numpy().tolist() == a.tolist()
    x[...] = x + 1
    assert x.to_numpy().tolist() == (a + 1).tolist()
    nan = Tensor([np.nan])
    assert (nan < nan).item()
    assert x.dtype != "float32"
    assert (x + np.ones(3)).dtype is DType.float32
