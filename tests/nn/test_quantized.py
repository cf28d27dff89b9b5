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
from maxmod.nn.places import descendants_of
from maxmod.runtime.compiled import compile_function
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
    return F.dequantize_weight(layer.weight, layer.scales).to_numpy()


@pytest.mark.parametrize(
    ("scheme", "group"),
    [("int8", None), ("int8", 32), ("int4", None), ("int4", 64), ("int4_symmetric", 64)],
)
def test_layers_are_replaced(scheme: str, group: int | None) -> None:
    model = Model()
    before = _float_weights(model)
    embedding, bias = model.embed.weight, model.layers[0].bias
    assert maxmod.quantize(model, scheme, group_size=group, head=scheme) is model
    layers = {"layers.0": model.layers[0], "layers.1": model.layers[1], "head": model.head}
    for name, layer in layers.items():
        assert isinstance(layer, QuantizedLinear)
        assert (layer.scheme, layer.group_size) == (
            scheme,
            group or (None if scheme == "int8" else 32),
        )
        assert layer.in_dim == 64
        made = F.quantize_weight(Tensor(before[f"{name}.weight"]), scheme, group)
        np.testing.assert_array_equal(_dequantized(layer), F.dequantize_weight(*made).to_numpy())
    if scheme == "int8":  # the codes of the head
        assert isinstance(model.embed, QuantizedEmbedding)
        assert (model.embed.weight, model.embed.scales) == (model.head.weight, model.head.scales)
    else:
        assert model.embed.weight is embedding
    assert isinstance(model.norm, LayerNorm)
    assert model.layers[0].bias is bias
    assert model.layers[1].bias == 0
    twin = model.twin
    assert isinstance(twin, QuantizedLinear)
    assert twin.weight is model.layers[1].weight
    assert twin.scales is model.layers[1].scales
    names = [name for name, _ in model.parameters if name.startswith(("head", "embed"))]
    of_table = ["embed.weight", "embed.scales"] if scheme == "int8" else ["embed.weight"]
    assert names == [*of_table, "head.weight", "head.scales"]


def test_the_head_has_8_bits(tmp_path: Path) -> None:
    """One that is tied to an embedding, or has its usual name; the codes are looked up as well."""
    model, floats = Model(), Model()
    floats.load_state_dict(dict(model.parameters))
    maxmod.quantize(model, "int4", group_size=64)
    assert isinstance(model.head, QuantizedLinear)
    assert isinstance(model.embed, QuantizedEmbedding)
    assert model.head.scheme == "int8"
    tokens = Tensor([[3, -1], [0, 19]], dtype=DType.int64)
    table = F.dequantize_weight(model.head.weight, model.head.scales).to_numpy()
    wanted = table[tokens.to_numpy()]
    np.testing.assert_array_equal(model.embed(tokens).to_numpy(), wanted)
    look = compile_function(
        model.embed, [TensorType(DType.int64, ["n", 2], CPU())], name="look", parameters={}
    )
    np.testing.assert_array_equal(look(tokens).to_numpy(), wanted)
    assert floats.embed(tokens).shape == model.embed(tokens).shape
    with pytest.raises(TypeError, match="indices: expected a Tensor, got list"):
        model.embed([1, 2])  # type: ignore[arg-type]

    class Decoder(Module[[Tensor], Tensor]):
        def __init__(self) -> None:
            self.layer, self.lm_head = Linear(32, 32), Linear(32, 7)

    assert [layer.scheme for _, layer in maxmod.quantize(Decoder(), "int4").children] == [
        "int4",
        "int8",
    ]


class Block(Module[[Tensor], Tensor]):
    sensitive_layers = ("up*.value", "down")

    def __init__(self) -> None:
        self.up = ModuleList([_Value(), _Value()])
        self.down, self.tied = Linear(64, 64), Linear(64, 64)
        self.tied.weight = self.down.weight


class _Value(Module[[Tensor], Tensor]):
    def __init__(self) -> None:
        self.value, self.key = Linear(64, 64), Linear(64, 64)


class Blocks(Module[[Tensor], Tensor]):
    """Modules with sensitive layers as a child and in a container, beside others."""

    def __init__(self) -> None:
        self.block, self.listed = Block(), {"a": [Block()]}
        self.down, self.lm_head = Linear(64, 64), Linear(64, 64)


def _schemes(module: Module[..., Any]) -> dict[str, str]:
    found = {name: layer for name, _, layer in descendants_of(module, searched=True)}
    return {n: x.scheme for n, x in found.items() if isinstance(x, QuantizedLinear)}


