"""`open_checkpoint`: pretrained weights in a file or folder as a lazy mapping of tensors."""

from __future__ import annotations

import contextlib
import math
import mmap as mmap_module
import os
import sys
import types
from collections.abc import Hashable, Mapping

import numpy as np

from maxmod.dtype import DType, storage_dtype
from maxmod.errors import CheckpointError
from maxmod.system.files import stamp
from maxmod.system.locks import fork_safe_lock
from maxmod.tensor import Tensor
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.tensor_type import TensorType
from maxmod.weights.header import Entry, fail, quote, read_header
from maxmod.weights.mapping import Cut, Weights, aligned_empty, static_sizes, with_cut
from maxmod.weights.on_device import OnDevice
from maxmod.weights.parallel import in_parallel
from maxmod.weights.shard_index import Files, find_files, open_weights

_MAX_READ = 1 << 30  # bytes; one read call of Linux returns at most 2 GB


class WeightFile:
    """One open .safetensors file.

    It stays open, so that the data matches the header even if the file is replaced meanwhile.
    """

    def __init__(self, path: str, mmap: bool) -> None:
        self.path = path
        self._lock = fork_safe_lock()
        self._map: mmap_module.mmap | None = None
        self._fd = open_weights(path)
        try:
            self._stamp = stamp(os.fstat(self._fd))
            self.header = read_header(path, self._fd)
            if mmap and os.fstat(self._fd).st_size:
                self._map = mmap_module.mmap(self._fd, 0, access=mmap_module.ACCESS_READ)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file; mapped arrays that are in use stay valid."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._map = None

    def expect_open(self) -> None:
        """Raises `CheckpointError` if it was closed."""
        if self._fd < 0:
            raise CheckpointError(f"checkpoint: {self.path} is closed.")

    def expect_unchanged(self) -> None:
        """Raises `CheckpointError` if somebody wrote to the file since it was opened.

        Its bytes would then be read under the names of the old header; and to touch mapped memory
        behind the end of a file that was cut short ends the process.
        """
        now = stamp(os.fstat(self._fd))
        if now == self._stamp:
            return
        before, size = self._stamp[0], now[0]
        sizes = "" if size == before else f": expected {before} bytes, got {size}"
        raise fail(
            self.path,
            f"the file was changed after it was opened{sizes}",
            "Open it again; writers should make a new file and rename it, as save_state does.",
        )

    def read(self, entry: Entry) -> Tensor:
        """Reads one tensor."""
        self.expect_open()
        self.expect_unchanged()
        dtype = storage_dtype(entry.type.dtype)
        if self._map is not None and entry.start % dtype.itemsize == 0 and entry.nbytes:
            raw = np.frombuffer(self._map, np.uint8, entry.nbytes, entry.start)
            array = raw.view(dtype).reshape(static_sizes(entry.type.sizes))
        else:
            array = aligned_empty(entry.type.sizes, dtype)
            raw = array.reshape(-1).view(np.uint8)
            self._read_into(entry, raw.data)
            self.expect_unchanged()
        if entry.type.dtype is DType.bool and entry.nbytes and int(raw.max()) > 1:
            raise fail(
                self.path, f"tensor {quote(entry.name)}: expected bytes 0 or 1 for BOOL, got others"
            )
        return Tensor.wrap(array, entry.type)

    def read_cut(self, entry: Entry, cut: Cut) -> Tensor:
        """Reads a part of one tensor: ranges of the file, or pieces of rows of the mapped file."""
        self.expect_open()
        self.expect_unchanged()
        type = with_cut(entry.type, cut)
        array = aligned_empty(type.sizes, storage_dtype(type.dtype))
        before, size = static_sizes(entry.type.sizes[: cut.axis]), int(entry.type.sizes[cut.axis])
        rows = math.prod(before)
        if not rows or not size or not entry.nbytes:
            array[...] = 0
            return Tensor.wrap(array, type)
        width = entry.nbytes // rows // size  # bytes of one step along the axis
        raw = array.reshape(-1).view(np.uint8).reshape(rows, cut.size * width)
        whole = None
        if rows > 1:
            mapped = self._map or mmap_module.mmap(self._fd, 0, access=mmap_module.ACCESS_READ)
            whole = np.frombuffer(mapped, np.uint8, entry.nbytes, entry.start).reshape(rows, -1)
        at = 0
        for start, stop in ((width * start, width * stop) for start, stop in cut.ranges):
            target = raw[:, at : at + stop - start]
            if whole is None:
                self.read_part(entry, target[0].data, start)
            else:
                target[...] = whole[:, start:stop]
            at += stop - start
        raw[:, at:] = 0
        self.expect_unchanged()
        return Tensor.wrap(array, type)

    def _read_into(self, entry: Entry, target: memoryview) -> None:
        def read(start: int, stop: int) -> None:
            self.read_part(entry, target[start:stop], start)

        in_parallel(read, entry.nbytes, entry.nbytes)

    def read_part(self, entry: Entry, target: memoryview, start: int) -> None:
        """Fills memory with the bytes of a tensor from `start` on; may run on any thread."""
        done = 0
        while done < len(target):
            part = target[done : done + _MAX_READ]
            count = self._read_some(part, entry.start + start + done)
            if count == 0:
                raise fail(
                    self.path,
                    f"tensor {quote(entry.name)}: expected {entry.nbytes} bytes, got "
                    f"{start + done}",
                    "The file was truncated after it was opened.",
                )
            done += count

    def _read_some(self, target: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._fd, [target], offset)
        with self._lock:  # Windows: the position belongs to the file, not to the call
            os.lseek(self._fd, offset, os.SEEK_SET)
            data = os.read(self._fd, min(len(target), 1 << 24))
        target[: len(data)] = data
        return len(data)


