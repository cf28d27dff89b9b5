"""Weights read straight into the memory of an accelerator, on an emulated CuPy.

Copies happen as late as they may there: when somebody waits for them. A buffer that is refilled
too early, or a result that is read too early, has wrong bytes then.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import emulated_cuda
import ml_dtypes
import numpy as np
import pytest

from maxmod import CPU, Device, DType, Tensor, backends
from maxmod.backends.cuda import upload as cuda_upload
from maxmod.errors import CheckpointError
from maxmod.models import adder_folder, load_model
from maxmod.weights import Checkpoint, concat, open_checkpoint, save_state, split, transpose

NBYTES, BUFFERS = 1024, 3


class LateEvent:
    """Work of a stream up to a moment."""

    def __init__(self, stream: LateStream) -> None:
        self.stream = stream
        self.count = stream.queued

    def synchronize(self) -> None:
        """Does the work."""
        while self.stream.done < self.count:
            self.stream.done += 1
            self.stream.work.pop(0)()


class LateStream(emulated_cuda.FakeStream):
    """A stream that does nothing before it must."""

    def __init__(self, non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        assert non_blocking
        self.work: list[Any] = []
        self.queued = self.done = 0

    def record(self) -> Any:
        """Marks the work so far."""
        return LateEvent(self)

    def synchronize(self) -> None:
        """Does all work."""
        self.record().synchronize()


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """An emulated GPU with late copies and small buffers."""
    monkeypatch.setattr(cuda_upload, "BUFFER_NBYTES", NBYTES)
    monkeypatch.setattr(cuda_upload, "BUFFERS", BUFFERS)
    with emulated_cuda.emulated_cuda() as (device, backend):
        cuda: Any = backend.cuda
        streams: dict[int, LateStream] = {}

        def make(non_blocking: bool = False) -> LateStream:
            stream = LateStream(non_blocking)
            streams[stream.ptr] = stream
            return stream

        def copy(to: int, source: int, nbytes: int, kind: int, stream: int) -> None:
            assert kind == 1
            assert 0 < nbytes <= NBYTES
            streams[stream].work.append(lambda: ctypes.memmove(to, source, nbytes))
            streams[stream].queued += 1

        def wait(self: Any, event: Any) -> None:
            if isinstance(event, LateEvent):
                event.synchronize()

        monkeypatch.setattr(cuda, "Stream", make)
        monkeypatch.setattr(cuda.runtime, "memcpyAsync", copy, raising=False)
        monkeypatch.setattr(emulated_cuda.FakeStream, "wait_event", wait)
        pinned = lambda nbytes: (ctypes.c_uint8 * nbytes)()  # noqa: E731
        monkeypatch.setattr(cuda, "alloc_pinned_memory", pinned, raising=False)
        yield device


def _state() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "large": random.standard_normal((37, 91)).astype(np.float32),  # many buffers
        "exact": random.integers(0, 256, NBYTES * BUFFERS, np.uint8),
        "half": random.standard_normal((8, 12)).astype(ml_dtypes.bfloat16),
        "narrow": random.standard_normal((6, 4)).astype(ml_dtypes.float8_e4m3fn),
        "int8": random.integers(-128, 128, (5, 7), np.int8),
        "flags": np.array([True, False, True]),
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 4), np.float32),
    }


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    """A file with tensors of several dtypes and sizes."""
    with open_checkpoint(save_state(_state(), tmp_path)) as opened:
        yield opened


def _same(found: Tensor, expected: np.ndarray) -> None:
    array = backends.get(found.type.device).to_host(found.data)
    assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    assert array.tobytes() == expected.tobytes()


def test_every_dtype(checkpoint: Checkpoint, accelerator: Device) -> None:
    view = checkpoint.on(accelerator)
    for _ in range(2):  # every buffer is used again
        for name, tensor in view.items_in_file_order():
            assert tensor.device == accelerator
            assert tensor.type == view.tensor_type(name)
            _same(tensor, _state()[name])
    assert view.nbytes() == checkpoint.nbytes()


def test_the_host_is_the_checkpoint_itself(checkpoint: Checkpoint) -> None:
    assert checkpoint.on(CPU()) is checkpoint


def test_views_are_computed_on_the_device(checkpoint: Checkpoint, accelerator: Device) -> None:
    state = _state()
    view = checkpoint.on(accelerator)
    turned = transpose(view, ["large", "half", "narrow"])
    assert turned["large"].data.flags.c_contiguous
    for name in ("large", "half", "narrow"):
        _same(turned[name], np.ascontiguousarray(state[name].T))
    cast = view.astype(DType.float16)
    _same(cast["large"], state["large"].astype(np.float16))
    assert cast["int8"].dtype is DType.int8
    parts = split(view, {"int8": ["a", "b"]}, sizes=[2, 3])
    _same(parts["b"], state["int8"][2:])
    whole = concat(parts, {"int8": ["a", "b"]})
    _same(whole["int8"], state["int8"])
    for tensor in (turned["half"], cast["large"], parts["a"], whole["int8"]):
        assert tensor.device == accelerator


def test_reads_are_shared_by_threads(
    checkpoint: Checkpoint, accelerator: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of a tensor are read by the workers, not by the caller."""
    readers = set()
    file = checkpoint.file(0)
    read = file.read_part

    def noted(*args: Any) -> None:
        readers.add(threading.current_thread().name)
        read(*args)

    monkeypatch.setattr(file, "read_part", noted)
    _same(checkpoint.on(accelerator)["large"], _state()["large"])
    assert readers
    assert all(name.startswith("maxmod-upload") for name in readers)


def test_a_file_that_was_cut_short(tmp_path: Path, accelerator: Device) -> None:
    path = Path(save_state({"a": np.ones(4000, np.float32), "b": np.ones(9, np.int8)}, tmp_path))
    with open_checkpoint(path) as checkpoint:
        view = checkpoint.on(accelerator)
        whole, facts = path.read_bytes(), path.stat()
        path.write_bytes(whole[:9000])
        with pytest.raises(CheckpointError, match="'a': expected 16000 bytes, got .* truncated"):
            _ = view["a"]
        path.write_bytes(whole)  # and nothing is stuck
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        _same(view["a"], np.ones(4000, np.float32))


def test_a_closed_checkpoint(checkpoint: Checkpoint, accelerator: Device) -> None:
    view = checkpoint.on(accelerator)
    checkpoint.close()
    with pytest.raises(CheckpointError, match="is closed"):
        _ = view["large"]


def test_threads_end(checkpoint: Checkpoint, accelerator: Device) -> None:
    view = checkpoint.on(accelerator)
    _ = view["large"]
    assert any(t.name.startswith("maxmod-upload") for t in threading.enumerate())
    del view
    assert not any(t.name.startswith("maxmod-upload") for t in threading.enumerate())


def test_a_model(accelerator: Device) -> None:
    """With transposed and tied weights."""
    model = load_model(adder_folder(), device=accelerator, dtype=DType.bfloat16)
    expected = load_model(adder_folder(), device=CPU(), dtype=DType.bfloat16)
    assert model.module.lm_head.weight is model.module.wte.weight  # type: ignore[attr-defined]
    theirs = dict(expected.module.parameters)
    for name, tensor in model.module.parameters:
        assert tensor.device == accelerator
        _same(tensor, theirs[name].data)


def test_devices_without_pinned_buffers(
    checkpoint: Checkpoint, emulated_accelerator: Device
) -> None:
    view = checkpoint.on(emulated_accelerator)
    for name, expected in _state().items():
        assert view[name].device == emulated_accelerator
        _same(view[name], expected)
