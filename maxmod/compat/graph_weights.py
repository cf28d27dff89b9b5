"""`max.graph.weights`: the tensors of files by attribute and index, and as weights of a graph.

    weights = load_weights([Path("model.safetensors")])
    weight = weights.model.layers[0].mlp.weight.allocate(DType.float32)
    session.load(graph, weights_registry=weights.allocated_weights)

Files are opened by `maxmod.weights.open_checkpoint`, which is the shorter way where there is no
graph to build by hand.
"""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike

from maxmod.dtype import DType
from maxmod.errors import CheckpointError, DTypeError, ShapeError, WeightsError, did_you_mean
from maxmod.graph.values import Weight
from maxmod.tensor import Tensor
from maxmod.tensor.exchange import DLPackArray
from maxmod.values.array import HostArray
from maxmod.values.device import CPU_REF, DeviceLike
from maxmod.values.shape import Shape, ShapeLike
from maxmod.values.tensor_type import TensorType
from maxmod.weights import Checkpoint, open_checkpoint


class WeightsFormat(enum.StrEnum):
    """The format of files with weights.

    Args:
        value: The name of the format.
    """

    gguf = "gguf"
    safetensors = "safetensors"


@dataclasses.dataclass
class WeightData:
    """A tensor of a file, with its name and type; NumPy and DLPack read it.

    Args:
        data: The tensor.
        name: Its name in the file.
        dtype: Element type.
        shape: Sizes.
        quantization_encoding: None.

    Example:
        >>> import numpy as np
        >>> from maxmod import DType
        >>> from maxmod.compat.graph_weights import WeightData
        >>> data = WeightData.from_numpy(np.ones((2, 3), np.float32), "w")
        >>> data.astype(DType.bfloat16).dtype, data.shape
        (bfloat16, [Dim(2), Dim(3)])
    """

    data: DLPackArray
    name: str
    dtype: DType
    shape: Shape
    quantization_encoding: object = None

    @classmethod
    def from_numpy(cls, arr: HostArray, name: str) -> WeightData:
        """Makes the record of an array.

        Args:
            arr: The array.
            name: A name for it.

        Returns:
            A record that shares its memory.
        """
        return cls._of(Tensor.from_dlpack(np.ascontiguousarray(arr)), name)

    @classmethod
    def _of(cls, tensor: Tensor, name: str) -> WeightData:
        return cls(tensor, name, tensor.dtype, tensor.shape)

    def astype(self, dtype: DType) -> WeightData:
        """Converts the elements.

        Args:
            dtype: Element type.

        Returns:
            A new record; itself if the type is the same.
        """
        if dtype is self.dtype:
            return self
        return self._of(Tensor.from_dlpack(self.data).cast(dtype), self.name)

    def __dlpack__(self, **kwargs: object) -> object:
        return self.data.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> HostArray:
        return np.asarray(self.data, dtype=dtype, copy=copy)


# Renames and converts the weights of one format for a model.
WeightsAdapter = Callable[..., dict[str, WeightData]]


@runtime_checkable
class Weights(Protocol):
    """Tensors by name: an attribute or index adds a part to the name."""

    @property
    def name(self) -> str:
        """The name so far."""
        ...

    def items(self) -> Iterator[tuple[str, Weights]]:
        """The tensors below the name."""
        ...

    def data(self) -> WeightData:
        """The tensor of the name."""
        ...

    def exists(self) -> bool:
        """Whether there is a tensor of the name."""
        ...

    def allocate(
        self,
        dtype: DType | None = None,
        shape: ShapeLike | None = None,
        quantization_encoding: object = None,
        device: DeviceLike = CPU_REF,
    ) -> Weight:
        """The tensor of the name as a weight of a graph."""
        ...

    @property
    def allocated_weights(self) -> dict[str, Tensor]:
        """The data of the weights that were allocated, for `session.load`."""
        ...


