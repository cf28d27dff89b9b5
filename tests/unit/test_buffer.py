"""`driver.Buffer`: construction, views, copies and exchange with NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from maxmod import CPU, Buffer, DType, Tensor, driver
from maxmod.driver import Accelerator, Device, DeviceStream
from maxmod.errors import ArgumentError, OperandError, SliceError
from maxmod.values.device import DeviceRef


def ramp(*shape: int, device: Device | None = None) -> Buffer:
    host = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    return Buffer(host, device) if device else Buffer(host)


# ---- construction -------------------------------------------------------------------------------


def test_old_name() -> None:
    assert driver.Tensor is Buffer


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_uninitialised(device: Device, shape: tuple[int, ...]) -> None:
    buffer = Buffer(DType.float16, shape, device)
    assert (buffer.dtype, buffer.shape, buffer.device) == (DType.float16, shape, device)
    assert (buffer.rank, buffer.num_elements) == (len(shape), int(np.prod(shape)))
    assert buffer.element_size == 2
    assert buffer.is_contiguous
    assert buffer.is_host == device.is_host
    assert not buffer.pinned


def test_default_device_is_the_host(emulated_accelerator: Device) -> None:
    assert Buffer(DType.int8, (1,)).device == CPU()
    assert Buffer.zeros((1,), DType.int8).device == CPU()
    assert Buffer.scalar(1, DType.int8).device == CPU()


def test_of_a_stream(device: Device) -> None:
    stream = DeviceStream(device)
    for buffer in (Buffer(DType.int8, (2,), stream), Buffer(DType.int8, (2,), stream=stream)):
        assert buffer.device == device
        assert buffer.stream == stream
    assert Buffer(DType.int8, (2,), device).stream == device.default_stream


def test_of_an_array(device: Device) -> None:
    assert ramp(2, 3, device=device).to_numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    buffer = Buffer(np.ones(2), device=device)
    assert (buffer.dtype, buffer.device) == (DType.float64, device)


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="Buffer: dtype: expected a DType or a NumPy array"):
        Buffer((2, 3), DType.int8)
    with pytest.raises(TypeError, match="Buffer: shape: expected an iterable of sizes, got int"):
        Buffer(DType.int8, 3)
    with pytest.raises(ValueError, match="Buffer: shape: expected non-negative integer sizes"):
        Buffer(DType.int8, ["n"])
    with pytest.raises(ValueError, match=r"expected non-negative integer sizes, got \[2, -1\]"):
        Buffer(DType.int8, [2, -1])
    with pytest.raises(TypeError, match="device: expected a Device or DeviceRef, got str"):
        Buffer(DType.int8, [2], "cpu")


def test_zeros_and_scalar(device: Device) -> None:
    zeros = Buffer.zeros([2, 2], DType.bfloat16, device)
    assert zeros.to_numpy().astype(float).tolist() == [[0, 0], [0, 0]]
    scalar = Buffer.scalar(1.5, DType.bfloat16, device)
    assert (scalar.shape, scalar.dtype, scalar.device) == ((), DType.bfloat16, device)
    assert scalar.item() == 1.5
    with pytest.raises(ValueError, match="Buffer.scalar: expected a number"):
        Buffer.scalar([1, 2], DType.int8)


def test_from_numpy_shares_contiguous_memory() -> None:
    host = np.zeros((2, 3), np.float32)
    Buffer.from_numpy(host)[0, 0] = 1
    assert host[0, 0] == 1
    Buffer.from_numpy(host.T)[0, 0] = 2
    assert host[0, 0] == 1
    assert Buffer.from_numpy(host.T).shape == (3, 2)
    assert Buffer.from_numpy(np.array(3.0)).shape == ()


def test_from_numpy_copies_read_only_memory() -> None:
    host = np.zeros(2)
    host.flags.writeable = False
    buffer = Buffer.from_numpy(host)
    buffer[0] = 1
    assert (host[0], buffer[0].item()) == (0, 1)


def test_from_dlpack() -> None:
    host = np.arange(3)
    shared, copied = Buffer.from_dlpack(host), Buffer.from_dlpack(host, copy=True)
    host[0] = 7
    assert (shared[0].item(), copied[0].item()) == (7, 0)
    assert Buffer.from_dlpack(shared) is shared
    assert Buffer.from_dlpack(shared, copy=True) is not shared
    assert Buffer.from_dlpack(np.array([True, False])).dtype is DType.bool
    tensor = Tensor([1.0, 2.0], device=CPU(), dtype=DType.float32)
    assert Buffer.from_dlpack(tensor).to_numpy().tolist() == [1, 2]


def test_from_dlpack_refuses() -> None:
    with pytest.raises(ValueError, match="expected a C-contiguous array"):
        Buffer.from_dlpack(np.zeros((2, 3)).T)
    with pytest.raises(ValueError, match="copy: only buffers and NumPy arrays take it"):
        Buffer.from_dlpack(Tensor([1.0]), copy=True)
    with pytest.raises(TypeError, match="expected an array that speaks DLPack, got list"):
        Buffer.from_dlpack([1])
    host = np.zeros(2)
    host.flags.writeable = False
    for kind in (ValueError, BufferError):
        with pytest.raises(kind, match="a read-only array.* needs a copy"):
            Buffer.from_dlpack(host, copy=False)
        with pytest.raises(kind, match=r"one made by numpy.from_dlpack, needs a copy"):
            Buffer.from_dlpack(np.from_dlpack(np.zeros(2)), copy=False)


def test_from_dlpack_copies_an_array_that_numpy_took_by_dlpack() -> None:
    buffer = ramp(3)
    again = Buffer.from_dlpack(np.from_dlpack(buffer))
    again[0] = 9
    assert (buffer[0].item(), again.to_numpy().tolist()) == (0, [9, 1, 2])


# ---- files --------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "numbers"
    np.arange(10, dtype=np.int16).tofile(path)
    return path


def test_mmap(file: Path) -> None:
    mapped = Buffer.mmap(file, DType.int16, [2, 3], offset=4)
    assert mapped.to_numpy().tolist() == [[2, 3, 4], [5, 6, 7]]
    mapped[0, 0] = 99
    assert mapped[0, 0].item() == 99
    assert np.fromfile(file, np.int16)[2] == 2


def test_mmap_modes(file: Path) -> None:
    Buffer.mmap(str(file), DType.int16, [10], mode="readwrite")[1] = 42
    assert np.fromfile(file, np.int16)[1] == 42
    file.chmod(0o444)
    for mode in ("readonly", "r", "copyonwrite", "c"):
        mapped = Buffer.mmap(file, DType.int16, [10], mode=mode)
        mapped[1] = 0
        mapped.inplace_copy_from(mapped[::-1])
        assert mapped.to_numpy().tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 0, 0]
        assert np.fromfile(file, np.int16).tolist() == [0, 42, *range(2, 10)]
    with pytest.raises(ValueError, match="Buffer.mmap: mode: expected one of 'copyonwrite'"):
        Buffer.mmap(file, DType.int16, [10], mode="w+")


def test_mmap_of_nothing_and_narrow_floats(file: Path) -> None:
    assert Buffer.mmap(file, DType.int16, [0, 3]).shape == (0, 3)
    assert Buffer.mmap(file, DType.bfloat16, [10]).dtype is DType.bfloat16


@pytest.mark.parametrize("mode", ["copyonwrite", "readwrite", "readonly"])
def test_mmap_of_a_short_file(file: Path, mode: str) -> None:
    with pytest.raises(ValueError, match="expected at least 22 bytes from offset 0, got .* 20"):
        Buffer.mmap(file, DType.int16, [11], mode=mode)
    assert file.stat().st_size == 20
    with pytest.raises(ValueError, match="from offset -2"):
        Buffer.mmap(file, DType.int16, [2], mode=mode, offset=-2)
    with pytest.raises(FileNotFoundError):
        Buffer.mmap(file.with_name("absent"), DType.int16, [2], mode=mode)


# ---- views, items -------------------------------------------------------------------------------


def test_indexing_gives_views(device: Device) -> None:
    buffer = ramp(3, 4, device=device)
    row = buffer[1, :]
    row[0] = 70
    buffer[:, 3] = 9
    buffer[2, 0:2] = np.array([5, 6], np.int32)
    expected = [[0, 1, 2, 9], [70, 5, 6, 9], [5, 6, 10, 9]]
    assert buffer.to_numpy().tolist() == expected
    assert (row.shape, buffer[1, 0].shape, buffer[-1, ::2].shape) == ((4,), (), (2,))
    assert buffer[1, 0].item() == 70
    buffer[1, 0] = buffer[0, 0]
    assert buffer[1, 0].item() == 0
    assert not buffer[:, 1].is_contiguous
    assert buffer[:, 1].contiguous().is_contiguous
    assert buffer[:, 1].strides == (4,)


def test_indexing_refuses(device: Device) -> None:
    buffer = ramp(3, 4, device=device)
    for index in ([0, 1], True, 1.5, None, "x"):
        with pytest.raises(TypeError, match="Buffer: index: expected ints and slices"):
            buffer[index]
    with pytest.raises(IndexError):
        buffer[3, 0]


@pytest.mark.parametrize("index", [0, (0,), slice(1), (), (0, 0, 0), (0, slice(None), 0)])
def test_an_index_names_every_axis(device: Device, index: Any) -> None:
    buffer = ramp(3, 4, device=device)
    for kind in (ValueError, IndexError):
        with pytest.raises(kind, match=r"2 ints or slices for int32\[3,4\].*, got \d"):
            buffer[index]
        with pytest.raises(kind, match="expected 2 ints or slices"):
            buffer[index] = 7
    assert buffer.to_numpy().tolist() == np.arange(12).reshape(3, 4).tolist()


def test_a_scalar_has_one_element(device: Device) -> None:
    scalar = Buffer.scalar(5, DType.int32, device)
    scalar[0] = 8
    assert (scalar.item(), scalar[0].shape, scalar[()].item()) == (8, (), 8)
    for index in (1, -1, slice(None), (0, 0)):
        with pytest.raises(IndexError, match="expected 0 ints or slices"):
            scalar[index] = 1


def test_steps_below_0_are_views(device: Device) -> None:
    buffer = ramp(2, 3, device=device)
    turned = buffer[::-1, ::-2]
    assert turned.to_numpy().tolist() == [[5, 3], [2, 0]]
    turned[0, 0] = 50
    assert buffer[1, 2].item() == 50
    with pytest.raises(ValueError, match="step"):
        buffer[::0, 0]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (DType.bool, True),
        (DType.int64, -(2**62)),
        (DType.uint64, 2**63),
        (DType.float16, 0.5),
        (DType.bfloat16, -2.0),
        (DType.float8_e4m3fn, 1.75),
        (DType.float64, 0.1),
    ],
)
def test_item(device: Device, dtype: DType, value: object) -> None:
    found = Buffer.scalar(value, dtype, device).item()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_item_of_one_element_of_any_rank(device: Device, shape: tuple[int, ...]) -> None:
    assert Buffer(np.full(shape, 7, np.int32), device).item() == 7


@pytest.mark.parametrize("shape", [(0,), (2,), (1, 2)])
def test_item_needs_one_element(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Buffer.item: expected one element, got int32\["):
        ramp(*shape).item()


def test_view(device: Device) -> None:
    buffer = Buffer(np.array([[1.0, -2.0]], np.float32), device)
    bits = buffer.view(DType.uint32)
    assert [hex(v) for v in bits.to_numpy().ravel()] == ["0x3f800000", "0xc0000000"]
    assert buffer.view(DType.uint8).shape == (1, 8)
    assert buffer.view(DType.float64).shape == (1, 1)
    assert buffer.view(DType.bfloat16, [2, 2]).shape == (2, 2)
    bits[0, 0] = 0
    assert buffer[0, 0].item() == 0.0


def test_view_of_rank_0() -> None:
    assert Buffer.scalar(1.0, DType.float32).view(DType.uint32).item() == 0x3F800000
    assert Buffer.scalar(1.0, DType.float32).view(DType.uint8, [4]).shape == (4,)


def test_view_refuses(device: Device) -> None:
    with pytest.raises(ValueError, match=r"Buffer.view: int32\[3\].* as int64"):
        ramp(3, device=device).view(DType.int64)
    with pytest.raises(ValueError, match=r"Buffer.view: int32\[4\].* as int8"):
        ramp(4, device=device).view(DType.int8, [3, 5])
    with pytest.raises(ValueError, match="is not contiguous"):
        ramp(2, 2, device=device)[:, 0].view(DType.int8)


# ---- copies -------------------------------------------------------------------------------------


def test_to_the_same_device_returns_the_same_object(device: Device) -> None:
    buffer = ramp(3, device=device)
    assert buffer.to(device) is buffer
    assert buffer.to(device.default_stream) is buffer
    assert buffer.to([device, device]) == [buffer, buffer]


def test_to_other_devices(emulated_accelerator: Device) -> None:
    host = ramp(2, 3)
    first, second = host.to([Accelerator(0), DeviceRef.GPU(1)])
    assert (first.device, second.device) == (Accelerator(0), Accelerator(1))
    host[0, 0] = 50
    assert first.to(CPU()).to_numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert first.to(second.device).array.index == 1
    stream = DeviceStream(Accelerator(1))
    assert host.to(stream).stream == stream


def test_copy(device: Device) -> None:
    buffer = ramp(2, 2, device=device)
    copies = [buffer.copy(), buffer.copy(device), buffer.copy(device.default_stream)]
    buffer[0, 0] = 9
    for copied in copies:
        assert copied.device == device
        assert copied.to_numpy().tolist() == [[0, 1], [2, 3]]
    assert buffer.copy(CPU()).device == CPU()
    assert buffer[:, 1].copy().is_contiguous


def test_copy_to_the_host_never_shares(device: Device) -> None:
    buffer = ramp(2, device=device)
    copied = buffer.copy(CPU())
    copied[0] = 9
    assert buffer[0].item() == 0


def test_non_contiguous_moves(emulated_accelerator: Device) -> None:
    column = ramp(2, 3)[:, 1]
    moved = column.to(Accelerator())
    assert moved.is_contiguous
    assert moved.to_numpy().tolist() == [1, 4]


def test_inplace_copy(device: Device) -> None:
    target = Buffer.zeros([3, 2], DType.int32, device)
    target.inplace_copy_from(ramp(2, 3))
    assert target.to_numpy().tolist() == [[0, 1], [2, 3], [4, 5]]
    target.inplace_copy_from(ramp(6, device=device) if not device.is_host else target)
    assert target.to_numpy().tolist() == [[0, 1], [2, 3], [4, 5]]


def test_inplace_copy_refuses(device: Device) -> None:
    target = ramp(2, 2, device=device)
    with pytest.raises(ValueError, match="same dtype and number of elements"):
        target.inplace_copy_from(ramp(5))
    with pytest.raises(ValueError, match="same dtype and number of elements"):
        target.inplace_copy_from(Buffer(DType.float32, [2, 2]))
    with pytest.raises(ValueError, match=r"inplace_copy_from: int32\[2\].* is not contig"):
        target[:, 0].inplace_copy_from(ramp(2))


def test_inplace_copy_of_parts_and_of_itself(device: Device) -> None:
    target = ramp(2, 2, device=device)
    target.inplace_copy_from(ramp(4, 2, device=device)[:, 1])
    assert target.to_numpy().tolist() == [[1, 3], [5, 7]]
    target.inplace_copy_from(target[::-1, :])  # its own memory, in another order
    assert target.to_numpy().tolist() == [[5, 7], [1, 3]]
    column = target[:, 0]
    column.inplace_copy_from(column)
    assert target.to_numpy().tolist() == [[5, 7], [1, 3]]


def test_contiguous_is_a_copy(device: Device) -> None:
    buffer = ramp(2, 3, device=device)
    for part in (buffer, buffer[:, 1]):
        made = part.contiguous()
        assert made.is_contiguous
        expected = made.to_numpy().tolist()
        part[(0,) * part.rank] = 99
        assert made.to_numpy().tolist() == expected
        made[(0,) * part.rank] = 98
        assert part[(0,) * part.rank].item() == 99


# ---- exchange -----------------------------------------------------------------------------------


def test_numpy_reads_a_host_buffer_without_a_copy() -> None:
    buffer = ramp(2, 3)
    assert buffer.__dlpack_device__() == (1, 0)
    np.from_dlpack(buffer)[0, 0] = 5
    assert buffer[0, 0].item() == 5
    buffer.to_numpy()[0, 1] = 6
    assert buffer[0, 1].item() == 6


def test_narrow_floats_and_numpy() -> None:
    assert Buffer.zeros([2], DType.bfloat16).to_numpy().dtype == ml_dtypes.bfloat16
    with pytest.raises((RuntimeError, BufferError), match="Unsupported dtype"):
        np.from_dlpack(Buffer.zeros([2], DType.bfloat16))


def test_tensor_and_buffer_share_memory(device: Device) -> None:
    buffer = Buffer.zeros([2], DType.bfloat16, device)
    tensor = Tensor(storage=buffer)
    buffer[0] = 3.0
    assert tensor.cast(DType.float32).to(CPU()).to_numpy().tolist() == [3, 0]
    assert Tensor.from_dlpack(buffer).driver_tensor.array is buffer.array


def test_pinned(device: Device) -> None:
    buffer = Buffer(DType.float32, [2, 3], device, pinned=True)
    assert (buffer.is_host, buffer.pinned) == (True, True)
    buffer.to_numpy()[...] = 1
    assert buffer.to(device).device == device
    assert Buffer.zeros([2], DType.int8, device, pinned=True).to_numpy().tolist() == [0, 0]
    assert Buffer.zeros([2], DType.int8, device, pinned=True).pinned
    assert not buffer.copy().pinned


@pytest.mark.gpu
def test_pinned_where_there_is_a_gpu() -> None:
    assert Buffer(DType.float32, [2, 3], Accelerator(), pinned=True).pinned


def test_repr(device: Device) -> None:
    text = repr(Buffer.zeros([2], DType.int32, device))
    assert text == f"maxmod.driver.Buffer(DType.int32, (2,), {device})"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ((3, 0), r"index: 3 is outside of axis 0 of size 3"),
        ((0, -3), r"index: -3 is outside of axis 1 of size 2"),
        ((np.int64(9), 0), r"index: 9 is outside of axis 0"),
        ((slice(None, None, 0), 0), r"index: axis 0: slice step cannot be zero"),
        ((slice("a", None), 0), r"index: axis 0: slice indices must be integers"),
    ],
)
def test_positions_outside_of_a_buffer_are_refused(key: object, message: str) -> None:
    buffer = Buffer.from_numpy(np.arange(6, dtype=np.int32).reshape(3, 2))
    with pytest.raises(SliceError, match=message):
        buffer[key]
    with pytest.raises(SliceError, match=message):
        buffer[key] = 1


def test_values_that_a_buffer_cannot_hold_are_refused() -> None:
    buffer = Buffer.from_numpy(np.zeros(2, np.int32))
    for value, error in ((2**31, ArgumentError), (None, OperandError), ([1, 2, 3], ArgumentError)):
        with pytest.raises(error, match=r"Buffer: store into int32\[2\]"):
            buffer[:] = value
    np.testing.assert_array_equal(buffer.to_numpy(), [0, 0])
    floats = Buffer.from_numpy(np.zeros(1, np.float32))
    floats[0] = 1e300
    assert floats.to_numpy()[0] == np.inf
