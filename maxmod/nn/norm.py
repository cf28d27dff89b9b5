"""Normalisations: `LayerNorm`, `RMSNorm`, `GemmaRMSNorm` of the last axis, and `GroupNorm`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ShapeError
from maxmod.interpreters.operands import strong
from maxmod.nn.module import Module
from maxmod.op.spelling import explained_init
from maxmod.tensor import Tensor
from maxmod.values.dim import Dim, DimLike

_LAYER_NORM_EPS = 1e-5
_RMS_NORM_EPS = 1e-6
_GROUP_NORM_EPS = 1e-5


class LayerNorm(Module[[Tensor], Tensor]):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last axis.

    Args:
        dim: Size of the last axis; also as a list of this one size, as in PyTorch.
        eps: Added to the population variance; above 0.
        keep_dtype: Compute in the promoted dtype of x, weight and bias. Otherwise all are cast to
            float32, and the result back to the dtype of x.
        elementwise_affine: Whether the layer has a weight and a bias.
        use_bias: Whether it has a bias.

    Attributes:
        weight: Tensor [dim] of ones, or None.
        bias: Tensor [dim] of zeros, or None.

    Returns:
        Calling it with x [..., dim] gives the same shape.

    Raises:
        ValueError: If several sizes are given; when called, if the last axis of x has another size,
            or eps is not positive.

    Source: J. L. Ba, J. R. Kiros and G. E. Hinton, Layer Normalization, arXiv 1607.06450.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import LayerNorm
        >>> LayerNorm(4)(Tensor.ones([2, 4])).shape
        [Dim(2), Dim(4)]
    """

    weight: Tensor | None
    bias: Tensor | None

    @explained_init
    def __init__(
        self,
        dim: DimLike | Sequence[DimLike],
        eps: float = _LAYER_NORM_EPS,
        *,
        keep_dtype: bool = True,
        elementwise_affine: bool = True,
        use_bias: bool = True,
    ) -> None:
        self.dim = _only_size(dim)
        self.eps = eps
        self.keep_dtype = keep_dtype
        self.elementwise_affine = elementwise_affine
        self.use_bias = use_bias
        self.weight = Tensor.ones([self.dim]) if elementwise_affine else None
        self.bias = Tensor.zeros([self.dim]) if elementwise_affine and use_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last axis of x.

        Args:
            x: Tensor [..., dim] of a float dtype.

        Returns:
            The shape of x.

        Raises:
            ValueError: If the last axis has another size.
        """
        x = strong("LayerNorm", x)
        if x.rank == 0 or x.sizes[-1] != self.dim:
            raise ShapeError(
                f"LayerNorm: expected a last axis of size {self.dim}, got {x.type.short()}."
            )
        like = {"dtype": x.dtype, "device": x.device}
        weight = Tensor.ones([self.dim], **like) if self.weight is None else self.weight
        bias = Tensor.zeros([self.dim], **like) if self.bias is None else self.bias
        if self.keep_dtype:
            return F.layer_norm(x, weight, bias, self.eps)
        weight, bias = weight.cast(DType.float32), bias.cast(DType.float32)
        return F.layer_norm(x.cast(DType.float32), weight, bias, self.eps).cast(x.dtype)

    def __rich_repr__(self) -> Iterable[object]:
        yield "dim", self.dim
        yield "eps", self.eps, _LAYER_NORM_EPS


class RMSNorm(Module[[Tensor], Tensor]):
    """y = x / sqrt(mean(x^2) + eps) * weight over the last axis, as in Llama.

    The mean and the quotient are computed in float32; the quotient is rounded to the dtype of x
    before it is multiplied by the weight.

    Args:
        dim: Size of the last axis.
        eps: Added to the mean square.

    Attributes:
        weight: Tensor [dim] of ones.

    Returns:
        Calling it with x [..., dim] gives the same shape and dtype.

    Raises:
        ValueError: When called: if the last axis of x has another size.

    Source: B. Zhang and R. Sennrich, Root Mean Square Layer Normalization, arXiv 1910.07467.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import RMSNorm
        >>> RMSNorm(4)(Tensor.ones([2, 4])).to_numpy().round(3).tolist()[0]
        [1.0, 1.0, 1.0, 1.0]
    """

    weight: Tensor

    @explained_init
    def __init__(self, dim: DimLike, eps: float = _RMS_NORM_EPS) -> None:
        self.weight = Tensor.ones([dim])
        self.eps = eps

    @property
    def dim(self) -> Dim:
        """Size of the last axis."""
        return self.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last axis of x.

        Args:
            x: Tensor [..., dim] of a float dtype.

        Returns:
            The shape and dtype of x.

        Raises:
            ValueError: If the last axis has another size.
        """
        return rms_norm(x, self.weight, self.eps)

    def __rich_repr__(self) -> Iterable[object]:
        yield "dim", self.dim
        yield "eps", self.eps, _RMS_NORM_EPS


