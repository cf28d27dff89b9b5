"""`QuantizedEmbedding`: a table of vectors with 8-bit weights, those of the head."""

from __future__ import annotations

from collections.abc import Iterable

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.nn.embedding import expect_indices
from maxmod.nn.module import Module
from maxmod.tensor import Tensor
from maxmod.values.dim import Dim


class QuantizedEmbedding(Module[[Tensor], Tensor]):
    """Looks up vectors of a table that is rounded to 8 bits: codes times scales of groups.

    `maxmod.quantize` makes it of an `Embedding` whose weight is that of the head as well, so that
    the codes are stored once.

    Args:
        weight: Codes: int8 [vocab_size, dim].
        scales: Floats [vocab_size, groups], each of dim / groups codes.
        dtype: The dtype of the result.

    Returns:
        Calling it with an integer tensor gives [*indices.shape, dim] in that dtype.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> from maxmod.nn import QuantizedEmbedding
        >>> codes, scales = F.quantize_weight(Tensor([[1.0, 0.5], [0.0, -2.0]]), "int8")
        >>> table = QuantizedEmbedding(codes, scales, DType.float32)
        >>> table(Tensor([1], dtype=DType.int64)).to_numpy().tolist()
        [[0.0, -2.0]]
    """

    weight: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, scales: Tensor, dtype: DType) -> None:
        self.weight = weight
        self.scales = scales
        self.dtype = dtype

    @property
    def vocab_size(self) -> Dim:
        """Number of entries."""
        return self.weight.shape[0]

    @property
    def dim(self) -> Dim:
        """Size of an entry."""
        return self.weight.shape[1]

    def forward(self, indices: Tensor) -> Tensor:
        """Looks up an entry for each index.

        Args:
            indices: Integer tensor of any shape; negative ones count from the end.

        Returns:
            [*indices.shape, dim].

        Raises:
            TypeError: If indices are not a tensor.
            ValueError: If they are floats or live on another device.
            IndexError: If, on the host, one is not below vocab_size.
        """
        expect_indices(self, indices)
        codes = F.gather(self.weight, indices, axis=0).cast(DType.float32)
        scales = F.gather(self.scales, indices, axis=0).cast(DType.float32)
        groups = self.scales.shape[1]
        if groups == 1:
            return (codes * scales).cast(self.dtype)
        parts = codes.reshape([*indices.shape, groups, int(self.dim) // int(groups)])
        made = parts * scales.reshape([*indices.shape, groups, 1])
        return made.reshape([*indices.shape, self.dim]).cast(self.dtype)

    def __rich_repr__(self) -> Iterable[object]:
        yield "vocab_size", self.vocab_size
        yield "dim", self.dim
        yield "dtype", self.dtype
