"""Names of memory layouts and modes: enumerations whose members equal their strings."""

from __future__ import annotations

import enum


class ConvInputLayout(enum.StrEnum):
    """Axes of the input and output of a convolution: batch, channels, height, width.

    `NHWC` has the channels last, `NCHW` first, as in PyTorch. Members are equal to their names.

    Args:
        value: The name of a member.

    Example:
        >>> from maxmod.graph import ConvInputLayout
        >>> ConvInputLayout("NHWC") == "NHWC"
        True
    """

    NHWC = "NHWC"
    NCHW = "NCHW"


class FilterLayout(enum.StrEnum):
    """Axes of a filter: F filters, C channels; Q, R and S are depth, height and width.

    `RSCF` and `QRSCF` have the filters last, `FCRS` and `FCQRS` first, as in PyTorch; `CFRS` is
    declared but not supported. Members are equal to their names.

    Args:
        value: The name of a member.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> from maxmod.graph import FilterLayout
        >>> image, filters = Tensor.ones([1, 4, 4, 3]), Tensor.ones([8, 3, 2, 2])
        >>> F.conv2d(image, filters, filter_layout=FilterLayout.FCRS).shape
        [Dim(1), Dim(3), Dim(3), Dim(8)]
    """

    RSCF = "RSCF"
    QRSCF = "QRSCF"
    FCRS = "FCRS"
    FCQRS = "FCQRS"
    CFRS = "CFRS"


class InterpolationMode(enum.StrEnum):
    """How `resize` interpolates: `NEAREST`, `BILINEAR` or `BICUBIC`.

    Members are equal to their names in lower case.

    Args:
        value: The name of a member in lower case.

    Example:
        >>> from maxmod.graph import InterpolationMode
        >>> [mode.value for mode in InterpolationMode]
        ['nearest', 'bilinear', 'bicubic']
    """

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class Normalization(enum.StrEnum):
    """Which direction of a Fourier transform divides by its length; `ORTHO` divides in both."""

    BACKWARD = "backward"
    ORTHO = "ortho"
    FORWARD = "forward"
