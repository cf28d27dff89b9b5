"""DType: members, facts, conversions."""

from __future__ import annotations

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

from maxmod import DType
from maxmod.dtype import can_hold, compute_dtype, exact_integers, short_name, storage_dtype
from maxmod.errors import DTypeError

FLOAT8 = [d for d in DType if d.name.startswith("float8")]


@pytest.mark.parametrize(
    ("dtype", "value", "size", "short"),
    [
        (DType.bool, 1, 1, "i1"),
        (DType.int8, 135, 1, "si8"),
        (DType.int64, 141, 8, "si64"),
        (DType.uint16, 136, 2, "ui16"),
        (DType.float16, 79, 2, "f16"),
        (DType.bfloat16, 80, 2, "bf16"),
        (DType.float32, 81, 4, "f32"),
        (DType.float64, 82, 8, "f64"),
        (DType.float8_e4m3fn, 75, 1, "f8e4m3fn"),
    ],
)
def test_members(dtype, value, size, short):
    assert DType(value) is dtype
    assert DType(short) is dtype
    assert short_name(dtype) == short
    assert dtype.size_in_bytes == dtype.align == size
    assert dtype.size_in_bits == 8 * size


def test_text():
    assert str(DType.float32) == f"{DType.float32}" == "DType.float32"
    assert repr(DType.float32) == "float32"


def test_unknown_members():
    with pytest.raises(KeyError):
        DType("f33")
    with pytest.raises(ValueError):
        DType(9999)


def test_kinds():
    assert not any(getattr(DType.bool, f"is_{k}")() for k in ("integral", "float", "half"))
    assert DType.int8.is_signed_integral()
    assert DType.uint8.is_unsigned_integral()
    assert not DType.uint8.is_signed_integral()
    assert [d for d in DType if d.is_half()] == [DType.float16, DType.bfloat16]
    assert [d for d in DType if d.is_float8()] == FLOAT8
    assert DType.float4_e2m1fn.is_float()
    assert DType.float4_e2m1fn.size_in_bytes == 1


@pytest.mark.parametrize("dtype", [d for d in DType if d.size_in_bits >= 8])
def test_storage_round_trip(dtype):
    storage = storage_dtype(dtype)
    assert storage.itemsize == dtype.size_in_bytes
    assert DType.from_numpy(storage) is dtype
    assert DType.from_numpy(storage.type) is dtype


def test_to_numpy():
    assert DType.int16.to_numpy() == np.dtype(np.int16)
    assert DType.bool.to_numpy() == np.dtype(bool)
    assert all(d.to_numpy() == np.dtype(np.uint8) for d in FLOAT8)
    for dtype in (DType.bfloat16, DType.float4_e2m1fn, DType.float6_e2m3fn):
        with pytest.raises(ValueError, match="NumPy has no dtype"):
            dtype.to_numpy()


def test_from_numpy_refuses():
    with pytest.raises(ValueError, match="string 'float32'"):
        DType.from_numpy("float32")
    for other in (np.dtype("U4"), np.complex64, object, None.__class__):
        with pytest.raises(DTypeError):
            DType.from_numpy(other)
    assert DType.from_numpy(ml_dtypes.bfloat16) is DType.bfloat16


def test_finfo():
    info = DType.finfo(DType.bfloat16)
    assert (info.bits, float(info.eps)) == (16, 2.0**-7)
    assert float(DType.finfo(DType.float8_e4m3fn).max) == 448
    assert float(DType.finfo(DType.float32).smallest_normal) == 2.0**-126
    with pytest.raises(TypeError, match="expected a floating-point type"):
        DType.finfo(DType.int32)


def test_identity_is_kept():
    assert pickle.loads(pickle.dumps(DType.bfloat16)) is DType.bfloat16
    assert copy.deepcopy(DType.int8) is DType.int8
    assert {DType.int8: 1}[DType.int8] == 1


def test_compute_dtype():
    assert compute_dtype(DType.bfloat16) is DType.float32
    assert compute_dtype(DType.float8_e5m2) is DType.float32
    assert compute_dtype(DType.float64) is DType.float64
    assert compute_dtype(DType.int8) is DType.int8


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (DType.bool, 0, 1),
        (DType.int8, -128, 127),
        (DType.uint64, 0, 2**64 - 1),
        (DType.float64, -(2**53), 2**53),
        (DType.float32, -(2**24), 2**24),
        (DType.float16, -2048, 2048),
        (DType.bfloat16, -256, 256),
        (DType.float8_e4m3fn, -448, 448),
        (DType.float8_e8m0fnu, 2.0**-127, 2.0**127),
    ],
)
def test_exact_integers(dtype, low, high):
    assert exact_integers(dtype) == (low, high)


def _all_values(dtype):
    """Every value of an 8- or 16-bit type, as float64."""
    bits = np.arange(2**dtype.size_in_bits, dtype=f"u{dtype.size_in_bytes}")
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = bits.view(storage_dtype(dtype)).astype(np.float64)
    return values[np.isfinite(values)]


NARROW = [d for d in DType if 8 <= d.size_in_bits <= 16 and d is not DType.bool]


@pytest.mark.parametrize("source", NARROW)
def test_can_hold_means_that_every_value_survives(source):
    values = _all_values(source)
    for target in [*NARROW, DType.float32, DType.float64, DType.int32]:
        if can_hold(target, source):
            with np.errstate(all="ignore"):
                kept = values.astype(storage_dtype(target)).astype(np.float64)
            np.testing.assert_array_equal(kept, values, err_msg=f"{source!r} in {target!r}")
