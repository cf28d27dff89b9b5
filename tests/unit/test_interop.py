"""DLPack in and out, at the level below `Tensor` and `Buffer`."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulated import EmulatedBackend
from emulated_cuda import emulated_cuda

from maxmod import DType, Tensor, TensorType
from maxmod.driver import Buffer, Device, DLPackArray
from maxmod.tensor.exchange import import_array
from maxmod.values.device import CPU_REF, DeviceRef


class OnlyDLPack:
    """An array of a library that we know nothing about."""

    def __init__(self, array: np.ndarray[Any, Any], device: tuple[int, int] = (1, 0)) -> None:
        self.array = array
        self.device = device

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def test_protocol() -> None:
    for array in (
        np.zeros(2),
        Buffer.zeros([2], DType.int8),
        Tensor([1.0]),
        OnlyDLPack(np.ones(1)),
    ):
        assert isinstance(array, DLPackArray)
    assert not isinstance([1.0], DLPackArray)


@pytest.mark.parametrize(
    "dtype",
    [np.bool_, np.int8, np.uint64, np.float16, np.float64, ml_dtypes.bfloat16],
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 3)])
def test_numpy_arrays_are_shared(dtype: Any, shape: tuple[int, ...]) -> None:
    host = np.zeros(shape, dtype)
    array, type = import_array(host)
    assert array is host
    assert type == TensorType(DType.from_numpy(dtype), shape, CPU_REF)


def test_numpy_scalars_become_arrays() -> None:
    array, type = import_array(np.float32(1.5))
    assert (array.item(), type) == (1.5, TensorType(DType.float32, [], CPU_REF))


def test_unknown_libraries_are_shared() -> None:
    host = np.arange(6.0).reshape(2, 3)
    array, type = import_array(OnlyDLPack(host))
    host[0, 0] = 9
    assert array[0, 0] == 9
    assert type == TensorType(DType.float64, [2, 3], CPU_REF)


def test_read_only_memory_is_copied() -> None:
    host = np.zeros(2)
    host.flags.writeable = False
    array, _ = import_array(host)
    assert array.flags.writeable
    assert not np.shares_memory(array, host)


@pytest.mark.parametrize("array", [np.zeros((2, 3)).T, np.zeros(6)[::2], np.zeros((2, 3))[:, 1:]])
def test_strided_arrays_are_refused(array: Any) -> None:
    for given in (array, OnlyDLPack(array)):
        with pytest.raises(ValueError, match="expected a C-contiguous array, got strides"):
            import_array(given)


def test_unknown_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="no DType for"):
        import_array(np.zeros(2, complex))


@pytest.mark.parametrize("value", [[1.0], "text", None, 1.0, object()])
def test_other_objects_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="expected an array that speaks DLPack, got"):
        import_array(value)


def test_arrays_of_an_accelerator(emulated_accelerator: Device) -> None:
    array = EmulatedBackend(count=2).from_host(np.arange(3, dtype=np.int32), 1)
    found, type = import_array(array)
    assert found.index == 1
    assert type == TensorType(DType.int32, [3], DeviceRef.GPU(1))


def test_arrays_of_an_accelerator_that_cannot_be_used(no_accelerator: None) -> None:
    with pytest.raises(ValueError, match="no accelerator can be used"):
        import_array(OnlyDLPack(np.zeros(2), device=(2, 0)))


def test_export() -> None:
    host = np.arange(3)
    buffer = Buffer.from_numpy(host)
    assert np.shares_memory(np.from_dlpack(buffer), host)


@pytest.mark.parametrize("version", [None, (1, 0)])
@pytest.mark.parametrize(
    ("dtype", "code"),
    [
        (DType.float32, 2),
        (DType.bfloat16, 4),
        (DType.float8_e4m3fn, 10),
        (DType.float8_e5m2, 12),
        (DType.uint8, 1),
    ],
)
def test_type_codes_of_capsules(dtype: DType, code: int, version: Any) -> None:
    options = {} if version is None else {"max_version": version}
    for source in (Buffer.zeros([2, 3], dtype), Tensor.zeros([2, 3], dtype=dtype)):
        assert _type_of_capsule(source.__dlpack__(**options)) == (code, 8 * dtype.size_in_bytes, 1)


def _type_of_capsule(capsule: Any) -> tuple[int, int, int]:
    """Reads the fields that dlpack.h defines: DLDataType {code, bits, lanes}."""
    name = b"dltensor_versioned" if "versioned" in repr(capsule) else b"dltensor"
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # data pointer, two int32 of the device, the rank; new capsules have four fields before.
    start = get_pointer(capsule, name) + 8 + 8 + 4 + (8 + 3 * 8 if b"versioned" in name else 0)
    code, bits = (ctypes.c_uint8.from_address(start + i).value for i in range(2))
    return code, bits, ctypes.c_uint16.from_address(start + 2).value


def test_export_with_options() -> None:
    tensor = Tensor([1.0, 2.0])
    shared = np.from_dlpack(tensor)
    assert np.shares_memory(shared, tensor.data)
    copied = np.from_dlpack(tensor, device="cpu", copy=True)
    assert not np.shares_memory(copied, tensor.data)
    assert np.shares_memory(np.from_dlpack(tensor, copy=False), tensor.data)
    assert not np.shares_memory(
        np.from_dlpack(_Once(tensor.__dlpack__(copy=True, stream=None))), tensor.data
    )
    with pytest.raises(BufferError):
        tensor.__dlpack__(dl_device=(2, 0))
    with pytest.raises((RuntimeError, BufferError), match="Unsupported dtype"):
        np.from_dlpack(Tensor([1.0], dtype=DType.bfloat16))
    with pytest.raises(AttributeError, match="the data is on the host"):
        _ = tensor.__cuda_array_interface__


class _Once:
    """A producer of a capsule that is there already."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def test_accelerators_name_the_kind_of_memory() -> None:
    with emulated_cuda() as (device, _):
        tensor = Tensor([1.0, 2.0], dtype=DType.float32, device=device)
        assert tensor.__dlpack_device__() == (2, 0)
        tensor.data.__cuda_array_interface__ = {"shape": (2,)}
        assert tensor.__cuda_array_interface__ == {"shape": (2,)}
        assert tensor.driver_tensor.__cuda_array_interface__ == {"shape": (2,)}


