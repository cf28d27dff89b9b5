"""Rules of modules, layers, compiled models and random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from api.proving import named, proves
from emulated_cuda import emulated_cuda

from maxmod import CPU, BufferType, DType, Module, Tensor, TensorType, nn, random
from maxmod import functional as F
from maxmod.driver import Buffer
from maxmod.graph.ops import random as graph_random
from maxmod.nn import (
    Conv2d,
    Embedding,
    GemmaRMSNorm,
    GroupNorm,
    HyperConnection,
    LayerNorm,
    Linear,
    LoRA,
    ModuleList,
    PinnedDeviceTensor,
    RMSNorm,
    RotaryEmbedding,
    Sequential,
    TransparentModule,
    TransposedRotaryEmbedding,
    as_subgraph,
    lora_layers,
    lora_parameters,
    module_dataclass,
    rope,
)
from maxmod.nn.norm import rms_norm
from maxmod.nn.rope import yarn
from maxmod.runtime.compiled import CompiledModel, StagedGraph, compile_function

X = Tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])


def names(module: Module[..., Any]) -> list[str]:
    """Names of the parameters."""
    return [name for name, _ in module.parameters]


class Block(Module):
    """A module with its own tensor between children."""

    def __init__(self) -> None:
        self.fc = Linear(2, 3)
        self.scale = Tensor.ones([3])
        self.norm = LayerNorm(3)

    def __call__(self, x: Tensor) -> Tensor:
        return self.norm(self.fc(x) * self.scale)


@proves(*named("Module", "local_parameters children descendants parameters __rich_repr__"))
@proves(*named("Module", "__repr__ forward __call__"))
@proves("nn.Module")
def queries() -> None:
    block = Block()
    assert names(block) == ["scale", "fc.weight", "fc.bias", "norm.weight", "norm.bias"]
    assert [n for n, _ in block.local_parameters] == ["scale"]
    assert [n for n, _ in block.children] == ["fc", "norm"]
    outer = Sequential(block)
    assert [n for n, _ in outer.descendants] == ["0", "0.fc", "0.norm"]
    once = block.parameters
    assert len(list(once)) == 5
    assert list(once) == []
    assert repr(Module()) == "Module()"
    assert repr(block) == ("Block(fc=Linear(in_dim=Dim(2), out_dim=Dim(3)), norm=LayerNorm(dim=3))")
    for kind in (TypeError, NotImplementedError):
        with pytest.raises(kind, match="must implement forward"):
            Module()(X)
    assert Linear(3, 2).forward(X).shape == [2, 2]
    assert names(Module[[Tensor], Tensor]()) == []
    loop = Module()
    loop.again = loop  # type: ignore[attr-defined]
    with pytest.raises(ValueError):
        list(loop.parameters)
    held = Module()
    held.layers = [Linear(1, 1)]  # type: ignore[attr-defined]
    held.tables = {"b": X, "a": X}  # type: ignore[attr-defined]
    assert names(held) == ["tables.a", "tables.b", "layers.0.weight", "layers.0.bias"]
    assert list(held.children) == list(held.descendants) == list(held.local_parameters) == []


@proves(*named("Module", "apply_to_local_parameters apply_to_parameters map_parameters to device"))
@proves("nn.PinnedDeviceTensor")
def transforms() -> None:
    block = Block()
    seen: list[str] = []
    block.apply_to_local_parameters(lambda n, t: seen.append(n) or t * 2)
    assert seen == ["scale"]
    assert block.scale.to_numpy().tolist() == [2, 2, 2]
    block.apply_to_parameters(lambda n, t: seen.append(n) or t)
    assert seen[1:] == names(block)
    copied = block.map_parameters(lambda n, t: t)
    assert copied is not block
    assert copied.fc.weight is block.fc.weight
    assert block.map_parameters(lambda n, t: t + 1).scale.to_numpy()[0] == 3
    assert block.scale.to_numpy()[0] == 2
    assert block.device == CPU()

    class Scaled(Module):
        scale: PinnedDeviceTensor

        def __init__(self) -> None:
            self.scale = Tensor([2.0])
            self.inner = Linear(1, 1)

    with emulated_cuda() as (gpu, _):
        scaled = Scaled()
        scaled.scale = Tensor([2.0], device=CPU())
        assert scaled.to(gpu) is scaled
        assert (scaled.scale.device, scaled.inner.weight.device) == (CPU(), gpu)
        assert scaled.device == scaled.inner.device == gpu
        scaled.device = CPU()
        assert scaled.device == CPU()
        assert scaled.inner.weight.device == gpu
        with pytest.raises(TypeError):
            scaled.to("gpu")  # type: ignore[arg-type]


@proves("Module.load_state", "Module.load_state_dict")
def loading() -> None:
    model = Linear(2, 1)
    new = {"weight": Tensor([[1.0, 2.0]]), "bias": Tensor([3.0])}
    model.load_state(new.__getitem__)
    assert model.weight.to_numpy().tolist() == [[1, 2]]
    model.load_state(lambda name, existing: existing * 2)
    assert model.weight.to_numpy().tolist() == [[2, 4]]
    assert model.load_state_dict(new) is None
    with pytest.raises(KeyError):
        model.load_state_dict({"weight": new["weight"] * 9})
    with pytest.raises(ValueError):
        model.load_state_dict({**new, "other": new["bias"]})
    assert model.weight.to_numpy().tolist() == [[1, 2]]
    model.load_state_dict({**new, "other": new["bias"]}, False)
    for wrong in (Tensor([1.0, 2.0]), Tensor([[1.0, 2.0]], dtype=DType.bfloat16)):
        with pytest.raises(ValueError):
            model.load_state_dict({**new, "weight": wrong})
    half = {name: value.cast(DType.bfloat16) for name, value in new.items()}
    model.load_state_dict(half, auto_cast=True)
    assert model.weight.dtype is DType.float32
    with pytest.raises(ValueError):
        model.load_state_dict({**new, "bias": Tensor([1.0], dtype=DType.float64)}, auto_cast=True)


_SHOWN = "in_layouts in_tree out_layouts out_tree weights execute_raw export_mef engine_model"


@proves("Module.compile", "Module.trace", *named("CompiledModel", f"{_SHOWN} signal_buffers"))
@proves("StagedGraph.in_layouts", "StagedGraph.out_layouts")
def compiling() -> None:
    rows = TensorType(DType.float32, ["batch", 2], CPU())
    block = Block()
    before = block.fc.weight
    model = block.compile(rows)
    assert block.fc.weight is before
    assert model.__wrapped__ is block
    assert model.__name__ == "Block"
    assert isinstance(model, CompiledModel)
    x = Tensor([[1.0, 2.0]])
    np.testing.assert_allclose(model(x).to_numpy(), block(x).to_numpy(), rtol=1e-5, atol=1e-6)
    assert [t.short() for t in model.in_layouts] == ["float32[batch,2]"]
    assert [t.short() for t in model.out_layouts] == ["float32[batch,3]"]
    assert list(model.weights) and set(model.weights) == set(names(block))
    (raw,) = model.execute_raw(x.driver_tensor)
    assert isinstance(raw, Buffer)
    assert model.engine_model(x).shape == [1, 3]
    assert model.signal_buffers == ()
    assert model.in_tree.leaf_count == model.out_tree.leaf_count == 1
    with pytest.raises(NotImplementedError):
        model.export_mef("model.mef")
    for wrong in ((), (x, x)):
        with pytest.raises(TypeError):
            model(*wrong)
    for argument in (x.cast(DType.float64), x[0], Tensor([[1.0]])):
        with pytest.raises(ValueError):
            model(argument)
    for argument in ("x", None, object()):
        for kind in (TypeError, ValueError):
            with pytest.raises(kind):
                model(argument)
    assert model(np.ones((2, 2), np.float32)).shape == [2, 3]
    with pytest.raises(TypeError):
        block.compile(x)
    with pytest.raises(TypeError):
        block.compile(rows, rows)
    staged = block.trace(rows, name="shown")
    assert isinstance(staged, StagedGraph)
    assert str(staged).startswith("graph shown(")
    assert [t.short() for t in staged.in_layouts] == ["float32[batch,2]"]
    assert [t.short() for t in staged.out_layouts] == ["float32[batch,3]"]
    with pytest.raises(NotImplementedError):
        block.compile(rows, custom_extensions=["kernels.mojopkg"])
    with F.lazy():
        large = Linear(2, 1)
    given = {"weight": Tensor([[1.0, 2.0]]), "bias": Tensor([3.0])}
    fast = large.compile(rows, weights={**given, "unused": given["bias"]}, name="large")
    assert fast(x).item() == 8
    assert not large.weight.real
    with pytest.raises(KeyError):
        large.compile(rows, weights={"weight": given["weight"]})
    with pytest.raises(ValueError):
        large.compile(rows, weights={**given, "bias": given["weight"]})
    half = {name: value.cast(DType.bfloat16) for name, value in given.items()}
    with pytest.raises(ValueError):
        large.compile(rows, weights=half)
    assert large.compile(rows, weights=half, auto_cast=True)(x).item() == 8


@proves("Module.compile")
def structures_of_arguments_and_results() -> None:
    class Nested(Module):
        def forward(self, pair: Any, flag: Any) -> Any:
            a, b = pair["a"], pair["b"][0]
            return {"sum": a + b if flag else a - b, "both": (a, [b]), "flag": flag}

    one = TensorType(DType.float32, ["n"], CPU())
    model = Nested().compile({"a": one, "b": [one]}, True)
    x = Tensor([1.0])
    found = model({"a": x, "b": [x]}, True)
    assert found["sum"].item() == 2
    assert isinstance(found["both"], tuple)
    assert isinstance(found["both"][1], list)
    assert found["flag"] is True
    with pytest.raises(ValueError):
        model({"a": x, "b": [x]}, False)
    with pytest.raises(ValueError):
        model({"a": x, "b": [Tensor([1.0, 2.0])]}, True)

    class Grows(Module):
        def forward(self, x: Tensor, buffer: Tensor) -> Tensor:
            F.buffer_store(buffer, buffer + x)
            return buffer * 2

    row = BufferType(DType.float32, ["n"], CPU())
    total = Tensor([1.0])
    assert Grows().compile(one, row)(x, total).item() == 4
    assert total.item() == 2


@proves(*named("nn", "Linear Embedding ModuleList Sequential"))
def plain_layers() -> None:
    linear = Linear(5, 10)
    assert linear(Tensor.ones([5])).shape == [10]
    assert linear(Tensor.ones([7, 3, 5])).shape == [7, 3, 10]
    assert linear.in_dim == 5
    assert repr(Linear(2, 2, bias=False)) == "Linear(in_dim=Dim(2), out_dim=Dim(2), bias=False)"
    bare = Linear(5, 10, bias=False)
    assert bare.bias == 0
    assert names(bare) == ["weight"]
    with pytest.raises(TypeError):
        Linear(2, 2, False)  # type: ignore[misc]
    with pytest.raises(ValueError):
        linear(Tensor.ones([4]))
    with pytest.raises(NotImplementedError):
        Linear(2, 2, quant_config=object())
    words = Tensor.ones([10], dtype=DType.uint64)
    assert Embedding(1000, dim=128)(words).shape == [10, 128]
    grid = Embedding(10, dims=[2, 3])
    assert grid(words).shape == [10, 2, 3]
    assert Embedding(10, dims=[])(words).shape == [10]
    for arguments in ({}, {"dim": 2, "dims": [2]}):
        with pytest.raises(TypeError, match="exactly one of `dim` or `dims`"):
            Embedding(10, **arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Multi-dimensional embeddings must use `dims`"):
        _ = grid.dim
    assert repr(grid) == "Embedding(vocab_size=Dim(10), dims=[Dim(2), Dim(3)])"
    with pytest.raises(ValueError):
        grid(X)
    for weak in (np.array([1]), [1]):
        with pytest.raises(TypeError):
            grid(weak)  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        grid(Tensor([10], dtype=DType.int64))
    assert Sequential()(X) is X
    pair = Sequential(Linear(1, 1), Linear(1, 1))
    assert names(pair) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    with pytest.raises(TypeError):
        hash(Sequential())
    assert not Sequential()
    assert type(pair[1:]) is list
    layers = ModuleList([Linear(1, 1)])
    layers.append(Linear(1, 1))
    assert len(names(layers)) == 4
    with pytest.raises((TypeError, NotImplementedError)):
        layers(X)


@proves(*named("nn", "LayerNorm RMSNorm GemmaRMSNorm GroupNorm"), "norm.rms_norm")
def norms() -> None:
    norm = LayerNorm(3)
    assert norm(X).to_numpy().mean(-1) == pytest.approx([0, 0], abs=1e-6)
    assert repr(norm) == "LayerNorm(dim=3)"
    assert repr(LayerNorm(3, 1e-6)) == "LayerNorm(dim=3, eps=1e-06)"
    assert LayerNorm(3, use_bias=False).bias is None
    assert names(LayerNorm(3, elementwise_affine=False)) == []
    half = X.cast(DType.bfloat16)
    assert norm(half).dtype is DType.float32
    assert LayerNorm(3, keep_dtype=False)(half).dtype is DType.bfloat16
    with pytest.raises(ValueError):
        LayerNorm(3, 0.0)(X)
    with pytest.raises(ValueError):
        LayerNorm(2)(X)
    square = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
    wanted = square / np.sqrt((square**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(RMSNorm(3)(X).to_numpy(), wanted, rtol=1e-5)
    np.testing.assert_allclose(GemmaRMSNorm(3)(X).to_numpy(), 2 * wanted, rtol=1e-5)
    found = rms_norm(X, Tensor.ones([3]), 1e-6, weight_offset=1.0, multiply_before_cast=True)
    np.testing.assert_allclose(found.to_numpy(), 2 * wanted, rtol=1e-5)
    assert repr(RMSNorm(64)) == "RMSNorm(dim=Dim(64))"
    with pytest.raises(ValueError, match="RMSNorm: Could not apply weight shape"):
        RMSNorm(2)(X)
    with pytest.raises(ValueError, match="should be divisible by num_groups"):
        GroupNorm(3, 4)
    group = GroupNorm(2, 4)
    assert repr(group) == "GroupNorm(num_groups=2, num_channels=4)"
    image = Tensor(np.random.default_rng(1).normal(size=(2, 4, 5)).astype(np.float32))
    apart = group(image).to_numpy().reshape(2, 2, 10)
    assert apart.mean(-1) == pytest.approx(np.zeros((2, 2)), abs=1e-5)
    assert GroupNorm(2, 4, affine=False).weight is None
    for wrong in (Tensor.ones([4]), Tensor.ones([1, 3])):
        with pytest.raises(ValueError):
            group(wrong)


@proves("nn.Conv2d", "nn.HyperConnection")
def convolution_and_streams() -> None:
    conv = Conv2d(3, 2, 4, padding=1)
    assert conv(Tensor.ones([1, 5, 5, 2])).shape == [1, 5, 5, 4]
    assert (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1, 1, 1))
    assert conv.weight.shape == [3, 3, 2, 4]
    assert conv.bias == 0
    first = Conv2d(
        (1, 3), 4, 6, stride=2, padding=(0, 1), num_groups=2, has_bias=True, permute=True
    )
    assert first.weight.shape == [6, 2, 1, 3]
    assert first.padding == (0, 0, 1, 1)
    assert first(Tensor.ones([1, 4, 5, 6])).shape == [1, 6, 3, 3]
    assert repr(conv).startswith("Conv2d(")
    for wrong in (X, Tensor.ones([1, 5, 5, 3])):
        with pytest.raises(ValueError):
            conv(wrong)
    streams = HyperConnection(4, 2)
    x = Tensor.ones([3, 2, 4])
    assert streams.combine(*streams(x)[:1], x, *streams(x)[1:]).shape == [3, 2, 4]


@proves(*named("nn", "RotaryEmbedding TransposedRotaryEmbedding"))
@proves(*named("rope", "theta embed positional_embedding"))
@proves(*named("yarn", "positional_embedding linear_ramp_mask linear_interpolation length_scaling"))
def rotations() -> None:
    np.testing.assert_allclose(rope.theta(4, 100.0).to_numpy(), [1, 0.1], rtol=1e-6)
    table = rope.embed(rope.theta(4, 100.0), 3)
    assert table.shape == [3, 2, 2]
    np.testing.assert_allclose(table.to_numpy()[2, 0], [math.cos(2), math.sin(2)], rtol=1e-6)
    layer = RotaryEmbedding(rope.positional_embedding(4, 100.0, 8))
    assert (layer.dim, layer.max_sequence_length) == (4, 8)
    assert repr(layer) == "RotaryEmbedding(dim=4, max_sequence_length=8)"
    x = np.random.default_rng(2).normal(size=(1, 3, 2, 4)).astype(np.float32)
    angles = (np.arange(3)[:, None] + 2) * np.array([1, 0.1])
    turn = np.exp(1j * angles)[:, None]
    pairs = (x[..., ::2] + 1j * x[..., 1::2]) * turn
    wanted = np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)
    np.testing.assert_allclose(layer(Tensor(x), start_pos=2).to_numpy(), wanted, atol=1e-5)
    halves = (x[..., :2] + 1j * x[..., 2:]) * turn
    other = TransposedRotaryEmbedding(layer.weight)
    wanted = np.concatenate([halves.real, halves.imag], -1)
    np.testing.assert_allclose(other(Tensor(x), 2).to_numpy(), wanted, atol=1e-5)
    with pytest.raises(ValueError):
        layer(Tensor(x), 6)
    assert yarn.length_scaling() == 1
    assert yarn.length_scaling(math.e) == pytest.approx(1.1)
    assert yarn.linear_ramp_mask(0, 2, 4).to_numpy().tolist() == [0, 0.5, 1, 1]
    with pytest.raises(ValueError):
        yarn.linear_ramp_mask(2, 2, 4)
    mixed = yarn.linear_interpolation(Tensor([1.0]), Tensor([3.0]), Tensor([0.25]))
    assert mixed.item() == 1.5
    assert yarn.positional_embedding(8, 10000.0, 64, 32, 32.0, 1.0).shape == [64, 4, 2]


@proves(*named("nn", "LoRA TransparentModule as_subgraph lora_layers lora_parameters"))
def wrappers() -> None:
    class Wrapped(TransparentModule):
        def __init__(self, base: Module[..., Any]) -> None:
            self.base = base

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x)

    model = Sequential(Wrapped(Linear(3, 1)))
    assert [n for n, _ in model.children] == ["0"]
    outer = Module()
    outer.wrapper = Wrapped(Linear(3, 1))  # type: ignore[attr-defined]
    assert names(outer) == ["base.weight", "base.bias"]
    assert model(X).shape == [2, 1]
    fn: Callable[[Tensor], Tensor] = model
    assert as_subgraph(fn, name="block") is fn
    sizes = {"max_num_loras": 1, "max_lora_rank": 2, "max_lora_seq_len": 8}
    adapted = Sequential(LoRA(Linear(3, 1), **sizes))
    assert [n for n, _ in lora_layers(adapted)] == ["0"]
    assert [n for n, _ in lora_parameters(adapted)] == ["0.lora_a", "0.lora_b"]
    assert names(adapted) == ["0.weight", "0.bias"]


@proves("nn.module_dataclass")
def dataclasses_of_modules() -> None:
    @module_dataclass
    class Affine(Module):
        weight: Tensor
        bias: Tensor | int = 0
        name: str = "affine"

        def __call__(self, x: Tensor) -> Tensor:
            return x @ self.weight.T + self.bias

    module = Affine(Tensor.zeros([10, 5]))
    assert names(module) == ["weight"]
    assert names(Affine(weight=X, bias=X)) == ["weight", "bias"]
    assert module(Tensor.ones([3, 5])).shape == [3, 10]
    assert "name=" not in repr(module)
    fast = module.compile(TensorType(DType.float32, ["batch", 5], CPU()))
    assert fast(Tensor.ones([3, 5])).shape == [3, 10]
    with pytest.raises(TypeError):
        hash(module)

    @module_dataclass(eq=False)
    class Plain(Module):
        a: int

    one, other = Plain(1), Plain(1)
    assert one != other
    assert hash(one) != hash(other)
    assert repr(Plain(2)) == "Plain(a=2)"


@proves(*named("random", "uniform gaussian normal uniform_like gaussian_like normal_like seed"))
@proves("random.set_seed", *named("graph_random", "set_seed uniform gaussian normal"))
def random_numbers() -> None:
    def drawn(fn: Callable[..., Tensor], seed: int, *arguments: Any) -> list[float]:
        random.set_seed(seed)
        return fn(*arguments).to_numpy().tolist()

    assert drawn(random.uniform, 3, [4]) == drawn(random.uniform, 3, [4])
    random.set_seed(3)
    pair = [random.normal([2]), random.gaussian([2])]
    assert [t.to_numpy().tolist() for t in pair] == [
        drawn(random.normal, 3, [2]),
        drawn(random.normal, 4, [2]),
    ]
    assert drawn(random.uniform, 0, [2], (1, 1)) == [1, 1]
    assert random.seed().device == CPU()
    with pytest.raises((ValueError, TypeError)):
        random.uniform([1], (1,))
    with pytest.raises(ValueError, match="Expected a scalar value"):
        random.normal([1], mean=X)  # type: ignore[arg-type]
    assert random.normal([3], dtype=DType.int32).dtype is DType.int32
    for like in (X, X.type):
        for fn in (random.uniform_like, random.gaussian_like, random.normal_like):
            assert fn(like).type == X.type
    row = TensorType(DType.float32, [2], CPU())
    with pytest.raises(RuntimeError, match="No seed set!"):
        compile_function(lambda x: x + random.normal([2]), [row], name="f", parameters={})

    def seeded(x: Tensor) -> list[Tensor]:
        graph_random.set_seed(5)
        return [
            graph_random.uniform(row),
            graph_random.gaussian(row),
            graph_random.normal(row, 0, 1) + x,
        ]

    model = compile_function(seeded, [row], name="f", parameters={})
    first, second = model(X[0, :2]), model(X[0, :2])
    assert [t.to_numpy().tolist() for t in first] == [t.to_numpy().tolist() for t in second]
    np.testing.assert_allclose(first[0].to_numpy(), drawn(random.uniform, 5, [2]), rtol=1e-6)
    assert nn.Linear is Linear
