"""Rotary position embeddings: rotary tables (cos and sin), and the modules that apply them.

Source: J. Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, arXiv
2104.09864.
"""

from __future__ import annotations

from collections.abc import Iterable

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, ShapeError
from maxmod.interpreters.trace import scope
from maxmod.nn.module import Module, module_dataclass
from maxmod.tensor import Tensor
from maxmod.tensor.default_context import resolve
from maxmod.values.dim import DimLike


def theta(dim: int, base: float) -> Tensor:
    """Frequencies base^(-2k / dim) for k = 0 .. dim/2 - 1, in radians per position.

    Args:
        dim: Size of a head; even.
        base: The base, often 10000.

    Returns:
        Tensor [dim / 2] of the default dtype, on the default device.

    Raises:
        ValueError: If dim is odd.
    """
    return exact_theta(dim, base).cast(resolve()[0])


def exact_theta(dim: int, base: float) -> Tensor:
    """`theta` in float64."""
    if dim % 2:
        raise ArgumentError(f"rope.theta: dim: expected an even number, got {dim}.")
    exponents = Tensor.arange(0, dim, 2, dtype=DType.float64) * (-1.0 / dim)
    return F.pow(float(base), exponents)


def embed(frequencies: Tensor, max_sequence_length: int) -> Tensor:
    """Cosine and sine of position times frequency.

    The product is computed in float64, so that late positions are as accurate as early ones.

    Args:
        frequencies: Tensor [n], in radians per position.
        max_sequence_length: Number of positions.

    Returns:
        Tensor [max_sequence_length, n, 2] of the dtype and on the device of `frequencies`.
    """
    return exact_embed(frequencies, max_sequence_length).cast(frequencies.dtype)


def exact_embed(frequencies: Tensor, max_sequence_length: int) -> Tensor:
    """`embed` in float64."""
    positions = Tensor.arange(
        0, max_sequence_length, dtype=DType.float64, device=frequencies.device
    )
    angles = F.outer(positions, frequencies.cast(DType.float64))
    return F.stack([F.cos(angles), F.sin(angles)], axis=-1)


def positional_embedding(dim: int, base: float, max_sequence_length: int) -> Tensor:
    """The table of a rotary embedding: `embed(theta(dim, base), max_sequence_length)`.

    Returns:
        Tensor [max_sequence_length, dim / 2, 2] of the default dtype, rounded once from float64.
    """
    return exact_embed(exact_theta(dim, base), max_sequence_length).cast(resolve()[0])


@module_dataclass(eq=False)
class RotaryEmbedding(Module[..., Tensor]):
    """Rotates pairs of elements by an angle that grows with the position.

    The pairs are adjacent, (x[2k], x[2k + 1]), on the last axis. Position s rotates pair k by the
    angle whose cosine and sine are weight[start_pos + s, k].

    Args:
        weight: Tensor [positions, dim / 2, 2], such as `positional_embedding` makes.

    Returns:
        Calling it with x [batch, sequence, heads, dim] gives the same shape, in the promoted dtype.

    Raises:
        ValueError: When called: if x has another rank or last axis, or the sequence goes beyond the
            last position.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import RotaryEmbedding, rope
        >>> rotary = RotaryEmbedding(rope.positional_embedding(8, 10000.0, 32))
        >>> rotary(Tensor.ones([1, 5, 2, 8]), start_pos=3).shape
        [Dim(1), Dim(5), Dim(2), Dim(8)]
    """

    weight: Tensor

    @property
    def dim(self) -> int:
        """Size of a head."""
        return 2 * int(self.weight.shape[1])

    @property
    def max_sequence_length(self) -> int:
        """Number of positions."""
        return int(self.weight.shape[0])

    def forward(self, x: Tensor, start_pos: DimLike = 0) -> Tensor:
        """Rotates the pairs of x.

        Args:
            x: Tensor [batch, sequence, heads, dim].
            start_pos: Position of the first element of the sequence: an int, or a Dim while
                tracing.

        Returns:
            The shape of x, in the promoted dtype of x and the table.

        Raises:
            ValueError: If x has another rank or last axis, or the sequence goes beyond the last
                position.
        """
        table = F.unsqueeze(self._rows(x, start_pos), 1)  # one for all heads
        with scope("rotary"):
            pairs = F.as_interleaved_complex(x)
            return F.complex_mul(pairs, table).reshape(x.shape)

    def _rows(self, x: Tensor, start_pos: DimLike) -> Tensor:
        """Returns the rows of the rotary table for the positions of x: [sequence, dim/2, 2]."""
        if x.rank != 4 or x.sizes[-1] != self.dim:
            raise ShapeError(
                f"{type(self).__name__}: expected x [batch, sequence, heads, {self.dim}], got "
                f"{x.type.short()}."
            )
        return self.weight[start_pos : start_pos + x.shape[1]]  # type: ignore[operator]

    def __rich_repr__(self) -> Iterable[object]:
        yield "dim", self.dim
        yield "max_sequence_length", self.max_sequence_length


@module_dataclass(eq=False)
class TransposedRotaryEmbedding(RotaryEmbedding):
    """`RotaryEmbedding` of pairs (x[k], x[k + dim/2]): the first half with the second, as in Llama.

    Args:
        weight: Tensor [positions, dim / 2, 2], such as `positional_embedding` makes.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import TransposedRotaryEmbedding, rope
        >>> rotary = TransposedRotaryEmbedding(rope.positional_embedding(8, 10000.0, 32))
        >>> rotary(Tensor.ones([1, 5, 2, 8])).shape
        [Dim(1), Dim(5), Dim(2), Dim(8)]
    """

    def forward(self, x: Tensor, start_pos: DimLike = 0) -> Tensor:
        """Rotates the pairs of x; see `RotaryEmbedding.forward`.

        Args:
            x: Tensor [batch, sequence, heads, dim].
            start_pos: Position of the first element of the sequence: an int, or a Dim while
                tracing.

        Returns:
            The shape of x, in the promoted dtype of x and the table.

        Raises:
            ValueError: If x has another rank or last axis, or the sequence goes beyond the last
                position.
        """
        table = F.unsqueeze(self._rows(x, start_pos), 1)
        cosine, sine = table[..., 0], table[..., 1]
        half = self.dim // 2
        with scope("rotary"):
            real, imaginary = x[..., :half], x[..., half:]
            rotated = [real * cosine - imaginary * sine, real * sine + imaginary * cosine]
            return F.concat(rotated, axis=-1)
