"""Every elementwise op of the registry against its oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import ALL, HALVES, WIDE_FLOATS, assert_close, narrow, numbers, strided, tensor, wide
from ops.oracles import ORACLES, Oracle
from together import by_first

import maxmod.ops
from maxmod.dtype import DType
from maxmod.errors import DTypeError, MaxmodError
from maxmod.op import FUNCTIONS, REGISTRY, Kind, Op
from maxmod.tensor import Tensor

ELEMENTWISE = {name: o for name, o in REGISTRY.items() if o.kind is Kind.ELEMENTWISE}
SHAPES = [(), (0,), (1,), (7,), (3, 0, 2), (5, 3), (2, 3, 4)]


def test_every_op_has_an_oracle() -> None:
    assert ELEMENTWISE.keys() == ORACLES.keys()


ACCEPTED = [(name, dtype) for name, oracle in ORACLES.items() for dtype in oracle.dtypes]
REFUSED = [(name, dtype) for name in ORACLES for dtype in ALL if (name, dtype) not in ACCEPTED]
FLOATING = [(name, dtype) for name, dtype in ACCEPTED if dtype in (*WIDE_FLOATS, *HALVES)]


def _operands(
    op: Op, oracle: Oracle, dtype: DType, shape: tuple[int, ...], rng: np.random.Generator
) -> list[np.ndarray[Any, Any]]:
    arrays = []
    for position in range(len(op.signature.tensor_names)):
        kind = oracle.first if position == 0 and oracle.first is not None else dtype
        arrays.append(numbers(rng, kind, shape, *op.meaning.domain))
    if op.name == "pow" and dtype.is_integral():
        arrays[1] = np.abs(arrays[1]) % 4  # negative exponents have a test of their own
    return arrays


def _check(op: Op, oracle: Oracle, arrays: list[np.ndarray[Any, Any]]) -> None:
    tensors = [tensor(array) for array in arrays]
    for attrs in oracle.attrs:
        result = FUNCTIONS[op.name](*tensors, **attrs)
        (inferred,) = op.result_types(*[t.type for t in tensors], **attrs)
        assert result.type == inferred
        with np.errstate(all="ignore"):
            expected = oracle.fn(*[wide(array) for array in arrays], **attrs)
        if op.name == "cast":
            expected = _cast_oracle(arrays[0], attrs["dtype"])
        assert_close(result, expected)


def _cast_oracle(array: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
    source = wide(array)
    if dtype is DType.bool:
        return source != 0
    if not dtype.is_float() and source.dtype.kind == "f":
        return np.trunc(source).astype(np.int64)
    return source


@by_first("name", "dtype", cases=ACCEPTED)
def test_values(name: str, dtype: DType) -> None:
    rng = np.random.default_rng(7)
    oracle = ORACLES[name]
    for shape in SHAPES:
        arrays = _operands(REGISTRY[name], oracle, dtype, shape, rng)
        if name == "cast" and dtype.is_float():
            arrays = [np.abs(arrays[0])]  # a negative float as unsigned is unspecified
        _check(REGISTRY[name], oracle, arrays)
        _check(REGISTRY[name], oracle, [strided(array) for array in arrays])


SPECIAL = [
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    1e-7,
    3e-39,
    42,
]


@by_first("name", "dtype", cases=FLOATING)
def test_special_values(name: str, dtype: DType) -> None:
    """NaN, infinities, zeros of both signs, ties, numbers close to 0."""
    op, oracle = REGISTRY[name], ORACLES[name]
    line = narrow(SPECIAL, dtype)
    if name == "select":
        arrays = [np.array([[True], [False]]), line, line[::-1]]
    elif name == "cast":
        arrays = [line]
        oracle = Oracle(oracle.fn, attrs=tuple({"dtype": d} for d in (DType.bool, *WIDE_FLOATS)))
    elif len(op.signature.tensor_names) == 1:
        arrays = [line]
    else:
        arrays = [line[:, None], line]
    if name == "acos" and dtype is not DType.float64:
        oracle = Oracle(lambda x: np.arccos(np.clip(x, -1, 1)))
    _check(op, oracle, arrays)


@by_first("name", "dtype", cases=REFUSED)
def test_refused_dtypes(name: str, dtype: DType) -> None:
    op, oracle = REGISTRY[name], ORACLES[name]
    arrays = _operands(op, oracle, dtype, (3,), np.random.default_rng(0))
    for attrs in oracle.attrs:
        message = f"{op.label}: .*(unsupported dtype|same dtype)"
        with pytest.raises(DTypeError, match=message) as caught:
            FUNCTIONS[name](*[tensor(array) for array in arrays], **attrs)
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, MaxmodError)


@pytest.mark.parametrize(
    "name", [n for n, o in ELEMENTWISE.items() if len(o.signature.tensor_names) == 1]
)
def test_unary_ops_refuse_weak_operands(name: str) -> None:
    attrs = ORACLES[name].attrs[0]
    for value in (1.0, 2, True, np.ones(3)):
        with pytest.raises(TypeError, match=": expected a Tensor, got"):
            FUNCTIONS[name](value, **attrs)


@pytest.mark.parametrize(
    "name", [n for n, o in ELEMENTWISE.items() if len(o.signature.tensor_names) == 2]
)
def test_binary_ops_need_a_tensor(name: str) -> None:
    with pytest.raises(TypeError, match="expected at least one Tensor, got"):
        FUNCTIONS[name](1.0, np.ones(3))
    with pytest.raises(TypeError):
        FUNCTIONS[name](Tensor([True], dtype=DType.bool), "text")


@pytest.mark.parametrize("dtype", [DType.int8, DType.uint8, DType.int64, DType.uint64])
def test_integers_wrap(dtype: DType) -> None:
    info = np.iinfo(narrow(0, dtype).dtype)
    high = tensor(np.array([info.max]), dtype)
    assert (high + 1).item() == info.min
    assert (tensor(np.array([info.min]), dtype) - 1).item() == info.max
    assert (high * 2).item() == (2 * info.max) % 2**dtype.size_in_bits - (
        2**dtype.size_in_bits if dtype.is_signed_integral() else 0
    )


def test_square_root_as_a_power() -> None:
    """As IEEE 754 has it; NumPy takes the square root where the exponent is one number."""
    x = Tensor([-np.inf, -0.0, np.inf, 4.0, -1.0, np.nan])
    for y in (0.5, Tensor([0.5]), Tensor([0.5] * 6)):
        found = (x**y).to_numpy()
        np.testing.assert_array_equal(found, [np.inf, 0.0, np.inf, 2.0, np.nan, np.nan])
        assert not np.signbit(found[1])


def test_integer_power_with_negative_exponent() -> None:
    base = Tensor([1, -1, -1, 2, 0, -3], dtype=DType.int32)
    result = base ** Tensor([-2, -2, -3, -1, -1, -1], dtype=DType.int32)
    assert result.to_numpy().tolist() == [1, 1, -1, 0, 0, 0]


@pytest.mark.parametrize("dtype", [DType.int8, DType.uint8, DType.int64, DType.uint64])
def test_shifts_by_too_many_bits(dtype: DType) -> None:
    bits = dtype.size_in_bits
    counts = [0, 1, bits - 1, bits, 100, *([-1] if dtype.is_signed_integral() else [])]
    x = [-3, 5] if dtype.is_signed_integral() else [5]
    found = {
        name: FUNCTIONS[name](tensor(np.array(x)[:, None], dtype), tensor(counts, dtype))
        for name in ("bitwise_left_shift", "bitwise_right_shift")
    }
    left = [[a << n if 0 <= n < bits else 0 for n in counts] for a in x]
    right = [[a >> (n if 0 <= n < bits else bits) for n in counts] for a in x]
    wrapped = [[int(v) % 2**bits for v in row] for row in found["bitwise_left_shift"].to_numpy()]
    assert wrapped == [[v % 2**bits for v in row] for row in left]
    assert found["bitwise_right_shift"].to_numpy().tolist() == right


def test_integer_division_by_zero_is_zero() -> None:
    x = Tensor([5, -5, 0], dtype=DType.int32)
    assert (x // 0).to_numpy().tolist() == [0, 0, 0]
    assert (x % 0).to_numpy().tolist() == [0, 0, 0]


def test_mod_is_exact_for_large_quotients() -> None:
    x = np.array([1e8, 3e7, -1e8, 16777216.0], dtype=np.float32)
    assert_close(tensor(x) % 3.0, np.mod(x.astype(np.float64), 3.0))


def test_cast_wraps_integers_and_truncates_floats() -> None:
    x = Tensor([300, -1, 128], dtype=DType.int32)
    assert x.cast(DType.int8).to_numpy().tolist() == [44, -1, -128]
    assert x.cast(DType.uint8).to_numpy().tolist() == [44, 255, 128]
    assert Tensor([1.9, -1.9]).cast(DType.int64).to_numpy().tolist() == [1, -1]


def test_cast_to_the_same_dtype_returns_the_operand() -> None:
    x = Tensor([1.0])
    assert FUNCTIONS["cast"](x, dtype=DType.float32) is not x
    assert x.cast(DType.float32) is x
    assert maxmod.functional.cast(x, DType.float32) is x


def test_cast_of_powers_of_two() -> None:
    x = Tensor([0.25, 1.0, 8.0]).cast(DType.float8_e8m0fnu)
    assert x.cast(DType.float32).to_numpy().tolist() == [0.25, 1.0, 8.0]
    assert x.cast(DType.bool).to_numpy().tolist() == [True, True, True]


def test_gelu_refuses_unknown_approximations() -> None:
    with pytest.raises(ValueError, match="Invalid approximation method: 'fast'"):
        FUNCTIONS["gelu"](Tensor([1.0]), approximate="fast")
