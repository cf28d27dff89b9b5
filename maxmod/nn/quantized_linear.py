"""`QuantizedLinear`: a linear layer with weights of 8 or 4 bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from maxmod.dtype import compute_dtype
from maxmod.errors import ArgumentError, OperandError
from maxmod.nn.linear import Linear
from maxmod.nn.module import Module
from maxmod.ops.elementwise import cast
from maxmod.ops.reduce import sum as sum_
from maxmod.ops.shape import reshape
from maxmod.ops.weight_quantization import quantize_weight, quantized_linear
from maxmod.tensor import Tensor
from maxmod.values.dim import Dim, StaticDim

# What a layer is asked for, and the scheme of `F.quantize_weight` that it is stored in.
FORMATS = {"int8": "int8", "int4": "uint4"}


def format_of(caller: str, scheme: object) -> str:
    """Returns the scheme of `F.quantize_weight` for "int8" or "int4"; refuses others."""
    if not isinstance(scheme, str) or scheme not in FORMATS:
        raise ArgumentError(f"{caller}: scheme: expected 'int8' or 'int4', got {scheme!r}.")
    return FORMATS[scheme]


class QuantizedLinear(Module[[Tensor], Tensor]):
    """y = x @ w.T + bias over the last axis, where w is rounded to 8 or 4 bits.

    The state has codes and scales in place of a floating-point weight, and for 4 bits an offset of
    each group, which save and load like any others; `F.quantize_weight` documents their format.

    Args:
        weight: Codes: int8 [out_dim, in_dim], or uint8 [out_dim, in_dim / 2] with two a byte.
        scales: float32 [out_dim, 1], or float16 [out_dim, in_dim / group_size].
        bias: Tensor [out_dim], or the number 0.
        offsets: int8 [out_dim, in_dim / group_size]; None for int8, and for 4 bits around 0.
        units: float32 [out_dim, 1]: what offsets are counted in.

    Returns:
        Calling it with x [..., in_dim] gives [..., out_dim] in the dtype of x.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import Linear, QuantizedLinear
        >>> layer = QuantizedLinear.of(Linear(64, 10), "int4")
        >>> layer(Tensor.ones([2, 64])).shape == [2, 10]
        True
        >>> [name for name, _ in layer.parameters]
        ['weight', 'scales', 'bias', 'offsets', 'units']
    """

    weight: Tensor
    scales: Tensor
    bias: Tensor | Literal[0]
    offsets: Tensor | None
    units: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        scales: Tensor,
        bias: Tensor | Literal[0] = 0,
        offsets: Tensor | None = None,
        units: Tensor | None = None,
    ) -> None:
        if (offsets is None) != (units is None):
            raise OperandError("QuantizedLinear: expected offsets and units, or none of both.")
        self.weight = weight
        self.scales = scales
        self.bias = bias
        self.offsets = offsets
        self.units = units

    @classmethod
    def of(cls, linear: Linear, scheme: str, group_size: int | None = None) -> QuantizedLinear:
        """Returns a layer with the weight of another one, rounded; see `F.quantize_weight`.

        A weight without data (see `F.lazy`) is rounded when its data is made. The bias is shared.

        Args:
            linear: The layer; it is not changed.
            scheme: `"int8"` or `"int4"`.
            group_size: For int4: a multiple of 32 that divides in_dim; 32 by default.

        Returns:
            The new layer.

        Raises:
            ValueError: If the weight holds NaN or infinity, or does not fit the groups.

        Example:
            >>> from maxmod.nn import Linear, QuantizedLinear
            >>> QuantizedLinear.of(Linear(64, 10), "int4", group_size=64).scales.shape
            [Dim(10), Dim(1)]
        """
        return cls._rounded(linear, format_of("QuantizedLinear.of", scheme), group_size)

    @classmethod
    def _rounded(cls, linear: Linear, stored: str, group_size: int | None) -> QuantizedLinear:
        """The same for a scheme of `F.quantize_weight`."""
        codes, scales, *offsets = quantize_weight(linear.weight, stored, group_size)
        made = cls(codes, scales, linear.bias, *offsets)
        others = ("weight", "bias")
        vars(made).update((k, v) for k, v in vars(linear).items() if k not in others)
        return made

    @property
    def in_dim(self) -> Dim:
        """Size of the last axis of the input."""
        return StaticDim(int(self.weight.shape[1]) * (2 if self.scheme == "int4" else 1))

    @property
    def out_dim(self) -> Dim:
        """Size of the last axis of the result."""
        return self.weight.shape[0]

    @property
    def scheme(self) -> str:
        """`"int8"` or `"int4"`."""
        return "int8" if self.weight.dtype.is_signed_integral() else "int4"

    @property
    def group_size(self) -> int | None:
        """How many weights share a scale; None for int8, with one scale per row."""
        return None if self.scheme == "int8" else int(self.in_dim) // int(self.scales.shape[1])

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
        if self.offsets is not None and self.units is not None:
            product = self._with_offsets(x, product, self.offsets, self.units)
        return product + self.bias if isinstance(self.bias, Tensor) else product

    def _with_offsets(self, x: Tensor, product: Tensor, offsets: Tensor, units: Tensor) -> Tensor:
        """Adds the part of the offsets: a product with the sums of x over groups, in float32."""
        wide = cast(x, compute_dtype(x.dtype))
        *batch, depth = x.shape
        count = int(self.scales.shape[1])
        sums = sum_(reshape(wide, (*batch, count, int(depth) // count)), axis=-1)
        sums = reshape(sums, (*batch, count))
        return cast(cast(product, wide.dtype) + quantized_linear(sums, offsets, units), x.dtype)

    def tensors(self) -> list[Tensor]:
        """Returns the tensors of the weight: codes, scales and, where it has them, offsets."""
        found = (self.weight, self.scales, self.offsets, self.units)
        return [tensor for tensor in found if tensor is not None]

    def __rich_repr__(self) -> Iterable[object]:
        yield "in_dim", self.in_dim
        yield "out_dim", self.out_dim
        yield "scheme", self.scheme
        yield "group_size", self.group_size, None
        yield "bias", isinstance(self.bias, Tensor), True
