"""`QuantizedEmbedding`: a table of vectors stored as codes of 8 bits, such as the head's."""

from __future__ import annotations

from collections.abc import Iterable

from maxmod.dtype import DType
from maxmod.errors import OperandError, class_name
from maxmod.nn.module import Module
from maxmod.ops.arithmetic import mul
from maxmod.ops.elementwise import cast
from maxmod.ops.gather import gather
from maxmod.tensor import Tensor
from maxmod.values.dim import Dim


class QuantizedEmbedding(Module[[Tensor], Tensor]):
    """Looks up rows of a table of int8 codes, and multiplies each with its scale.

    `maxmod.quantize` puts one in the place of an `Embedding` that is tied to a head of 8 bits: both
    hold the same tensors, so that the table is in memory and in files once.

    Args:
        weight: Codes, int8 [vocab_size, dim].
        scales: float32 [vocab_size, 1].
        dtype: The dtype of what is looked up.

    Returns:
        Calling it with an integer tensor [...] gives [..., dim] of `dtype`.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> from maxmod.nn import QuantizedEmbedding
        >>> codes, scales = F.quantize_weight(Tensor([[127.0, 0.0], [0.0, -254.0]]))
        >>> table = QuantizedEmbedding(codes, scales)
        >>> table(Tensor([1], dtype=DType.int64)).to_numpy().tolist()
        [[0.0, -254.0]]
    """

    weight: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, scales: Tensor, dtype: DType = DType.float32) -> None:
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
            indices.shape + [dim], of `dtype`; rounded once, from float32.

        Raises:
            TypeError: If indices are not a tensor.
            ValueError: If they are floats or live on another device.
            IndexError: If, on the host, one is not below vocab_size.
        """
        if not isinstance(indices, Tensor):
            raise OperandError(
                f"QuantizedEmbedding: indices: expected a Tensor, got {class_name(indices)}. Hint: "
                "Tensor(indices, dtype=DType.int64) makes one."
            )
        codes = cast(gather(self.weight, indices, axis=0), DType.float32)
        return cast(mul(codes, gather(self.scales, indices, axis=0)), self.dtype)

    def __rich_repr__(self) -> Iterable[object]:
        yield "vocab_size", self.vocab_size
        yield "dim", self.dim
        yield "dtype", self.dtype