def test_torch_and_back() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    for dtype in (DType.float32, DType.int64, DType.bool, DType.bfloat16, DType.float8_e4m3fn):
        source = torch.tensor([0.0, 1.0, -2.0]).to(dtype.to_torch())
        tensor = Tensor.from_dlpack(source)
        assert tensor.dtype is dtype
        assert tensor.cast(DType.float32).to_numpy().tolist() == source.float().tolist()
    source = torch.zeros(2)
    Buffer.from_dlpack(source)[0] = 5.0
    assert source.tolist() == [5, 0]
    assert torch.from_dlpack(Buffer.from_dlpack(source)).tolist() == [5, 0]
    for dtype in (DType.bfloat16, DType.float8_e4m3fn, DType.float8_e5m2):
        ours = Tensor([1.0, -2.0], dtype=dtype)
        theirs = torch.from_dlpack(ours)
        assert theirs.dtype is dtype.to_torch()
        assert theirs.float().tolist() == [1, -2]
        theirs[0] = 0.5
        assert ours.cast(DType.float32).to_numpy().tolist() == [0.5, -2]


def test_jax_and_back() -> None:
    jax = pytest.importorskip("jax", reason="needs jax")
    for dtype in (DType.float32, DType.int32, DType.bfloat16, DType.float8_e4m3fn):
        source = jax.numpy.array([0.0, 1.0, -2.0]).astype(dtype.name)
        tensor = Tensor.from_dlpack(source)
        assert tensor.dtype is dtype
        assert tensor.cast(DType.float32).to_numpy().tolist() == [0, 1, -2]
    for dtype in (DType.float32, DType.bfloat16):
        theirs = jax.dlpack.from_dlpack(Tensor([1.0, -2.0], dtype=dtype))
        assert theirs.dtype.name == dtype.name
        assert theirs.tolist() == [1, -2]


def test_read_only_memory_is_copied_for_consumers_that_would_write() -> None:
    row = Tensor([1.0, 2.0], device=CPU_REF.to_device()).broadcast_to([3, 2])
    assert row.__dlpack__() is not None
    assert row.__dlpack__(max_version=(1, 0)) is not None
    with pytest.raises(BufferError, match="read-only"):
        row.__dlpack__(copy=False)
