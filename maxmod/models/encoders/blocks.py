"""What encoders share: masks, attention and MLPs, and a block with the normalisation after each.

Source: A. Vaswani et al., Attention Is All You Need, arXiv 1706.03762.
"""

from __future__ import annotations

from dataclasses import dataclass

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.models.activations import ACTIVATIONS, check_activation
from maxmod.models.attention import attention, merge_heads, split_heads
from maxmod.models.packing import Packing
from maxmod.models.rotary import RotaryTable
from maxmod.nn import LayerNorm, Linear, Module
from maxmod.tensor import Tensor


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The fields of config.json that all encoders have."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.hidden_size, self.num_hidden_layers)
        sizes += (self.num_attention_heads, self.intermediate_size, self.max_positions)
        if min(sizes) < 1:
            raise ModelError("sizes must be above 0.")
        if self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"hidden_size={self.hidden_size} is not a multiple of "
                f"num_attention_heads={self.num_attention_heads}."
            )
        check_activation("hidden_act", self.hidden_act)

    @property
    def max_positions(self) -> int:
        """The longest sequence."""
        return self.max_position_embeddings

    @property
    def embedding_width(self) -> int:
        """The size of the vectors of the embeddings."""
        return self.hidden_size


def padding_mask(x: Tensor, lengths: Tensor) -> Tensor:
    """Which keys a query sees: bool [batch, 1, 1, seq], false at padding.

    Args:
        x: [batch, seq, ...]: tokens, or their vectors.
        lengths: int64 [batch]: how many tokens of each row count.
    """
    return places_of(x) < lengths.reshape([-1, 1, 1, 1])


def places_of(x: Tensor) -> Tensor:
    """0, 1, 2, ... for the places of x [batch, seq, ...]: int64 [seq]."""
    return F.arange(0, x.shape[1], dtype=DType.int64, device=x.device)


def places_and_mask(
    tokens: Tensor, lengths: Tensor, packing: Packing | None
) -> tuple[Tensor, Tensor]:
    """Where each token is in its text, and which keys a query sees.

    Args:
        tokens: int64 [batch, seq]; packed [1, tokens].
        lengths: int64 [batch]: how many tokens of each text count.
        packing: Which tokens belong together, if all of them are in one row.

    Returns:
        int64 [seq], and bool, broadcast to [batch, 1, seq, seq].
    """
    if packing is not None:
        return packing.positions(), packing.mask()
    return places_of(tokens), padding_mask(tokens, lengths)


class Attention(Module[..., Tensor]):
    """Multi-head self-attention with a residual connection and post-norm."""

    def __init__(self, config: EncoderConfig) -> None:
        self.heads = config.num_attention_heads
        self.scale = (config.hidden_size // self.heads) ** -0.5
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        """Mixes the positions of each text.

        Args:
            x: [batch, seq, width].
            mask: bool, broadcast to [batch, 1, seq, seq]: the keys that each query sees.
            bias: [1, heads, seq, seq], added to the scaled scores.
        """
        q, k, v = (split_heads(map(x), self.heads) for map in (self.query, self.key, self.value))
        mixed = merge_heads(attention(q, k, v, mask, self.scale, bias=bias))
        return self.norm(x + self.dense(mixed))


class MLP(Module[[Tensor], Tensor]):
    """Two linear layers with an activation between, a residual connection and post-norm."""

    def __init__(self, config: EncoderConfig) -> None:
        self.activation = config.hidden_act
        self.up = Linear(config.hidden_size, config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each position: x [batch, seq, width]."""
        return self.norm(x + self.down(ACTIVATIONS[self.activation](self.up(x))))


class Block(Module[..., Tensor]):
    """Attention and MLP."""

    def __init__(self, config: EncoderConfig) -> None:
        self.attention = Attention(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [batch, seq, width]; mask and bias as for `Attention`."""
        return self.mlp(self.attention(x, mask, bias))


class RotaryAttention(Module[..., Tensor]):
    """Multi-head self-attention with rotary positions.

    Args:
        width: Size of the vectors.
        heads: Number of heads.
        dim: Size of a head.
        bias: Whether its maps have a bias.
    """

    def __init__(self, width: int, heads: int, dim: int, *, bias: bool) -> None:
        self.heads = heads
        self.scale = dim**-0.5
        self.query = Linear(width, heads * dim, bias=bias)
        self.key = Linear(width, heads * dim, bias=bias)
        self.value = Linear(width, heads * dim, bias=bias)
        self.dense = Linear(heads * dim, width, bias=bias)

    def forward(self, x: Tensor, mask: Tensor, table: RotaryTable) -> Tensor:
        """x [batch, seq, width]; mask bool, broadcast to [batch, 1, seq, seq]."""
        q, k, v = (split_heads(map(x), self.heads) for map in (self.query, self.key, self.value))
        mixed = attention(table.apply(q), table.apply(k), v, mask, self.scale)
        return self.dense(merge_heads(mixed))


class GatedMLP(Module[[Tensor], Tensor]):
    """The gated MLP: `down(act(gate(x)) * up(x))`.

    Args:
        width: Size of the vectors.
        inner: Size between.
        activation: Name of the activation.
        bias: Whether its maps have a bias.

    Source: N. Shazeer, GLU Variants Improve Transformer, arXiv 2002.05202.
    """

    def __init__(self, width: int, inner: int, activation: str, *, bias: bool) -> None:
        self.activation = activation
        self.gate = Linear(width, inner, bias=bias)
        self.up = Linear(width, inner, bias=bias)
        self.down = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each position: x [batch, seq, width]."""
        return self.down(ACTIVATIONS[self.activation](self.gate(x)) * self.up(x))
