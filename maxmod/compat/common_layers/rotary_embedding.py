"""The rotary embedding that makes its own table."""

from __future__ import annotations

import dataclasses

from maxmod.errors import ArgumentError
from maxmod.nn import rope
from maxmod.nn.module import Module
from maxmod.tensor import Tensor
from maxmod.values.dim import DimLike


@dataclasses.dataclass
class _Held:
    """Keeps a module out of the parameters of the one that uses it: its table is computed."""

    rotary: rope.RotaryEmbedding


class RotaryEmbedding(Module[..., Tensor]):
    """Rotates pairs of elements by an angle that grows with the position.

    Args:
        dim: Size of the model; the heads share it unless `head_dim` is given.
        n_heads: Number of heads.
        theta: Base of the frequencies.
        max_seq_len: Number of positions.
        head_dim: Size of a head.
        interleaved: Whether pairs are adjacent, (x[2k], x[2k + 1]), or (x[k], x[k + head_dim / 2]).

    Returns:
        Calling it with x [batch, sequence, heads, head_dim] gives the same shape.

    Raises:
        ValueError: If the size of a head is not even; when called, as for `nn.RotaryEmbedding`.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.compat.common_layers.rotary_embedding import RotaryEmbedding
        >>> RotaryEmbedding(16, 2, 10000.0, 32)(Tensor.ones([1, 5, 2, 8])).shape
        [Dim(1), Dim(5), Dim(2), Dim(8)]
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        theta: float,
        max_seq_len: int,
        head_dim: int | None = None,
        interleaved: bool = True,
    ) -> None:
        size = dim // n_heads if head_dim is None else head_dim
        if size < 2 or size % 2:
            raise ArgumentError(f"RotaryEmbedding: expected an even head_dim, got {size}.")
        made = rope.RotaryEmbedding if interleaved else rope.TransposedRotaryEmbedding
        self._held = _Held(made(rope.positional_embedding(size, theta, max_seq_len)))

    @property
    def freqs_cis(self) -> Tensor:
        """The table of cosines and sines, [max_seq_len, head_dim / 2, 2]."""
        return self._held.rotary.weight

    def forward(self, x: Tensor, start_pos: DimLike = 0) -> Tensor:
        """Rotates the pairs of x.

        Args:
            x: Tensor [batch, sequence, heads, head_dim].
            start_pos: Position of the first element of the sequence.

        Returns:
            The shape of x, in the promoted dtype of x and the table.

        Raises:
            ValueError: If x has another rank or last axis, or the sequence goes beyond the last
                position.
        """
        return self._held.rotary.to(x.device)(x, start_pos)


__all__ = ["RotaryEmbedding"]
