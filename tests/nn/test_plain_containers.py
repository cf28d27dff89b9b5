"""Tensors and modules in lists, tuples and dicts that attributes hold."""

from __future__ import annotations

import collections
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest

import maxmod
from maxmod import CPU, DType, Module, Tensor, TensorType
from maxmod.errors import MaxmodWarning
from maxmod.nn import (
    Linear,
    LoRA,
    ModuleList,
    PinnedDeviceTensor,
    QuantizedLinear,
    TransparentModule,
    lora_layers,
    module_dataclass,
)


class Leaf(Module):
    def __init__(self, value: float = 1.0) -> None:
        self.w = Tensor.full([2], value)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w


class Pair(NamedTuple):
    query: Any
    key: Any


class Layers(list[Any]):
    """No type that is searched."""


class Model(Module):
    """Every kind of container."""

    def __init__(self) -> None:
        self.blocks = [Leaf(2), Leaf(3)]
        self.scale = Tensor.full([2], 5.0)
        self.tables = {"b": Tensor.full([2], 7.0), "a": (Leaf(11), [Tensor.full([1], 13.0)])}
        self.pair = Pair(Tensor.full([2], 17.0), Leaf(19))
        self.head = Leaf(23)
        self.numbers = [1, 2, [3], {"x": None}]

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        x = self.tables["a"][0](x * self.scale + self.tables["b"])
        return self.head(self.pair.key(x) + self.pair.query * self.tables["a"][1][0])


NAMES = [
    "scale",
    "tables.a.1.0",
    "tables.b",
    "pair.query",
    "blocks.0.w",
    "blocks.1.w",
    "tables.a.0.w",
    "pair.key.w",
    "head.w",
]
ROWS = TensorType(DType.float32, ["n", 2], CPU())


def names(module: Module) -> list[str]:
    return [name for name, _ in module.parameters]


def first_values(module: Module) -> dict[str, float]:
    return {name: float(tensor.to_numpy()[0]) for name, tensor in module.parameters}


def expected(x: np.ndarray) -> np.ndarray:
    """What the model computes."""
    return (((x * 2 * 3 * 5 + 7) * 11) * 19 + 17 * 13) * 23


class TestQueries:
    def test_parameters_are_named_by_keys(self):
        assert names(Model()) == NAMES

    def test_contents_are_neither_children_nor_local_parameters(self):
        m = Model()
        assert [name for name, _ in m.children] == ["head"]
        assert [name for name, _ in m.descendants] == ["head"]
        assert [name for name, _ in m.local_parameters] == ["scale"]
        assert repr(m) == "Model(head=Leaf())"

    def test_queries_see_the_present_contents(self):
        m = Module()
        m.blocks = []
        assert names(m) == []
        m.blocks.append(Leaf())
        m.blocks.insert(0, Tensor.ones([1]))
        assert names(m) == ["blocks.0", "blocks.1.w"]
        del m.blocks[0]
        assert names(m) == ["blocks.0.w"]

    @pytest.mark.parametrize(
        ("container", "found"),
        [
            ({10: Leaf(), 9: Leaf()}, ["x.9.w", "x.10.w"]),
            ({"b": Leaf(), 1: Leaf()}, ["x.b.w", "x.1.w"]),
            (collections.OrderedDict(b=Leaf(), a=Leaf()), ["x.b.w", "x.a.w"]),
            (collections.defaultdict(Leaf, b=Leaf(), a=Leaf()), ["x.a.w", "x.b.w"]),
            (Pair([Leaf()], None), ["x.query.0.w"]),
            ([[[Leaf()]]], ["x.0.0.0.w"]),
            ({"a.b": Leaf()}, ["x.a.b.w"]),
            ([None, 3, Leaf()], ["x.2.w"]),
            ([], []),
            ({1, 2}, []),
        ],
        ids=repr,
    )
    def test_kinds_of_containers(self, container, found):
        m = Module()
        m.x = container
        assert names(m) == found

    def test_a_list_that_contains_itself_ends(self):
        m = Module()
        m.x = [Leaf()]
        m.x.append(m.x)
        assert names(m) == ["x.0.w"]

    def test_attributes_of_a_module_list(self):
        m = ModuleList([Leaf()])
        m.more = [Leaf()]
        assert names(m) == ["0.w", "more.0.w"]

    def test_equal_names_are_an_error(self):
        m = Module()
        m.x = {1: Leaf(), "1": Leaf()}
        with pytest.raises(ValueError, match=r"two parameters have the qualified name 'x\.1\.w'"):
            m.load_state_dict({})
        with pytest.raises(ValueError, match=r"'x\.1\.w'.*keys of a dict must differ as strings"):
            dict(m.parameters)

    def test_transparent_modules(self):
        class Wrapper(TransparentModule):
            def __init__(self) -> None:
                self.base = Leaf()

        m = Module()
        m.x = [[Wrapper()]]
        assert names(m) == ["x.0.base.w"]

    def test_references_to_parent_modules_are_not_followed(self):
        m = Module()
        m.child = Leaf()
        m.child.parents = [m]
        assert names(m) == ["child.w"]
        m.to(CPU())
        assert "Leaf" in str(m.summary())
        m.child.parent = m
        with pytest.raises(ValueError, match="must not contain itself"):
            list(m.parameters)


