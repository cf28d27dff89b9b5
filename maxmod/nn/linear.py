"""`Linear`: an affine map of the last axis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from maxmod.errors import ShapeError
from maxmod.interpreters.operands import strong
from maxmod.nn.initial import initial_normal
from maxmod.nn.module import Module
from maxmod.op.spelling import explained_init
from maxmod.tensor import Tensor
from maxmod.values.dim import Dim, DimLike
from maxmod.values.shape import Sizes


def _fits(have: Sizes, want: Sizes) -> bool:
    """True unless the last sizes are known to differ; the product checks unknown ones."""
    if have == want:
        return True
    return bool(have) and not (isinstance(have[0], int) and isinstance(want[0], int))


class Linear(Module[[Tensor], Tensor]):
    """y = x @ weight.T + bias over the last axis.

    Args:
        in_dim: Size of the last axis of x.
        out_dim: Size of the last axis of the result.
        bias: Whether to add a bias.
        quant_config: Must be None.

    Attributes:
        weight: Tensor [out_dim, in_dim], of the default dtype on the default device; drawn from
            N(0, 1), without a factor for the size, since pretrained values replace it.
        bias: Tensor [out_dim], drawn likewise; without a bias the number 0, which is not a
            parameter.

    Returns:
        Calling it with x [..., in_dim] gives [..., out_dim] in the promoted dtype of x and weight.

    Raises:
        ValueError: If the last axis of x has another size, dtypes cannot be promoted, or devices
            differ.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import Linear
        >>> Linear(5, 10)(Tensor.ones([2, 5])).shape == [2, 10]
        True
    """

    weight: Tensor
    bias: Tensor | Literal[0]

    @explained_init
    def __init__(
        self,
        in_dim: DimLike,
        out_dim: DimLike,
        *,
        bias: bool = True,
        quant_config: object = None,
    ) -> None:
        if quant_config is not None:
            raise NotImplementedError("Linear: quant_config: only None is supported.")
        self.weight = initial_normal([out_dim, in_dim])
        self.bias = initial_normal([out_dim]) if bias else 0

    @property
    def in_dim(self) -> Dim:
        """Size of the last axis of the input."""
        return self.weight.shape[1]

    @property
    def out_dim(self) -> Dim:
        """Size of the last axis of the result."""
        return self.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Applies the map to the last axis of x.

        Args:
            x: Tensor [..., in_dim].

        Returns:
            [..., out_dim] in the promoted dtype of x and weight.

        Raises:
            ValueError: If the last axis has another size, dtypes cannot be promoted, or devices
                differ.
        """
        x = strong("Linear", x)
        weight = self.weight
        if not _fits(x.sizes[-1:], weight.sizes[1:]):
            raise ShapeError(
                f"{self!r}: expected x [..., {self.in_dim}], got {x.type.short()}: the size of "
                "the last axis differs."
            )
        product = x @ weight.T
        return product + self.bias if isinstance(self.bias, Tensor) else product

    def __rich_repr__(self) -> Iterable[object]:
        yield "in_dim", self.in_dim
        yield "out_dim", self.out_dim
        yield "bias", isinstance(self.bias, Tensor), True
