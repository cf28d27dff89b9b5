"""Hyper-connections: several residual streams that a layer reads, writes and mixes."""

from __future__ import annotations

from collections.abc import Iterable

from maxmod import random
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, ShapeError
from maxmod.nn.module import Module
from maxmod.ops.activation import sigmoid
from maxmod.ops.arithmetic import mul
from maxmod.ops.elementwise import cast, rsqrt
from maxmod.ops.norm import softmax
from maxmod.ops.reduce import mean, sum
from maxmod.ops.shape import reshape, slice_axis, squeeze, unsqueeze
from maxmod.tensor import Tensor


class HyperConnection(Module[[Tensor], "tuple[Tensor, Tensor, Tensor]"]):
    """Weights with which a layer reads `hc_mult` residual streams, writes to them and mixes them.

    For streams X [n, d] of one position, with x the RMS-normalised row of all n * d elements and
    m = hc_fn x:

    - read: pre = sigmoid(scale_0 m[:n] + base[:n]) + eps; the input of the layer is pre^T X;
    - write: post = 2 sigmoid(scale_1 m[n:2n] + base[n:2n]);
    - mix: M = scale_2 m[2n:] + base[2n:] as a matrix [n, n], made doubly stochastic: softmax of the
      rows plus eps, then rows and columns are divided by their sums plus eps in turn.

    After the layer, y, the streams are post y^T + M^T X (`combine`). Everything is computed in
    float32.

    Args:
        hidden_size: d, the size of one stream.
        hc_mult: n, the number of streams.
        hc_sinkhorn_iters: How often rows and columns are normalised, at least once.
        hc_eps: Keeps sums from zero.
        rms_norm_eps: Added to the mean square.

    Source: Xie et al., mHC: Manifold-Constrained Hyper-Connections (2025), arXiv:2512.24880.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import HyperConnection, Linear
        >>> connection, layer = HyperConnection(8, 2), Linear(8, 8)
        >>> streams = Tensor.ones([5, 2, 8])
        >>> x, post, mix = connection(streams)
        >>> connection.combine(layer(x), streams, post, mix).shape == [5, 2, 8]
        True
    """

    def __init__(
        self,
        hidden_size: int,
        hc_mult: int,
        *,
        hc_sinkhorn_iters: int = 20,
        hc_eps: float = 1e-6,
        rms_norm_eps: float = 1e-6,
    ) -> None:
        if hidden_size < 1 or hc_mult < 1 or hc_sinkhorn_iters < 1:
            raise ArgumentError(
                "HyperConnection: expected positive numbers, got "
                f"hidden_size={hidden_size}, hc_mult={hc_mult}, "
                f"hc_sinkhorn_iters={hc_sinkhorn_iters}."
            )
        self.hidden_size = hidden_size
        self.hc_mult = hc_mult
        self.hc_sinkhorn_iters = hc_sinkhorn_iters
        self.hc_eps = hc_eps
        self.rms_norm_eps = rms_norm_eps
        count = 2 * hc_mult + hc_mult * hc_mult
        self.hc_fn = random.normal([count, hc_mult * hidden_size], dtype=DType.float32)
        self.hc_base = Tensor.zeros([count], dtype=DType.float32)
        self.hc_scale = Tensor.ones([3], dtype=DType.float32)

    def __rich_repr__(self) -> Iterable[object]:
        yield "hidden_size", self.hidden_size
        yield "hc_mult", self.hc_mult

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reads the streams.

        Args:
            x: Float tensor [..., hc_mult, hidden_size].

        Returns:
            The input of the layer [..., hidden_size] in the dtype of x, and the arguments of
            `combine` in float32: post [..., hc_mult] and the mixing matrix
            [..., hc_mult, hc_mult].

        Raises:
            ValueError: If the last two sizes differ.
        """
        n = self.hc_mult
        if x.rank < 2 or x.sizes[-2:] != (n, self.hidden_size):
            raise ShapeError(
                f"HyperConnection: expected [..., {n}, {self.hidden_size}], got {x.type.short()}."
            )
        lead = x.sizes[:-2]
        wide = cast(x, DType.float32)
        row = reshape(wide, (*lead, n * self.hidden_size))
        norm = rsqrt(mean(mul(row, row)) + self.rms_norm_eps)
        mixes = (row @ self.hc_fn.T) * norm
        read = sigmoid(self._part(mixes, 0, 0, n)) + self.hc_eps
        write = sigmoid(self._part(mixes, 1, n, 2 * n)) * 2
        mix = reshape(self._part(mixes, 2, 2 * n, 2 * n + n * n), (*lead, n, n))
        chosen = squeeze(unsqueeze(read, -2) @ wide, -2)
        return cast(chosen, x.dtype), write, self._doubly_stochastic(mix)

    def combine(self, y: Tensor, x: Tensor, post: Tensor, mix: Tensor) -> Tensor:
        """Writes the result of the layer to the mixed streams.

        Args:
            y: Result of the layer [..., hidden_size].
            x: The streams before it [..., hc_mult, hidden_size].
            post: From `forward`.
            mix: From `forward`.

        Returns:
            The streams after it, in the dtype of x.
        """
        written = unsqueeze(post, -1) * unsqueeze(cast(y, DType.float32), -2)
        return cast(written + mix.T @ cast(x, DType.float32), x.dtype)

    def _part(self, mixes: Tensor, which: int, start: int, stop: int) -> Tensor:
        piece = slice_axis(mixes, mixes.rank - 1, start, stop)
        return piece * self.hc_scale[which] + self.hc_base[start:stop]

    def _doubly_stochastic(self, mix: Tensor) -> Tensor:
        """Normalises columns and rows in turn (Sinkhorn and Knopp)."""
        mix = softmax(mix) + self.hc_eps
        mix = mix / (sum(mix, -2) + self.hc_eps)
        for _ in range(self.hc_sinkhorn_iters - 1):
            mix = mix / (sum(mix, -1) + self.hc_eps)
            mix = mix / (sum(mix, -2) + self.hc_eps)
        return mix
