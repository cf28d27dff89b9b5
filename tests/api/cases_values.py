"""Rules of dtypes, devices, buffers, dims, shapes and types."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import pytest
from api.proving import named, proves
from emulated_cuda import emulated_cuda

from maxmod import DType, driver, graph
from maxmod.driver import CPU, Accelerator, Buffer, Device, DeviceSpec, DeviceStream
from maxmod.graph import (
    AlgebraicDim,
    BufferType,
    DeviceKind,
    DeviceRef,
    Dim,
    Shape,
    StaticDim,
    SymbolicDim,
    TensorType,
)

N = Dim("n")
M = Dim("m")

DTYPES = {  # name: value, name in graphs
    "bool": (1, "i1"),
    "int8": (135, "si8"),
    "int16": (137, "si16"),
    "int32": (139, "si32"),
    "int64": (141, "si64"),
    "uint8": (134, "ui8"),
    "uint16": (136, "ui16"),
    "uint32": (138, "ui32"),
    "uint64": (140, "ui64"),
    "float16": (79, "f16"),
    "bfloat16": (80, "bf16"),
    "float32": (81, "f32"),
    "float64": (82, "f64"),
    "float8_e8m0fnu": (73, "f8e8m0fnu"),
    "float8_e4m3fn": (75, "f8e4m3fn"),
    "float8_e4m3fnuz": (76, "f8e4m3fnuz"),
    "float8_e5m2": (77, "f8e5m2"),
    "float8_e5m2fnuz": (78, "f8e5m2fnuz"),
    "float4_e2m1fn": (64, "f4e2m1fn"),
    "float6_e2m3fn": (65, "f6e2m3fn"),
    "float6_e3m2fn": (66, "f6e3m2fn"),
}


@proves(*named("DType", "size_in_bits size_in_bytes align is_integral is_signed_integral"))
@proves(*named("DType", "is_unsigned_integral is_float is_float8 is_half to_numpy from_numpy"))
@proves("DType.finfo", "DType.to_torch", "DType.from_torch")
def dtypes() -> None:
    for name, (value, short) in DTYPES.items():
        dtype = DType[name]
        assert (dtype.value, DType(value), DType(short)) == (value, dtype, dtype)
        assert (str(dtype), f"{dtype}", repr(dtype)) == (f"DType.{name}", f"DType.{name}", name)
        assert dtype.is_float8() == name.startswith("float8")
        assert dtype.is_half() == (name in ("float16", "bfloat16"))
        assert dtype.is_float() == ("float" in name)
        assert dtype.is_integral() == ("int" in name)
        assert dtype.is_signed_integral() == name.startswith("int")
        assert dtype.is_unsigned_integral() == name.startswith("uint")
    assert (DType.float4_e2m1fn.size_in_bits, DType.bool.size_in_bits) == (4, 8)
    assert (DType.float64.size_in_bytes, DType.float32.align) == (8, 4)
    assert DType.float8_e5m2.to_numpy() == np.uint8
    assert DType.int16.to_numpy() == np.int16
    for narrow in (DType.bfloat16, DType.float4_e2m1fn, DType.float6_e2m3fn):
        with pytest.raises(ValueError):
            narrow.to_numpy()
    assert DType.from_numpy(np.float32) is DType.from_numpy(np.dtype("f4")) is DType.float32
    assert DType.from_numpy(ml_dtypes.bfloat16) is DType.bfloat16
    for wrong in ("float32", np.complex64):
        with pytest.raises(ValueError):
            DType.from_numpy(wrong)
    with pytest.raises(KeyError):
        DType("nonsense")
    with pytest.raises(ValueError):
        DType(3)
    info = DType.finfo(DType.bfloat16)
    assert (info.bits, info.eps, info.max) == (16, 2**-7, float(ml_dtypes.finfo("bfloat16").max))
    assert info.min == -info.max
    assert info.tiny == info.smallest_normal == 2.0**-126
    with pytest.raises(TypeError):
        DType.finfo(DType.int32)
    try:
        import torch
    except ImportError:
        with pytest.raises(RuntimeError):
            DType.float32.to_torch()
        with pytest.raises((RuntimeError, KeyError)):
            DType.from_torch("float32")
    else:
        assert DType.from_torch(DType.bfloat16.to_torch()) is DType.bfloat16
        with pytest.raises(KeyError):
            DType.from_torch(torch.complex64)


_NONE = "accelerator_count accelerator_api accelerator_architecture_name scan_available_devices"


@proves(*named("driver", f"{_NONE} Device CPU Accelerator DeviceSpec load_devices devices_exist"))
@proves(*named("driver", "set_virtual_device_count get_virtual_device_count DLPackArray"))
@proves(*named("driver", "is_virtual_device_mode DeviceStream DeviceQueue"))
@proves(*named("Device", "label id api architecture_name is_host is_compatible stats cpu devices"))
@proves(*named("Device", "default_stream default_queue can_access synchronize"))
def devices() -> None:
    host = CPU(3)
    assert host == CPU() == Device.cpu()
    assert (host.label, host.id, host.api, host.is_host) == ("cpu", 0, "cpu", True)
    assert repr(host) == str(host) == "Device(type=cpu,id=0)"
    assert host.is_compatible
    assert list(host.devices) == [host]
    assert all(isinstance(number, int) for number in dict(host.stats).values())
    assert host.can_access(CPU())
    host.synchronize()
    with pytest.raises(ValueError):
        _ = host.architecture_name
    assert host.default_stream == host.default_queue == DeviceStream.default(host)
    stream = DeviceStream(host)
    stream.synchronize()
    stream.wait_for(host)
    stream.wait_for(stream)
    assert stream.device == host
    assert driver.DeviceQueue is DeviceStream
    with emulated_cuda() as (gpu, _):
        assert driver.accelerator_count() == 1
        assert (gpu.label, gpu.api) == ("gpu", "cuda")
        assert repr(Accelerator(0)) == "Device(type=gpu,id=0)"
        assert Accelerator() == Accelerator(0) == Accelerator(-1)
        assert hash(gpu) == hash(Accelerator())
        assert gpu != host
        assert gpu.architecture_name.startswith("sm_")
        assert driver.accelerator_architecture_name() == gpu.architecture_name
        assert driver.accelerator_api() == "cuda"
        assert driver.scan_available_devices() == [DeviceSpec.accelerator(0)]
        assert driver.load_devices([DeviceSpec.cpu(), DeviceSpec.accelerator()]) == [host, gpu]
        assert driver.devices_exist([DeviceSpec(0, "gpu"), DeviceSpec.cpu()])
        assert not driver.devices_exist([DeviceSpec(7, "gpu")])
        for kind in (ValueError, RuntimeError):
            with pytest.raises(kind):
                Accelerator(5)
        with pytest.raises(ValueError):
            driver.load_devices([DeviceSpec.accelerator(5)])
    with pytest.raises(ValueError):
        DeviceSpec(-1, "gpu")
    with pytest.raises(dataclasses.FrozenInstanceError):
        DeviceSpec.cpu().id = 1  # type: ignore[misc]
    assert driver.get_virtual_device_count() == 0
    assert not driver.is_virtual_device_mode()
    driver.set_virtual_device_count(0)
    assert isinstance(np.zeros(1), driver.DLPackArray)
    assert not isinstance([1], driver.DLPackArray)


@proves(*named("DeviceRef", "CPU GPU to_device is_cpu is_gpu from_device"))
@proves(*named("graph", "DeviceRef DeviceKind FilterLayout ConvInputLayout"))
def references() -> None:
    ref = DeviceRef("gpu", 1)
    assert str(ref) == repr(ref) == "gpu:1"
    assert ref == DeviceRef.GPU(1)
    assert ref != DeviceRef.CPU()
    assert DeviceRef.CPU() != CPU()
    assert (ref.is_gpu(), ref.is_cpu(), DeviceRef("cpu", -3).id) == (True, False, 0)
    assert hash(ref) == hash(DeviceRef.GPU(1))
    assert DeviceRef.CPU().to_device() == CPU()
    assert DeviceRef.from_device(CPU()) == DeviceRef.from_device(DeviceRef.CPU())
    with pytest.raises(ValueError):
        DeviceRef("cuda")
    assert DeviceKind.from_string("gpu") is DeviceKind.GPU
    assert str(DeviceKind.CPU) == "cpu"
    with pytest.raises(ValueError):
        DeviceKind.from_string("tpu")
    names = ["RSCF", "QRSCF", "FCRS", "FCQRS", "CFRS"]
    assert [layout.value for layout in graph.FilterLayout] == names
    assert [layout.value for layout in graph.ConvInputLayout] == ["NHWC", "NCHW"]


_MEMORY = "dtype shape rank num_elements element_size device stream is_contiguous is_host strides"
_CALLS = "item to copy contiguous view inplace_copy_from to_numpy from_numpy from_dlpack zeros"


@proves(*named("Buffer", f"{_MEMORY} pinned {_CALLS} scalar mmap __getitem__ __setitem__"))
@proves(*named("Buffer", "__repr__ __dlpack__ __dlpack_device__"))
@proves("driver.Buffer", "driver.Tensor")
def buffers() -> None:
    assert driver.Tensor is Buffer
    b = Buffer.zeros([2, 3], DType.int32)
    assert (b.dtype, b.shape, b.rank, b.num_elements) == (DType.int32, (2, 3), 2, 6)
    assert (b.element_size, b.device, b.is_host, b.pinned) == (4, CPU(), True, False)
    assert b.is_contiguous
    assert tuple(b.strides) == (3, 1)
    assert b.stream == CPU().default_stream
    b[0, 1] = 7
    row = b[0, :]
    row[2] = 8
    assert b.to_numpy().tolist() == [[0, 7, 8], [0, 0, 0]]
    assert b[0, 1].item() == 7
    with pytest.raises(ValueError):
        b.item()
    column = b[:, 1]
    assert not column.is_contiguous
    assert column.contiguous().is_contiguous
    with pytest.raises(ValueError):
        column.inplace_copy_from(Buffer.zeros([2], DType.int32))
    assert b.to(CPU()) is b
    assert [x is b for x in b.to([CPU(), CPU()])] == [True, True]
    assert b.copy() is not b
    assert b.view(DType.int16).shape == (2, 6)
    assert b.view(DType.int64, [3]).shape == (3,)
    with pytest.raises(ValueError):
        b.view(DType.int64)
    other = Buffer(DType.int32, [3, 2])
    other.inplace_copy_from(b)
    assert other.to_numpy().tolist() == [[0, 7], [8, 0], [0, 0]]
    with pytest.raises(ValueError):
        other.inplace_copy_from(Buffer.zeros([6], DType.int64))
    host = np.arange(3)
    assert np.shares_memory(Buffer.from_numpy(host).to_numpy(), host)
    assert np.shares_memory(np.from_dlpack(Buffer.from_dlpack(host)), host)
    assert Buffer.from_dlpack(b) is b
    with pytest.raises(ValueError):
        Buffer.from_dlpack(host[::2])
    assert Buffer.from_numpy(host[::2]).shape == (2,)
    assert b.__dlpack_device__() == (1, 0)
    assert Buffer.scalar(3, DType.int8).item() == 3
    assert "DType.int32, (2, 3)" in repr(b)
    assert Buffer(DType.float32, (2,), CPU().default_stream).shape == (2,)
    assert Buffer(DType.float32, [2], pinned=True).is_host
    with TemporaryDirectory() as folder:
        path = Path(folder) / "numbers"
        path.write_bytes(np.arange(4, dtype=np.int16).tobytes())
        mapped = Buffer.mmap(path, DType.int16, [3], offset=2)
        assert mapped.to_numpy().tolist() == [1, 2, 3]
        del mapped


@proves(*named("graph", "Dim StaticDim SymbolicDim AlgebraicDim DimLike ShapeLike"))
@proves("Dim.parameters", "Dim.substitute")
def dims() -> None:
    assert type(Dim(3)) is StaticDim
    assert type(N) is SymbolicDim
    assert Dim(N) is N
    assert isinstance(N * 5, AlgebraicDim)
    for wrong in (1.5, None, []):
        with pytest.raises(TypeError):
            Dim(wrong)
    for wrong in ("2x", "", "a-b"):
        with pytest.raises(ValueError, match="Invalid name for symbolic dimension"):
            Dim(wrong)
    with pytest.raises(ValueError):
        Dim(2**63)
    assert int(Dim(-3)) == -3
    for symbolic in (N, N + 1):
        with pytest.raises(TypeError):
            int(symbolic)
    for use in (lambda: [1][N], lambda: range(N), lambda: np.zeros(N)):
        with pytest.raises(TypeError):
            use()
    assert (str(Dim(3)), repr(Dim(3)), str(N), repr(N)) == ("3", "Dim(3)", "n", "Dim('n')")
    assert (str(N * 5), str(N * 5 + 1)) == ("n * 5", "(n * 5) + 1")
    assert repr(N * 5) == "Dim('n') * Dim(5)"
    assert Dim(3) == 3
    assert Dim(3) == 3.0
    assert N == "n"
    assert N != 3
    assert Dim(3) < 4 <= Dim(4)
    with pytest.raises(TypeError):
        _ = N < 3
    assert {3: "x"}[Dim(3)] == "x"
    assert hash(N) == hash(Dim("n"))
    assert bool(Dim(0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        N.name = "m"  # type: ignore[misc]
    assert Dim(3) * 4 == 12
    assert N + 0 is N or N + 0 == N
    assert (N * 0, N - N, N + 1 + 1, N * 2 * 3) == (0, 0, N + 2, N * 6)
    assert N + M == M + N
    assert -N - 4 == -(N + 4)
    assert str(N - 1) == "n + -1"
    assert N + "m" == N + M
    assert 2 * N + 1 == N * 2 + 1
    assert Dim(7) // 2 == 3
    assert 10 // Dim(5) == 2
    with pytest.raises(ZeroDivisionError):
        _ = N // 0
    for use in (lambda: N / 2, lambda: N % 2, lambda: N**2):  # type: ignore[operator]
        with pytest.raises(TypeError):
            use()
    assert [str(s) for s in (N * M + N).parameters].count("n") >= 1
    assert list(Dim(3).parameters) == []
    assert (N * M + 1).substitute({"n": 2, "m": N}) == N * 2 + 1
    with pytest.raises(ZeroDivisionError):
        (M // N).substitute({"n": 0})


@proves("graph.Shape", *named("Shape", "rank static_dims is_static parameters"))
def lists_of_sizes() -> None:
    shape = Shape([2, "n"])
    assert isinstance(shape, list)
    assert shape == [2, "n"]
    assert shape != (2, "n")
    assert (shape.rank, shape.static_dims) == (2, [2])
    assert Shape.is_static(Shape([2, 3]))
    assert not Shape.is_static(shape)
    assert next(iter(Shape(["n", N * M]).parameters)) == N
    assert repr(shape) == "[Dim(2), Dim('n')]"
    assert type(shape[1:]) is list
    with pytest.raises(TypeError):
        hash(shape)
    assert copy.copy(shape) == shape


@proves(*named("graph", "Type TensorType BufferType TensorValueLike"))
@proves("graph.StrongTensorValueLike", "BufferType.as_tensor")
@proves(*named("TensorType", "dtype shape device rank num_elements cast parameters as_buffer"))
def types() -> None:
    pair = TensorType(DType.float32, [2, "batch"], CPU())
    assert repr(pair) == "TensorType(dtype=float32, shape=[Dim(2), Dim('batch')], device=cpu:0)"
    assert pair == TensorType(DType.float32, (2, Dim("batch")), DeviceRef.CPU())
    assert (pair.dtype, pair.rank, pair.device) == (DType.float32, 2, DeviceRef.CPU())
    assert pair.shape == [2, "batch"]
    assert [str(s) for s in pair.parameters] == ["batch"]
    assert pair.cast(DType.int8).dtype is DType.int8
    with pytest.raises(RuntimeError):
        pair.num_elements()
    assert TensorType(DType.int8, [], CPU()).num_elements() == 1
    with pytest.raises(TypeError):
        TensorType(DType.int8, [-1], CPU())
    with pytest.raises(TypeError):
        TensorType(DType.int8, 2, CPU())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        TensorType(DType.int8, [2])  # type: ignore[call-arg]
    buffer = pair.as_buffer()
    assert isinstance(buffer, BufferType)
    assert repr(buffer).startswith("BufferType(dtype=float32")
    assert buffer.as_tensor() == pair.as_tensor() == pair
    assert buffer.as_buffer() is buffer
    assert buffer != pair
    assert pair != buffer
    assert hash(pair) == hash(TensorType(DType.float32, [2, "batch"], CPU()))
    assert isinstance(pair, graph.Type)
    assert graph.Type[int] is graph.Type  # type: ignore[misc]
