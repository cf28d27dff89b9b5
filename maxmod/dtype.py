"""Element types: `DType`, facts about each, and the NumPy dtype that stores it.

bfloat16 and the narrow floats are stored with the dtypes of `ml_dtypes`, which registers them with
NumPy when it is imported; importing it here, before anything else reads arrays, settles the order.
"""

from __future__ import annotations

import enum
from builtins import bool as _bool  # the class below has a member of this name
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from maxmod.errors import DTypeError


class DType(enum.Enum):
    """The element type of a tensor.

    `DType("f32")` finds a member by its short name, `DType.from_numpy(np.float32)` by NumPy dtype.
    """

    bool = 1
    int8 = 135
    int16 = 137
    int32 = 139
    int64 = 141
    uint8 = 134
    uint16 = 136
    uint32 = 138
    uint64 = 140
    float4_e2m1fn = 64
    float6_e2m3fn = 65
    float6_e3m2fn = 66
    float8_e8m0fnu = 73
    float8_e4m3fn = 75
    float8_e4m3fnuz = 76
    float8_e5m2 = 77
    float8_e5m2fnuz = 78
    float16 = 79
    bfloat16 = 80
    float32 = 81
    float64 = 82

    # Identity hashing: members are looked up in dictionaries on every eager op.
    __hash__ = object.__hash__

    @classmethod
    def _missing_(cls, value: object) -> DType | None:
        if isinstance(value, str):
            for member, fact in _FACTS.items():
                if value in (fact.short, short_name(member)):
                    return member
            raise KeyError(value)
        return None

    def __repr__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"DType.{self.name}"

    __format__ = object.__format__  # type: ignore[assignment]

    @property
    def size_in_bits(self) -> int:
        """Bits of one element."""
        return _FACTS[self].bits

    @property
    def size_in_bytes(self) -> int:
        """Bytes of one element as it is stored."""
        return (_FACTS[self].bits + 7) // 8

    @property
    def align(self) -> int:
        """Alignment of one element in bytes."""
        return self.size_in_bytes

    @property
    def kind(self) -> str:
        """One of `"bool"`, `"unsigned"`, `"signed"`, `"float"`."""
        return _FACTS[self].kind

    def is_integral(self) -> _bool:
        """True for signed and unsigned integers; bool is none."""
        return self.kind in ("signed", "unsigned")

    def is_signed_integral(self) -> _bool:
        """True for signed integers."""
        return self.kind == "signed"

    def is_unsigned_integral(self) -> _bool:
        """True for unsigned integers; bool is none."""
        return self.kind == "unsigned"

    def is_float(self) -> _bool:
        """True for every floating-point type, the narrow ones included."""
        return self.kind == "float"

    def is_float8(self) -> _bool:
        """True for the five 8-bit floating-point types."""
        return self.kind == "float" and self.size_in_bits == 8

    def is_half(self) -> _bool:
        """True for float16 and bfloat16."""
        return self in (DType.float16, DType.bfloat16)

    def to_numpy(self) -> np.dtype[Any]:
        """Returns the NumPy dtype with the same layout; 8-bit floats are given as uint8 (raw bits).

        Raises:
            ValueError: For bfloat16 and types below 8 bits, which NumPy itself does not know.
        """
        if self.is_float8():
            return np.dtype(np.uint8)
        if self is DType.bfloat16 or self.size_in_bits < 8:
            raise DTypeError(
                f"DType.to_numpy: NumPy has no dtype for {self!r}. Hint: cast to float32 first."
            )
        return storage_dtype(self)

    @classmethod
    def from_numpy(cls, dtype: Any) -> DType:
        """Returns the member for a NumPy dtype or scalar type (`np.float32`, `arr.dtype`).

        Raises:
            ValueError: For anything else, strings included.
        """
        if isinstance(dtype, str):
            raise DTypeError(f"DType.from_numpy: expected a NumPy dtype, got the string {dtype!r}.")
        try:
            return _FROM_STORAGE[np.dtype(dtype)]
        except (KeyError, TypeError):
            raise DTypeError(f"DType.from_numpy: no DType for {dtype!r}.") from None

    def to_torch(self) -> Any:
        """Returns the `torch.dtype` of the same name.

        Raises:
            RuntimeError: If torch is not installed.
            KeyError: If torch has no such type.
        """
        torch = _torch()
        if not hasattr(torch, self.name):
            raise KeyError(self)
        return getattr(torch, self.name)

    @classmethod
    def from_torch(cls, dtype: Any) -> DType:
        """Returns the member for a `torch.dtype`; `KeyError` if there is none."""
        _torch()
        return cls[str(dtype).removeprefix("torch.")]

    @staticmethod
    def finfo(dtype: DType) -> Any:
        """Returns machine limits of a float type: `bits, eps, max, min, tiny, smallest_normal`.

        Raises:
            TypeError: If `dtype` is not a floating-point type.
        """
        if not dtype.is_float():
            raise TypeError(f"DType.finfo: expected a floating-point type, got {dtype!r}.")
        return ml_dtypes.finfo(storage_dtype(dtype))


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise RuntimeError("torch is not installed.") from None
    return torch


