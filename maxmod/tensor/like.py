"""What may stand where a tensor is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from maxmod.tensor.exchange import DLPackArray
from maxmod.values.dim import Dim
from maxmod.values.plain import Scalar
from maxmod.values.shape import Shape


class HasTensorValue(Protocol):
    """An object that says which tensor it stands for."""

    def __tensorvalue__(self) -> object:
        """Returns the tensor."""
        ...


TensorLike: TypeAlias = DLPackArray | Scalar | Dim | Shape | HasTensorValue
"""A tensor, or what becomes one beside a tensor: numbers, arrays, sizes, values of a graph.

`Tensor`, `Buffer` and the arrays of NumPy, CuPy, torch and JAX all speak DLPack.
"""

StateLike: TypeAlias = Mapping[str, DLPackArray]
"""Weights by name: a checkpoint that was opened, or a mapping of tensors or arrays."""
