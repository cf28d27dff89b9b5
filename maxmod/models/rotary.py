"""Rotary position embeddings at given positions.

Source: J. Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, arXiv
2104.09864.
"""

from __future__ import annotations

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.interpreters.trace import scope
from maxmod.models.rope_scaling import Rope
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray


class RotaryTable:
    """The rotary table (cos and sin) of some positions; computed once for all layers.

    Angles, cosines and sines are computed in float64 and rounded once to float32, so that late
    positions are as accurate as early ones.

    Args:
        positions: int64 [seq] or [batch, seq].
        rope: How to rotate; frequencies alone for `Rope(frequencies)`.
    """

    def __init__(self, positions: Tensor, rope: Rope | HostArray) -> None:
        rope = rope if isinstance(rope, Rope) else Rope(rope)
        self._pairs, self._interleaved = len(rope.frequencies), rope.interleaved
        row = Tensor(rope.frequencies, device=positions.device)
        angles = F.unsqueeze(F.unsqueeze(positions.cast(DType.float64), -1), -3) * row
        # The two elements of a pair lie on their own axis, [..., seq, 2, pairs] or the last one.
        axis = -1 if rope.interleaved else -2
        signs = F.arange(-1, 3, 2, dtype=DType.float32, device=row.device)
        signs = signs if rope.interleaved else signs.reshape([2, 1])
        self._cosine = _single(F.cos(angles), rope.factor, axis)
        self._sine = _single(F.sin(angles), rope.factor, axis) * signs
        self._growth: Tensor | None = None
        if rope.growth:
            steps = F.floor(positions.cast(DType.float64) / rope.step)
            growth = (F.log(steps + 1) * rope.growth + 1).cast(DType.float32)
            self._growth = F.unsqueeze(F.unsqueeze(growth, -1), -3)

    def apply_to_queries(self, x: Tensor) -> Tensor:
        """Rotates as `apply`; where queries grow with their position, makes them larger."""
        rotated = self.apply(x)
        return rotated if self._growth is None else rotated * self._growth.cast(x.dtype)

    def apply(self, x: Tensor) -> Tensor:
        """Rotates the pairs of x [batch, heads, seq, dim], which come first in each head."""
        with scope("rotary"):
            rotated = 2 * self._pairs
            if x.shape[-1] == rotated:
                return self._rotate(x)
            turned, kept = F.split(x, [rotated, int(x.shape[-1]) - rotated], axis=-1)
            return F.concat([self._rotate(turned), kept], axis=-1)

    def _rotate(self, x: Tensor) -> Tensor:
        batch, heads, seq, dim = x.shape
        shape = [self._pairs, 2] if self._interleaved else [2, self._pairs]
        pairs = x.reshape([batch, heads, seq, *shape]).cast(DType.float32)
        others = F.flip(pairs, axis=-1 if self._interleaved else -2)
        rotated = pairs * self._cosine + others * self._sine
        return rotated.reshape([batch, heads, seq, dim]).cast(x.dtype)


def _single(values: Tensor, factor: float, axis: int) -> Tensor:
    """Values times a factor, rounded to float32, with a further axis of size 1."""
    return F.unsqueeze((values if factor == 1 else values * factor).cast(DType.float32), axis)
