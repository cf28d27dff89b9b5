"""The router of a mixture of experts."""

from __future__ import annotations

from maxmod import functional as F
from maxmod.errors import ArgumentError
from maxmod.nn.linear import Linear
from maxmod.nn.module import Module
from maxmod.tensor import Tensor


class MoEGate(Module[[Tensor], tuple[Tensor, Tensor]]):
    """Chooses the experts of each row: those with the highest scores of a linear layer.

    Args:
        hidden_dim: Size of the last axis of x.
        num_experts: Number of experts.
        num_experts_per_token: Number that is chosen.

    Returns:
        Calling it with x [..., hidden_dim] gives the positions of the experts, int64
        [..., num_experts_per_token], best first, and their scores in the dtype of x.

    Raises:
        ValueError: If more experts are chosen than there are.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.compat.common_layers.moe import MoEGate
        >>> experts, scores = MoEGate(4, 8, 2)(Tensor.ones([3, 4]))
        >>> experts.shape, scores.shape
        ([Dim(3), Dim(2)], [Dim(3), Dim(2)])
    """

    def __init__(self, hidden_dim: int, num_experts: int, num_experts_per_token: int) -> None:
        if not 0 < num_experts_per_token <= num_experts:
            raise ArgumentError(
                f"MoEGate: num_experts_per_token: expected 1 to {num_experts}, got "
                f"{num_experts_per_token}."
            )
        self.num_experts_per_token = num_experts_per_token
        self.gate_score = Linear(hidden_dim, num_experts, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Chooses the experts.

        Args:
            x: Tensor [..., hidden_dim].

        Returns:
            Positions and scores, [..., num_experts_per_token].

        Raises:
            ValueError: If the last axis has another size.
        """
        scores, experts = F.top_k(self.gate_score(x), self.num_experts_per_token)
        return experts, scores


__all__ = ["MoEGate"]