class TestTransforms:
    def test_apply_changes_lists_and_makes_tuples_anew(self):
        m = Model()
        blocks, tables, pair, inner = m.blocks, m.tables, m.pair, m.tables["a"]
        m.apply_to_parameters(lambda name, tensor: tensor * 2)
        assert list(first_values(m).values()) == [10, 26, 14, 34, 4, 6, 22, 38, 46]
        assert m.blocks is blocks
        assert m.tables is tables
        assert m.pair is not pair
        assert type(m.pair) is Pair
        assert m.tables["a"][0] is inner[0]
        assert m.tables["a"][1] is inner[1]

    def test_map_leaves_the_original_alone(self):
        m = Model()
        before = first_values(m)
        copied = m.map_parameters(lambda name, tensor: tensor + 1)
        assert first_values(m) == before
        assert first_values(copied) == {name: value + 1 for name, value in before.items()}
        assert copied.blocks[0] is not m.blocks[0]

    def test_frozen_modules(self):
        @module_dataclass(frozen=True, eq=False)
        class Frozen(Module):
            items: tuple[Tensor, ...]

        m = Frozen((Tensor.ones([1]),))
        assert first_values(m.map_parameters(lambda name, tensor: tensor * 3)) == {"items.0": 3}

    def test_to_moves_everything(self, emulated_accelerator):
        class Noted(Leaf):
            moved = 0

            def to(self, device):
                self.moved += 1
                return super().to(device)

        m = Model()
        m.blocks.append(Noted())
        m.shared = [m.blocks[-1]]  # so its tensor is tied
        m.to(emulated_accelerator)
        assert {tensor.device for _, tensor in m.parameters} == {emulated_accelerator}
        assert m.blocks[0].device == m.pair.key.device == emulated_accelerator
        assert m.blocks[-1].moved == 2
        assert m.shared[0] is m.blocks[-1]

    def test_tied_tensors_stay_tied(self, emulated_accelerator):
        m = Module()
        m.a = [Tensor.ones([1], device=CPU())]
        m.b = {"x": (m.a[0],)}
        m.to(emulated_accelerator)
        assert m.a[0] is m.b["x"][0]
        assert m.a[0].device == emulated_accelerator

    def test_pinned_containers_stay(self, emulated_accelerator):
        class Scaled(Module):
            scales: PinnedDeviceTensor

            def __init__(self) -> None:
                self.scales = [Tensor.ones([1], device=CPU())]

        assert Scaled().to(emulated_accelerator).scales[0].device == CPU()


