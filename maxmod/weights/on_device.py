"""`OnDevice`: the tensors of a checkpoint, read straight into the memory of an accelerator."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Mapping
from typing import Any

from maxmod import backends
from maxmod.dtype import DType
from maxmod.tensor import Tensor
from maxmod.values.device import DeviceRef
from maxmod.values.tensor_type import TensorType
from maxmod.weights.mapping import Cut, Weights


class OnDevice(Weights):
    """A view of a checkpoint whose tensors are on an accelerator; made by `Checkpoint.on`.

    The bytes of a file go through small page-locked buffers, so that no tensor is on the host as a
    whole; casts and transposes of the view are done by the accelerator.

    Args:
        checkpoint: The checkpoint.
        plan: Names to indices of files and entries.
        device: The accelerator.
    """

    _plan: Mapping[str, Any]

    def __init__(self, checkpoint: Any, plan: Mapping[str, Any], device: DeviceRef) -> None:
        super().__init__(plan)
        self._checkpoint = checkpoint
        self._device = device
        self._backend = backends.get(device)
        self._uploader: Any = None

    def _load(self, name: str) -> Tensor:
        file, entry = self._plan[name]
        if self._uploader is None:
            self._uploader = self._backend.uploader(self._device.id)
        # Booleans are validated byte by byte, on the host; they are few.
        if self._uploader is None or entry.type.dtype is DType.bool:
            return self._checkpoint[name].to(self._device)
        type = self._type_of(name)
        data = self._backend.empty(type)
        if entry.nbytes:
            source = self._checkpoint.file(file)
            self._uploader.send(data, lambda into, at: source.read_part(entry, into, at))
            source.expect_unchanged()
        return Tensor.wrap(data, type)

    def _load_part(self, name: str, cut: Cut) -> Tensor:
        return self._checkpoint.part(name, cut).to(self._device)

    def _type_of(self, name: str) -> TensorType:
        stored = self._plan[name][1].type
        return TensorType.of(stored.dtype, stored.sizes, self._device)

    def source_key(self, name: str) -> tuple[Hashable, ...]:
        return self._checkpoint.source_key(name)

    def close(self) -> None:
        """Releases the page-locked buffers; the checkpoint stays open."""
        uploader, self._uploader = self._uploader, None
        if uploader is not None:
            uploader.close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # __init__ may not have come that far
            self.close()
