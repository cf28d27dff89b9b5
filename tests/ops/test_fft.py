"""irfft: arguments, errors, devices, sizes and compiled graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_close, numbers, tensor
from ops.compiling import assert_compiles, sizes_of, type_of

from maxmod import functional as F
from maxmod.backends.devices import CPU, Device
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, AxisError, DTypeError, OperandError, ShapeError
from maxmod.tensor import Tensor
from maxmod.values.layouts import Normalization

HALF = numbers(np.random.default_rng(0), DType.float32, (3, 5, 2))
SPECTRUM = HALF[..., 0].astype(np.float64) + 1j * HALF[..., 1].astype(np.float64)


def test_round_trip(device: Device) -> None:
    """The inverse of NumPy's forward transform."""
    x = np.random.default_rng(1).normal(size=(4, 9))
    forward = np.fft.rfft(x, axis=1)
    pairs = np.stack([forward.real, forward.imag], axis=-1).astype(np.float32)
    found = F.irfft(tensor(pairs).to(device), 9, axis=1, input_is_complex=True)
    assert found.device == device
    assert_close(found.to(CPU()), x, length=9)


@pytest.mark.parametrize("mode", ["backward", "ortho", "forward", *Normalization])
def test_normalizations(mode: Any) -> None:
    found = F.irfft(tensor(HALF), normalization=mode, input_is_complex=True)
    assert_close(found, np.fft.irfft(SPECTRUM, norm=str(mode)), length=8)


def test_spectra_are_cut_off_and_filled_up() -> None:
    for n in (1, 2, 3, 8, 9, 12):
        found = F.irfft(tensor(HALF), n, input_is_complex=True)
        assert_close(found, np.fft.irfft(SPECTRUM, n), length=8)


def test_the_axis_does_not_count_the_pair() -> None:
    for axis in (0, 1, -1, -2):
        found = F.irfft(tensor(HALF), 4, axis=axis, input_is_complex=True)
        assert_close(found, np.fft.irfft(SPECTRUM, 4, axis=axis), length=8)
    with pytest.raises(AxisError, match="irfft: Invalid axis=2"):
        F.irfft(tensor(HALF), axis=2, input_is_complex=True)
    assert F.irfft(tensor(HALF), axis=2).sizes == (3, 5, 2)


def test_an_infinity_does_not_spoil_the_other_part() -> None:
    pairs = HALF.copy()
    pairs[0, 0] = [np.inf, 0]
    found = F.irfft(tensor(pairs), input_is_complex=True).to_numpy()
    assert not np.isnan(found[1:]).any()
    assert np.isposinf(found[0]).all() or np.isnan(found[0]).any()


def test_errors() -> None:
    x = Tensor.ones([3, 5])
    for dtype in (DType.float64, DType.bfloat16, DType.int32):
        with pytest.raises(DTypeError, match="irfft: expected float32, got"):
            F.irfft(x.cast(dtype))
    for n in (0, -3):
        with pytest.raises(ArgumentError, match=f"at least 1 element in the result, got {n}"):
            F.irfft(x, n)
    with pytest.raises(ArgumentError, match="at least 1 element in the result, got 0"):
        F.irfft(Tensor.ones([3, 1]))
    with pytest.raises(OperandError, match="irfft: n: expected an int"):
        F.irfft(x, 2.5)
    with pytest.raises(AxisError, match="irfft: Invalid axis=-3"):
        F.irfft(x, axis=-3)
    with pytest.raises(ArgumentError, match="normalization: expected 'backward', 'ortho'"):
        F.irfft(x, normalization="none")
    with pytest.raises(ShapeError, match="expected the size 2, got float32"):
        F.irfft(x, input_is_complex=True)
    with pytest.raises(TypeError, match="expected a Tensor, got numpy.ndarray"):
        F.irfft(HALF)


def test_symbolic_sizes() -> None:
    assert sizes_of(F.irfft, type_of("n", 5)) == ["n,8"]
    assert sizes_of(lambda x: F.irfft(x, 7, input_is_complex=True), type_of("n", 5, 2)) == ["n,7"]
    with pytest.raises(ShapeError, match="axis 1 of .* must have a known size"):
        sizes_of(F.irfft, type_of(3, "n"))


def test_compiled_with_symbolic_sizes() -> None:
    calls = [(HALF[:n],) for n in (1, 3, 0)]
    assert_compiles(
        lambda x: F.irfft(x * 2.0, input_is_complex=True) + 1.0, (type_of("n", 5, 2),), *calls
    )