class Checkpoint(Weights):
    """The tensors of a file or folder: a lazy, read-only mapping of names to host tensors.

    Made by `open_checkpoint`. It is a context manager; without one, the files are closed when it
    is collected. Reading from several threads is safe, closing meanwhile is not.

    Args:
        path: The path that was opened, for messages.
        files: The open files.
        plan: The index of the file and the entry of each tensor.

    Attributes:
        nbytes_read: Bytes of tensors, and of parts of tensors, that were read so far.

    Example:
        >>> from maxmod.models import adder_folder
        >>> from maxmod.weights import open_checkpoint
        >>> with open_checkpoint(adder_folder()) as checkpoint:
        ...     print(checkpoint.tensor_type("transformer.wte.weight").short())
        ...     x = checkpoint["transformer.wte.weight"]  # read now
        float32[13,64]
        >>> x.shape
        [Dim(13), Dim(64)]
    """

    _plan: Mapping[str, tuple[int, Entry]]

    def __init__(
        self, path: str, files: list[WeightFile], plan: dict[str, tuple[int, Entry]]
    ) -> None:
        super().__init__(plan)
        self.path = path
        self._files = files
        merged: dict[str, str] = {}
        for file in reversed(files):
            merged.update(file.header.metadata)
        self._metadata = types.MappingProxyType(merged)
        self.nbytes_read = 0

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of the files; if keys collide, the first file wins."""
        return self._metadata

    def _load(self, name: str) -> Tensor:
        file, entry = self._plan[name]
        self.nbytes_read += entry.nbytes
        return self._files[file].read(entry)

    def _load_part(self, name: str, cut: Cut) -> Tensor:
        file, entry = self._plan[name]
        if entry.type.dtype is DType.bool:  # they are validated byte by byte
            return super()._load_part(name, cut)
        found = self._files[file].read_cut(entry, cut)
        self.nbytes_read += int(found.type.nbytes)
        return found

    def _type_of(self, name: str) -> TensorType:
        return self._plan[name][1].type

    def source_key(self, name: str) -> tuple[Hashable, ...]:
        file, entry = self._plan[name]
        return (self._serial, file, entry.start, entry.nbytes, entry.name)

    def on(self, device: DeviceLike) -> Weights:
        """Returns a view whose tensors are read straight into the memory of a device.

        Views of it (`astype`, `transpose`, ...) are computed there, too, so that the host never
        holds a whole tensor. The checkpoint must stay open.

        Args:
            device: The target device; for the host, the checkpoint itself is returned.

        Returns:
            The view, or the checkpoint.

        Raises:
            TypeError: If `device` is neither a `Device` nor a `DeviceRef`.
        """
        ref = DeviceRef.from_device(device)
        return self if ref.is_cpu() else OnDevice(self, self._plan, ref)

    def file(self, number: int) -> WeightFile:
        """Returns one of the open files.

        Args:
            number: Its index.

        Returns:
            The file.

        Raises:
            CheckpointError: If they are closed.
        """
        file = self._files[number]
        file.expect_open()
        return file

    def close(self) -> None:
        """Closes the files; tensors that were read stay valid."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # __init__ may not have come that far
            self.close()

    def __repr__(self) -> str:
        files = "1 file" if len(self._files) == 1 else f"{len(self._files)} files"
        return f"Checkpoint({self.path!r}: {files}, {self._summary()})"


