from __future__ import annotations

import threading

import pytest

from maxmod import CPU, DType, Tensor, TensorType, default_device, default_dtype
from maxmod.driver import Accelerator, Device
from maxmod.tensor import defaults
from maxmod.tensor.default_context import defaults_like
from maxmod.values.device import DeviceRef


def test_on_the_host(no_accelerator: None) -> None:
    assert defaults() == (DType.float32, CPU())
    x = Tensor.ones([2])
    assert (x.dtype, x.device) == (DType.float32, CPU())


def test_on_an_accelerator(emulated_accelerator: Device) -> None:
    assert defaults() == (DType.bfloat16, Accelerator(0))
    x = Tensor([1.0, 2.0])
    assert (x.dtype, x.device) == (DType.bfloat16, Accelerator(0))


def test_arguments_win(emulated_accelerator: Device) -> None:
    assert defaults(DType.int8) == (DType.int8, Accelerator(0))
    assert defaults(device=CPU()) == (DType.float32, CPU())
    assert defaults(DType.float64, Accelerator(1)) == (DType.float64, Accelerator(1))


def test_blocks(emulated_accelerator: Device) -> None:
    with default_device(CPU()) as found:
        assert found == CPU()
        assert defaults() == (DType.float32, CPU())
        with default_dtype(DType.float16) as dtype:
            assert dtype is DType.float16
            assert Tensor([1.0]).type == TensorType(DType.float16, [1], CPU())
            with default_device(Accelerator(1)):
                assert defaults() == (DType.float16, Accelerator(1))
        assert defaults() == (DType.float32, CPU())
    assert defaults() == (DType.bfloat16, Accelerator(0))


def test_a_block_takes_a_reference(emulated_accelerator: Device) -> None:
    with default_device(DeviceRef.GPU(1)) as found:
        assert found == Accelerator(1)


def test_defaults_like(emulated_accelerator: Device) -> None:
    like = Tensor.zeros([1], dtype=DType.int16, device=Accelerator(1))
    with defaults_like(like):
        assert defaults() == (DType.int16, Accelerator(1))
    with defaults_like(TensorType(DType.float64, ["n"], CPU())):
        assert defaults() == (DType.float64, CPU())


def test_restored_after_an_error() -> None:
    before = defaults()
    with pytest.raises(RuntimeError, match="inner"), default_dtype(DType.int8):
        raise RuntimeError("inner")
    assert defaults() == before


def test_a_block_does_not_reach_other_threads(no_accelerator: None) -> None:
    seen = []
    with default_dtype(DType.int8):
        thread = threading.Thread(target=lambda: seen.append(defaults()))
        thread.start()
        thread.join()
    assert seen == [(DType.float32, CPU())]


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match="dtype: expected a DType, got 'float32'"):
        defaults("float32")
    with pytest.raises(TypeError, match="dtype: expected a DType"), default_dtype(float):
        pass
    with pytest.raises(TypeError, match="device: expected a Device"), default_device("cpu"):
        pass


def test_a_missing_accelerator_is_refused_on_entry(no_accelerator: None) -> None:
    with pytest.raises(RuntimeError, match="no accelerator"), default_device(DeviceRef.GPU()):
        pass
    assert defaults()[1] == CPU()
