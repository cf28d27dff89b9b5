"""Files of PyTorch, by the package torch where it is installed: their tensors and nothing else."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from maxmod.errors import CheckpointError, ModelError
from maxmod.log import note
from maxmod.tensor import Tensor
from maxmod.values.device import DeviceLike
from maxmod.values.tensor_type import TensorType
from maxmod.weights.foreign import foreign_page
from maxmod.weights.hub_cache import find_in_cache
from maxmod.weights.mapping import Weights
from maxmod.weights.shard_index import read_index

_Object: TypeAlias = Any  # of the package torch

FILE = "pytorch_model.bin"
INDEX = f"{FILE}.index.json"
_GLOBAL = re.compile(r"GLOBAL (\S+)")  # in a message of torch: what a pickle would call


class PyTorchWeights(Weights):
    """The tensors of a folder's `pytorch_model.bin`, or of its shards, in mapped memory.

    Args:
        path: The file or index, for messages.
        tensors: The tensors of torch.

    Attributes:
        metadata: None that these files have.
    """

    metadata: Mapping[str, str] = {}

    def __init__(self, path: Path, tensors: Mapping[str, _Object]) -> None:
        super().__init__(tensors)
        self.path = str(path)

    def _load(self, name: str) -> Tensor:
        tensor = self._plan[name]
        try:
            return Tensor.from_dlpack(tensor.contiguous())
        except Exception as error:  # what torch raises for sparse, negated or absent elements
            raise CheckpointError(
                f"{self.path}: tensor {name[:80]!r}: expected numbers in memory that an array can "
                f"share, got others: {str(error)[:200]}"
            ) from None

    def _type_of(self, name: str) -> TensorType:
        return self._load(name).type

    def source_key(self, name: str) -> tuple[Hashable, ...]:
        tensor = self._plan[name]
        layout = str((tuple(tensor.shape), tensor.stride()))
        return (self._serial, tensor.data_ptr(), layout, "" if tensor.numel() else name)

    def on(self, device: DeviceLike) -> PyTorchWeights:
        """Returns itself: tensors are read on the host, whatever the device is."""
        return self

    def __enter__(self) -> PyTorchWeights:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def open_pytorch(folder: str | os.PathLike[str]) -> PyTorchWeights | None:
    """Opens the weights of a folder that has only files of PyTorch, where torch is installed.

    They are read with `torch.load(weights_only=True)`, which runs no code of the file.

    Returns:
        The weights; None for other paths, for folders with .safetensors files, and without torch.

    Raises:
        CheckpointError: If a file is malformed or holds more than tensors, or a shard is missing.
    """
    try:
        path = Path(find_in_cache(os.fspath(folder)))
    except (ModelError, ValueError):
        return None  # open_checkpoint says what is wrong with the name
    if not path.is_dir() or importlib.util.find_spec("torch") is None:
        return None
    index = path / INDEX
    found = next((file for file in (path / FILE, index) if file.is_file()), None)
    if found is None or any(path.glob("*.safetensors")):
        return None
    note(
        f"{path.name}: {found.name} is read by torch, which takes seconds to import. Hint: "
        "maxmod.weights.save_state(weights, folder) writes it as .safetensors."
    )
    try:
        import torch
    except (ImportError, OSError) as error:
        raise CheckpointError(
            f"{found}: reading the file needs torch, which is installed and cannot be imported: "
            f"{str(error)[:200]}"
        ) from None
    names = dict.fromkeys(read_index(str(index), ".bin").values()) if found == index else [FILE]
    tensors: dict[str, _Object] = {}
    for name in names:
        tensors |= _read(torch, path / name)
    return PyTorchWeights(found, tensors)


def _expect_no_page(path: Path) -> None:
    """Refuses what stands in place of a file whose download failed."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the file: {error.strerror}.") from None
    page = foreign_page(start)
    if page is not None or not start:
        what = "an empty one" if page is None else page.what
        hint = "The download was interrupted; download it again." if page is None else page.hint
        raise CheckpointError(f"{path}: expected a file of PyTorch, got {what}. Hint: {hint}")


def _read(torch: ModuleType, path: Path) -> dict[str, _Object]:
    """Returns the tensors of one file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: the shard is missing. Hint: The download is incomplete.")
    _expect_no_page(path)
    options: dict[str, _Object] = {"map_location": "cpu", "weights_only": True}
    try:
        try:
            loaded = torch.load(path, mmap=True, **options)
        except RuntimeError:  # files of versions before 1.6 cannot be mapped
            loaded = torch.load(path, **options)
    except pickle.UnpicklingError as error:
        named = _GLOBAL.search(str(error))
        asks = f" (it asks for {named[1][:80]})" if named else ""
        raise CheckpointError(
            f"{path}: torch.load(weights_only=True) refuses the file: it is malformed, or holds "
            f"more than tensors{asks}. Nothing of it was run. Hint: save the state_dict() of the "
            "model alone."
        ) from None
    except Exception as error:  # the package raises what zipfile and torch raise
        why = str(error).strip().split("\n")[0][:200]
        raise CheckpointError(
            f"{path}: torch.load(weights_only=True) cannot read the file: {why}. Hint: the "
            "download is incomplete; download it again."
        ) from None
    inner = loaded.get("state_dict") if isinstance(loaded, dict) else None
    loaded = inner if isinstance(inner, dict) else loaded
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(
            f"{path}: expected a dict of tensors by their names, got {type(loaded).__name__}."
        )
    wrong = next((key for key, value in loaded.items() if not torch.is_tensor(value)), None)
    if wrong is not None:
        raise CheckpointError(
            f"{path}: {str(wrong)[:80]!r}: expected a tensor, got {type(loaded[wrong]).__name__}."
        )
    return {str(key): value.detach() for key, value in loaded.items()}
