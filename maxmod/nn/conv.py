"""`Conv2d`: a convolution of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, OperandError
from maxmod.interpreters.operands import strong
from maxmod.nn.initial import initial_normal
from maxmod.nn.module import Module
from maxmod.op.spelling import explained_init
from maxmod.tensor import Tensor
from maxmod.values.device import DeviceLike
from maxmod.values.layouts import ConvInputLayout, FilterLayout


class Conv2d(Module[[Tensor], Tensor]):
    """Cross-correlation of images with filters, and a bias.

    Each size is ``(in + before + after - dilation * (kernel - 1) - 1) // stride + 1``.

    Args:
        kernel_size: Size of the filters: an int, or (height, width).
        in_channels: Channels of x.
        out_channels: Number of filters.
        dtype: Of weight and bias; the default dtype if it is not given.
        stride: Distance between windows: an int, or (height, width).
        padding: Zeros around x: an int for all sides, (height, width), or (before height, after
            height, before width, after width).
        dilation: Distance between the elements of a window: an int, or (height, width).
        num_groups: Number of channel groups, each with separate filters.
        device: Of weight and bias; the default device if it is not given.
        has_bias: Whether to add a bias.
        permute: Channels come first, as in PyTorch, else last.
        name: Kept as an attribute; no effect.

    Attributes:
        weight: Tensor [kernel height, kernel width, in_channels / num_groups, out_channels]; with
            `permute` [out_channels, in_channels / num_groups, kernel height, kernel width]. Drawn
            from N(0, 1), since pretrained values replace it.
        bias: Tensor [out_channels], drawn likewise; without a bias the number 0, which is not a
            parameter.

    Returns:
        Calling it with x [batch, height, width, channels] (with `permute` [batch, channels, height,
        width]) gives the same layout. Weight and bias are moved to the device of x first.

    Raises:
        ValueError: If the channels cannot be divided into groups; when called, if the rank or the
            channels of x differ, or no window fits.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import Conv2d
        >>> conv = Conv2d(3, 4, 8, padding=1, permute=True)
        >>> conv(Tensor.ones([1, 4, 5, 6])).shape == [1, 8, 5, 6]
        True
    """

    weight: Tensor
    bias: Tensor | Literal[0]

    @explained_init
    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        in_channels: int,
        out_channels: int,
        dtype: DType | None = None,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | tuple[int, int, int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        num_groups: int = 1,
        device: DeviceLike | None = None,
        has_bias: bool = False,
        permute: bool = False,
        name: str | None = None,
    ) -> None:
        if num_groups < 1 or in_channels % num_groups or out_channels % num_groups:
            raise ArgumentError(
                f"Conv2d: num_groups: expected a divisor of in_channels={in_channels} and "
                f"out_channels={out_channels}, got {num_groups}."
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.dtype = dtype
        self.device = device
        self.permute = permute
        self.num_groups = num_groups
        self.has_bias = has_bias
        self.name = name
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.stride = _pair("stride", stride)
        self.padding = _sides(padding)
        self.dilation = _pair("dilation", dilation)
        per_group = in_channels // num_groups
        if permute:
            shape = [out_channels, per_group, *self.kernel_size]
        else:
            shape = [*self.kernel_size, per_group, out_channels]
        self.weight = initial_normal(shape, dtype=dtype, device=device)
        self.bias = initial_normal([out_channels], dtype=dtype, device=device) if has_bias else 0

    def forward(self, x: Tensor) -> Tensor:
        """Convolves x.

        Args:
            x: Tensor [batch, height, width, in_channels]; with `permute` [batch, in_channels,
                height, width].

        Returns:
            The same layout with out_channels, in the promoted dtype of x and weight.

        Raises:
            ValueError: If the rank or the channels of x differ, or no window fits.
        """
        x = strong("Conv2d", x)
        return F.conv2d(
            x,
            self.weight.to(x.device),
            self.stride,
            self.dilation,
            self.padding,
            self.num_groups,
            self.bias.to(x.device) if isinstance(self.bias, Tensor) else None,
            ConvInputLayout.NCHW if self.permute else ConvInputLayout.NHWC,
            FilterLayout.FCRS if self.permute else FilterLayout.RSCF,
        )

    def __rich_repr__(self) -> Iterable[object]:
        yield "kernel_size", self.kernel_size
        yield "in_channels", self.in_channels
        yield "out_channels", self.out_channels
        yield "stride", self.stride, (1, 1)
        yield "padding", self.padding, (0, 0, 0, 0)
        yield "dilation", self.dilation, (1, 1)
        yield "num_groups", self.num_groups, 1
        yield "has_bias", self.has_bias, False
        yield "permute", self.permute, False


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (height, width) of an int for both or a pair."""
    if isinstance(value, int):
        return value, value
    pair = tuple(value)
    if len(pair) != 2:
        raise OperandError(f"Conv2d: {name}: expected an int or a pair, got {value!r}.")
    return pair


def _sides(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """Returns the zeros before and after the height, and before and after the width."""
    if not isinstance(padding, int) and len(padding) == 4:
        return tuple(padding)  # type: ignore[return-value]
    height, width = _pair("padding", padding)  # type: ignore[arg-type]
    return height, height, width, width