@dataclass(frozen=True, slots=True)
class _Facts:
    bits: int
    kind: str
    short: str  # name in error messages and in DType("...")
    storage: np.dtype[Any]
    exact: tuple[float, float]  # integers in this interval are accepted as weak operands


def _int_facts(bits: int, signed: bool, short: str) -> _Facts:
    storage = np.dtype(f"{'' if signed else 'u'}int{bits}")
    info = np.iinfo(storage)
    return _Facts(bits, "signed" if signed else "unsigned", short, storage, (info.min, info.max))


def _float_facts(bits: int, short: str, storage: Any, exact: float) -> _Facts:
    return _Facts(bits, "float", short, np.dtype(storage), (-exact, exact))


_FACTS: dict[DType, _Facts] = {
    DType.bool: _Facts(8, "bool", "bool", np.dtype(np.bool_), (0, 1)),
    DType.int8: _int_facts(8, True, "si8"),
    DType.int16: _int_facts(16, True, "si16"),
    DType.int32: _int_facts(32, True, "si32"),
    DType.int64: _int_facts(64, True, "si64"),
    DType.uint8: _int_facts(8, False, "ui8"),
    DType.uint16: _int_facts(16, False, "ui16"),
    DType.uint32: _int_facts(32, False, "ui32"),
    DType.uint64: _int_facts(64, False, "ui64"),
    DType.float4_e2m1fn: _float_facts(4, "f4e2m1fn", ml_dtypes.float4_e2m1fn, 6),
    DType.float6_e2m3fn: _float_facts(6, "f6e2m3fn", ml_dtypes.float6_e2m3fn, 7.5),
    DType.float6_e3m2fn: _float_facts(6, "f6e3m2fn", ml_dtypes.float6_e3m2fn, 28),
    DType.float8_e8m0fnu: _Facts(
        8, "float", "f8e8m0fnu", np.dtype(ml_dtypes.float8_e8m0fnu), (2.0**-127, 2.0**127)
    ),
    DType.float8_e4m3fn: _float_facts(8, "f8e4m3fn", ml_dtypes.float8_e4m3fn, 448),
    DType.float8_e4m3fnuz: _float_facts(8, "f8e4m3fnuz", ml_dtypes.float8_e4m3fnuz, 240),
    DType.float8_e5m2: _float_facts(8, "f8e5m2", ml_dtypes.float8_e5m2, 72089.6),
    DType.float8_e5m2fnuz: _float_facts(8, "f8e5m2fnuz", ml_dtypes.float8_e5m2fnuz, 57344),
    DType.float16: _float_facts(16, "f16", np.float16, 2**11),
    DType.bfloat16: _float_facts(16, "bf16", ml_dtypes.bfloat16, 2**8),
    DType.float32: _float_facts(32, "f32", np.float32, 2**24),
    DType.float64: _float_facts(64, "f64", np.float64, 2**53),
}
_FROM_STORAGE = {fact.storage: dtype for dtype, fact in _FACTS.items()}
_STORAGE = {dtype: fact.storage for dtype, fact in _FACTS.items()}


