"""The protocol that every backend implements, and its checks."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest
from emulated import EmulatedBackend

import maxmod
from maxmod import CPU, Accelerator, DType, Tensor, TensorType, backends
from maxmod.backends.base import Backend
from maxmod.backends.cuda.backend import CudaBackend
from maxmod.backends.host.backend import CpuBackend
from maxmod.driver import Device
from maxmod.op import REGISTRY, lookup
from maxmod.values.device import CPU_REF, DeviceKind, DeviceRef


@pytest.fixture
def backend(device: Device) -> Backend:
    return backends.get(device.ref)


def test_lookup() -> None:
    assert isinstance(backends.get(CPU_REF), CpuBackend)
    assert backends.get(DeviceRef.CPU(3)) is backends.get(CPU_REF)


def test_ops_name_methods_that_every_backend_has() -> None:
    named = {op.meaning.backend_method for op in REGISTRY.values()} - {None}
    assert named == {"quantize_weight"}
    assert all(callable(getattr(Backend, str(name))) for name in named)


def test_replace(emulated_accelerator: Device) -> None:
    first = backends.get(DeviceRef.GPU())
    second = EmulatedBackend(count=1)
    assert backends.replace(DeviceKind.GPU, second) is first
    assert backends.get(DeviceRef.GPU()) is second
    assert backends.replace(DeviceKind.GPU, None) is second
    assert isinstance(backends.get(DeviceRef.GPU()), CudaBackend)


def test_replace_forgets_arrays_and_devices() -> None:
    cache = backends.device_cache()
    cache["gpu:0"] = object()
    backends.replace(DeviceKind.GPU, backends.replace(DeviceKind.GPU, None))
    assert cache == {}


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 0, 3), (2, 3)])
@pytest.mark.parametrize("dtype", list(DType))
def test_host_and_back(backend: Backend, dtype: DType, shape: tuple[int, ...]) -> None:
    if dtype.size_in_bits < 8:
        dtype = DType.uint8  # how narrower types are stored
    source = Tensor.ones(shape, dtype=dtype, device=CPU()).data
    array = backend.from_host(source, 0)
    assert isinstance(array, backend.xp.ndarray)
    assert (array.dtype, array.shape) == (source.dtype, shape)
    np.testing.assert_array_equal(backend.to_host(array), source)


def test_memory_is_empty_on_the_right_device(emulated_accelerator: Device) -> None:
    array = backends.get(DeviceRef.GPU()).empty(TensorType(DType.float32, [2, 3], Accelerator(1)))
    assert (array.index, array.shape, array.dtype) == (1, (2, 3), np.float32)


def test_numbers(backend: Backend, device: Device) -> None:
    assert backend.device_count() >= 1
    assert backend.unavailable_reason() == ""
    assert backend.architecture(device.id)
    assert isinstance(backend.stats(device.id), dict)
    backend.synchronize(device.id)


def test_narrow_floats_are_computed_in_float32_and_rounded_once(device: Device) -> None:
    x = np.linspace(0.1, 3.0, 97).astype(np.float32)
    t = Tensor(x, device=device).cast(DType.bfloat16)
    found = lookup("mul"), t * t
    wide = t.cast(DType.float32).to(CPU()).to_numpy()
    expected = Tensor(wide * wide).cast(DType.bfloat16).cast(DType.float32).to_numpy()
    np.testing.assert_array_equal(found[1].cast(DType.float32).to(CPU()).to_numpy(), expected)


def test_results_have_the_stored_dtype(device: Device) -> None:
    x = Tensor([[1.0, 2.0]], dtype=DType.float16, device=device)
    for y in (x + 1, x.sum(), x @ x.T, x[0, 0]):
        assert y.dtype is DType.float16
        assert y.data.dtype == np.float16


def test_domain_errors_give_no_warning(device: Device) -> None:
    x = Tensor([0.0, -1.0], dtype=DType.float32, device=device)
    assert str((1 / x).to(CPU()).to_numpy().tolist()) == "[inf, -1.0]"


def test_a_wrong_type_rule_is_found(device: Device) -> None:
    """Under `verify`, a body that disagrees with its type rule is an error, not a wrong answer."""
    x = Tensor([1.0, 2.0], dtype=DType.float32, device=device)
    backend = backends.get(device.ref)
    wrong_shape = [TensorType(DType.float32, [3], device)]
    wrong_dtype = [TensorType(DType.int32, [2], device)]
    for types in (wrong_shape, wrong_dtype):
        with pytest.raises(
            maxmod.MaxmodError, match=r"negate: the eager body returned float32\[2\]"
        ):
            backend.run(lookup("negate"), [x.data], {}, types)


def test_weak_scalars_follow_a_replaced_backend() -> None:
    """A number that was moved to one accelerator is not used on another one."""
    for _ in range(2):
        previous = backends.replace(DeviceKind.GPU, EmulatedBackend())
        try:
            x = Tensor.ones([2], dtype=DType.float32, device=Accelerator())
            assert (x + 0.125).to(CPU()).to_numpy().tolist() == [1.125, 1.125]
        finally:
            backends.replace(DeviceKind.GPU, previous)


def test_an_unused_pinned_request_is_none(no_accelerator: None) -> None:
    empty: Any = backends.get(DeviceRef.GPU()).empty_pinned((2,), np.dtype(np.int8))
    assert empty is None


USES_OF_A_DEVICE = {
    "to": lambda ref: Tensor([1.0], device=CPU(), dtype=DType.float32).to(ref),
    "literal": lambda ref: Tensor([1.0], dtype=DType.float32, device=ref),
    "ones": lambda ref: Tensor.ones([1], device=ref),
    "buffer": lambda ref: maxmod.Buffer(DType.int8, [1], ref),
}


@pytest.mark.parametrize("name", USES_OF_A_DEVICE)
def test_a_device_beyond_the_last_is_refused(emulated_accelerator: Device, name: str) -> None:
    with pytest.raises(ValueError, match=r"Accelerator\(2\): there is no such device"):
        USES_OF_A_DEVICE[name](DeviceRef.GPU(2))


def test_domain_errors_of_eager_ops_are_silent_and_leave_no_trace() -> None:
    zeros = Tensor(np.zeros(3, np.float32))
    with np.errstate(all="raise"):
        assert np.isnan((zeros / zeros).to_numpy()).all()
        with pytest.raises(FloatingPointError):  # the caller's setting is in force again
            np.ones(1) / np.zeros(1)


def test_a_custom_op_sees_the_context_of_the_caller() -> None:
    scale: ContextVar[float] = ContextVar("scale", default=1.0)
    maxmod.custom.register("test.scaled", numpy=lambda x: x * np.float32(scale.get()))
    token = scale.set(3.0)
    try:
        x = Tensor(np.ones(2, np.float32))
        assert maxmod.functional.custom("test.scaled", CPU(), [x], [x.type])[0].to_numpy()[0] == 3
    finally:
        scale.reset(token)
