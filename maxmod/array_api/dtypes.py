"""Dtypes of the array API standard: their kinds, promotion, and Python numbers with arrays.

The rules differ from those of `Tensor`: int8 and uint8 give int16, and a Python number takes the
dtype of the array operand even if it is rounded. Integers and floats do not mix, nor do bools.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from maxmod.dtype import DType
from maxmod.dtype import promote as promote_kept
from maxmod.errors import DTypeError, OperandError
from maxmod.tensor import Tensor
from maxmod.values.device import DeviceLike

SIGNED = (DType.int8, DType.int16, DType.int32, DType.int64)
UNSIGNED = (DType.uint8, DType.uint16, DType.uint32, DType.uint64)
FLOATS = (DType.float32, DType.float64)
DEFAULT_FLOAT = DType.float32
DEFAULT_INTEGER = DType.int64
KINDS: dict[str, tuple[DType, ...]] = {
    "bool": (DType.bool,),
    "signed integer": SIGNED,
    "unsigned integer": UNSIGNED,
    "integral": (*SIGNED, *UNSIGNED),
    "real floating": FLOATS,
    "complex floating": (),
    "numeric": (*SIGNED, *UNSIGNED, *FLOATS),
}
Accepts = Callable[[DType], bool]


def common_dtype(name: str, first: DType, second: DType) -> DType:
    """Returns the dtype of a result of two operands by the standard's table.

    Raises:
        TypeError: If the table has no entry: bools with numbers, integers with floats, signed
            integers with uint64.
    """
    if first is second:
        return first
    kinds = {first.kind, second.kind}
    if kinds == {"signed", "unsigned"}:
        signed, unsigned = (first, second) if first.kind == "signed" else (second, first)
        bits = max(signed.size_in_bits, 2 * unsigned.size_in_bits)
        if bits <= 64:
            return DType[f"int{bits}"]
    elif kinds != {"float"} and len(kinds) == 1:
        return first if first.size_in_bits > second.size_in_bits else second
    elif kinds == {"float"}:
        try:
            return promote_kept([first, second])
        except DTypeError:
            pass  # float16 with bfloat16 and the like
    raise OperandError(
        f"{name}: the standard has no common dtype of {first!r} and {second!r}. Hint: astype."
    )


def common_dtype_of(name: str, dtypes: list[DType]) -> DType:
    """Returns the common dtype of several; bools, integers and floats must not be mixed."""
    return functools.reduce(functools.partial(common_dtype, name), dtypes)


def is_number(value: object) -> bool:
    """True for the Python numbers and bools that may be combined with an array."""
    return isinstance(value, (bool, int, float, complex))


def number_dtype(value: Any) -> DType:
    """Returns the dtype that an array of this Python number has.

    Raises:
        TypeError: For complex numbers.
    """
    if isinstance(value, complex):
        raise OperandError("maxmod has no complex dtype.")
    if isinstance(value, bool):
        return DType.bool
    return DEFAULT_INTEGER if isinstance(value, int) else DEFAULT_FLOAT


def expect_dtype(name: str, dtype: Any) -> DType:
    """Returns a dtype argument; Python's `bool` means the dtype of that name.

    Raises:
        TypeError: If it is not a dtype.
    """
    if isinstance(dtype, DType):
        return dtype
    if dtype is bool:
        return DType.bool
    raise OperandError(f"{name}: dtype: expected one such as xp.float32, got {dtype!r}.")


def weak_dtype(name: str, value: Any, dtype: DType) -> DType:
    """Returns the dtype of an array, if a Python number may be combined with it.

    Raises:
        TypeError: For a bool with numbers, a float with integers, or a complex number.
    """
    kind = number_dtype(value).kind
    if not (kind == dtype.kind or (kind == "signed" and dtype is not DType.bool)):
        raise OperandError(
            f"{name}: cannot combine a Python {type(value).__name__} with an array of {dtype!r}."
        )
    return dtype


def number(value: Any, dtype: DType, device: DeviceLike | None) -> Tensor:
    """Returns the tensor of a Python number; a float is rounded to the dtype."""
    if dtype.is_float():
        value = float(value)
    return Tensor.full((), value, dtype=dtype, device=device)


# Which dtypes a function takes; the docstring is its name in errors.
def is_any(dtype: DType) -> bool:
    """Every dtype."""
    return True


def is_numeric(dtype: DType) -> bool:
    """Numbers."""
    return dtype is not DType.bool


def is_float(dtype: DType) -> bool:
    """Floats."""
    return dtype.is_float()


def is_integral(dtype: DType) -> bool:
    """Integers."""
    return dtype.is_integral()


def is_bits(dtype: DType) -> bool:
    """Integers or bools."""
    return not dtype.is_float()


def is_bool(dtype: DType) -> bool:
    """Bools."""
    return dtype is DType.bool


def expect(name: str, accepts: Accepts, dtype: DType) -> None:
    """Raises `TypeError` unless the dtype is accepted."""
    if not accepts(dtype):
        wanted = (accepts.__doc__ or "").rstrip(".").lower()
        raise OperandError(f"{name}: expected {wanted}, got an array of {dtype!r}.")
