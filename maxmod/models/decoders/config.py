"""What config.json says of most decoders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from maxmod.errors import ModelError
from maxmod.generate.kv_cache import CacheShape
from maxmod.models.activations import check_activation
from maxmod.models.attention import FULL, SLIDING, check_layer_types
from maxmod.models.rope_scaling import (
    Positions,
    Rope,
    read_rope,
    trained_length,
    warn_of_lost_theta,
)
from maxmod.values.plain import JsonObject


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The fields of config.json that most decoders have."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 2048
    original_max_position_embeddings: int | None = None
    hidden_act: str = "silu"
    tie_word_embeddings: bool = False
    sliding_window: int | None = None
    layer_types: list | None = None
    rope_theta: float | None = None
    rope_scaling: dict | None = None
    rope_parameters: dict | None = None
    partial_rotary_factor: float = 1.0

    # What a family has in place of these.
    THETA: ClassVar[float] = 10000.0
    INTERLEAVED: ClassVar[bool] = False
    PARTIAL: ClassVar[bool] = False  # whether a part of each head may be rotated

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.hidden_size, self.intermediate_size, self.num_hidden_layers)
        sizes += (self.num_attention_heads, self.kv_heads, self.dim, self.max_position_embeddings)
        sizes += (self.max_positions,)
        if min(sizes) < 1 or (self.sliding_window is not None and self.sliding_window < 1):
            raise ModelError("sizes must be above 0.")
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"hidden_size={self.hidden_size} is not a multiple of "
                f"num_attention_heads={self.num_attention_heads}."
            )
        if self.num_attention_heads % self.kv_heads:
            raise ModelError(
                f"num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.kv_heads}."
            )
        check_activation("hidden_act", self.activation)
        check_layer_types(self.layer_types, self.num_hidden_layers, self.layer_kinds)
        warn_of_lost_theta(self.rope_scaling, self.rope_parameters, self.rope_theta)
        self.ropes()

    @property
    def activation(self) -> str:
        """Name of the activation of the MLP."""
        return self.hidden_act

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """The kinds that layers may have."""
        return (FULL, SLIDING)

    @property
    def dim(self) -> int:
        """Size of a head."""
        if self.head_dim is None:
            return self.hidden_size // max(self.num_attention_heads, 1)
        return self.head_dim

    @property
    def kv_heads(self) -> int:
        """Number of heads of keys and values; each serves some heads of queries."""
        if self.num_key_value_heads is None:
            return self.num_attention_heads
        return self.num_key_value_heads

    @property
    def max_positions(self) -> int:
        """The longest sequence."""
        return trained_length(self._scaling(), self._positions())

    @property
    def cache_shape(self) -> CacheShape:
        """Size of the cache per token."""
        return CacheShape(self.num_hidden_layers, self.kv_heads, self.dim)

    def kinds(self) -> list[str]:
        """For each layer what its tokens see: all before them, or the last ones."""
        if self.layer_types is not None:
            return list(self.layer_types)
        return [FULL if self.sliding_window is None else SLIDING] * self.num_hidden_layers

    def windows(self) -> list[int | None]:
        """For each layer how many positions a token sees, itself included; None for all."""
        return [self.sliding_window if kind == SLIDING else None for kind in self.kinds()]

    def rotates(self) -> list[bool]:
        """For each layer whether its queries and keys are rotated."""
        return [True] * self.num_hidden_layers

    def ropes(self) -> dict[str, Rope]:
        """How the layers of each kind rotate.

        Raises:
            ModelError: If the fields about it are malformed or of an unknown kind.
        """
        return dict.fromkeys((FULL, SLIDING), self._rope(self._scaling()))

    def _ropes_by_kind(self, full: float, near: float) -> dict[str, Rope]:
        """How the layers rotate where `rope_parameters` has an object for each of their kinds.

        Args:
            full: The base of layers that see all tokens, to which alone `rope_scaling` belongs.
            near: The base of those that see the last ones.
        """
        given = self.rope_parameters or {}
        for kind, scaling in given.items():
            if kind not in (FULL, SLIDING) or not isinstance(scaling, dict | None):
                raise ModelError(
                    f"rope_parameters: expected an object for each of {FULL} and {SLIDING}, got "
                    f"{kind!r:.80}: {scaling!r:.80}."
                )
        far = {**(given.get(FULL) or {}), **(self.rope_scaling or {})}
        return {
            FULL: self._rope({"rope_theta": full, **far}),
            SLIDING: self._rope({"rope_theta": near, **(given.get(SLIDING) or {})}),
        }

    def _scaling(self) -> JsonObject:
        return self.rope_scaling or self.rope_parameters or {}  # as in transformers

    def _positions(self) -> Positions:
        return Positions(self.max_position_embeddings, self.original_max_position_embeddings)

    def _rope(self, scaling: JsonObject) -> Rope:
        return read_rope(
            self.dim,
            self.rope_theta,
            scaling,
            self._positions(),
            self.THETA,
            rotated=self.partial_rotary_factor if self.PARTIAL else None,
            interleaved=self.INTERLEAVED,
        )


def sliding_but(every: int, layers: int) -> Iterator[str]:
    """For each layer its kind, where one of `every` sees all tokens, the last of them."""
    return (SLIDING if (layer + 1) % every else FULL for layer in range(layers))
