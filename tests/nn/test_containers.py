"""`ModuleList` and `Sequential`."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from maxmod import DType, Tensor, TensorType, module_dataclass
from maxmod.errors import OperandError
from maxmod.nn import Linear, Module, ModuleList, Sequential
from maxmod.values.device import CPU_REF


@module_dataclass(eq=False)
class Add(Module):
    a: int

    def forward(self, x):
        return x + self.a


class Noted(Module):
    """Fails to be made twice: copies must not call `__init__`."""

    made = 0

    def __init__(self):
        type(self).made += 1
        self.w = Tensor.ones([1])


class TestModuleList:
    def test_a_module_list_is_a_list_of_children(self):
        a, b = Add(1), Add(2)
        items = ModuleList([a, b])
        assert ModuleList.__mro__[1:3] == (list, Module)
        assert len(items) == 2
        assert a in items
        assert items[-1] is b
        assert list(items) == [a, b]
        assert dict(items.children) == {"0": a, "1": b}

    def test_positions_follow_the_content(self):
        a, b, c = Add(1), Add(2), Add(3)
        items = ModuleList([a])
        items.append(b)
        items.insert(0, c)
        assert dict(items.children) == {"0": c, "1": a, "2": b}
        items.pop(0)
        items[1:] = [c, b]
        assert dict(items.children) == {"0": a, "1": c, "2": b}

    def test_slices_and_sums_are_plain_lists(self):
        items = ModuleList([Add(1), Add(2)])
        assert type(items[:1]) is list
        assert type(items + [Add(3)]) is list  # noqa: RUF005

    def test_truth_equality_and_hash_behave_as_in_lists(self):
        a = Add(1)
        assert not ModuleList()
        assert ModuleList([a])
        assert ModuleList([a]) == ModuleList([a])
        assert ModuleList([a]) != ModuleList([Add(1)])
        with pytest.raises(TypeError, match="unhashable"):
            hash(ModuleList())

    def test_a_module_list_cannot_be_called(self):
        with pytest.raises(TypeError, match=r"ModuleList must implement forward\(\)"):
            ModuleList()(1)
        with pytest.raises(NotImplementedError):
            ModuleList([Add(1)])(1)

    def test_copies_do_not_run_init(self):
        Noted.made = 0
        items = ModuleList([Noted(), Noted()])
        items.scale = Tensor.ones([1])
        copied = copy.deepcopy(items)
        assert Noted.made == 2
        assert type(copied) is ModuleList
        assert [n for n, _ in copied.parameters] == ["scale", "0.w", "1.w"]
        assert copied[0] is not items[0]
        assert copied[0].w is items[0].w

    def test_attributes_come_after_items(self):
        items = ModuleList([Noted()])
        items.last = Noted()
        items.t = Tensor.ones([1])
        assert [n for n, _ in items.children] == ["0", "last"]
        assert [n for n, _ in items.parameters] == ["t", "0.w", "last.w"]

    def test_functions_are_not_children(self):
        assert [n for n, _ in ModuleList([Add(1), abs, None, Add(2)]).children] == ["0", "3"]

    @pytest.mark.parametrize("item", [Tensor.ones([1]), [Add(1)], (Add(1),), {"a": Add(1)}])
    def test_items_whose_tensors_would_be_lost_are_refused(self, item):
        with pytest.raises(TypeError, match="ModuleList: item 1: expected a Module, got "):
            list(ModuleList([Add(1), item]).parameters)


class TestSequential:
    def test_items_are_applied_from_left_to_right(self):
        class Double(Module):
            def __call__(self, x):
                return 2 * x

        assert Sequential(Add(1), Double(), Add(3))(5) == 15

    def test_the_empty_one_is_the_identity(self):
        x = Tensor.ones([2])
        assert Sequential()(x) is x
        assert not Sequential()

    def test_functions_can_be_items(self):
        assert Sequential(Add(-3), abs)(1) == 2

    def test_names(self):
        m = Sequential(Sequential(Linear(1, 1)), Linear(1, 1))
        assert [n for n, _ in m.parameters] == ["0.0.weight", "0.0.bias", "1.weight", "1.bias"]
        with pytest.raises(TypeError, match="unhashable"):
            hash(m)

    def test_sequential_takes_one_argument(self):
        with pytest.raises(TypeError):
            Sequential(Add(1))(1, 2)
        assert Sequential(lambda pair: pair[0])((1, 2)) == 1

    def test_a_list_in_place_of_modules_is_explained(self):
        m = Sequential([Add(1), Add(2)])
        assert len(m) == 1
        for use in (lambda: m(1), lambda: list(m.parameters)):
            with pytest.raises(OperandError, match=r"got list\. Hint: write Sequential\(\*modules"):
                use()

    def test_items_that_cannot_be_called(self):
        with pytest.raises(TypeError, match="Sequential: item 1: expected a Module, got NoneType"):
            Sequential(Add(1), None)(1)

    def test_compiled(self):
        m = Sequential(Linear(3, 4), Linear(4, 2))
        x = Tensor.ones([5, 3])
        compiled = m.compile(TensorType(DType.float32, ["batch", 3], CPU_REF))
        np.testing.assert_allclose(compiled(x).to_numpy(), m(x).to_numpy(), rtol=1e-5, atol=1e-6)
