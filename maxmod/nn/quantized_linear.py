"""`QuantizedLinear`: linear layers with 8-bit or 4-bit weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from maxmod.nn.linear import Linear
from maxmod.nn.module import Module
from maxmod.ops.weight_quantization import (
    group_size_of,
    quantize_weight,
    quantized_linear,
    scheme_of,
)
from maxmod.tensor import Tensor
from maxmod.values.dim import Dim, StaticDim


class QuantizedLinear(Module[[Tensor], Tensor]):
    """y = x @ w.T + bias over the last axis, where w is rounded to 8 or 4 bits.

    The state has two tensors in place of a floating-point weight, which save and load like any
    others; `F.quantize_weight` documents their format.

    Args:
        weight: Codes: int8 [out_dim, in_dim], or uint8 [out_dim, in_dim / 2] with two a byte.
        scales: For int8 bfloat16 [out_dim, in_dim / group_size], or float32 [out_dim, 1]; for int4
            uint8 [out_dim, 2 * in_dim / group_size + 1], float16 [out_dim, in_dim / group_size]
            without minimums.
        bias: Tensor [out_dim], or the number 0.

    Returns:
        Calling it with x [..., in_dim] gives [..., out_dim] in the dtype of x.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import Linear, QuantizedLinear
        >>> layer = QuantizedLinear.of(Linear(64, 10), "int4")
        >>> layer(Tensor.ones([2, 64])).shape == [2, 10]
        True
        >>> [name for name, _ in layer.parameters]
        ['weight', 'scales', 'bias']
    """

    weight: Tensor
    scales: Tensor
    bias: Tensor | Literal[0]

    def __init__(self, weight: Tensor, scales: Tensor, bias: Tensor | Literal[0] = 0) -> None:
        self.weight = weight
        self.scales = scales
        self.bias = bias

    @classmethod
    def of(cls, linear: Linear, scheme: str, group_size: int | None = None) -> QuantizedLinear:
        """Returns a layer with the weight of another one, rounded; see `F.quantize_weight`.

        A weight without data (see `F.lazy`) is rounded when its data is made. The bias is shared.

        Args:
            linear: The layer; it is not changed.
            scheme: `"int8"`, `"int4"` or `"int4_symmetric"`.
            group_size: A multiple of 32 that divides in_dim; by default 64 for int8, 32 for int4.

        Returns:
            The new layer.

        Raises:
            ValueError: If the weight holds NaN or infinity, or does not fit the groups.

        Example:
            >>> from maxmod.nn import Linear, QuantizedLinear
            >>> QuantizedLinear.of(Linear(64, 10), "int4", group_size=64).scales.shape
            [Dim(10), Dim(3)]
        """
        codes, scales = quantize_weight(linear.weight, scheme, group_size)
        made = cls(codes, scales, linear.bias)
        others = ("weight", "bias")
        vars(made).update((k, v) for k, v in vars(linear).items() if k not in others)
        return made

    @property
    def in_dim(self) -> Dim:
        """Size of the last axis of the input."""
        return StaticDim(int(self.weight.shape[1]) * (1 if self.scheme == "int8" else 2))

    @property
    def out_dim(self) -> Dim:
        """Size of the last axis of the result."""
        return self.weight.shape[0]

    @property
    def scheme(self) -> str:
        """`"int8"`, `"int4"`, or `"int4_symmetric"` for 4 bits without minimums."""
        return scheme_of(self.weight.dtype, self.scales.dtype)

    @property
    def group_size(self) -> int | None:
        """How many weights share a scale; None where all of a row do."""
        return group_size_of(self.weight.type, self.scales.type)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the map to the last axis of x.

        Args:
            x: Tensor [..., in_dim] of a float dtype.

        Returns:
            [..., out_dim] in the dtype of x.

        Raises:
            ValueError: If the last axis has another size, or the dtype is not a float.
        """
        product = quantized_linear(x, self.weight, self.scales)
        return product + self.bias if isinstance(self.bias, Tensor) else product

    def __rich_repr__(self) -> Iterable[object]:
        yield "in_dim", self.in_dim
        yield "out_dim", self.out_dim
        yield "scheme", self.scheme
        yield "group_size", self.group_size, None
        yield "bias", isinstance(self.bias, Tensor), True
