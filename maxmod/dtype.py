"""Element types: `DType`, the properties of each, and the NumPy dtype that stores it.

bfloat16 and the narrow floats are stored with the dtypes of `ml_dtypes`, which registers them with
NumPy on import; it is imported here so that this happens before any array is read.
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

    - Integers: `int8`, `int16`, `int32`, `int64`, `uint8`, `uint16`, `uint32`, `uint64`; `bool`.
    - Floats: `float16`, `bfloat16`, `float32`, `float64`. 8-bit: `float8_e4m3fn`,
      `float8_e4m3fnuz`, `float8_e5m2`, `float8_e5m2fnuz`, `float8_e8m0fnu`. Narrower:
      `float6_e2m3fn`, `float6_e3m2fn`, `float4_e2m1fn`.

    `DType("f32")` finds a member by its short name, `DType.from_numpy(np.float32)` by NumPy dtype.
    bfloat16 and the narrow floats are stored with the dtypes of `ml_dtypes`.

    Args:
        value: The number or the short name of a member.

    Raises:
        KeyError: For an unknown name.

    Example:
        >>> import numpy as np
        >>> from maxmod import DType
        >>> DType.float32, DType("bf16"), DType.from_numpy(np.int64)
        (float32, bfloat16, int64)
        >>> DType.bfloat16.size_in_bytes, DType.bfloat16.is_float(), DType.uint8.kind
        (2, True, 'unsigned')
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
        """True for signed and unsigned integers, not for bool."""
        return self.kind in ("signed", "unsigned")

    def is_signed_integral(self) -> _bool:
        """True for signed integers."""
        return self.kind == "signed"

    def is_unsigned_integral(self) -> _bool:
        """True for unsigned integers, not for bool."""
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

        Returns:
            The NumPy dtype.

        Raises:
            ValueError: For bfloat16 and types below 8 bits, which NumPy itself does not know.

        Example:
            >>> from maxmod import DType
            >>> DType.float16.to_numpy(), DType.float8_e4m3fn.to_numpy()
            (dtype('float16'), dtype('uint8'))
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

        Args:
            dtype: The dtype; those of `ml_dtypes` are known as well.

        Returns:
            The member.

        Raises:
            ValueError: For anything else, strings included.

        Example:
            >>> import numpy as np
            >>> from maxmod import DType
            >>> DType.from_numpy(np.zeros(2).dtype)
            float64
        """
        if isinstance(dtype, str):
            raise DTypeError(f"DType.from_numpy: expected a NumPy dtype, got the string {dtype!r}.")
        try:
            return _FROM_STORAGE[np.dtype(dtype)]
        except (KeyError, TypeError):
            raise DTypeError(f"DType.from_numpy: no DType for {dtype!r}.") from None

    def to_torch(self) -> Any:
        """Returns the `torch.dtype` of the same name.

        Returns:
            The dtype.

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
        """Returns the member for a dtype of PyTorch.

        Args:
            dtype: A `torch.dtype`.

        Returns:
            The member of the same name.

        Raises:
            RuntimeError: If torch is not installed.
            KeyError: If there is no such member.
        """
        _torch()
        return cls[str(dtype).removeprefix("torch.")]

    @staticmethod
    def finfo(dtype: DType) -> Any:
        """Returns the machine limits of a float type: `bits, eps, max, min, tiny, smallest_normal`.

        Args:
            dtype: The type.

        Returns:
            An object with these attributes, as `numpy.finfo` makes.

        Raises:
            TypeError: If `dtype` is not a floating-point type.

        Example:
            >>> from maxmod import DType
            >>> float(DType.finfo(DType.bfloat16).eps), float(DType.finfo(DType.float16).max)
            (0.0078125, 65504.0)
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
    """Returns the NumPy dtype that stores elements of a type.

    Args:
        dtype: The type.

    Returns:
        A NumPy dtype, one of `ml_dtypes` for bfloat16 and the narrow floats.

    Example:
        >>> from maxmod import DType
        >>> from maxmod.dtype import storage_dtype
        >>> storage_dtype(DType.bfloat16)
        dtype(bfloat16)
    """
    return _STORAGE[dtype]


def short_name(dtype: DType) -> str:
    """Returns the short name of a type, which `DType("...")` accepts.

    Args:
        dtype: The type.

    Returns:
        A name such as `f32` or `si64`.

    Example:
        >>> from maxmod import DType
        >>> from maxmod.dtype import short_name
        >>> short_name(DType.int64), DType("si64")
        ('si64', int64)
    """
    return "i1" if dtype is DType.bool else _FACTS[dtype].short


def exact_integers(dtype: DType) -> tuple[float, float]:
    """Returns the interval of Python integers that may be combined with a tensor of a type.

    Args:
        dtype: The type.

    Returns:
        The pair (smallest, largest), both included; floats take the integers that they hold
        exactly.

    Source: the rules of MAX for eager tensors.

    Example:
        >>> from maxmod import DType
        >>> from maxmod.dtype import exact_integers
        >>> exact_integers(DType.int8), exact_integers(DType.bfloat16)
        ((-128, 127), (-256, 256))
    """
    return _FACTS[dtype].exact


def compute_dtype(dtype: DType) -> DType:
    """Returns the type in which arithmetic on a type is done: float32 for narrower floats.

    Args:
        dtype: The type.

    Returns:
        float32, or the type itself.

    Example:
        >>> from maxmod import DType
        >>> from maxmod.dtype import compute_dtype
        >>> compute_dtype(DType.bfloat16), compute_dtype(DType.float64), compute_dtype(DType.int8)
        (float32, float64, int8)
    """
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
    """Returns True if every value of one type is a value of another.

    Args:
        target: The type that is to hold the values.
        source: The type of the values.

    Returns:
        Whether nothing is lost.

    Example:
        >>> from maxmod import DType
        >>> from maxmod.dtype import can_hold
        >>> can_hold(DType.float32, DType.int16), can_hold(DType.float32, DType.int32)
        (True, False)
    """
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
    """Returns the one of some types that holds all of them exactly; no third one is invented.

    The category is the highest of bool < unsigned < signed < float among the operands, the width
    the largest one; the result must be an operand's own dtype.

    Args:
        dtypes: At least one type.

    Returns:
        One of them.

    Raises:
        DTypeError: (a ValueError) If no operand's dtype holds the others.

    Example:
        >>> from maxmod import DType
        >>> from maxmod.dtype import promote
        >>> promote([DType.float16, DType.int8]), promote([DType.bfloat16, DType.float32])
        (float16, float32)
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


def dtype_hint(value: object) -> str:
    """Returns a hint for a value that is not a DType.

    Args:
        value: The value.

    Returns:
        The end of an error message.
    """
    if isinstance(value, str) and value in DType.__members__:
        return f"Hint: write DType.{value}."
    return "Hint: DType.from_numpy converts NumPy dtypes."


def _message_name(dtype: DType) -> str:
    return _FACTS[dtype].short
