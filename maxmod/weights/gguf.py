"""GGUF files, by the package gguf: tensors that are dequantised when they are read, and metadata.

Source: the specification of GGUF in the repository of ggml; the formulas of its types are those of
the package, which the project llama.cpp publishes.
"""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from maxmod.dtype import DType, storage_dtype
from maxmod.errors import CheckpointError
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF, DeviceLike
from maxmod.values.plain import JsonObject
from maxmod.values.tensor_type import TensorType
from maxmod.weights.mapping import Weights

_Object: TypeAlias = Any  # of the package gguf

SUFFIX = ".gguf"
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_PLAIN = {"F32": DType.float32, "F16": DType.float16, "BF16": DType.bfloat16, "F64": DType.float64}
_INTEGERS = {"I8": DType.int8, "I16": DType.int16, "I32": DType.int32, "I64": DType.int64}


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a GGUF file, by its name."""
    return os.fspath(path).lower().endswith(SUFFIX) and os.path.isfile(path)


def gguf_of(path: str | os.PathLike[str]) -> Path | None:
    """Returns the GGUF file that a path means: itself, or the only model of a folder.

    Returns:
        The file, of a model in parts the first one; None if it is another path, or a folder that
        has a config.json, no GGUF file or several models.
    """
    if is_gguf(path):
        return Path(path)
    if not os.path.isdir(path) or os.path.lexists(os.path.join(path, "config.json")):
        return None
    firsts = {parts_of(file)[0] for file in Path(path).glob(f"*{SUFFIX}") if is_gguf(file)}
    return firsts.pop() if len(firsts) == 1 else None


def _package(path: Path) -> ModuleType:
    try:
        import gguf
    except ImportError as error:
        raise CheckpointError(
            f"{path}: reading a GGUF file needs the package gguf, which cannot be imported "
            f"({error}). Hint: pip install gguf."
        ) from None
    return gguf


def _plain_reader(package: ModuleType) -> _Object:
    """Returns the reader of the package, with plain arrays: mapped ones take most of its time."""

    class Reader(package.GGUFReader):  # type: ignore[misc, name-defined]
        @property
        def data(self) -> _Object:
            return self._plain

        @data.setter
        def data(self, value: _Object) -> None:
            self._plain = np.asarray(value)

    return Reader


def parts_of(path: Path) -> list[Path]:
    """Returns the files of a model that may be split into parts, first part first.

    Raises:
        CheckpointError: If a part is missing.
    """
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    stem, _, count = match.groups()
    found = [path.with_name(f"{stem}-{n:05d}-of-{count}.gguf") for n in range(1, int(count) + 1)]
    missing = [part.name for part in found if not part.is_file()]
    if missing:
        raise CheckpointError(
            f"{path}: the model has {int(count)} parts, and {missing[0]!r} is not beside it."
        )
    return found


class GGUFWeights(Weights):
    """The tensors of a GGUF file and its metadata.

    Quantised tensors are given as float32, and dequantised each time they are read. It is a context
    manager, like a checkpoint; the file stays mapped while it is alive.

    Args:
        path: A file, or the first part of several.

    Attributes:
        path: The file, for messages.
        fields: The metadata: numbers, strings, bools and lists of them.
        kinds: How many bytes there are of each type of GGUF, the most first.

    Raises:
        CheckpointError: If the package gguf is missing, or a file is malformed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._gguf = _package(Path(path))
        self.fields: JsonObject = {}
        self.kinds: collections.Counter[str] = collections.Counter()
        plan: dict[str, _Object] = {}
        for part in parts_of(Path(path)):
            for name, tensor in self._read(part):
                if name in plan:
                    raise CheckpointError(f"{part}: tensor {name!r} is there twice.")
                plan[name] = tensor
                self.kinds[tensor.tensor_type.name] += int(tensor.n_bytes)
        super().__init__(plan)
        self._expect_known()

    def _read(self, path: Path) -> Iterator[tuple[str, _Object]]:
        size = path.stat().st_size
        try:
            with open(path, "rb") as file:
                magic = file.read(4)
            if magic != b"GGUF":
                raise CheckpointError(
                    f"{path}: not a GGUF file: expected it to begin with b'GGUF', got {magic!r}."
                )
            reader = _plain_reader(self._gguf)(path)
        except CheckpointError:
            raise
        except Exception as error:  # the package raises what NumPy and Python raise
            raise CheckpointError(
                f"{path}: the file is malformed or cut short ({size} bytes): {error}."
            ) from None
        for key, field in reader.fields.items():
            self.fields.setdefault(key, field.contents())
        for tensor in reader.tensors:
            end = int(tensor.data_offset) + int(tensor.n_bytes)
            if end > size:
                raise CheckpointError(
                    f"{path}: tensor {tensor.name!r}: expected bytes up to {end}, but the file has "
                    f"{size}. Hint: the download is incomplete; download it again."
                )
            yield tensor.name, tensor

    def _expect_known(self) -> None:
        """Refuses types that the package cannot dequantise, before anything is read."""
        first = {tensor.tensor_type: name for name, tensor in self._plan.items()}
        for kind, name in first.items():
            if kind.name in _PLAIN or kind.name in _INTEGERS:
                continue
            _, nbytes = self._gguf.GGML_QUANT_SIZES[kind]
            try:
                self._gguf.quants.dequantize(np.zeros((1, nbytes), np.uint8), kind)
            except NotImplementedError:
                raise CheckpointError(
                    f"{self.path}: tensor {name!r}: its type {kind.name} cannot be dequantised by "
                    "the installed package gguf."
                ) from None

    @property
    def is_quantised(self) -> bool:
        """Whether more than half of the bytes are those of quantised weights."""
        plain = sum(nbytes for kind, nbytes in self.kinds.items() if kind in _PLAIN)
        return 2 * plain < self.kinds.total()

    @property
    def quantised_kinds(self) -> list[str]:
        """The types of quantised weights, those with most bytes first."""
        return [kind for kind, _ in self.kinds.most_common() if kind not in {**_PLAIN, **_INTEGERS}]

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata that are short: names, numbers and the like, as text."""
        short = {k: v for k, v in self.fields.items() if not isinstance(v, list)}
        return {k: str(v) for k, v in short.items() if len(str(v)) <= 60}

    def stored(self, name: str) -> tuple[str, int]:
        """Returns the type of a tensor as GGUF calls it, such as `Q4_K`, and its bytes."""
        tensor = self._plan[name]
        return str(tensor.tensor_type.name), int(tensor.n_bytes)

    def _type_of(self, name: str) -> TensorType:
        tensor = self._plan[name]
        known = {**_PLAIN, **_INTEGERS}
        sizes = [int(size) for size in reversed(tensor.shape.tolist())]
        return TensorType(known.get(tensor.tensor_type.name, DType.float32), sizes, CPU_REF)

    def _load(self, name: str) -> Tensor:
        tensor, type = self._plan[name], self._type_of(name)
        kind = tensor.tensor_type.name
        if kind == "BF16":
            data = np.ascontiguousarray(tensor.data).view(np.uint8).reshape(-1)
            array = data.view(storage_dtype(type.dtype))
        elif kind in _PLAIN or kind in _INTEGERS:
            array = np.array(tensor.data)
        else:
            array = self._gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return Tensor.wrap(np.ascontiguousarray(array).reshape(type.sizes), type)

    def source_key(self, name: str) -> tuple[Hashable, ...]:
        """Returns where a tensor comes from, ordered as on disk."""
        return (self._serial, int(self._plan[name].data_offset), name)

    def on(self, device: DeviceLike) -> Weights:
        """Returns itself: tensors are dequantised on the host, whatever the device is."""
        return self

    def __enter__(self) -> GGUFWeights:
        return self

    def __exit__(self, *exc: object) -> None:
        pass