def storage_dtype(dtype: DType) -> np.dtype[Any]:
    """Returns the NumPy (or ml_dtypes) dtype that stores elements of `dtype`."""
    return _STORAGE[dtype]


def short_name(dtype: DType) -> str:
    """Returns the name that `DType("...")` accepts, such as `f32` or `si64`."""
    return "i1" if dtype is DType.bool else _FACTS[dtype].short


def exact_integers(dtype: DType) -> tuple[float, float]:
    """Returns the inclusive interval of Python integers that weak conversion to `dtype` accepts.

    Source: api of MAX, eager tensors; floats are limited to the integers they hold exactly.
    """
    return _FACTS[dtype].exact


def compute_dtype(dtype: DType) -> DType:
    """Returns the type in which arithmetic on `dtype` is done: float32 for narrower floats."""
    return DType.float32 if dtype.is_float() and dtype.size_in_bits < 32 else dtype


# Significant bits that hold every value of the type exactly; used by the promotion rules.
_FLOAT_PRECISION = {
    DType.float64: 53,
    DType.float32: 24,
    DType.float16: 11,
    DType.bfloat16: 8,
}
_CATEGORY = {"bool": 0, "unsigned": 1, "signed": 2, "float": 3}


def can_hold(target: DType, source: DType) -> _bool:
    """Returns True if every value of `source` is a value of `target`."""
    if target is source or source is DType.bool:
        return True
    if target.kind == "float":
        if source.kind == "float":
            if source.size_in_bits < 16:
                # The range of float8_e8m0fnu is that of float32, not of float16.
                narrow = target is DType.float16 and source is DType.float8_e8m0fnu
                return target.size_in_bits >= 16 and not narrow
            halves = (DType.float16, DType.bfloat16)
            return target.size_in_bits > source.size_in_bits and target not in halves
        significant = source.size_in_bits - (source.kind == "signed")
        return significant <= _FLOAT_PRECISION.get(target, 0)
    if target.kind == "signed" and source.kind in ("signed", "unsigned"):
        return target.size_in_bits >= source.size_in_bits + (source.kind == "unsigned")
    if target.kind == "unsigned" and source.kind == "unsigned":
        return target.size_in_bits >= source.size_in_bits
    return False


def promote(dtypes: list[DType] | tuple[DType, ...]) -> DType:
    """Returns the one of `dtypes` that holds all of them exactly; there is no invented third type.

    The category is the highest of bool < unsigned < signed < float among the operands, the width
    the largest one; the result must be an operand's own dtype.

    Raises:
        DTypeError: If no operand's dtype holds the others.
    """
    first = dtypes[0]
    if all(dtype is first for dtype in dtypes):
        return first
    category = max((d.kind for d in dtypes), key=_CATEGORY.__getitem__)
    candidates = [d for d in dtypes if d.kind == category]
    target = max(candidates, key=lambda d: d.size_in_bits)
    for source in dtypes:
        if not can_hold(target, source):
            raise DTypeError(
                f"Failed to resolve valid dtype: Unsafe cast from {_message_name(source)} to "
                f"{_message_name(target)}. Insert an explicit cast op if this conversion is wanted"
            )
    return target


def dtype_hint(value: Any) -> str:
    """Returns what to write in place of a value that is no DType."""
    if isinstance(value, str) and value in DType.__members__:
        return f"Hint: write DType.{value}."
    return "Hint: DType.from_numpy converts the types of NumPy."


def _message_name(dtype: DType) -> str:
    return _FACTS[dtype].short