class GemmaRMSNorm(RMSNorm):
    """y = x / sqrt(mean(x^2) + eps) * (1 + weight) over the last axis, as in Gemma.

    The product is computed in float32 and rounded once to the dtype of x.

    Args:
        dim: Size of the last axis.
        eps: Added to the mean square.

    Attributes:
        weight: Tensor [dim], to which 1 is added; of ones, as pretrained values replace it.

    Returns:
        Calling it with x [..., dim] gives the same shape and dtype.

    Raises:
        ValueError: When called: if the last axis of x has another size.

    Source: Gemma Team, Gemma: Open Models Based on Gemini Research and Technology, arXiv
    2403.08295, and the weights that were published with it.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import GemmaRMSNorm
        >>> norm = GemmaRMSNorm(2)
        >>> norm(Tensor([3.0, -3.0])).to_numpy().round(3).tolist()  # the weight is 1: times 2
        [2.0, -2.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last axis of x.

        Args:
            x: Tensor [..., dim] of a float dtype.

        Returns:
            The shape and dtype of x.

        Raises:
            ValueError: If the last axis has another size.
        """
        return rms_norm(x, self.weight, self.eps, weight_offset=1.0, multiply_before_cast=True)


class GroupNorm(Module[[Tensor], Tensor]):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over groups of channels and all positions.

    Args:
        num_groups: Number of groups that the channels are split into.
        num_channels: Size of axis 1.
        eps: Added to the population variance; above 0.
        affine: Whether there are weight and bias.

    Attributes:
        weight: Tensor [num_channels] of ones, or None.
        bias: Tensor [num_channels] of zeros, or None.

    Returns:
        Calling it with x [batch, num_channels, ...] gives the same shape and dtype.

    Raises:
        ValueError: If num_groups does not divide num_channels; when called, if x has another number
            of channels or a rank below 2.

    Source: Y. Wu and K. He, Group Normalization, arXiv 1803.08494.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import GroupNorm
        >>> GroupNorm(2, 4)(Tensor.ones([1, 4, 5])).shape
        [Dim(1), Dim(4), Dim(5)]
    """

    weight: Tensor | None
    bias: Tensor | None

    @explained_init
    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = _GROUP_NORM_EPS,
        affine: bool = True,
    ) -> None:
        if num_channels % num_groups:
            raise ShapeError(
                f"GroupNorm: num_channels({num_channels}) should be divisible by "
                f"num_groups({num_groups})."
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.weight = Tensor.ones([num_channels]) if affine else None
        self.bias = Tensor.zeros([num_channels]) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each group of each sample.

        Args:
            x: Tensor [batch, num_channels, ...] of a float dtype.

        Returns:
            The shape and dtype of x.

        Raises:
            ValueError: If x has another number of channels or a rank below 2.
        """
        x = strong("GroupNorm", x)
        if x.rank < 2 or x.sizes[1] != self.num_channels:
            raise ShapeError(
                f"GroupNorm: expected [batch, {self.num_channels}, ...], got {x.type.short()}."
            )
        like = {"dtype": x.dtype, "device": x.device}
        weight = Tensor.ones([self.num_channels], **like) if self.weight is None else self.weight
        bias = Tensor.zeros([self.num_channels], **like) if self.bias is None else self.bias
        return F.group_norm(x, weight, bias, self.num_groups, self.eps)

    def __rich_repr__(self) -> Iterable[object]:
        yield "num_groups", self.num_groups
        yield "num_channels", self.num_channels
        yield "eps", self.eps, _GROUP_NORM_EPS
        yield "affine", self.affine, True


def _only_size(dim: DimLike | Sequence[DimLike]) -> int:
    """Returns the size of the last axis, given as a number or as a list of one."""
    if not isinstance(dim, (list, tuple)):
        return int(dim)  # type: ignore[arg-type]
    if len(dim) != 1:
        raise ShapeError(
            f"LayerNorm: expected the size of the last axis, got {list(dim)}. Hint: F.flatten(x, "
            f"{-len(dim)}) makes one axis of several, LayerNorm(math.prod({list(dim)})) its norm."
        )
    return int(dim[0])


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    weight_offset: float = 0.0,
    multiply_before_cast: bool = False,
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * (weight + weight_offset) over the last axis.

    Args:
        x: Tensor [..., n] of a float dtype.
        weight: Tensor [n].
        eps: Added to the mean square.
        weight_offset: Added to the weight.
        multiply_before_cast: Multiply in float32 (Gemma) instead of after rounding (Llama).

    Returns:
        The shape and dtype of x.

    Raises:
        ValueError: If the weight does not have one value for each element of the last axis.
    """
    if weight.sizes != x.sizes[-1:]:
        raise ShapeError(
            f"RMSNorm: Could not apply weight shape {weight.shape} to input shape {x.shape}: "
            "expected one value for each element of the last axis."
        )
    # In float32, the weight is used unrounded; otherwise it is rounded to the dtype of x.
    dtype = DType.float32 if multiply_before_cast and weight.dtype is not x.dtype else x.dtype
    result = F.rms_norm(
        x.cast(dtype),
        weight.cast(dtype),
        eps,
        weight_offset=weight_offset,
        multiply_before_cast=multiply_before_cast,
    )
    return result.cast(x.dtype)
