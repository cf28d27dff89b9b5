"""`quantize`: which layers it replaces, that it is all or nothing, and what their state is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maxmod
from maxmod import CPU, Device, DType, Module, Tensor, TensorType
from maxmod import functional as F
from maxmod.errors import ArgumentError, ShapeError
from maxmod.nn import (
    Embedding,
    LayerNorm,
    Linear,
    LoRA,
    ModuleList,
    QuantizedEmbedding,
    QuantizedLinear,
    Sequential,
)
from maxmod.weights import open_checkpoint, save_state


class Model(Module[[Tensor], Tensor]):
    """A head that is tied to an embedding, layers in a list, and two that share a weight."""

    def __init__(self, dim: int = 64) -> None:
        self.embed = Embedding(20, dim=dim)
        self.norm = LayerNorm(dim)
        self.layers = ModuleList(Linear(dim, dim, bias=i == 0) for i in range(2))
        self.twin = Linear(dim, dim)
        self.twin.weight = self.layers[1].weight
        self.head = Linear(dim, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.embed(tokens))
        for layer in self.layers:
            x = x + F.relu(layer(x)) * 0.01
        return self.head(x + self.twin(x) * 0.01)


def _float_weights(model: Module[..., Any]) -> dict[str, Any]:
    return {name: tensor.to_numpy().copy() for name, tensor in model.parameters}


def _dequantized(layer: QuantizedLinear) -> Any:
    found = F.dequantize_weight(layer.weight, layer.scales).to_numpy()
    if layer.offsets is None or layer.units is None:
        return found
    offsets = layer.offsets.to_numpy() * layer.units.to_numpy()
    return found + np.repeat(offsets, found.shape[1] // offsets.shape[1], axis=1)


@pytest.mark.parametrize(("scheme", "group"), [("int8", None), ("int4", None), ("int4", 64)])
def test_layers_are_replaced(scheme: str, group: int | None) -> None:
    model = Model()
    before = _float_weights(model)
    embedding, bias = model.embed, model.layers[0].bias
    assert maxmod.quantize(model, scheme, group_size=group) is model
    layers = {"layers.0": model.layers[0], "layers.1": model.layers[1], "head": model.head}
    for name, layer in layers.items():
        assert isinstance(layer, QuantizedLinear)
        kind = (scheme, group or (None if scheme == "int8" else 32))
        assert (layer.scheme, layer.group_size) == (("int8", None) if name == "head" else kind)
        assert layer.in_dim == 64
        found, wanted = _dequantized(layer), before[f"{name}.weight"]
        scales = np.repeat(layer.scales.to_numpy(), 64 // layer.scales.sizes[1], axis=1)
        # A search lets single weights err by more, so that the others err by less.
        assert (np.abs(found - wanted) <= scales * (0.5001 if layer.scheme == "int8" else 2)).all()
        error = np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))
        assert error < (0.01 if layer.scheme == "int8" else 0.09)
    table = model.embed
    assert isinstance(table, QuantizedEmbedding)
    assert (table.vocab_size, table.dim) == (20, 64)
    assert table.weight is model.head.weight
    assert table.scales is model.head.scales
    tokens = Tensor([[3, 19], [-1, 0]], dtype=DType.int64, device=CPU())
    np.testing.assert_array_equal(
        table(tokens).to_numpy(), _dequantized(model.head)[[[3, 19], [-1, 0]]]
    )
    assert embedding.weight.dtype is DType.float32
    assert isinstance(model.norm, LayerNorm)
    assert model.layers[0].bias is bias
    assert model.layers[1].bias == 0
    twin = model.twin
    assert isinstance(twin, QuantizedLinear)
    assert twin.weight is model.layers[1].weight
    assert twin.scales is model.layers[1].scales
    names = [name for name, _ in model.parameters if name.startswith("head")]
    assert names == ["head.weight", "head.scales"]


def test_a_head_of_4_bits_leaves_the_embedding() -> None:
    model = Model()
    embedding = model.embed
    maxmod.quantize(model, "int4", head="int4")
    assert isinstance(model.head, QuantizedLinear)
    assert model.head.scheme == "int4"
    assert model.embed is embedding
    with pytest.raises(ArgumentError, match="quantize: head: scheme: expected 'int8' or 'int4'"):
        maxmod.quantize(Model(), "int4", head="int2")


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_quantised_models_compute_with_the_rounded_weights(scheme: str, device: Device) -> None:
    """Eager and compiled agree with a model that holds the rounded weights as floats.

    Compiled for the host, the other operand becomes integers of 16 bits.
    """
    with maxmod.default_device(CPU()), maxmod.default_dtype(DType.float32):
        model, same = Model(), Model()
    maxmod.quantize(model, scheme)
    rounded = {name: _dequantized(getattr(model, name)) for name in ("twin", "head")} | {
        f"layers.{i}": _dequantized(model.layers[i]) for i in range(2)
    }
    for name, value in rounded.items():
        owner = same.layers[int(name[-1])] if name.startswith("layers") else getattr(same, name)
        owner.weight = Tensor(value, device=CPU())
    same.embed.weight = Tensor(rounded["head"], device=CPU())
    same.norm = model.norm
    same.layers[0].bias, same.twin.bias = model.layers[0].bias, model.twin.bias
    tokens = Tensor(np.arange(12).reshape(2, 6), dtype=DType.int64, device=CPU())
    wanted = same(tokens).to_numpy()
    scale = np.abs(wanted).max()
    model.to(device)
    compiled = model.compile(TensorType(DType.int64, ["b", "s"], device))
    calls = ((model, 2e-6), (compiled, 1e-4 if device == CPU() else 2e-6))
    for call, error in calls:
        found = call(tokens.to(device))
        assert found.device == device
        np.testing.assert_allclose(found.to_numpy(), wanted, rtol=1e-4, atol=error * scale)


def test_skip() -> None:
    model = maxmod.quantize(Model(), "int4", skip=["layers.*", "twin"])
    assert [type(layer) for layer in model.layers] == [Linear, Linear]
    assert isinstance(model.head, QuantizedLinear)
    assert model.head.scheme == "int8"
    maxmod.quantize(model, "int8", skip="twin")
    assert isinstance(model.layers[0], QuantizedLinear)
    assert model.layers[0].scheme == "int8"
    assert type(model.twin) is Linear
    with pytest.raises(ArgumentError, match=r"skip: 'twins' matches no linear layer.*'twin'"):
        maxmod.quantize(Model(), "int8", skip="twins")


@pytest.mark.parametrize("bad", ["value", "size"])
def test_all_or_nothing(bad: str) -> None:
    model = Model()
    if bad == "value":
        weight = model.twin.weight.to_numpy().copy()
        weight[3, 4] = np.nan
        model.twin.weight = Tensor(weight, device=CPU())
        error, text = ArgumentError, r"quantize: twin.weight: .*finite values, got NaN or infinity"
    else:
        model.twin = Linear(48, 3)
        error, text = ShapeError, r"quantize: twin.weight: .*float32\[3,48\]"
    layers = [*model.layers, model.twin, model.head]
    with pytest.raises(error, match=text):
        maxmod.quantize(model, "int4")
    after = [*model.layers, model.twin, model.head]
    assert all(one is other for one, other in zip(layers, after))


def test_modules_without_linear_layers_are_refused() -> None:
    with pytest.raises(ArgumentError, match="no linear layer to quantise in LayerNorm"):
        maxmod.quantize(LayerNorm(4), "int8")
    with pytest.raises(ArgumentError, match=r"in Linear. Hint: QuantizedLinear.of"):
        maxmod.quantize(Linear(4, 4), "int8")
    model = maxmod.quantize(Sequential(Linear(4, 4)), "int8")
    with pytest.raises(ArgumentError, match="no linear layer to quantise"):
        maxmod.quantize(model, "int8")
    with pytest.raises(ArgumentError, match="scheme: expected 'int8' or 'int4'"):
        maxmod.quantize(Sequential(Linear(4, 4)), "int3")


def test_a_subclass_and_a_shared_layer() -> None:
    class Scaled(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.weight[0, 0]

    shared = Linear(4, 4)
    model = maxmod.quantize(Sequential(shared, Scaled(4, 4), shared), "int8")
    assert model[0] is model[2]
    assert isinstance(model[0], QuantizedLinear)
    assert type(model[1]) is Scaled


def test_a_wrapped_layer_keeps_parameter_names() -> None:
    model = Sequential(LoRA(Linear(4, 4), max_num_loras=1, max_lora_rank=1, max_lora_seq_len=4))
    names = [name for name, _ in model.parameters]
    maxmod.quantize(model, "int8")
    found = [name for name, _ in model.parameters]
    assert found == [names[0], names[0].replace("weight", "scales"), *names[1:]]


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_state_saves_and_loads(scheme: str, tmp_path: Path) -> None:
    model = maxmod.quantize(Model(), scheme)
    save_state(dict(model.parameters), tmp_path / "model.safetensors")
    with F.lazy():
        other = Model()
    maxmod.quantize(other, scheme)  # has no data yet, so nothing is rounded
    assert not other.layers[0].weight.real
    with open_checkpoint(tmp_path / "model.safetensors") as checkpoint:
        other.load_state_dict(checkpoint)
    for (name, one), (_, two) in zip(model.parameters, other.parameters, strict=True):
        assert one.type == two.type
        np.testing.assert_array_equal(one.to_numpy(), two.to_numpy(), err_msg=name)
    assert other.twin.weight is other.layers[1].weight


def test_a_lazy_weight_is_rounded_on_first_use() -> None:
    with F.lazy():
        linear = Linear(32, 3)
        layer = QuantizedLinear.of(linear, "int4")
    assert not layer.weight.real
    made = F.quantize_weight(linear.weight, "uint4")
    for one, other in zip(layer.tensors(), made, strict=True):
        np.testing.assert_array_equal(one.to_numpy(), other.to_numpy())


def test_summary_counts_the_bytes() -> None:
    floats, rounded = (Sequential(Linear(256, 128, bias=False)) for _ in range(2))
    assert floats.summary().nbytes == 4 * 256 * 128
    assert maxmod.quantize(floats, "int8").summary().nbytes == 256 * 128 + 4 * 128
    maxmod.quantize(rounded, "int4", group_size=128)
    assert rounded.summary().nbytes == 128 * 128 + (2 + 1) * 2 * 128 + 4 * 128
    assert "QuantizedLinear" in str(rounded.summary())


def test_the_type_of_a_wrong_argument_is_named() -> None:
    with pytest.raises(TypeError, match="quantize: expected a module, got NoneType"):
        maxmod.quantize(None, "int8")  # type: ignore[type-var]