def open_checkpoint(path: str | os.PathLike[str], *, mmap: bool = False) -> Checkpoint:
    """Opens pretrained weights without reading them.

    Args:
        path: A .safetensors file, an index (`*.index.json`), or a folder with
            `model.safetensors`, `model.safetensors.index.json` and its shards, or a single
            other .safetensors file. Links are followed.
        mmap: False reads each tensor into separate aligned memory, front to back. True gives
            read-only views of the mapped file: nothing is copied and pages come when they are
            touched. A file that is overwritten in place later changes under the tensors that were
            read before, and to use them after it was cut short ends the process; a change before a
            tensor is read is an error, as without mapping.

    Returns:
        A `Checkpoint`, to be given to `Module.load_state_dict`.

    Raises:
        CheckpointError: If there is no such file, it is malformed in any way, an index points
            outside its folder, a shard is missing, or a tensor is in two shards. Reading a tensor
            raises it if the file was changed in place since it was opened.

    Source: the safetensors format, and the index files of Hugging Face. Names that
    `safetensors.torch.save_model` dropped because their tensor is tied to another one are found by
    the note that it leaves in the metadata.

    Example:
        >>> import tempfile, numpy as np
        >>> from maxmod.weights import open_checkpoint, save_state
        >>> folder = tempfile.mkdtemp()
        >>> _ = save_state({"weight": np.ones((2, 3), np.float32)}, folder)
        >>> with open_checkpoint(folder) as checkpoint:
        ...     checkpoint.tensor_type("weight").short(), checkpoint.nbytes()
        ('float32[2,3]', 24)
    """
    if sys.byteorder != "little":
        raise CheckpointError("open_checkpoint: big-endian machines are not supported.")
    found = find_files(path)
    files: list[WeightFile] = []
    try:
        for file in found.paths:
            files.append(WeightFile(file, mmap))
        plan = _single(files[0]) if found.shards is None else _sharded(files, found)
    except BaseException:
        for file in files:
            file.close()
        raise
    return Checkpoint(os.fspath(path), files, _with_aliases(files, plan))


def _single(file: WeightFile) -> dict[str, tuple[int, Entry]]:
    return {entry.name: (0, entry) for entry in file.header.entries}


def _sharded(files: list[WeightFile], found: Files) -> dict[str, tuple[int, Entry]]:
    """Checks that index and shards agree. Tensors that are not in the index are left out."""
    assert found.shards is not None
    plan: dict[str, tuple[int, Entry]] = {}
    for number, file in enumerate(files):
        for entry in file.header.entries:
            if entry.name not in found.shards:
                continue
            if entry.name in plan:
                first = files[plan[entry.name][0]].path
                raise fail(
                    found.index,
                    f"tensor {quote(entry.name)} is in two shards, "
                    f"{quote(os.path.basename(first))} and {quote(os.path.basename(file.path))}",
                )
            plan[entry.name] = (number, entry)
    for name, shard in found.shards.items():
        where = plan.get(name)
        if where is None or os.path.basename(files[where[0]].path) != shard:
            raise fail(found.index, f"tensor {quote(name)} is not in its shard {quote(shard)}")
    return plan


def _with_aliases(
    files: list[WeightFile], plan: dict[str, tuple[int, Entry]]
) -> dict[str, tuple[int, Entry]]:
    """Adds the aliases of tied tensors: metadata entries from an alias to a stored name."""
    aliases = {
        alias: plan[name]
        for file in files
        for alias, name in file.header.metadata.items()
        if name in plan and alias not in plan and alias != "format"
    }
    return {**plan, **aliases}
