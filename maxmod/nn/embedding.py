"""`Embedding`: a table of vectors, looked up by position."""

from __future__ import annotations

from collections.abc import Iterable

from maxmod import functional as F
from maxmod.errors import OperandError, class_name
from maxmod.nn.initial import initial_normal
from maxmod.nn.module import Module
from maxmod.op.spelling import explained_init
from maxmod.tensor import Tensor
from maxmod.values.dim import Dim, DimLike
from maxmod.values.shape import ShapeLike


class Embedding(Module[[Tensor], Tensor]):
    """Looks up entries of a table: indices [...] give [..., *dims].

    Args:
        vocab_size: Number of entries.
        dim: Size of an entry that is a vector.
        dims: Shape of an entry; either this or `dim` is given.

    Attributes:
        weight: Tensor [vocab_size, *dims], of the default dtype on the default device, drawn from
            N(0, 1).

    Returns:
        Calling it with an integer tensor gives indices.shape + dims, in the dtype of the weight.

    Raises:
        TypeError: If both or neither of `dim` and `dims` are given, or indices are not a tensor.
        ValueError: If indices are floats or live on another device.
        IndexError: If an index is not below vocab_size; on the host only. Negative indices count
            from the end.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod.nn import Embedding
        >>> tokens = Tensor.ones([10], dtype=DType.uint64)
        >>> Embedding(1000, dims=[16, 128])(tokens).shape == [10, 16, 128]
        True
    """

    weight: Tensor

    @explained_init
    def __init__(
        self,
        vocab_size: DimLike,
        *,
        dim: DimLike | None = None,
        dims: ShapeLike | None = None,
    ) -> None:
        if dim is None and dims is not None:
            entry = tuple(dims)
        elif dim is not None and dims is None:
            entry = (dim,)
        else:
            raise OperandError("Embedding: Must specify exactly one of `dim` or `dims`.")
        self.weight = initial_normal([vocab_size, *entry])

    @property
    def vocab_size(self) -> Dim:
        """Number of entries."""
        return self.weight.shape[0]

    @property
    def dim(self) -> Dim:
        """Size of an entry that is a vector.

        Raises:
            TypeError: If entries are not vectors.
        """
        if self.weight.rank != 2:
            raise OperandError(
                "Embedding: Multi-dimensional embeddings must use `dims`: the entries have shape "
                f"{self.dims}."
            )
        return self.weight.shape[1]

    @property
    def dims(self) -> list[Dim]:
        """Shape of an entry."""
        return list(self.weight.shape[1:])

    def forward(self, indices: Tensor) -> Tensor:
        """Looks up an entry for each index.

        Args:
            indices: Integer tensor of any shape; negative ones count from the end.

        Returns:
            indices.shape + dims, in the dtype of the weight.

        Raises:
            TypeError: If indices are not a tensor.
            ValueError: If they are floats or live on another device.
            IndexError: If, on the host, one is not below vocab_size.
        """
        expect_indices(self, indices)
        return F.gather(self.weight, indices, axis=0)

    def __rich_repr__(self) -> Iterable[object]:
        yield "vocab_size", self.vocab_size
        if self.weight.rank == 2:
            yield "dim", self.dim
        else:
            yield "dims", self.dims


def expect_indices(table: Module, indices: object) -> None:
    """Raises TypeError unless indices of a table are a tensor."""
    if not isinstance(indices, Tensor):
        raise OperandError(
            f"{type(table).__name__}: indices: expected a Tensor, got {class_name(indices)}. Hint: "
            "Tensor(indices, dtype=DType.int64) makes one."
        )
