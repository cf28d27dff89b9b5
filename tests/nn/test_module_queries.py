"""How a module is made, called and searched for tensors and modules."""

from __future__ import annotations

import pytest

from maxmod import DeviceRef, Tensor
from maxmod.errors import ArgumentError, ForwardError
from maxmod.nn import (
    LayerNorm,
    Linear,
    Module,
    ModuleList,
    Sequential,
    TransparentModule,
    as_subgraph,
)


class Block(Module):
    def __init__(self):
        self.fc = Linear(2, 3)
        self.scale = Tensor.ones([3])
        self.norm = LayerNorm(3)

    def forward(self, x):
        return self.norm(self.fc(x)) * self.scale


class Leaf(Module):
    def __init__(self):
        self.w = Tensor.ones([1])


def names(pairs):
    return [name for name, _ in pairs]


class TestCalling:
    def test_forward_is_reached_through_a_call(self):
        class Shift(Module):
            def forward(self, x, *, by=1):
                return x + by

        assert Shift()(1) == 2
        assert Shift()(1, by=4) == 5

    def test_a_class_may_define_the_call_itself(self):
        class Shift(Module):
            def __call__(self, x):
                return x + 1

            def forward(self, x):
                raise AssertionError("not used")

        assert Shift()(1) == 2

    @pytest.mark.parametrize("error", [TypeError, NotImplementedError, ForwardError])
    def test_without_either_the_error_is_of_both_kinds(self, error):
        with pytest.raises(error, match=r"^Leaf must implement forward\(\)"):
            Leaf()()

    def test_init_of_the_base_class_may_be_called(self):
        class Polite(Module):
            def __init__(self):
                super().__init__()
                self.w = Tensor.ones([1])

        assert names(Polite().parameters) == ["w"]
        assert "__init__" not in vars(Module)

    def test_generic_forms_of_the_base_class(self):
        class Exact(Module[[Tensor], Tensor]):
            def forward(self, x):
                return x

        class Loose(Module[..., Tensor]):
            def forward(self, x):
                return x

        assert Exact()(1) == Loose()(1) == 1
        assert isinstance(Exact(), Module)

    def test_equality_is_identity(self):
        a, b = Leaf(), Leaf()
        assert a == a
        assert a != b
        assert len({a, b}) == 2


class TestOrder:
    def test_own_tensors_come_before_child_tensors(self):
        expected = ["scale", "fc.weight", "fc.bias", "norm.weight", "norm.bias"]
        assert names(Block().parameters) == expected

    def test_each_query(self):
        block = Block()
        assert names(block.local_parameters) == ["scale"]
        assert dict(block.children) == {"fc": block.fc, "norm": block.norm}
        outer = Sequential(block, Linear(3, 1, bias=False))
        assert names(outer.descendants) == ["0", "0.fc", "0.norm", "1"]
        assert names(outer.parameters)[0] == "0.scale"
        assert names(outer.parameters)[-1] == "1.weight"
        assert dict(outer.parameters)["0.fc.weight"] is block.fc.weight

    def test_reassigned_names_keep_the_order_and_deleted_ones_do_not(self):
        m = Module()
        m.a = Tensor.ones([1])
        m.b = Tensor.ones([1])
        m.a = Tensor.zeros([1])
        assert names(m.parameters) == ["a", "b"]
        del m.a
        m.a = Tensor.zeros([1])
        assert names(m.parameters) == ["b", "a"]

    def test_queries_are_fresh_iterators(self):
        block = Block()
        query = block.parameters
        assert len(list(query)) == 5
        assert list(query) == []
        assert len(list(block.parameters)) == 5


class TestWhatCounts:
    def test_other_data_and_absent_tensors_are_not_parameters(self):
        m = Module()
        m.size, m.name, m.table, m.absent, m.bias, m.f = 3, "x", {"a": 1}, None, 0, len
        assert list(m.parameters) == list(m.children) == []

    def test_underscores_do_not_hide(self):
        m = Module()
        m._hidden = Tensor.ones([1])
        m._child = Leaf()
        assert names(m.parameters) == ["_hidden", "_child.w"]

    def test_class_attributes_and_properties_do_not_count(self):
        class Shared(Module):
            table = Tensor.ones([1])
            child = Leaf()

            @property
            def made(self):
                return Tensor.ones([1])

        assert list(Shared().parameters) == list(Shared().descendants) == []

    def test_module_list_is_searched(self):
        m = Module()
        m.items = ModuleList([Leaf(), Leaf()])
        assert names(m.parameters) == ["items.0.w", "items.1.w"]


class TestSharing:
    def test_a_tied_tensor_comes_once_for_each_name(self):
        m = Module()
        m.a = m.b = Tensor.ones([1])
        assert names(m.parameters) == ["a", "b"]

    def test_a_shared_module_comes_once_for_each_path(self):
        leaf = Leaf()
        assert names(Sequential(leaf, leaf).parameters) == ["0.w", "1.w"]

    def test_a_module_that_contains_itself_is_an_error(self):
        m = Sequential(Sequential())
        m[0].append(m)
        with pytest.raises(ValueError, match=r"must not contain itself: '0\.0' is the Sequential"):
            list(m.parameters)
        with pytest.raises(ArgumentError):
            list(m.descendants)

    def test_two_parameters_with_one_qualified_name_are_refused(self):
        m = Module()
        m.leaf = Leaf()
        setattr(m, "leaf.w", Tensor.zeros([1]))
        with pytest.raises(ValueError, match=r"two parameters have the qualified name 'leaf\.w'"):
            m.load_state_dict({"leaf.w": Tensor.zeros([1])})


class TestTransparentNames:
    class Wrapper(TransparentModule):
        def __init__(self, base):
            self.base = base
            self.rank = Tensor.ones([1])

    def test_the_name_of_the_wrapper_is_left_out(self):
        m = Module()
        m.up = self.Wrapper(Sequential(Leaf()))
        assert names(m.parameters) == ["rank", "base.0.w"]
        assert names(m.children) == ["up"]
        assert names(m.descendants) == ["up", "base", "base.0"]
        m.load_state_dict({"rank": Tensor.zeros([1]), "base.0.w": Tensor.zeros([1])})
        assert m.up.base[0].w.item() == 0

    def test_on_an_instance(self):
        m = Sequential(Leaf())
        m[0].name_transparent = True
        assert names(m.parameters) == ["w"]

    def test_names_that_become_equal(self):
        m = Sequential(self.Wrapper(Leaf()), self.Wrapper(Leaf()))
        with pytest.raises(ValueError, match="two parameters have the qualified name 'rank'"):
            m.load_state_dict({})


def test_subgraphs_are_the_functions_themselves():
    leaf = Leaf()
    assert as_subgraph(leaf, name="leaf") is leaf


class TestDevice:
    def test_the_first_parameter_gives_the_device(self, device):
        assert Module().device == DeviceRef.CPU().to_device()
        m = Module()
        m.w = Tensor.ones([1], device=device)
        assert m.device == device

    def test_assigning_records_and_moves_nothing(self, emulated_accelerator):
        m = Module()
        m.w = Tensor.ones([1], device=DeviceRef.CPU())
        m.device = DeviceRef.GPU(1)
        assert m.device.ref == DeviceRef.GPU(1)
        assert m.w.device.is_host
        m.device = None
        assert m.device.is_host
        assert names(m.parameters) == ["w"]

    def test_other_values_are_refused(self):
        with pytest.raises(TypeError, match="expected a Device or DeviceRef, got str"):
            Module().device = "gpu"
