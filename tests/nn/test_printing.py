"""`repr` of modules, `module_dataclass`, and `summary`."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from maxmod import CPU, DType, Tensor, TensorType, module_dataclass
from maxmod.errors import OperandError
from maxmod.interpreters.lazy import lazy
from maxmod.nn import (
    Conv2d,
    Embedding,
    GemmaRMSNorm,
    GroupNorm,
    HyperConnection,
    LayerNorm,
    Linear,
    Module,
    ModuleList,
    RMSNorm,
    Sequential,
)
from maxmod.nn.pretty import pretty_repr


@module_dataclass(eq=False)
class Part(Module):
    a: Any
    b: Any = 0


@dataclasses.dataclass
class Config:
    width: int = 8
    names: tuple[str, ...] = ()


class Described:
    def __init__(self, *entries):
        self.entries = entries

    def __rich_repr__(self):
        yield from self.entries


class TestRepr:
    @pytest.mark.parametrize(
        ("module", "text"),
        [
            (Linear(2, 2), "Linear(in_dim=Dim(2), out_dim=Dim(2))"),
            (Linear(2, 3, bias=False), "Linear(in_dim=Dim(2), out_dim=Dim(3), bias=False)"),
            (Embedding(1000, dim=128), "Embedding(vocab_size=Dim(1000), dim=Dim(128))"),
            (Embedding(10, dims=[2, 3]), "Embedding(vocab_size=Dim(10), dims=[Dim(2), Dim(3)])"),
            (Embedding(10, dims=[]), "Embedding(vocab_size=Dim(10), dims=[])"),
            (LayerNorm(768), "LayerNorm(dim=768)"),
            (LayerNorm(768, eps=1e-6, use_bias=False), "LayerNorm(dim=768, eps=1e-06)"),
            (RMSNorm(64), "RMSNorm(dim=Dim(64))"),
            (GemmaRMSNorm(64, 1e-5), "GemmaRMSNorm(dim=Dim(64), eps=1e-05)"),
            (GroupNorm(2, 4), "GroupNorm(num_groups=2, num_channels=4)"),
            (
                Conv2d(3, 8, 16, stride=2),
                "Conv2d(kernel_size=(3, 3), in_channels=8, out_channels=16, stride=(2, 2))",
            ),
            (HyperConnection(8, 2), "HyperConnection(hidden_size=8, hc_mult=2)"),
            (Sequential(), "Sequential()"),
            (Module(), "Module()"),
            (Part(2), "Part(a=2)"),
            (Part(1, 3), "Part(a=1, b=3)"),
            (Sequential(Part(1)), "Sequential(Part(a=1))"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_on_one_line(self, module, text):
        assert repr(module) == str(module) == f"{module}" == text

    def test_children_one_a_line(self):
        class Net(Module):
            def __init__(self):
                self.scale = Tensor.ones([1])
                self.fc1 = Linear(10, 20)
                self.note = "not shown"
                self.fc2 = Linear(20, 5)

        assert repr(Net()) == (
            "Net(\n"
            "    fc1=Linear(in_dim=Dim(10), out_dim=Dim(20)),\n"
            "    fc2=Linear(in_dim=Dim(20), out_dim=Dim(5))\n"
            ")"
        )

    def test_modules_that_fit_stay_on_one_line(self):
        pairs = [Sequential(Part(100), Part(200)), Sequential(Part(300), Part(400))]
        assert repr(Sequential(*pairs, ModuleList(pairs[:1]))) == (
            "Sequential(\n"
            "    Sequential(Part(a=100), Part(a=200)),\n"
            "    Sequential(Part(a=300), Part(a=400)),\n"
            "    ModuleList(Sequential(Part(a=100), Part(a=200)))\n"
            ")"
        )

    @pytest.mark.parametrize("length", range(66, 73))
    def test_the_limit_of_80_columns(self, length):
        text = repr(Part("x" * length))
        assert ("\n" in text) == (len(f"Part(a='{'x' * length}')") > 80)

    def test_a_module_inside_itself(self):
        m = Sequential()
        m.append(m)
        assert repr(m) == "Sequential(...)"

    def test_tensors_are_shown_by_dataclasses(self):
        t = Tensor(1.0)
        assert repr(Part(t)) == f"Part(a={t!r})"

    def test_lazy_tensors_are_not_made(self):
        with lazy():
            part = Part(Tensor.ones([1]))
        assert "<unrealized>" in repr(part)
        assert not part.a.real


CASES = [
    Part([1, 2, 3], {"k": (1,)}),
    Part({"key": ["a" * 30, "b" * 30, "c" * 30]}, ("one" * 40,)),
    Part([], {}),
    Part({1}, set()),
    Part(Config(), Config(names=("x" * 40, "y" * 40))),
    Part("x" * 90, b="y" * 90),
    Part(Linear, len),
    Sequential(Part(Sequential(*(Part(i, i + 1) for i in range(9)))), Part("y" * 61)),
    Described(1, ("a", 2), ("b", 3, 3), ("c", 4, 3), (None, 5), (6,)),
    Described(*("word" * 5 for _ in range(5))),
    Described(),
    Part(Tensor([[1.0, 2.0], [3.0, 4.0]]), Sequential(Part(Tensor([1.5] * 12)))),
]


@pytest.mark.parametrize("value", CASES, ids=range(len(CASES)))
def test_the_layout_matches_rich(value):
    rich = pytest.importorskip("rich.pretty", reason="rich, the model of the layout, is missing")
    assert pretty_repr(value) == rich.pretty_repr(value)


class TestDataclass:
    def test_fields_are_attributes_in_order(self):
        @module_dataclass
        class Base(Module):
            weight: Tensor
            bias: Tensor | int = 0

        @module_dataclass
        class More(Base):
            scale: Tensor | None = None

        m = More(Tensor.ones([1]), scale=Tensor.ones([1]))
        assert [n for n, _ in m.parameters] == ["weight", "scale"]
        m.bias = Tensor.ones([1])
        m.extra = Tensor.ones([1])
        assert [n for n, _ in m.parameters] == ["weight", "bias", "scale", "extra"]

    def test_undecorated_subclasses_inherit(self):
        class Child(Part):
            pass

        assert repr(Child(1)) == "Child(a=1)"

    def test_fields_with_a_factory_are_always_shown(self):
        @module_dataclass
        class Holder(Module):
            items: list = dataclasses.field(default_factory=list)
            absent: Any = None

        assert repr(Holder()) == "Holder(items=[])"

    def test_arguments_of_dataclass(self):
        @module_dataclass(frozen=True, kw_only=True)
        class Frozen(Module):
            a: int

        with pytest.raises(dataclasses.FrozenInstanceError):
            Frozen(a=1).a = 2
        with pytest.raises(TypeError):
            Frozen(1)

    def test_equality_compares_fields_unless_switched_off(self):
        @module_dataclass
        class Compared(Module):
            a: int

        assert Compared(1) == Compared(1) != Compared(2)
        with pytest.raises(TypeError, match="unhashable"):
            hash(Compared(1))
        assert Part(1) != Part(1)
        assert isinstance(hash(Part(1)), int)

    def test_the_repr_of_dataclasses(self):
        @module_dataclass(repr=True)
        class Plain(Module):
            a: int
            b: int = 0

        assert repr(Plain(1)).endswith("Plain(a=1, b=0)")

    def test_own_reprs_are_kept(self):
        @module_dataclass
        class Own(Module):
            a: int

            def __rich_repr__(self):
                yield "twice", 2 * self.a

        assert repr(Own(4)) == "Own(twice=8)"

    def test_a_field_named_device(self):
        @module_dataclass
        class Placed(Module):
            device: Any
            size: int

        assert Placed(CPU(), 3).device == CPU()
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            Placed(size=3)

    def test_slots_are_refused(self):
        with pytest.raises(TypeError, match="slots=True is not supported"):
            module_dataclass(slots=True)

    def test_other_classes_are_refused(self):
        with pytest.raises(OperandError, match="expected a subclass of Module"):

            @module_dataclass
            class Loose:
                a: int

    def test_compiled(self):
        @module_dataclass
        class Affine(Module):
            weight: Tensor
            bias: Tensor | int = 0

            def __call__(self, x):
                return x @ self.weight.T + self.bias

        m = Affine(Tensor.ones([10, 5]))
        compiled = m.compile(TensorType(DType.float32, ["batch", 5], CPU()))
        assert compiled(Tensor.ones([3, 5])).shape == [3, 10]
        assert compiled(Tensor.ones([3, 5]))[2, 9].item() == 5


class Block(Module):
    def __init__(self, dim):
        self.norm = LayerNorm(dim)
        self.fc = Linear(dim, dim, bias=False)
        self.scale = Tensor.ones([dim])

    def forward(self, x):
        return self.fc(self.norm(x)) * self.scale, None


class Language(Module):
    def __init__(self):
        self.wte = Embedding(100, dim=8)
        self.blocks = ModuleList(Block(8) for _ in range(3))
        self.head = Linear(8, 100, bias=False)
        self.head.weight = self.wte.weight
        self.unused = Linear(1, 1)

    def __call__(self, tokens):
        x = self.wte(tokens)
        for block in self.blocks:
            x, _ = block(x)
        return self.head(x)


class TestSummary:
    tokens = TensorType(DType.int64, ["batch", "seq"], CPU())

    def test_numbers_count_tied_tensors_once(self):
        found = Language().summary()
        assert found.parameter_count == 800 + 3 * (8 + 8 + 64 + 8) + 2
        assert found.nbytes == 4 * found.parameter_count
        by_name = {row.name: row for row in found.rows}
        assert by_name[""].parameter_count == found.parameter_count
        assert by_name["head"].parameter_count == 800

    def test_the_table_with_types(self):
        text = str(Language().summary(self.tokens))
        assert text == repr(Language().summary(self.tokens))
        lines = [line.split("  ") for line in text.splitlines()]
        table = [[cell.strip() for cell in line if cell.strip()] for line in lines]
        both = "weight float32[8], bias float32[8]"
        assert table == [
            ["module", "output", "parameters", "bytes", "own tensors"],
            ["Language", "float32[batch,seq,100]", "1,066", "4.26 kB"],
            ["wte: Embedding", "float32[batch,seq,8]", "800", "3.2 kB", "weight float32[100,8]"],
            ["blocks: ModuleList", "264", "1.06 kB"],
            ["0-2: Block (x3)", "float32[batch,seq,8]", "264", "1.06 kB", "scale float32[8]"],
            ["norm: LayerNorm", "float32[batch,seq,8]", "16", "64 B", both],
            ["fc: Linear", "float32[batch,seq,8]", "64", "256 B", "weight float32[8,8]"],
            ["head: Linear", "float32[batch,seq,100]", "800", "3.2 kB", "weight float32[100,8]"],
            ["unused: Linear", "2", "8 B", "weight float32[1,1], bias float32[1]"],
            ["total: 1,066 parameters, 4.26 kB"],
        ]

    def test_neighbours_that_differ_are_not_folded(self):
        m = Sequential(Linear(1, 1), Linear(1, 1), Linear(1, 2), Linear(2, 1), Linear(2, 1))
        assert [row.name for row in m.summary().rows] == ["", "0-1", "2", "3-4"]
        assert [row.repeats for row in m.summary().rows] == [1, 2, 1, 2]

    def test_the_module_is_not_touched(self):
        m = Language()
        before = dict(m.parameters)
        kinds = [type(part) for _, part in m.descendants]
        m.summary(self.tokens)
        assert all(tensor is before[name] for name, tensor in m.parameters)
        assert kinds == [type(part) for _, part in m.descendants]
        assert type(m) is Language

    def test_lazy_parameters_are_not_made(self):
        with lazy():
            m = Linear(4, 4)
        assert "float32[batch,4]" in str(m.summary(TensorType(DType.float32, ["batch", 4], CPU())))
        assert not m.weight.real

    def test_a_module_without_parameters(self):
        assert str(Module().summary()) == "module\nModule\ntotal: 0 parameters, 0 B"
