"""Loading weights: names, types, devices, ties, and all or nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from maxmod import CPU, DeviceRef, DType, MaxmodWarning, Tensor, default_dtype, module_dataclass
from maxmod.errors import OperandError, WeightsError
from maxmod.interpreters.lazy import lazy
from maxmod.nn import Embedding, LayerNorm, Linear, Module, ModuleList, Sequential
from maxmod.weights import open_checkpoint


def state_of(module, value=1.0):
    """A full set of host arrays, with other values than the module has."""
    return {
        name: np.full([int(d) for d in tensor.shape], value, np.float32)
        for name, tensor in module.parameters
    }


def model():
    return Sequential(Linear(2, 3), LayerNorm(3), Linear(3, 1)).to(CPU())


def tied_model():
    class Language(Module):
        def __init__(self):
            self.wte = Embedding(4, dim=2)
            self.lm_head = Linear(2, 4, bias=False)
            self.lm_head.weight = self.wte.weight

    return Language()


class Checkpoint(Mapping):
    """A lazy mapping that records reads."""

    def __init__(self, arrays, has_types=True):
        self.arrays = arrays
        self.read = []
        if has_types:
            self.tensor_type = self._tensor_type

    def _tensor_type(self, name):
        return Tensor.from_dlpack(self.arrays[name]).type

    def __getitem__(self, name):
        self.read.append(name)
        return Tensor.from_dlpack(self.arrays[name])

    def __iter__(self):
        return iter(self.arrays)

    def __len__(self):
        return len(self.arrays)


class TestLoadStateDict:
    def test_every_parameter_gets_the_value_of_the_state(self):
        m = model()
        state = {n: a + i for i, (n, a) in enumerate(state_of(m).items())}
        assert m.load_state_dict(state) is None
        for name, tensor in m.parameters:
            np.testing.assert_array_equal(tensor.to_numpy(), state[name])

    def test_values_of_other_kinds(self):
        m = Linear(2, 1)
        weight = Tensor.ones([1, 2])
        m.load_state_dict({"weight": weight, "bias": Tensor.zeros([1]).storage}, True)
        assert m.weight is weight
        assert m.bias.item() == 0

    def test_names_that_are_missing(self):
        m = model()
        before = dict(m.parameters)
        state = state_of(m)
        del state["1.bias"], state["2.weight"]
        for strict in (True, False):
            with pytest.raises(KeyError) as caught:
                m.load_state_dict(state, strict=strict)
            message = str(caught.value)
            assert isinstance(caught.value, ValueError)
            assert "2 missing" in message
            assert "Weight '1.bias' is missing from the provided weights mapping." in message
            assert "Weight '2.weight' is missing from the provided weights mapping." in message
        assert all(tensor is before[name] for name, tensor in m.parameters)

    def test_names_that_are_not_used(self):
        m = Linear(1, 1)
        before = m.weight
        state = state_of(m) | {"scale": np.ones(1, np.float32)}
        with pytest.raises(ValueError, match=r"did not use some weights\):\n  'scale'"):
            m.load_state_dict(state)
        assert m.weight is before
        m.load_state_dict(state, strict=False)
        assert m.weight.item() == 1

    def test_close_names_are_suggested(self):
        m = Linear(1, 1)
        state = {"wieght": np.ones([1, 1], np.float32), "bias": np.ones([1], np.float32)}
        with pytest.raises(WeightsError) as caught:
            m.load_state_dict(state)
        assert "Did you mean 'wieght'?" in str(caught.value)
        assert "Did you mean 'weight'?" in str(caught.value)

    def test_one_error_has_all_three_kinds(self):
        m = model()
        state = state_of(m)
        del state["0.bias"]
        state["1.weight"] = np.ones([4], np.float32)
        state["2.bias"] = np.ones([1], np.float64)
        state["extra"] = np.ones([1], np.float32)
        with pytest.raises(WeightsError) as caught:
            m.load_state_dict(state)
        message = str(caught.value)
        assert (
            "load_state_dict: the weights do not fit the module: 1 missing, 1 unused, 2 " in message
        )
        assert "Nothing was changed." in message
        assert "'0.bias'" in message
        assert "'extra'" in message
        assert (
            "'1.weight': Loaded tensor (shape=[4], dtype=float32) not assignable to parameter "
            "(shape=[3], dtype=float32)." in message
        )
        assert "'2.bias': Loaded tensor (shape=[1], dtype=float64) not assignable" in message
        assert "\\n" not in message

    def test_long_lists_are_cut(self):
        m = ModuleList(Linear(1, 1) for _ in range(15))
        with pytest.raises(WeightsError) as caught:
            m.load_state_dict({f"other.{i}": np.ones(1, np.float32) for i in range(27)})
        message = str(caught.value)
        assert "30 missing, 27 unused" in message
        assert "  ... and 10 more" in message
        assert "  ... and 7 more" in message

    def test_a_prefix_of_all_weights_is_recognised(self):
        m = model()
        state = {f"model.{name}": value for name, value in state_of(m).items()}
        with pytest.raises(WeightsError, match=r"Hint: the weights have the prefix 'model\.'"):
            m.load_state_dict(state)

    def test_a_prefix_of_all_parameters_is_recognised(self):
        m = Module()
        m.model = model()
        with pytest.raises(WeightsError, match=r"Hint: the parameters have the prefix 'model\.'"):
            m.load_state_dict(state_of(m.model))

    def test_a_transposed_weight_is_recognised(self):
        m = Linear(2, 3, bias=False)
        with pytest.raises(WeightsError, match="it is transposed; Linear stores"):
            m.load_state_dict({"weight": np.ones([2, 3], np.float32)})

    def test_arrays_that_are_not_contiguous_are_mismatches(self):
        m = Linear(2, 3, bias=False)
        with pytest.raises(ValueError, match=r"'weight': .*C-contiguous"):
            m.load_state_dict({"weight": np.ones([2, 3], np.float32).T})

    def test_values_that_are_not_arrays(self):
        m = Linear(1, 1)
        before = m.weight
        with pytest.raises(TypeError, match="from_dlpack"):
            m.load_state_dict({"weight": np.ones([1, 1], np.float32), "bias": [1.0]})
        assert m.weight is before

    @pytest.mark.parametrize("state", [[("weight", 1)], "model.safetensors", None])
    def test_states_that_are_not_mappings(self, state):
        with pytest.raises(TypeError, match="expected a mapping of names to arrays"):
            Linear(1, 1).load_state_dict(state)

    def test_nothing_is_written_if_the_last_value_fails(self):
        m = model()
        before = dict(m.parameters)

        class Failing(dict):
            def __getitem__(self, name):
                if name == "2.bias":
                    raise OSError("disk gone")
                return super().__getitem__(name)

        with pytest.raises(OSError, match="disk gone"):
            m.load_state_dict(Failing(state_of(m)))
        assert all(tensor is before[name] for name, tensor in m.parameters)

    def test_a_failed_write_restores_the_earlier_ones(self):
        @module_dataclass(frozen=True)
        class Frozen(Module):
            weight: Tensor

        m = Sequential(Linear(1, 1), Frozen(Tensor.ones([1])))
        before = dict(m.parameters)
        with pytest.raises(AttributeError, match="cannot assign to field 'weight'"):
            m.load_state_dict(state_of(m, 5.0))
        assert all(tensor is before[name] for name, tensor in m.parameters)

    def test_values_go_to_the_device_of_the_parameter(self, emulated_accelerator):
        with default_dtype(DType.float32):
            m = Sequential(Linear(1, 1).to(CPU()), Linear(1, 1).to(DeviceRef.GPU(1)))
        state = state_of(m)
        m.load_state_dict(state)
        assert m[0].weight.device.is_host
        assert m[1].weight.device.ref == DeviceRef.GPU(1)
        assert m[1].weight.to(CPU()).item() == 1

    def test_lazy_parameters_are_replaced_without_being_made(self):
        with lazy():
            m = Linear(2, 2)
        declared = dict(m.parameters)
        with pytest.raises(WeightsError, match="1 missing"):
            m.load_state_dict({"weight": np.ones([2, 2], np.float32)})
        m.load_state_dict(state_of(m))
        assert not any(tensor.real for tensor in declared.values())
        np.testing.assert_array_equal(m.weight.to_numpy(), 1)

    def test_containers_that_are_not_searched_are_warned_of(self):
        m = Linear(1, 1)
        m.blocks = {Linear(1, 1)}
        with pytest.warns(MaxmodWarning, match=r"load_state_dict: .* blocks \(set\)"):
            m.load_state_dict(state_of(m))


class TestAutoCast:
    @pytest.mark.parametrize(
        ("source", "target", "loss"),
        [
            (np.float32, DType.bfloat16, True),
            (ml_dtypes.bfloat16, DType.float32, False),
            (np.float16, DType.float32, False),
            (np.float32, DType.float16, True),
            (np.float16, DType.bfloat16, True),
        ],
    )
    def test_half_and_single_precision(self, source, target, loss, caplog):
        with default_dtype(target):
            m = Linear(2, 1)
        values = {"weight": [[0.1, -3.0]], "bias": [2.5]}
        state = {name: np.array(value, source) for name, value in values.items()}
        with pytest.raises(ValueError, match="not assignable.* Hint: auto_cast=True converts it"):
            m.load_state_dict(state)
        with caplog.at_level(logging.WARNING, logger="maxmod"):
            m.load_state_dict(state, auto_cast=True)
        assert m.weight.dtype is m.bias.dtype is target
        found = m.weight.cast(DType.float32).to_numpy()
        np.testing.assert_allclose(found, values["weight"], rtol=2**-8)
        assert len(caplog.records) == 1
        assert "2 parameter(s) from " in caplog.text
        assert f"to {target!r}" in caplog.text
        assert ("(precision loss)" in caplog.text) == loss

    def test_shapes_must_still_match(self):
        with default_dtype(DType.bfloat16):
            m = Linear(2, 1, bias=False)
        with pytest.raises(ValueError, match=r"shape=\[1,3\]"):
            m.load_state_dict({"weight": np.ones([1, 3], np.float32)}, auto_cast=True)

    @pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8])
    def test_other_dtypes_are_never_converted(self, dtype):
        m = Linear(1, 1, bias=False)
        with pytest.raises(ValueError, match="not assignable"):
            m.load_state_dict({"weight": np.ones([1, 1], dtype)}, auto_cast=True)

    def test_equal_dtypes_log_nothing(self, caplog):
        m = Linear(1, 1)
        with caplog.at_level(logging.WARNING, logger="maxmod"):
            m.load_state_dict(state_of(m), auto_cast=True)
        assert not caplog.records

    def test_on_a_device(self, emulated_accelerator):
        m = Linear(2, 1)
        m.load_state_dict(state_of(m, 3.0), auto_cast=True)
        assert m.weight.dtype is DType.bfloat16
        assert m.weight.device == emulated_accelerator
        assert m.weight.to(CPU()).cast(DType.float32).to_numpy().tolist() == [[3, 3]]


class TestLazyMappings:
    def test_types_are_checked_before_anything_is_read(self):
        m = model()
        arrays = state_of(m)
        arrays["2.bias"] = np.ones([7], np.float32)
        checkpoint = Checkpoint(arrays)
        with pytest.raises(WeightsError, match=r"'2\.bias': Loaded tensor \(shape=\[7\]"):
            m.load_state_dict(checkpoint)
        assert checkpoint.read == []

    def test_each_value_is_read_once(self):
        m = model()
        checkpoint = Checkpoint(state_of(m) | {"unused": np.ones(1, np.float32)})
        m.load_state_dict(checkpoint, strict=False)
        assert checkpoint.read == [name for name, _ in m.parameters]

    def test_mappings_without_types_are_checked_by_value(self):
        m = model()
        arrays = state_of(m) | {"0.weight": np.ones([7], np.float32)}
        checkpoint = Checkpoint(arrays, has_types=False)
        with pytest.raises(WeightsError, match="1 mismatched"):
            m.load_state_dict(checkpoint)

    def test_a_checkpoint_is_a_lookup_too(self):
        m = Linear(1, 1)
        m.load_state(Checkpoint(state_of(m, 4.0)).__getitem__)
        assert m.weight.item() == 4


class TestTied:
    def test_one_name_is_enough(self):
        for name in ("wte.weight", "lm_head.weight"):
            m = tied_model()
            m.load_state_dict({name: np.full([4, 2], 3, np.float32)})
            assert m.lm_head.weight is m.wte.weight
            assert m.wte.weight[0, 0].item() == 3

    def test_both_names_with_equal_values(self):
        m = tied_model()
        value = np.full([4, 2], np.nan, np.float32)  # bytes are compared, so NaN is equal to NaN
        m.load_state_dict({"wte.weight": value, "lm_head.weight": value.copy()})
        assert m.lm_head.weight is m.wte.weight

    def test_both_names_with_different_values(self):
        m = tied_model()
        before = m.wte.weight
        value = np.ones([4, 2], np.float32)
        message = r"'lm_head\.weight': the value differs from that of 'wte\.weight'"
        with pytest.raises(WeightsError, match=message):
            m.load_state_dict({"wte.weight": value, "lm_head.weight": value + 1})
        with pytest.raises(WeightsError, match=message):
            m.load_state({"wte.weight": value, "lm_head.weight": value + 1}.__getitem__)
        assert m.wte.weight is m.lm_head.weight is before

    def test_neither_name(self):
        with pytest.raises(WeightsError, match=r"'wte\.weight' is missing.* tied to 'lm_head"):
            tied_model().load_state_dict({})

    def test_after_untying_both_are_needed(self):
        m = tied_model()
        m.lm_head.weight = Tensor.zeros([4, 2])
        with pytest.raises(KeyError, match=r"lm_head\.weight"):
            m.load_state_dict({"wte.weight": np.ones([4, 2], np.float32)})

    def test_through_a_lookup(self):
        m = tied_model()
        m.load_state({"lm_head.weight": np.ones([4, 2], np.float32)}.__getitem__)
        assert m.lm_head.weight is m.wte.weight
        assert m.wte.weight[0, 0].item() == 1

    @pytest.mark.parametrize("name", ["wte.weight", "lm_head.weight"])
    def test_ties_load_through_dict_get(self, name):
        m = tied_model()
        m.load_state({name: np.ones([4, 2], np.float32)}.get)
        assert m.lm_head.weight is m.wte.weight
        assert m.wte.weight[0, 0].item() == 1


class TestLoadState:
    def test_every_name_is_asked_for_in_order(self):
        m = model()
        state = state_of(m, 2.0)
        seen = []
        assert m.load_state(lambda name: seen.append(name) or state[name]) is None
        assert seen == [name for name, _ in m.parameters]
        assert m[2].bias.item() == 2

    def test_two_arguments(self):
        m = Linear(2, 1)
        before = dict(m.parameters)
        seen = {}

        def lookup(name, existing):
            seen[name] = existing
            return existing + 1

        m.load_state(lookup)
        assert all(seen[name] is tensor for name, tensor in before.items())
        np.testing.assert_array_equal(m.weight.to_numpy(), before["weight"].to_numpy() + 1)

    def test_dict_get_keeps_missing_parameters(self):
        m = Linear(2, 1)
        weight = m.weight
        m.load_state({"bias": Tensor.zeros([1])}.get)
        assert m.weight is weight
        assert m.bias.item() == 0

    def test_a_bound_default_is_not_overwritten(self):
        m = Linear(1, 1)
        six = state_of(m, 6.0)
        m.load_state(lambda name, state=six: state[name])
        assert m.bias.item() == 6

    def test_shape_and_dtype_may_change(self):
        m = Linear(10, 5, bias=False)
        m.load_state(lambda name: np.ones([3, 2]))
        assert m.weight.dtype is DType.float64
        assert (m.in_dim, m.out_dim) == (2, 3)

    def test_the_value_gives_the_device(self, emulated_accelerator):
        m = Linear(1, 1, bias=False)
        m.load_state(lambda name: np.ones([1, 1], np.float32))
        assert m.weight.device.is_host

    def test_tensors_are_stored_without_a_copy(self):
        m = Linear(1, 1, bias=False)
        weight = Tensor.ones([1, 1])
        m.load_state({"weight": weight}.__getitem__)
        assert m.weight is weight

    def test_all_missing_names_are_listed_and_nothing_is_written(self):
        m = model()
        before = dict(m.parameters)
        state = state_of(m)
        del state["1.weight"], state["2.bias"]
        with pytest.raises(KeyError) as caught:
            m.load_state(state.__getitem__)
        assert "load_state: " in str(caught.value)
        assert "'1.weight'" in str(caught.value)
        assert "'2.bias'" in str(caught.value)
        assert isinstance(caught.value.__cause__, KeyError)
        assert all(tensor is before[name] for name, tensor in m.parameters)

    def test_other_exceptions_are_passed_on_and_nothing_is_written(self):
        m = model()
        before = dict(m.parameters)
        state = state_of(m)

        def lookup(name):
            if name == "2.bias":
                raise ZeroDivisionError
            return state[name]

        with pytest.raises(ZeroDivisionError):
            m.load_state(lookup)
        assert all(tensor is before[name] for name, tensor in m.parameters)

    def test_lookups_must_return_arrays(self):
        with pytest.raises(TypeError, match="from_dlpack"):
            Linear(1, 1).load_state(lambda name: None)


class TestCheckpoints:
    """The real lazy mapping, on files."""

    def save(self, path, arrays):
        save_file(arrays, path)
        return open_checkpoint(path)

    def test_a_file_is_a_state(self, tmp_path):
        m = model()
        state = {n: a * i for i, (n, a) in enumerate(state_of(m).items())}
        with self.save(tmp_path / "m.safetensors", state) as checkpoint:
            m.load_state_dict(checkpoint)
        for name, tensor in m.parameters:
            np.testing.assert_array_equal(tensor.to_numpy(), state[name])

    def test_errors_come_before_reading(self, tmp_path, monkeypatch):
        m = model()
        state = state_of(m) | {"2.bias": np.ones([7], np.float32)}
        with self.save(tmp_path / "m.safetensors", state) as checkpoint:
            monkeypatch.setattr(checkpoint, "_load", None)
            with pytest.raises(WeightsError, match="1 mismatched"):
                m.load_state_dict(checkpoint)

    def test_as_a_lookup(self, tmp_path):
        m = Linear(1, 1)
        with self.save(tmp_path / "m.safetensors", state_of(m, 4.0)) as checkpoint:
            m.load_state(checkpoint)
            m.load_state(checkpoint.get)
        assert m.weight.item() == 4


def test_among_thousands_of_names_none_is_suggested():
    m = ModuleList(Linear(1, 1) for _ in range(1001))
    state = {f"model.{name}": value for name, value in state_of(m).items()}
    with pytest.raises(WeightsError) as caught:
        m.load_state_dict(state)
    assert "2002 missing, 2002 unused" in str(caught.value)
    assert "Did you mean" not in str(caught.value)
    assert "the weights have the prefix 'model.'" in str(caught.value)


def test_values_and_keys_of_another_kind_are_named():
    layer = Linear(2, 2)
    before = dict(layer.parameters)
    state = state_of(layer)
    with pytest.raises(OperandError, match=r"load_state_dict: 'bias': .* speaks DLPack, got list"):
        layer.load_state_dict(state | {"bias": [1, 2]})
    with pytest.raises(OperandError, match=r"load_state: 'weight': .* speaks DLPack, got NoneType"):
        layer.load_state(lambda name: None)
    for strict in (True, False):
        with pytest.raises(OperandError, match="expected names of weights as keys, got int"):
            layer.load_state_dict({**state, 1: state["bias"]}, strict=strict)
    assert all(tensor is before[name] for name, tensor in layer.parameters)
