"""`DeviceRef`, `Device`, specs and streams."""

from __future__ import annotations

import copy
import pickle

import pytest

from maxmod import driver
from maxmod.driver import CPU, Accelerator, Device, DeviceSpec, DeviceStream
from maxmod.values.device import DeviceKind, DeviceRef

# ---- references ---------------------------------------------------------------------------------


def test_kind() -> None:
    assert str(DeviceKind.CPU) == "cpu"
    assert f"{DeviceKind.GPU}" == "gpu"
    assert DeviceKind.from_string("gpu") is DeviceKind.GPU
    with pytest.raises(ValueError, match="DeviceKind: expected 'cpu' or 'gpu', got 'cuda'"):
        DeviceKind.from_string("cuda")


def test_reference() -> None:
    ref = DeviceRef.GPU(1)
    assert (str(ref), repr(ref)) == ("gpu:1", "gpu:1")
    assert ref == DeviceRef("gpu", 1) == DeviceRef(DeviceKind.GPU, 1)
    assert ref != DeviceRef.GPU()
    assert DeviceRef.GPU(0) != DeviceRef.CPU(0)
    assert (ref.is_gpu(), ref.is_cpu()) == (True, False)
    assert DeviceRef("cpu", -1).id == 0
    assert len({ref, DeviceRef.GPU(1), DeviceRef.CPU()}) == 2


def test_a_reference_is_not_a_device() -> None:
    assert DeviceRef.CPU() != CPU()
    assert DeviceRef.from_device(CPU()) == DeviceRef.CPU()
    assert DeviceRef.from_device(DeviceRef.GPU(3)) == DeviceRef.GPU(3)
    assert DeviceRef.CPU().to_device() == CPU()
    with pytest.raises(TypeError, match="device: expected a Device or DeviceRef, got str"):
        DeviceRef.from_device("cpu")


def test_reference_is_a_value() -> None:
    ref = DeviceRef.GPU(2)
    with pytest.raises(AttributeError, match="immutable"):
        ref.id = 3
    assert pickle.loads(pickle.dumps(ref)) == ref
    assert copy.deepcopy(ref) == ref


# ---- devices ------------------------------------------------------------------------------------


def test_host() -> None:
    host = CPU()
    assert (host.label, host.id, host.api, host.is_host) == ("cpu", 0, "cpu", True)
    assert (repr(host), str(host)) == ("Device(type=cpu,id=0)", "Device(type=cpu,id=0)")
    assert host == CPU(5) == Device.cpu() == DeviceRef.CPU().to_device()
    assert CPU(5).id == 0
    assert host.is_compatible
    assert host.stats.get("free_memory", 0) <= host.stats.get("total_memory", 0)
    host.synchronize()
    with pytest.raises(ValueError, match="architecture_name: only accelerators have one"):
        _ = host.architecture_name


def test_device_is_abstract() -> None:
    with pytest.raises(TypeError, match="use CPU"):
        Device()


def test_accelerator(emulated_accelerator: Device) -> None:
    gpu = Accelerator()
    assert gpu == Accelerator(0) == Accelerator(-1) == emulated_accelerator
    assert gpu != Accelerator(1)
    assert gpu != CPU()
    assert (gpu.label, gpu.id, gpu.api, gpu.is_host) == ("gpu", 0, "cuda", False)
    assert repr(Accelerator(1)) == "Device(type=gpu,id=1)"
    assert gpu.architecture_name == "sm_90"
    assert (gpu.can_access(gpu), gpu.can_access(CPU())) == (True, False)
    assert len({gpu, Accelerator(0), CPU(), CPU()}) == 2
    assert copy.deepcopy(gpu) is gpu
    gpu.synchronize()


def test_accelerator_beyond_the_last(emulated_accelerator: Device) -> None:
    with pytest.raises(RuntimeError, match=r"Accelerator\(2\): .* expected an ordinal below 2"):
        Accelerator(2)
    with pytest.raises(ValueError, match="there is no such device"):
        DeviceRef.GPU(2).to_device()


def test_devices_are_forgotten_with_the_backend(no_accelerator: None) -> None:
    """An accelerator that was there in an earlier test is not found again."""
    with pytest.raises(RuntimeError):
        DeviceRef.GPU().to_device()


def test_questions_about_the_accelerator(emulated_accelerator: Device) -> None:
    assert driver.accelerator_count() == 2
    assert driver.accelerator_api() == "cuda"
    assert driver.accelerator_architecture_name() == "sm_90"


def test_questions_without_an_accelerator(no_accelerator: None) -> None:
    assert driver.accelerator_count() == 0
    assert driver.accelerator_api() == "cpu"
    with pytest.raises(RuntimeError, match="no accelerator can be used"):
        driver.accelerator_architecture_name()


# ---- specs --------------------------------------------------------------------------------------


def test_spec() -> None:
    assert DeviceSpec(0) == DeviceSpec(0, "cpu")
    assert DeviceSpec.cpu() == DeviceSpec(-1, "cpu")
    assert DeviceSpec.accelerator() == DeviceSpec(0, "gpu")
    with pytest.raises(ValueError, match="DeviceSpec: id: expected 0 or more for a gpu, got -1"):
        DeviceSpec(-1, "gpu")
    with pytest.raises(ValueError, match="got 'tpu'"):
        DeviceSpec(0, "tpu")
    with pytest.raises(AttributeError):
        DeviceSpec(0).id = 1


def test_specs_with_accelerators(emulated_accelerator: Device) -> None:
    specs = driver.scan_available_devices()
    assert specs == [DeviceSpec.accelerator(0), DeviceSpec.accelerator(1)]
    assert driver.load_devices(specs) == [Accelerator(0), Accelerator(1)]
    assert driver.load_devices([DeviceSpec.cpu()]) == [CPU()]
    assert driver.devices_exist([*specs, DeviceSpec.cpu()])
    assert not driver.devices_exist([DeviceSpec.accelerator(2)])
    with pytest.raises(ValueError, match="there is no such device"):
        driver.load_devices([DeviceSpec.accelerator(2)])


def test_specs_without_accelerators(no_accelerator: None) -> None:
    assert driver.scan_available_devices() == [DeviceSpec.cpu()]
    assert driver.devices_exist([DeviceSpec.cpu(3)])
    assert not driver.devices_exist([DeviceSpec.accelerator()])
    with pytest.raises(ValueError, match="no accelerator can be used"):
        driver.load_devices([DeviceSpec.accelerator()])


def test_virtual_devices_do_not_exist() -> None:
    driver.set_virtual_device_count(0)
    assert driver.get_virtual_device_count() == 0
    assert driver.is_virtual_device_mode() is False
    with pytest.raises(ValueError, match="only 0 is supported, got 2"):
        driver.set_virtual_device_count(2)


# ---- streams ------------------------------------------------------------------------------------


def test_streams(device: Device) -> None:
    stream = DeviceStream(device)
    assert stream.device == device
    assert device.default_stream == device.default_queue
    assert hash(device.default_stream) == hash(device.default_queue)
    assert stream != device
    stream.wait_for(device)
    stream.wait_for(device.default_stream)
    stream.wait_for(CPU())
    device.default_stream.wait_for(stream)
    with stream.active():
        pass
    stream.synchronize()


@pytest.mark.gpu
def test_streams_of_a_gpu_differ() -> None:
    assert DeviceStream(Accelerator()) != DeviceStream(Accelerator())
    assert DeviceStream(Accelerator()) != Accelerator().default_stream


def test_host_streams_are_one() -> None:
    assert DeviceStream(CPU()) == CPU().default_stream
