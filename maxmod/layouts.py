"""Names of memory layouts and of modes, as strings and as enumerations that are equal to them."""

from __future__ import annotations

import enum


class ConvInputLayout(enum.StrEnum):
    """Axes of the input and output of a convolution: batch, channels, height, width."""

    NHWC = "NHWC"
    NCHW = "NCHW"


class FilterLayout(enum.StrEnum):
    """Axes of a filter: F filters, C channels; Q, R and S are depth, height and width."""

    RSCF = "RSCF"
    QRSCF = "QRSCF"
    FCRS = "FCRS"
    FCQRS = "FCQRS"
    CFRS = "CFRS"


class InterpolationMode(enum.StrEnum):
    """How `resize` finds values between elements."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class Normalization(enum.StrEnum):
    """Which direction of a Fourier transform divides by its length; `ORTHO` divides in both."""

    BACKWARD = "backward"
    ORTHO = "ortho"
    FORWARD = "forward"
