"""Rounding with a calibration: errors cancel on inputs like those that were seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models.folders import ASSETS

import maxmod
from maxmod import CPU, Tensor
from maxmod.cli import main
from maxmod.errors import ArgumentError, OperandError
from maxmod.models import adder_folder, load_encoder, load_model, load_vision_model
from maxmod.nn import Embedding, Linear, Module, QuantizedLinear, Sequential
from maxmod.nn.hooks import ACTIVE
from maxmod.weights import open_checkpoint

SCHEMES = ["int8", "int4", "int4_symmetric"]


def _inputs(seed: int) -> np.ndarray:
    """Vectors of 64 numbers that vary in 8 directions, and little in others."""
    directions = np.random.default_rng(9).normal(size=(8, 64))
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(300, 8)) @ directions + 0.1 * rng.normal(size=(300, 64))
    return rows.astype(np.float32)


def _weights(layer: Any) -> np.ndarray:
    codes, scales = layer.weight, layer.scales
    return maxmod.functional.dequantize_weight(codes, scales).to_numpy().astype(np.float64)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_errors_on_other_inputs_fall(scheme: str) -> None:
    linear = Linear(64, 48)
    seen, others = _inputs(1), _inputs(2).astype(np.float64)
    plain = maxmod.quantize(Sequential(linear), scheme)[0]
    calls = [Tensor(seen[:100]), (Tensor(seen[100:].reshape(2, 100, 64)),)]
    fitted = maxmod.quantize(Sequential(linear), scheme, calibration=calls)[0]
    assert isinstance(fitted, QuantizedLinear)
    assert fitted.scheme == scheme
    exact = linear.weight.to_numpy().astype(np.float64)
    errors = [np.square(others @ (_weights(layer) - exact).T).mean() for layer in (plain, fitted)]
    assert errors[1] < errors[0] / 10  # 32 to 50 times less
    np.testing.assert_array_equal(plain.scales.to_numpy(), fitted.scales.to_numpy())
    assert ACTIVE == []


def test_equal_inputs_share_the_loss() -> None:
    """Where all inputs are equal, only the sum of the weights counts: it is within half a scale."""
    linear = Linear(32, 3, bias=False)
    rng = np.random.default_rng(0)
    linear.weight = Tensor(rng.uniform(-1, 1, (3, 32)).astype(np.float32))
    inputs = np.repeat(rng.normal(size=(50, 1)).astype(np.float32), 32, axis=1)
    layer: Any = maxmod.quantize(Sequential(linear), "int8", calibration=[Tensor(inputs)])[0]
    lost = (_weights(layer) - linear.weight.to_numpy()).sum(axis=1)
    scales = layer.scales.to_numpy()[:, 0]
    assert (np.abs(lost) <= 0.75 * scales).all()  # damped: not quite the half
    plain: Any = maxmod.quantize(Sequential(linear), "int8")[0]
    assert (np.abs((_weights(plain) - linear.weight.to_numpy()).sum(axis=1)) > scales).any()


class Shared(Module[[Tensor], Tensor]):
    """A tied head, two layers with one weight, one that is not called, and one that is."""

    def __init__(self) -> None:
        self.table, self.head = Embedding(9, dim=32), Linear(32, 9, bias=False)
        self.head.weight = self.table.weight
        self.one, self.two = Linear(32, 32), Linear(32, 32)
        self.two.weight = self.one.weight
        self.unused, self.last = Linear(32, 32), Linear(32, 32)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.last(self.two(self.one(self.table(tokens)))))


def test_layers_that_are_rounded_as_without_calibration() -> None:
    tokens = Tensor(np.arange(9)[None], device=CPU())
    model = Shared()
    state = {name: value.to_numpy() for name, value in model.parameters}
    plain = maxmod.quantize(model, "int8")
    again = Shared()
    for name, value in again.parameters:
        value.data[...] = state[name]
    fitted = maxmod.quantize(again, "int8", calibration=[tokens])
    for name in ("head", "one", "two", "unused"):
        left, right = getattr(plain, name), getattr(fitted, name)
        np.testing.assert_array_equal(left.weight.to_numpy(), right.weight.to_numpy(), name)
    assert (plain.last.weight.to_numpy() != fitted.last.weight.to_numpy()).any()
    assert fitted.one.weight is fitted.two.weight
    assert fitted.table.weight is fitted.head.weight


@pytest.mark.parametrize(
    ("calibration", "error", "words"),
    [
        ([], ArgumentError, "expected a list with the argument of each call"),
        (Tensor(np.ones((2, 32), np.float32)), ArgumentError, "list with the argument of each"),
        (["a text"], OperandError, "called with tensors, got str. Hint: texts are for"),
        (7, OperandError, "expected a list, got int"),
        ([Tensor(np.full((2, 32), np.nan, np.float32))], ArgumentError, "inputs of 0 are not fin"),
    ],
    ids=["nothing", "tensor", "text", "number", "nan"],
)
def test_wrong_calls_are_refused(calibration: Any, error: type[Exception], words: str) -> None:
    model = Sequential(Linear(32, 32))
    with pytest.raises(error, match=words):
        maxmod.quantize(model, "int4", calibration=calibration)
    assert type(model[0]) is Linear
    assert ACTIVE == []


def test_wrong_texts_are_refused() -> None:
    model = load_model(adder_folder(), device=CPU())
    for texts in ([], ["", " "], "1+2=3"):
        with pytest.raises(ArgumentError, match="calibration: expected a list of texts"):
            maxmod.quantize(model, "int8", calibration=texts)
    with pytest.raises(OperandError, match=r"expected texts \(str\), got int"):
        maxmod.quantize(model, "int8", calibration=[3])  # type: ignore[list-item]
    pictures = load_vision_model(ASSETS / "vit" / "classifier", device=CPU())
    with pytest.raises(ArgumentError, match=r"reads no texts. Hint: give its module and tensors"):
        maxmod.quantize(pictures, "int8", calibration=["a cat"])


def test_models_read_texts() -> None:
    texts = [f"{a}+{b}={a + b}" for a, b in ((123, 456), (7, 88), (950, 31), (400, 99))]
    plain = maxmod.quantize(load_model(adder_folder(), device=CPU()), "int4")
    model = maxmod.quantize(load_model(adder_folder(), device=CPU()), "int4", calibration=texts)
    assert model.generate("123+456=") == "579"
    pairs = zip(plain.module.parameters, model.module.parameters, strict=True)
    changed = [name for (name, a), (_, b) in pairs if a.data.tobytes() != b.data.tobytes()]
    assert len(changed) >= 12
    assert all(name.endswith(".weight") for name in changed)
    sentences = ASSETS / "bert" / "sentences"
    exact = load_encoder(sentences, device=CPU())
    encoder = load_encoder(sentences, device=CPU())
    maxmod.quantize(encoder, "int8", calibration=["a cat", "the dog sees a bridge"])
    wanted, found = (m.embed(["a dog"], eager=True) for m in (exact, encoder))
    assert 0 < np.abs(wanted - found).max() < 0.05


def test_the_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "sums.txt"
    text.write_text("123+456=579", "utf-8")
    made, model = str(tmp_path / "made"), str(adder_folder())
    assert main(["quantize", model, made, "--calibration", str(text)]) == 0
    fitted = load_model(adder_folder(), device=CPU())
    maxmod.quantize(fitted, "int8", calibration=["123+456=579"])
    with open_checkpoint(made) as checkpoint:
        for name, value in fitted.module.parameters:
            np.testing.assert_array_equal(checkpoint[name].data, value.data, name)
    text.write_text(" \n", "utf-8")
    other = str(tmp_path / "other")
    for file, words in ((text, "no text in it"), (tmp_path / "none", "No such file")):
        capsys.readouterr()
        assert main(["quantize", model, other, "--calibration", str(file)]) == 1
        assert words in capsys.readouterr().err
