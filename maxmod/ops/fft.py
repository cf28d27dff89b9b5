"""Fourier transforms."""

from __future__ import annotations

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DTypeError, ShapeError
from maxmod.op import Kind, Op, op
from maxmod.op.rules import expect_int, normalize_axis
from maxmod.tensor import Tensor
from maxmod.values.array import ArrayModule
from maxmod.values.layouts import Normalization
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

__all__ = ["irfft"]


def _arguments(op: Op, input_tensor: TensorType, **attrs: object) -> Attrs:
    normalization = attrs["normalization"]
    if normalization not in list(Normalization):
        listed = ", ".join(repr(mode.value) for mode in Normalization)
        raise ArgumentError(f"irfft: normalization: expected {listed}, got {normalization!r}.")
    is_complex = bool(attrs["input_is_complex"])
    if is_complex and input_tensor.sizes[-1:] != (2,):
        raise ShapeError(
            f"irfft: input_is_complex: the last axis holds (re, im): expected the size 2, got "
            f"{input_tensor.short()}."
        )
    axis = normalize_axis("irfft", attrs["axis"], input_tensor.rank - is_complex)
    bins = input_tensor.sizes[axis]
    if not isinstance(bins, int):
        raise ShapeError(f"irfft: axis {axis} of {input_tensor.short()} must have a known size.")
    n = 2 * (bins - 1) if attrs["n"] is None else expect_int("irfft", attrs["n"], "n")
    if n < 1:
        raise ArgumentError(f"irfft: n: expected at least 1 element in the result, got {n}.")
    return {
        "n": n,
        "axis": axis,
        "normalization": str(normalization),
        "input_is_complex": is_complex,
        "buffer_size_mb": expect_int("irfft", attrs["buffer_size_mb"], "buffer_size_mb"),
    }


def _real(op: Op, input_tensor: TensorType, **attrs: object) -> TensorType:
    if input_tensor.dtype is not DType.float32:
        raise DTypeError(f"irfft: expected float32, got {input_tensor.short()}. Hint: cast it.")
    sizes = list(input_tensor.sizes[:-1] if attrs["input_is_complex"] else input_tensor.sizes)
    sizes[attrs["axis"]] = attrs["n"]
    return input_tensor.with_sizes(tuple(sizes))


@op(Kind.OPAQUE, _real, prepare=_arguments)
def irfft(
    xp: ArrayModule,
    input_tensor: Tensor,
    n: int | None = None,
    axis: int = -1,
    normalization: Normalization | str = "backward",
    input_is_complex: bool = False,
    buffer_size_mb: int = 512,
) -> Tensor:
    """Inverse Fourier transform of half a spectrum to real values.

    Args:
        input_tensor: float32 tensor: a spectrum whose imaginary part is 0; or with
            `input_is_complex` one more last axis of size 2 with (re, im).
        n: Number of values in the result; 2 * (bins - 1) if not given. The spectrum is cut off or
            filled up with zeros to n // 2 + 1 bins.
        axis: The axis of the bins, not counting the axis of (re, im).
        normalization: "backward" divides by n, "ortho" by its square root, "forward" by nothing.
        input_is_complex: Whether the last axis holds (re, im).
        buffer_size_mb: Accepted for compatibility; the library decides.

    Returns:
        float32, with n values on `axis`.

    Raises:
        ValueError: If the dtype is not float32, an argument is out of range, or the size of the
            axis is not known.
        TypeError: If the operand is not a tensor.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> spectrum = Tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]])  # one turn, (re, im)
        >>> F.round(F.irfft(spectrum, axis=0, input_is_complex=True)).to_numpy().tolist()
        [1.0, 0.0, -1.0, 0.0]
    """
    spectrum = input_tensor
    if input_is_complex:
        spectrum = xp.ascontiguousarray(input_tensor).view(np.complex64)[..., 0]
    shape = [*spectrum.shape[:axis], n, *spectrum.shape[axis + 1 :]]
    if 0 in shape or spectrum.shape[axis] == 0:
        return xp.zeros(shape, dtype=np.float32)
    return xp.fft.irfft(spectrum, n, axis, normalization).astype(np.float32, copy=False)