def test_sensitive_layers_have_8_bits() -> None:
    """Names count from the module that names them; a weight in common is rounded once."""
    wide = {"up.0.value", "up.1.value", "down", "tied"}
    kept = {f"{owner}.{name}" for owner in ("block", "listed.a.0") for name in wide} | {"lm_head"}
    model = maxmod.quantize(Blocks(), "int4", group_size=64)
    schemes = _schemes(model)
    assert len(schemes) == 14
    assert {name for name, scheme in schemes.items() if scheme == "int8"} == kept
    assert model.block.tied.weight is model.block.down.weight
    assert set(_schemes(maxmod.quantize(Blocks(), "int8")).values()) == {"int8"}
    schemes = _schemes(maxmod.quantize(Block(), "int4", skip="up.*"))
    assert schemes == {"down": "int8", "tied": "int8"}


def test_all_layers_have_4_bits_where_that_is_asked_for() -> None:
    model = maxmod.quantize(Blocks(), "int4", head="int4", sensitive="int4", group_size=64)
    assert set(_schemes(model).values()) == {"int4"}
    assert model.block.down.group_size == 64  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["head", "sensitive"])
def test_unknown_schemes_are_refused(name: str) -> None:
    """Also where the model has no such layer."""
    model = Sequential(Linear(32, 32))
    options: Any = {name: "int2"}
    with pytest.raises(ArgumentError, match=rf"quantize: {name}: expected one of .*, got 'int2'"):
        maxmod.quantize(model, "int4", **options)
    assert type(model[0]) is Linear


def test_fewer_bits_for_sensitive_layers_than_for_others_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"sensitive: 'int4'.*Hint: scheme='int4', or leave"):
        maxmod.quantize(Blocks(), "int8", sensitive="int4")


def test_sensitive_layers_of_an_instance() -> None:
    """One name is one pattern; what is no name is refused, and nothing replaced."""
    model: Any = Blocks()
    model.block.sensitive_layers = "up.1.key"
    schemes = _schemes(maxmod.quantize(model, "int4", skip=["down", "lm_head", "listed*"]))
    assert [name for name, scheme in schemes.items() if scheme == "int8"] == ["block.up.1.key"]
    model = Blocks()
    model.block.sensitive_layers = ("up", 3)
    with pytest.raises(TypeError, match=r"sensitive_layers of Block: expected a tuple of names"):
        maxmod.quantize(model, "int4")
    assert not _schemes(model)


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
    same.embed, same.norm = model.embed, model.norm
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
    model = maxmod.quantize(Model(), "int4", skip=["layers.*", "twin"], head="int4")
    assert [type(layer) for layer in model.layers] == [Linear, Linear]
    assert isinstance(model.head, QuantizedLinear)
    assert model.head.scheme == "int4"
    maxmod.quantize(model, "int8", skip="twin")
    assert model.head.scheme == "int4"
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
    np.testing.assert_array_equal(
        _dequantized(layer),
        F.dequantize_weight(*F.quantize_weight(linear.weight, "int4")).to_numpy(),
    )


class _Head(Module[[Tensor], Tensor]):
    sensitive_layers = ("up",)

    def __init__(self) -> None:
        self.up, self.lm_head = Linear(128, 16), Linear(128, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.lm_head(x)


@pytest.mark.parametrize(
    ("scheme", "group", "head", "wanted"),
    [
        ("int8", None, "int8", [("int8", 64), ("int8", 64)]),
        ("int8", 32, "int8", [("int8", 32), ("int8", 32)]),
        ("int8", -1, "int4", [("int8", None), ("int4", 32)]),
        ("int4", None, "int8", [("int8", 64), ("int8", None)]),  # a head with groups is too large
        ("int4", 128, "int4", [("int8", 64), ("int4", 128)]),
    ],
)
def test_groups_of_8_bits(
    scheme: str, group: int | None, head: str, wanted: list[tuple[str, int | None]]
) -> None:
    model: Any = maxmod.quantize(_Head(), scheme, group_size=group, head=head)
    layers = (model.up, model.lm_head)
    assert [(layer.scheme, layer.group_size) for layer in layers] == wanted
    x = Tensor(np.random.default_rng(1).normal(size=(2, 128)).astype(np.float32))
    exact = x.to_numpy() @ _dequantized(model.lm_head).T + model.lm_head.bias.to_numpy()
    np.testing.assert_allclose(model(x).to_numpy(), exact, rtol=1e-5, atol=1e-5)


def test_summary_counts_the_bytes() -> None:
    floats, rounded = (Sequential(Linear(256, 128, bias=False)) for _ in range(2))
    assert floats.summary().nbytes == 4 * 256 * 128
    assert maxmod.quantize(floats, "int8").summary().nbytes == 256 * 128 + 4 * 2 * 128
    maxmod.quantize(rounded, "int4", group_size=128)
    assert rounded.summary().nbytes == 128 * 128 + (2 * 2 + 1) * 128
    assert "QuantizedLinear" in str(rounded.summary())


def test_the_type_of_a_wrong_argument_is_named() -> None:
    with pytest.raises(TypeError, match="quantize: expected a module, got NoneType"):
        maxmod.quantize(None, "int8")  # type: ignore[type-var]
