"""Changing all parameters: apply, map, to."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from maxmod import CPU, DeviceRef, DType, Tensor, module_dataclass
from maxmod.interpreters.lazy import lazy
from maxmod.nn import Linear, Module, ModuleList, PinnedDeviceTensor, Sequential


def tied_model():
    model = Sequential(Linear(3, 3), Linear(3, 3))
    model[1].weight = model[0].weight
    return model


class TestApply:
    def test_local(self):
        m = Sequential(Linear(1, 1))
        m.scale = Tensor.ones([1])
        weight = m[0].weight
        m.apply_to_local_parameters(lambda name, t: t * 2 if name == "scale" else None)
        assert m.scale.item() == 2
        assert m[0].weight is weight

    def test_functions_get_qualified_names(self):
        m = Sequential(Linear(1, 1), Sequential(Linear(1, 1, bias=False)))
        seen = []
        m.apply_to_parameters(lambda name, t: seen.append(name) or t)
        assert seen == ["0.weight", "0.bias", "1.0.weight"]

    def test_returns_nothing(self):
        assert Linear(1, 1).apply_to_parameters(lambda _, t: t) is None
        assert Linear(1, 1).apply_to_local_parameters(lambda _, t: t) is None

    def test_an_exception_is_passed_on_and_earlier_writes_stay(self):
        m = Linear(1, 1)
        old = m.bias

        def f(name, tensor):
            if name == "bias":
                raise RuntimeError("stop")
            return tensor + 1

        before = m.weight
        with pytest.raises(RuntimeError, match="stop"):
            m.apply_to_parameters(f)
        assert m.weight is not before
        assert m.bias is old

    def test_a_tied_tensor_is_transformed_once_and_stays_tied(self):
        m = tied_model()
        seen = []
        m.apply_to_parameters(lambda name, t: seen.append(name) or t * 2)
        assert seen == ["0.weight", "0.bias", "1.bias"]
        assert m[0].weight is m[1].weight

    def test_a_shared_module_is_transformed_once(self):
        m = Module()
        m.a = m.b = Linear(1, 1)
        m.a.weight = Tensor.ones([1, 1])
        m.apply_to_parameters(lambda _, t: t * 3)
        assert m.a.weight.item() == 3

    def test_results_of_other_types_are_stored_unchanged(self):
        m = Linear(1, 1)
        m.apply_to_parameters(lambda name, t: 0 if name == "bias" else t)
        assert [name for name, _ in m.parameters] == ["weight"]


class TestMap:
    def test_the_original_is_untouched(self):
        m = Linear(2, 2)
        before = dict(m.parameters)
        doubled = m.map_parameters(lambda _, t: t * 2)
        assert type(doubled) is Linear
        assert all(tensor is before[name] for name, tensor in m.parameters)
        np.testing.assert_array_equal(doubled.weight.to_numpy(), 2 * before["weight"].to_numpy())

    def test_structure_is_copied_and_tensors_are_shared(self):
        m = Sequential(Linear(2, 2))
        m.table = {"a": [1]}
        copied = m.map_parameters(lambda _, t: t)
        assert copied is not m
        assert copied[0] is not m[0]
        assert copied[0].weight is m[0].weight
        copied.table["a"].append(2)
        assert m.table == {"a": [1]}

    def test_sharing_inside_the_tree_is_kept(self):
        m = Module()
        m.a = m.b = Linear(1, 1)
        copied = m.map_parameters(lambda _, t: t + 1)
        assert copied.a is copied.b
        assert copied.a is not m.a
        tied = tied_model().map_parameters(lambda _, t: t + 1)
        assert tied[0].weight is tied[1].weight

    def test_lazy_parameters_are_not_made(self):
        with lazy():
            m = Linear(2, 2)
        copied = m.map_parameters(lambda _, t: t)
        assert copied.weight is m.weight
        assert not m.weight.real

    def test_frozen_modules_can_be_mapped(self):
        @module_dataclass(frozen=True)
        class Scale(Module):
            weight: Tensor

        m = Scale(Tensor.ones([1]))
        assert m.map_parameters(lambda _, t: t + 1).weight.item() == 2
        assert m.weight.item() == 1

    def test_uncopyable_attributes_are_named(self):
        m = Linear(1, 1)
        m.lock = threading.Lock()
        with pytest.raises(TypeError, match="lock"):
            m.map_parameters(lambda _, t: t)


class TestTo:
    def test_to_returns_the_module_and_keeps_tensors_on_the_device(self):
        m = Linear(2, 2)
        m.to(CPU())
        before = dict(m.parameters)
        assert m.to(DeviceRef.CPU()) is m
        assert all(tensor is before[name] for name, tensor in m.parameters)

    def test_moves_everything_and_back(self, emulated_accelerator):
        m = Sequential(Linear(2, 3), ModuleList([Linear(3, 1)])).to(CPU())
        values = [t.cast(DType.float32).to_numpy() for _, t in m.parameters]
        assert m.to(DeviceRef.GPU(1)) is m
        assert all(t.device.ref == DeviceRef.GPU(1) for _, t in m.parameters)
        assert m.device.ref == m[0].device.ref == DeviceRef.GPU(1)
        m.to(CPU())
        for old, (_, new) in zip(values, m.parameters, strict=True):
            np.testing.assert_array_equal(old, new.cast(DType.float32).to_numpy())

    def test_tied_tensors_are_moved_once(self, emulated_accelerator):
        m = tied_model().to(CPU()).to(emulated_accelerator)
        assert m[0].weight is m[1].weight
        assert m[0].weight.device == emulated_accelerator

    def test_a_module_on_two_paths_is_moved_once(self, emulated_accelerator):
        m = Module()
        m.a = m.b = Linear(2, 2)
        m.to(CPU()).to(emulated_accelerator)
        assert m.a is m.b
        assert m.a.weight.device == emulated_accelerator

    def test_lazy_tensors_are_moved_on_first_use(self, emulated_accelerator):
        with lazy():
            m = Linear(2, 2).to(CPU())
            m.weight = Tensor.ones([2, 2], device=CPU())
        host = m.weight
        m.to(DeviceRef.GPU(1))
        assert not host.real
        assert not m.weight.real
        assert m.weight.device.ref == DeviceRef.GPU(1)
        np.testing.assert_array_equal(m.weight.to(CPU()).cast(DType.float32).to_numpy(), 1)

    def test_a_child_may_do_more(self, emulated_accelerator):
        class Cache(Module):
            def __init__(self):
                self.pages = [np.zeros(3)]
                self.at = None

            def to(self, device):
                self.at = device
                return super().to(device)

        m = Sequential(Cache()).to(emulated_accelerator)
        assert m[0].at is emulated_accelerator
        assert m[0].device == emulated_accelerator

    @pytest.mark.parametrize("target", ["cpu", 0, None])
    def test_other_targets_are_refused(self, target):
        m = Linear(1, 1)
        with pytest.raises(TypeError, match="expected a Device or DeviceRef"):
            m.to(target)

    def test_frozen_modules_can_only_stay(self, emulated_accelerator):
        @module_dataclass(frozen=True)
        class Scale(Module):
            weight: Tensor

        m = Scale(Tensor.ones([1], device=CPU()))
        assert m.to(CPU()) is m
        with pytest.raises(dataclasses.FrozenInstanceError):
            m.to(emulated_accelerator)

    def test_pinned_tensors_stay(self, emulated_accelerator):
        class Scaled(Module):
            scale: PinnedDeviceTensor

            def __init__(self):
                self.scale = Tensor.ones([1], device=CPU())
                self.weight = Tensor.ones([1], device=CPU())

        class More(Scaled):
            other: Tensor

        m = More().to(emulated_accelerator)
        assert m.scale.device.is_host
        assert m.weight.device == emulated_accelerator