class SafetensorWeights:
    """The tensors of safetensors files; an attribute or index adds a part to the name.

    Args:
        filepaths: The files, or one folder.

    Raises:
        CheckpointError: If a file cannot be read, or two of them have one name.
    """

    def __init__(self, filepaths: Sequence[str | os.PathLike[str]], *, prefix: str = "") -> None:
        self._files = _open(filepaths)
        self._prefix = prefix
        self._allocated: dict[str, Tensor] = {}

    def _at(self, prefix: str) -> Self:
        made = object.__new__(type(self))
        made._files, made._prefix, made._allocated = self._files, prefix, self._allocated
        return made

    @property
    def name(self) -> str:
        """The name so far, without the last dot."""
        return self._prefix.removesuffix(".")

    def __getattr__(self, part: str) -> Self:
        if part.startswith("__"):
            raise AttributeError(part)
        return self[part]

    def __getitem__(self, part: str | int) -> Self:
        return self._at(f"{self._prefix}{part}.")

    def items(self) -> Iterator[tuple[str, Self]]:
        """Iterates over the names below this one, with their weights."""
        for name in self._files:
            if name.startswith(self._prefix) or name == self.name:
                yield name, self._at(f"{name}.")

    def exists(self) -> bool:
        """Whether there is a tensor of this name."""
        return self.name in self._files

    def data(self) -> WeightData:
        """Reads the tensor of this name.

        Returns:
            A record with the tensor on the host.

        Raises:
            WeightsError: (a KeyError and ValueError) If there is none.
        """
        return WeightData._of(self._checkpoint()[self.name], self.name)

    def raw_tensor(self) -> HostArray:
        """Reads the tensor of this name as a NumPy array.

        Returns:
            An array; bfloat16 and 8-bit floats are types of ml_dtypes.

        Raises:
            WeightsError: (a KeyError and ValueError) If there is none.
        """
        return np.asarray(self._checkpoint()[self.name].driver_tensor.to_numpy())

    def allocate(
        self,
        dtype: DType | None = None,
        shape: ShapeLike | None = None,
        quantization_encoding: object = None,
        device: DeviceLike = CPU_REF,
    ) -> Weight:
        """Makes a weight of a graph and remembers its data for `allocated_weights`.

        Args:
            dtype: The dtype that is expected, if any.
            shape: The shape that is expected, if any.
            quantization_encoding: Must be None.
            device: Where the weight lives.

        Returns:
            The weight, which can be an operand of the ops of a graph.

        Raises:
            WeightsError: (a KeyError and ValueError) If there is no tensor of this name.
            ValueError: If its dtype or shape is another one.
        """
        if quantization_encoding is not None:
            raise NotImplementedError("allocate: quantization_encoding: only None is supported.")
        type = self._checkpoint().tensor_type(self.name)
        _check(self.name, type, dtype, shape)
        self._allocated[self.name] = self._files[self.name][self.name]
        return Weight(self.name, type.dtype, type.shape, device)

    @property
    def allocated_weights(self) -> dict[str, Tensor]:
        """The tensors of the weights that were allocated, by name."""
        return dict(self._allocated)

    def _checkpoint(self) -> Checkpoint:
        found = self._files.get(self.name)
        if found is None:
            hint = did_you_mean(self.name, self._files)
            raise WeightsError(f"No tensor has the name {self.name!r}.{hint}")
        return found

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {sum(1 for _ in self.items())} tensors)"


def _open(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Checkpoint]:
    """Opens files; returns the file of each tensor."""
    found: dict[str, Checkpoint] = {}
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        opened = open_checkpoint(path)
        for name in opened:
            if name in found:
                raise CheckpointError(
                    f"load_weights: {path}: tensor {name!r} is also in another file."
                )
            found[name] = opened
    return found


def _check(name: str, type: TensorType, dtype: DType | None, shape: ShapeLike | None) -> None:
    """Compares a tensor with what is expected of it."""
    if dtype is not None and type.dtype is not dtype:
        raise DTypeError(
            f"allocate: {name}: expected {dtype!r}, got {type.short()}. Hint: leave the dtype out "
            "and cast the weight."
        )
    if shape is not None and Shape(shape) != type.shape:
        raise ShapeError(f"allocate: {name}: expected shape {Shape(shape)}, got {type.short()}.")


def weights_format(weight_paths: Sequence[str | os.PathLike[str]]) -> WeightsFormat:
    """Returns the format of files by the ends of their names.

    Args:
        weight_paths: The files.

    Returns:
        The format.

    Raises:
        ValueError: If there is no file, or the ends differ or are unknown.

    Example:
        >>> from maxmod.compat.graph_weights import weights_format
        >>> weights_format(["model.safetensors"]).value
        'safetensors'
    """
    ends = {Path(path).suffix.removeprefix(".") for path in weight_paths}
    if len(ends) != 1 or not ends <= set(WeightsFormat):
        raise CheckpointError(
            f"weights_format: expected files that end in .safetensors or .gguf, got "
            f"{', '.join(map(str, weight_paths)) or 'none'}."
        )
    return WeightsFormat(ends.pop())


def load_weights(paths: Sequence[str | os.PathLike[str]]) -> SafetensorWeights:
    """Opens files with weights.

    Args:
        paths: Safetensors files.

    Returns:
        Their tensors.

    Raises:
        CheckpointError: (a ValueError) If a file is of another format or cannot be read.

    Example:
        >>> import numpy as np, tempfile, pathlib
        >>> from maxmod.compat.graph_weights import load_weights
        >>> from maxmod.weights import save_state
        >>> path = pathlib.Path(tempfile.mkdtemp(), "model.safetensors")
        >>> _ = save_state({"layers.0.weight": np.ones(2, np.float32)}, path)
        >>> weights = load_weights([path])
        >>> weights.layers[0].weight.exists(), weights.layers[0].weight.data().shape
        (True, [Dim(2)])
    """
    if weights_format(paths) is WeightsFormat.gguf:
        raise CheckpointError(
            f"load_weights: {', '.join(map(str, paths))}: GGUF files are not supported. Hint: "
            "download the safetensors files of the model."
        )
    return SafetensorWeights(paths)


__all__ = [
    "SafetensorWeights",
    "WeightData",
    "Weights",
    "WeightsAdapter",
    "WeightsFormat",
    "load_weights",
    "weights_format",
]
