"""Convolutions: matrix products of windows, or sums over the taps of a filter.

The ops work on channels-last operands; other layouts are permuted views. Source of the sizes and
of the transposed form: V. Dumoulin and F. Visin, A guide to convolution arithmetic for deep
learning, arXiv 1603.07285.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from maxmod.dtype import compute_dtype
from maxmod.errors import ArgumentError, ShapeError
from maxmod.interpreters.operands import promote_strong, strong
from maxmod.op import Kind, Op, function, op
from maxmod.op.rules import expect_dtype, expect_int, expect_same_dtype, is_numeric
from maxmod.ops.arithmetic import add
from maxmod.ops.elementwise import cast
from maxmod.ops.shape import permute
from maxmod.ops.window import numbers, pad_spatial, taps, window_count, windows
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import Array, ArrayModule
from maxmod.values.dim import Size, as_size
from maxmod.values.layouts import ConvInputLayout, FilterLayout
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

__all__ = ["conv2d", "conv2d_transpose", "conv3d"]

# Windows are copied in blocks of this size, which stay in a cache until they are multiplied.
BLOCK_NBYTES = 8 << 20


# ---- the ops, channels last --------------------------------------------------------------------


def _arguments(op: Op, x: TensorType, filter: TensorType, **attrs: object) -> Attrs:
    name = _expect_pair(op, x, filter)
    rank = x.rank - 2
    found: Attrs = {
        "stride": numbers(name, "stride", attrs["stride"], rank, least=1),
        "dilation": numbers(name, "dilation", attrs["dilation"], rank, least=1),
        "padding": numbers(name, "padding", attrs["padding"], 2 * rank),
    }
    if "groups" in attrs:
        found["groups"] = expect_int(name, attrs["groups"], "groups")
    if "output_paddings" in attrs:
        found["output_paddings"] = numbers(name, "output_paddings", attrs["output_paddings"], rank)
    return found


def _convolved(
    op: Op,
    x: TensorType,
    filter: TensorType,
    *,
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[int, ...],
    groups: int,
) -> TensorType:
    name = _expect_pair(op, x, filter)
    filters, per_group = filter.sizes[-1], filter.sizes[-2]
    shown = f"x is {x.short()}, filter is {filter.short()}, groups={groups}"
    if groups < 1 or (isinstance(filters, int) and filters % groups):
        raise ShapeError(f"{name}: the filters cannot be divided into groups: {shown}.")
    if x.sizes[-1] != as_size(per_group * groups):
        raise ShapeError(
            f"{name}: the channels differ: expected {per_group} * {groups}, got "
            f"{x.sizes[-1]}: {shown} (channels last)."
        )
    sizes = [
        window_count(name, size, before + after, k, s, d)
        for size, before, after, k, s, d in zip(
            x.sizes[1:-1], padding[::2], padding[1::2], filter.sizes, stride, dilation
        )
    ]
    return x.with_sizes((x.sizes[0], *sizes, filters))


def _shown_name(op: Op, x: TensorType) -> str:
    """The public name: conv2d, conv2d_transpose."""
    return op.name.replace("conv", f"conv{x.rank - 2}d", 1)


def _expect_pair(op: Op, x: TensorType, filter: TensorType) -> str:
    """Checks what every convolution needs, and returns its public name."""
    name = _shown_name(op, x)
    expect_dtype(op, is_numeric, x, filter)
    expect_same_dtype(op, x, filter)
    if x.rank < 3 or filter.rank != x.rank:
        raise ShapeError(
            f"{name}: expected x [batch, ..., channels] and a filter of the same rank, got "
            f"{x.short()} and {filter.short()}."
        )
    return name


@op(Kind.OPAQUE, _convolved, prepare=_arguments, upcasts=True)
def conv(
    xp: ArrayModule,
    x: Tensor,
    filter: Tensor,
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    groups: int,
) -> Tensor:
    """Cross-correlation of [N, *spatial, C] with [*kernel, C / groups, F]."""
    before, after = padding[::2], padding[1::2]
    kernel = filter.shape[:-2]
    counts = [
        window_count("conv", size, b + a, k, s, d)
        for size, b, a, k, s, d in zip(x.shape[1:-1], before, after, kernel, stride, dilation)
    ]
    x = pad_spatial(xp, x, before, after, 0)
    if groups > 1 and filter.shape[-2] == 1:
        return _depthwise(xp, x, filter, counts, stride, dilation)
    channels, filters = filter.shape[-2], filter.shape[-1] // groups
    pieces = []
    for group in range(groups):
        part = x[..., group * channels : (group + 1) * channels]
        matrix = filter[..., group * filters : (group + 1) * filters]
        pieces.append(_dense(xp, part, matrix, counts, stride, dilation))
    return pieces[0] if groups == 1 else xp.concatenate(pieces, axis=-1)


def _dense(
    xp: ArrayModule,
    x: Array,
    filter: Array,
    counts: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Array:
    """Windows as rows of a matrix, a block of them at a time, times the filter as a matrix."""
    view = windows(xp, x, filter.shape[:-2], counts, stride, dilation)
    width, filters = math.prod(filter.shape[:-1]), filter.shape[-1]
    matrix = filter.reshape(width, filters)
    result = xp.empty((x.shape[0], *counts, filters), dtype=x.dtype)
    line = x.shape[0] * math.prod(counts[1:])
    step = max(1, BLOCK_NBYTES // max(line * width * x.dtype.itemsize, 1))
    for start in range(0, counts[0], step):
        block = view[:, start : start + step]
        target = result[:, start : start + step]
        rows = block.reshape(block.shape[1] * line, width)
        target[...] = xp.matmul(rows, matrix).reshape(target.shape)
    return result


def _depthwise(
    xp: ArrayModule,
    x: Array,
    filter: Array,
    counts: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Array:
    """One channel in each group: a product for each tap is faster than many small matrices."""
    channels = x.shape[-1]
    weights = filter.reshape(*filter.shape[:-2], channels, -1)
    result = xp.zeros((x.shape[0], *counts, channels, weights.shape[-1]), dtype=x.dtype)
    for tap, places in taps(filter.shape[:-2], counts, stride, dilation):
        result += x[places][..., None] * weights[tap]
    return result.reshape(x.shape[0], *counts, filter.shape[-1])


def _transposed(
    op: Op,
    x: TensorType,
    filter: TensorType,
    *,
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[int, ...],
    output_paddings: tuple[int, ...],
) -> TensorType:
    name = _expect_pair(op, x, filter)
    shown = f"x is {x.short()}, filter is {filter.short()}"
    if x.sizes[-1] != filter.sizes[-1]:
        raise ShapeError(f"{name}: the channels differ: {shown} (channels last).")
    if any(extra >= s for extra, s in zip(output_paddings, stride)):
        raise ArgumentError(
            f"{name}: output_paddings must be smaller than the stride: expected less than "
            f"{list(stride)}, got {list(output_paddings)}."
        )
    sizes = _transposed_sizes(
        name, x.sizes[1:-1], filter.sizes, stride, dilation, padding, output_paddings
    )
    return x.with_sizes((x.sizes[0], *sizes, filter.sizes[-2]))


def _transposed_sizes(
    name: str,
    spatial: Sequence[Size],
    kernel: Sequence[Size],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    output_paddings: Sequence[int],
) -> list[Size]:
    sizes = []
    for axis, size in enumerate(spatial):
        crop = padding[2 * axis] + padding[2 * axis + 1]
        reach = dilation[axis] * (kernel[axis] - 1) + output_paddings[axis] + 1
        count = as_size((size - 1) * stride[axis] - crop + reach)
        if isinstance(count, int) and count < 0:
            raise ShapeError(
                f"{name}: the padding crops more than there is on spatial axis {axis}."
            )
        sizes.append(count)
    return sizes


@op(Kind.OPAQUE, _transposed, prepare=_arguments, upcasts=True)
def conv_transpose(
    xp: ArrayModule,
    x: Tensor,
    filter: Tensor,
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    output_paddings: Sequence[int],
) -> Tensor:
    """Spreads [N, *spatial, C] over larger axes with a filter [*kernel, F, C]."""
    kernel, (filters, channels) = filter.shape[:-2], filter.shape[-2:]
    spatial = x.shape[1:-1]
    sizes = _transposed_sizes(
        "conv_transpose", spatial, kernel, stride, dilation, padding, output_paddings
    )
    whole = [
        size + before + after for size, before, after in zip(sizes, padding[::2], padding[1::2])
    ]
    result = xp.zeros((x.shape[0], *whole, filters), dtype=x.dtype)
    rows = x.reshape(-1, channels) if channels else None
    if rows is not None and rows.size:
        for tap, places in taps(kernel, spatial, stride, dilation):
            part = xp.matmul(rows, filter[tap].T)
            result[places] += part.reshape(*x.shape[:-1], filters)
    inner = tuple(
        slice(before, before + size) for before, size in zip(padding[::2], sizes, strict=True)
    )
    return result[(slice(None), *inner)]


# ---- the public functions ----------------------------------------------------------------------


def _operands(
    name: str, rank: int, x: TensorLike, filter: TensorLike, bias: TensorLike | None
) -> list[Tensor]:
    """Checks ranks and promotes to one dtype."""
    given = [strong(name, value) for value in (x, filter, bias) if value is not None]
    wanted = (("x", rank), ("filter", rank), ("bias", 1))
    for (what, expected), tensor in zip(wanted, given, strict=False):
        if tensor.rank != expected:
            raise ShapeError(
                f"{name}: {what}: expected rank {expected}, got {tensor.type.short()}."
            )
    return list(promote_strong(name, given))


def _is_second(name: str, what: str, value: object, accepted: tuple[object, object]) -> bool:
    """True for the second of two layouts; raises for others."""
    if value not in accepted:
        listed = " or ".join(f"{type(a).__name__}.{a.name}" for a in accepted)
        raise ArgumentError(f"{name}: {what}: expected {listed}, got {value!r}.")
    return value == accepted[1]


def _run(
    name: str,
    primitive: Callable[..., Tensor],
    rank: int,
    operands: tuple[TensorLike, TensorLike, TensorLike | None],
    input_layout: object,
    filter_layout: object,
    filter_layouts: tuple[FilterLayout, FilterLayout],
    **attrs: object,
) -> Tensor:
    """Brings operands to channels last, computes, adds the bias, and brings the result back."""
    tensors = _operands(name, rank, *operands)
    dtype = tensors[0].dtype
    if len(tensors) == 3:  # so that narrow floats are rounded once, after the bias
        tensors = [cast(tensor, compute_dtype(dtype)) for tensor in tensors]
    x, filter = tensors[:2]
    axes = range(2, rank)
    if _is_second(name, "filter_layout", filter_layout, filter_layouts):
        filter = permute(filter, (*axes, 1, 0))
    both = (ConvInputLayout.NHWC, ConvInputLayout.NCHW)
    channels_first = _is_second(name, "input_layout", input_layout, both)
    if channels_first:
        x = permute(x, (0, *axes, 1))
    result = primitive(x, filter, **attrs)
    if len(tensors) == 3:
        bias = tensors[2]
        if bias.sizes != result.sizes[-1:]:
            raise ShapeError(
                f"{name}: bias: expected [{result.sizes[-1]}], got {bias.type.short()}."
            )
        result = cast(add(result, bias), dtype)
    return permute(result, (0, rank - 1, *range(1, rank - 1))) if channels_first else result


@function
def conv2d(
    x: Tensor,
    filter: Tensor,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    groups: int = 1,
    bias: Tensor | None = None,
    input_layout: ConvInputLayout = ConvInputLayout.NHWC,
    filter_layout: FilterLayout = FilterLayout.RSCF,
) -> Tensor:
    """Cross-correlation of images with filters.

    Each size is ``(in + before + after - dilation * (k - 1) - 1) // stride + 1``.

    Args:
        x: Tensor [N, H, W, C]; [N, C, H, W] for `ConvInputLayout.NCHW`.
        filter: Tensor [KH, KW, C / groups, F]; [F, C / groups, KH, KW] for `FilterLayout.FCRS`.
        stride: Distance between windows on each axis.
        dilation: Distance between the elements of a window.
        padding: Zeros added (before H, after H, before W, after W).
        groups: Number of groups of channels that see filters of their own.
        bias: Tensor [F], added to each position.
        input_layout: Axes of x and of the result.
        filter_layout: Axes of the filter.

    Returns:
        Tensor [N, H', W', F] ([N, F, H', W']) in the promoted dtype; narrow floats are computed
        in float32.

    Raises:
        ValueError: If ranks, channels, dtypes, devices or layouts do not fit, or no window does.
        TypeError: If an operand is not a tensor, or an argument is not a tuple of ints.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x, filters = Tensor.ones([1, 4, 4, 3]), Tensor.ones([3, 3, 3, 8])
        >>> F.conv2d(x, filters, padding=(1, 1, 1, 1)).shape
        [Dim(1), Dim(4), Dim(4), Dim(8)]
    """
    return _run(
        "conv2d",
        conv,
        4,
        (x, filter, bias),
        input_layout,
        filter_layout,
        (FilterLayout.RSCF, FilterLayout.FCRS),
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
    )


@function
def conv3d(
    x: Tensor,
    filter: Tensor,
    stride: tuple[int, int, int] = (1, 1, 1),
    dilation: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0),
    groups: int = 1,
    bias: Tensor | None = None,
    input_layout: ConvInputLayout = ConvInputLayout.NHWC,
    filter_layout: FilterLayout = FilterLayout.QRSCF,
) -> Tensor:
    """Cross-correlation of volumes with filters; see `conv2d`.

    Args:
        x: Tensor [N, D, H, W, C]; [N, C, D, H, W] for `ConvInputLayout.NCHW`.
        filter: Tensor [KD, KH, KW, C / groups, F]; [F, C / groups, KD, KH, KW] for
            `FilterLayout.FCQRS`.
        stride: Distance between windows on each axis.
        dilation: Distance between the elements of a window.
        padding: Zeros added, (before, after) for each axis.
        groups: Number of groups of channels that see filters of their own.
        bias: Tensor [F], added to each position.
        input_layout: Axes of x and of the result.
        filter_layout: Axes of the filter.

    Returns:
        Tensor [N, D', H', W', F] ([N, F, D', H', W']) in the promoted dtype.

    Raises:
        ValueError: If ranks, channels, dtypes, devices or layouts do not fit, or no window does.
        TypeError: If an operand is not a tensor, or an argument is not a tuple of ints.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x, filters = Tensor.ones([1, 5, 8, 8, 3]), Tensor.ones([3, 3, 3, 3, 6])
        >>> F.conv3d(x, filters, stride=(1, 2, 2), padding=(0, 0, 1, 1, 1, 1)).shape
        [Dim(1), Dim(3), Dim(4), Dim(4), Dim(6)]
    """
    return _run(
        "conv3d",
        conv,
        5,
        (x, filter, bias),
        input_layout,
        filter_layout,
        (FilterLayout.QRSCF, FilterLayout.FCQRS),
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
    )


@function
def conv2d_transpose(
    x: Tensor,
    filter: Tensor,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    output_paddings: tuple[int, int] = (0, 0),
    bias: Tensor | None = None,
    input_layout: ConvInputLayout = ConvInputLayout.NHWC,
    filter_layout: FilterLayout = FilterLayout.RSCF,
) -> Tensor:
    """Transposed convolution: each element spreads a filter over a larger image.

    Each size is ``(in - 1) * stride - before - after + dilation * (k - 1) + output_padding + 1``.

    Args:
        x: Tensor [N, H, W, C]; [N, C, H, W] for `ConvInputLayout.NCHW`.
        filter: Tensor [KH, KW, F, C], F first; [C, F, KH, KW] for `FilterLayout.FCRS`.
        stride: Distance between the spread filters on each axis.
        dilation: Distance between the elements of a filter.
        padding: Sizes cut off (before H, after H, before W, after W).
        output_paddings: Sizes added after H and W; smaller than the stride.
        bias: Tensor [F], added to each position.
        input_layout: Axes of x and of the result.
        filter_layout: Axes of the filter.

    Returns:
        Tensor [N, H', W', F] ([N, F, H', W']) in the promoted dtype.

    Raises:
        ValueError: If ranks, channels, dtypes, devices or layouts do not fit, an output padding
            is not smaller than the stride, or more is cut off than there is.
        TypeError: If an operand is not a tensor, or an argument is not a tuple of ints.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x, filters = Tensor.ones([1, 4, 4, 8]), Tensor.ones([2, 2, 3, 8])
        >>> F.conv2d_transpose(x, filters, stride=(2, 2)).shape  # twice the size
        [Dim(1), Dim(8), Dim(8), Dim(3)]
    """
    return _run(
        "conv2d_transpose",
        conv_transpose,
        4,
        (x, filter, bias),
        input_layout,
        filter_layout,
        (FilterLayout.RSCF, FilterLayout.FCRS),
        stride=stride,
        dilation=dilation,
        padding=padding,
        output_paddings=output_paddings,
    )
