"""The gated MLP of transformers."""

from __future__ import annotations

from collections.abc import Callable

from maxmod.compat.common_layers.activation import activation_function_from_name
from maxmod.nn.linear import Linear
from maxmod.nn.module import Module
from maxmod.tensor import Tensor


class MLP(Module[[Tensor], Tensor]):
    """down_proj(activation(gate_proj(x)) * up_proj(x)), as in Llama.

    Args:
        hidden_dim: Size of the last axis of x and of the result.
        feed_forward_length: Size between the layers.
        bias: Whether the layers add a bias.
        activation_function: A name that `activation_function_from_name` knows.
        linear_cls: Makes the layers.

    Returns:
        Calling it with x [..., hidden_dim] gives the same shape.

    Raises:
        ValueError: For another name of an activation; when called, if sizes differ.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.compat.common_layers.mlp import MLP
        >>> MLP(4, 8)(Tensor.ones([2, 4])).shape
        [Dim(2), Dim(4)]
    """

    def __init__(
        self,
        hidden_dim: int,
        feed_forward_length: int,
        *,
        bias: bool = False,
        activation_function: str = "silu",
        linear_cls: Callable[..., Linear] = Linear,
    ) -> None:
        self.gate_proj = linear_cls(hidden_dim, feed_forward_length, bias=bias)
        self.up_proj = linear_cls(hidden_dim, feed_forward_length, bias=bias)
        self.down_proj = linear_cls(feed_forward_length, hidden_dim, bias=bias)
        self.activation_function = activation_function_from_name(activation_function)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layers.

        Args:
            x: Tensor [..., hidden_dim].

        Returns:
            The same shape.

        Raises:
            ValueError: If the last axis has another size.
        """
        return self.down_proj(self.activation_function(self.gate_proj(x)) * self.up_proj(x))


__all__ = ["MLP"]