class TestLoading:
    def test_values_reach_every_container(self):
        m = Model()
        state = {name: np.full(t.to_numpy().shape, i) for i, (name, t) in enumerate(m.parameters)}
        m.load_state_dict({name: value.astype(np.float32) for name, value in state.items()})
        assert list(first_values(m).values()) == list(range(len(NAMES)))
        m.load_state(lambda name, existing: existing * 2)
        assert list(first_values(m).values()) == [2 * i for i in range(len(NAMES))]

    def test_nothing_is_written_if_a_place_of_a_tied_tensor_refuses(self):
        @module_dataclass(frozen=True)
        class Frozen(Module):
            w: Tensor

        shared = Tensor.ones([2])
        m = Module()
        m.first, m.items, m.held = Tensor.zeros([2]), [shared], Frozen(shared)
        before = dict(m.parameters)
        state = {"first": np.full(2, 5, np.float32), "items.0": np.full(2, 5, np.float32)}
        with pytest.raises(AttributeError):
            m.load_state_dict(state)
        assert m.items[0] is m.held.w is shared
        assert all(tensor is before[name] for name, tensor in m.parameters)

    def test_modules_in_containers_must_have_values(self):
        m = Model()
        state = {name: tensor for name, tensor in m.parameters if name != "blocks.1.w"}
        before = first_values(m)
        with pytest.raises(KeyError, match=r"Weight 'blocks\.1\.w' is missing"):
            m.load_state_dict({name: tensor * 2 for name, tensor in state.items()})
        assert first_values(m) == before
        with pytest.raises(KeyError, match=r"blocks\.1\.w"):
            m.load_state(state.__getitem__)

    @pytest.mark.parametrize("load", ["load_state_dict", "load_state"])
    def test_tensors_in_containers_without_values_are_left_as_in_25_7(self, load):
        m = Leaf()
        m.cache = {"k": [Tensor.ones([1]), Tensor.zeros([1])]}
        state = {"w": Tensor.zeros([2])}
        kept = m.cache["k"][0]
        with pytest.warns(MaxmodWarning, match=r"are unchanged: cache\.k\.0, cache\.k\.1") as w:
            getattr(m, load)(state if load == "load_state_dict" else state.__getitem__)
        assert w[0].filename == __file__
        assert m.w.to_numpy()[0] == 0
        assert m.cache["k"][0] is kept

    def test_a_container_of_tensors_is_loaded_whole(self):
        m = Leaf()
        m.cache = [Tensor.ones([1]), Tensor.ones([1])]
        with pytest.raises(KeyError, match=r"'cache\.1' is missing"):
            m.load_state_dict({"w": Tensor.zeros([2]), "cache.0": Tensor.zeros([1])})
        assert first_values(m)["w"] == 1

    def test_a_tensor_tied_to_an_attribute_is_loaded_once(self):
        m = Leaf()
        m.tied = [m.w]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            m.load_state_dict({"w": Tensor.zeros([2])})
        assert m.tied[0] is m.w
        assert m.w.to_numpy()[0] == 0


class TestOthers:
    def test_tensors_in_containers_become_weights(self):
        m = Model()
        compiled = m.compile(ROWS)
        assert sorted(compiled.weights) == sorted(NAMES)
        x = np.array([[1, -2], [3, 4]], np.float32)
        assert np.array_equal(m(Tensor(x)).to_numpy(), expected(x))
        assert np.array_equal(compiled(Tensor(x)).to_numpy(), expected(x))

    def test_compile_with_other_weights(self):
        m = Module[[Tensor], Tensor]()
        m.blocks = [Leaf()]
        m.forward = lambda x: m.blocks[0](x)
        compiled = m.compile(ROWS, weights={"blocks.0.w": np.full(2, 9, np.float32)})
        assert compiled(Tensor.ones([1, 2])).to_numpy().tolist() == [[9, 9]]

    def test_summary(self):
        m = Module()
        m.blocks = [Leaf(), Leaf()]
        m.tables = {"x": (Tensor.ones([3]),), "y": 1}
        lines = [line.split() for line in str(m.summary()).splitlines()]
        assert lines[1:-1] == [
            ["Module", "7", "28", "B"],
            ["blocks:", "list", "4", "16", "B"],
            ["0-1:", "Leaf", "(x2)", "4", "16", "B", "w", "float32[2]"],
            ["tables:", "dict", "3", "12", "B"],
            ["x:", "tuple", "3", "12", "B", "0", "float32[3]"],
        ]
        outputs = {row.name: row.output for row in Model().summary(ROWS).rows}
        assert outputs["0-1"] == outputs["key"] == outputs["head"] == "float32[n,2]"

    def test_quantize(self):
        m = Module()
        m.blocks = (Linear(32, 8), {"a": Linear(32, 8)})
        maxmod.quantize(m, "int8", skip="blocks.0")
        assert type(m.blocks[0]) is Linear
        assert type(m.blocks[1]["a"]) is QuantizedLinear

    def test_lora_layers(self):
        m = Module()
        m.x = [LoRA(Linear(2, 2), max_num_loras=1, max_lora_rank=1, max_lora_seq_len=1)]
        assert [name for name, _ in lora_layers(m)] == ["x.0"]
        assert names(m) == ["x.0.weight", "x.0.bias"]

    @pytest.mark.parametrize(
        "container",
        [{Leaf()}, collections.deque([Leaf()]), Layers([Leaf()]), [(Layers([Leaf()]),)]],
    )
    def test_other_containers_are_warned_of(self, container):
        m = Module()
        m.inner = Module()
        m.inner.x = container
        assert names(m) == []
        kind = type(container).__name__
        with pytest.warns(MaxmodWarning, match=rf"to: .*: inner\.x \({kind}\)") as caught:
            m.to(CPU())
        assert len(caught) == 1
        assert caught[0].filename == __file__
