"""Which dtype two operands give: the full table, weak values, and refusals."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest
from helpers import tensor
from hypothesis import given
from hypothesis import strategies as st

from maxmod import CPU, Dim, DType, Tensor
from maxmod import functional as F
from maxmod.dtype import promote, storage_dtype
from maxmod.errors import DeviceError, DTypeError, OperandError

_NAMES = ["bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64"]
_DTYPES = {
    "bool": DType.bool,
    **{f"u{b}": DType[f"uint{b}"] for b in (8, 16, 32, 64)},
    **{f"i{b}": DType[f"int{b}"] for b in (8, 16, 32, 64)},
    **{f"f{b}": DType[f"float{b}"] for b in (16, 32, 64)},
    "bf16": DType.bfloat16,
}
# Upper triangle of the table, written down by hand: row and column in the order of _NAMES, E where
# no operand's dtype holds both.
_TABLE = """
bool: bool u8 u16 u32 u64 i8 i16 i32 i64 f16 bf16 f32 f64
u8:        u8 u16 u32 u64 E  i16 i32 i64 f16 bf16 f32 f64
u16:          u16 u32 u64 E  E   i32 i64 E   E    f32 f64
u32:              u32 u64 E  E   E   i64 E   E    E   f64
u64:                  u64 E  E   E   E   E   E    E   E
i8:                       i8 i16 i32 i64 f16 bf16 f32 f64
i16:                         i16 i32 i64 E   E    f32 f64
i32:                             i32 i64 E   E    E   f64
i64:                                 i64 E   E    E   E
f16:                                     f16 E    f32 f64
bf16:                                        bf16 f32 f64
f32:                                              f32 f64
f64:                                                  f64
"""


def _expected():
    table = {}
    for line in _TABLE.strip().splitlines():
        row, _, cells = line.partition(":")
        start = _NAMES.index(row)
        for column, cell in zip(_NAMES[start:], cells.split(), strict=True):
            table[row, column] = table[column, row] = cell
    return table


_EXPECTED = _expected()


@pytest.mark.parametrize(("a", "b"), list(itertools.product(_NAMES, _NAMES)))
def test_table(a, b):
    x = tensor(np.ones(2), _DTYPES[a])
    y = tensor(np.ones(2), _DTYPES[b])
    expected = _EXPECTED[a, b]
    if expected == "E":
        with pytest.raises(ValueError, match="Failed to resolve valid dtype: Unsafe cast from"):
            F.max(x, y)
        return
    assert F.max(x, y).dtype is _DTYPES[expected]
    assert (x == y).dtype is DType.bool
    condition = tensor(np.array([True, False]))
    assert F.where(condition, x, y).dtype is _DTYPES[expected]


@pytest.mark.parametrize("dtype", [d for d in DType if d.is_float8()])
def test_float8_meets_wider_floats_only(dtype):
    for wide in (DType.bfloat16, DType.float32, DType.float64):
        assert promote((dtype, wide)) is wide
    if dtype is DType.float8_e8m0fnu:  # its range is that of float32
        with pytest.raises(DTypeError):
            promote((dtype, DType.float16))
    else:
        assert promote((dtype, DType.float16)) is DType.float16
    assert promote((dtype, dtype)) is dtype
    for other in (DType.float8_e4m3fn, DType.float8_e5m2, DType.int8):
        if other is not dtype:
            with pytest.raises(DTypeError):
                promote((dtype, other))


def test_the_message_names_both_types():
    with pytest.raises(ValueError, match="Unsafe cast from si32 to f32"):
        Tensor([1], dtype=DType.int32) + Tensor([1.0])


# ---- weak operands -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "fits", "fails"),
    [
        (DType.bool, [0, 1], [-1, 2]),
        (DType.int8, [-128, 127], [-129, 128]),
        (DType.uint8, [0, 255], [-1, 256]),
        (DType.int64, [-(2**63), 2**63 - 1], [2**63]),
        (DType.uint64, [2**64 - 1], [-1, 2**64]),
        (DType.float32, [2**24, -(2**24)], [2**24 + 1]),
        (DType.float16, [2048], [2049, 4096]),
        (DType.bfloat16, [256, -256], [257, 300]),
        (DType.float64, [2**53], [2**53 + 1, 10**400]),
    ],
)
def test_python_integers(dtype, fits, fails):
    x = tensor(np.ones(2), dtype)
    for value in fits:
        assert F.max(x, value).dtype is dtype
        assert F.max(value, x).dtype is dtype
    for value in fails:
        with pytest.raises(ValueError, match="Unsafe cast: Can't promote python int with value"):
            F.max(x, value)


def test_python_floats():
    x = tensor(np.ones(2), DType.bfloat16)
    assert (x * 1000.0).dtype is DType.bfloat16
    assert (x * 1e300).to_numpy is not None
    assert np.isinf((x * 1e300).cast(DType.float32).to_numpy()).all()
    for dtype in (DType.int32, DType.bool):
        with pytest.raises(ValueError, match="Can't promote python float to dtype"):
            F.max(tensor(np.ones(2), dtype), 2.0)


def test_numpy_scalars_count_as_python_numbers():
    x = tensor(np.ones(2), DType.float32)
    assert (x + np.float64(0.1)).dtype is DType.float32
    assert (np.int64(3) + x).dtype is DType.float32
    assert (x + np.bool_(True)).to_numpy().tolist() == [2, 2]
    with pytest.raises(ValueError, match="lose precision"):
        x + np.int64(2**40)


def test_arrays():
    x = tensor(np.ones(2), DType.float32)
    assert (x + np.array([0.1, 0.2])).dtype is DType.float32
    assert (np.array([1, 2]) + x).to_numpy().tolist() == [2, 3]
    assert (x + np.array([True, False])).to_numpy().tolist() == [2, 1]
    assert (x + np.arange(4).reshape(2, 2).T).to_numpy().tolist() == [[1, 3], [2, 4]]
    whole = tensor(np.ones(2), DType.int32)
    with pytest.raises(ValueError, match="Refusing to implicitly promote float array"):
        whole + np.array([1.0, 2.0])
    with pytest.raises(ValueError, match="with precision loss for DType.int32"):
        whole + np.array([1, 2**40])
    assert (whole + np.array([], dtype=np.int64).reshape(0, 1)).shape == [0, 2]


def test_operands_of_other_types_are_refused():
    x = Tensor([1.0])
    for other in (None, "a", object(), [1.0], 1j):
        with pytest.raises(TypeError):
            x + other
        with pytest.raises(TypeError):
            x == other  # noqa: B015
    with pytest.raises(OperandError, match="expected at least one Tensor, got"):
        F.add(1, 2)


def test_dims_are_strong():
    x = Tensor([1, 2], dtype=DType.int64, device=CPU())
    assert (x * Dim(3)).to_numpy().tolist() == [3, 6]
    assert (Dim(3) + x).to_numpy().tolist() == [4, 5]
    with pytest.raises(ValueError, match="Unsafe cast from si64 to f32"):
        Tensor([1.0]) / Dim(2)


def test_devices_are_not_mixed(emulated_accelerator):
    here, there = Tensor([1.0], device=CPU()), Tensor([1.0], device=emulated_accelerator)
    with pytest.raises(DeviceError, match="Input values must be on the same device") as caught:
        here + there.cast(DType.float32)
    assert "device=cpu:0" in str(caught.value)
    assert "device=gpu:0" in str(caught.value)
    assert (there + np.array([1.0])).device == emulated_accelerator


# ---- division and its relatives ----------------------------------------------------------------


def test_division_of_integers_is_float64():
    x = Tensor([7, -7], dtype=DType.int32)
    for result in (x / 2, x / Tensor([2, 2], dtype=DType.int8)):
        assert result.dtype is DType.float64
        assert result.to_numpy().tolist() == [3.5, -3.5]
    assert (14 / x).to_numpy().tolist() == [2.0, -2.0]
    assert (x // 2).dtype is DType.int32
    assert (x // 2).to_numpy().tolist() == [3, -4]
    assert (x % 4).to_numpy().tolist() == [3, 1]
    assert [t.to_numpy().tolist() for t in divmod(x, 4)] == [[1, -2], [3, 1]]
    with pytest.raises(ValueError, match="python float"):
        x / 2.0
    with pytest.raises(ValueError, match="expected numbers, got bool"):
        Tensor([1], dtype=DType.bool) / Tensor([1], dtype=DType.bool)


def test_power():
    assert (Tensor([2.0]) ** 3).item() == 8.0
    assert (Tensor([2], dtype=DType.int32) ** 3).dtype is DType.int32
    assert (2 ** Tensor([3], dtype=DType.int32)).item() == 8
    with pytest.raises(ValueError):
        Tensor([2], dtype=DType.int32) ** 0.5


@given(st.sampled_from(list(_DTYPES.values())), st.sampled_from(list(_DTYPES.values())))
def test_promotion_is_one_of_both_and_holds_both(a, b):
    try:
        result = promote((a, b))
    except DTypeError:
        return
    assert result in (a, b)
    for dtype in (a, b):
        if dtype is DType.bool:
            continue
        info = ml_dtypes.finfo if dtype.is_float() else np.iinfo
        largest = np.array(info(storage_dtype(dtype)).max, dtype=storage_dtype(dtype))
        assert largest.astype(storage_dtype(result)) == largest
