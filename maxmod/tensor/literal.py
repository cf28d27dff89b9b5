"""Python and NumPy values as tensor data: literals, and weak operands next to a tensor.

A literal (`Tensor.constant([1, 2])`) takes the dtype it is asked for. A weak operand (`x + 1`)
takes the dtype of the other tensor and is rejected where it would lose information.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from maxmod.dtype import DType, exact_integers, storage_dtype
from maxmod.errors import ArgumentError, ArgumentTypeError, DTypeError, OperandError
from maxmod.tensor.exchange import DLPackArray
from maxmod.values.array import HostArray
from maxmod.values.narrow import narrowed
from maxmod.values.plain import Scalar

_SCALARS = (bool, int, float, np.bool_, np.integer, np.floating)


def is_scalar(value: object) -> TypeGuard[Scalar]:
    """True for Python and NumPy numbers and bools."""
    return isinstance(value, _SCALARS)


def is_literal(value: object) -> TypeGuard[Scalar | Sequence[object]]:
    """True for numbers, and for sequences of Python's: lists, tuples, ranges, ...

    Text is one too, so that `literal_array` says what is wrong with it.
    """
    if is_scalar(value) or isinstance(value, (list, tuple)):
        return True
    return isinstance(value, Sequence) and not isinstance(value, DLPackArray)


def literal_array(value: object, dtype: DType) -> HostArray:
    """Returns the array of a number or nested sequence of numbers.

    Args:
        value: A number, or a rectangular nested sequence of numbers.
        dtype: The dtype of the result; integers must fit, and for a float dtype numbers are
            rounded to it, as in MAX: what is too large becomes infinite.

    Raises:
        ValueError: If the nesting is not rectangular, or an integer dtype does not hold a number.
        TypeError: If a leaf is not a number, or `dtype` is narrower than 8 bits.
    """
    if dtype.size_in_bits < 8:
        raise OperandError(f"constant: literals cannot have the dtype {dtype!r}.")
    if isinstance(value, (str, bytes, bytearray)):
        hint = "" if isinstance(value, str) else " Hint: numpy.frombuffer reads bytes."
        raise ArgumentTypeError(
            f"constant: expected a number or nested sequence, got a {type(value).__name__}.{hint}"
        )
    leaves: list[Scalar] = []
    shape = _collect(value, leaves)
    storage = storage_dtype(dtype)
    if not dtype.is_float():
        low, high = exact_integers(dtype)
        for leaf in leaves:
            # An integer is compared as it is: a very large one has no float value.
            finite = not isinstance(leaf, (float, np.floating)) or math.isfinite(leaf)
            if not finite or not low <= int(leaf) <= high:
                raise DTypeError(
                    "Unsafe cast: Refusing to implicitly promote external array with value "
                    f"{leaf!r} out of range for {dtype}"
                )
            if leaf != int(leaf):
                raise DTypeError(
                    f"Unsafe cast: {float(leaf)} has a fraction, which {dtype} would cut off. "
                    f"Hint: Tensor({float(leaf)}).cast({dtype}) cuts it."
                )
        integers = [int(leaf) for leaf in leaves]
        return np.array(integers, dtype=storage).reshape(shape)
    return rounded([_as_float(leaf) for leaf in leaves], dtype).reshape(shape)


def rounded(numbers: ArrayLike, dtype: DType) -> HostArray:
    """Returns an array of float numbers in a float dtype; too large ones become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return narrowed(np.asarray(numbers, dtype=np.float64), storage_dtype(dtype))


def _as_float(leaf: Scalar) -> float:
    try:
        return float(leaf)
    except OverflowError:
        raise DTypeError(
            "Unsafe cast: Refusing to implicitly promote a Python int that no float type holds."
        ) from None


def _collect(value: object, leaves: list[Scalar]) -> tuple[int, ...]:
    """Appends the leaves in row-major order and returns the shape."""
    if is_scalar(value):
        leaves.append(value)
        return ()
    if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, Sequence):
        hint = " Hint: F.stack joins tensors." if hasattr(value, "sizes") else ""
        raise OperandError(f"constant: expected a number, got {type(value).__name__}.{hint}")
    shapes = [_collect(item, leaves) for item in value]
    if any(shape != shapes[0] for shape in shapes):
        raise ArgumentError(
            "Array literals must be rectangular: found rows of shapes "
            f"{min(shapes)} and {max(shapes)}."
        )
    return (len(value), *(shapes[0] if shapes else ()))


def weak_scalar(value: Scalar, dtype: DType) -> bool | int | float:
    """Checks that a Python or NumPy number may join a tensor of `dtype`; returns the number.

    Raises:
        DTypeError: If precision would be lost: an integer outside the interval that the dtype
            holds exactly, one in it that a float of 8 bits or fewer does not hold, or a float next
            to an integer tensor.
    """
    if isinstance(value, (float, np.floating)):
        if not dtype.is_float():
            raise DTypeError(
                f"Unsafe cast: Can't promote python float to dtype({dtype!r}). "
                "Hint: cast the tensor to a float type, or use an int."
            )
        return float(value)
    number = int(value)
    if not _holds(dtype, number):
        raise DTypeError(
            f"Unsafe cast: Can't promote python int with value ({number}) to dtype({dtype!r}). "
            "It would lose precision. Hint: write it as a float if rounding is fine."
        )
    return number


def _holds(dtype: DType, number: int) -> bool:
    """True if an integer may join a tensor of a dtype: nothing of it is lost.

    The intervals of the narrowest floats have gaps: float8_e5m2 goes up to 57344 and lacks 9.
    """
    low, high = exact_integers(dtype)
    if not low <= number <= high:
        return False
    return not _has_gaps(dtype) or float(rounded(number, dtype)) == number


def _has_gaps(dtype: DType) -> bool:
    return dtype.is_float() and dtype.size_in_bits <= 8


def _candidates(array: HostArray, dtype: DType) -> list[int]:
    """The integers of an array that decide whether all of them fit a dtype."""
    if _has_gaps(dtype):
        return [int(number) for number in np.unique(array)]
    return [int(array.min()), int(array.max())]


def weak_array(array: HostArray, dtype: DType) -> HostArray:
    """Converts a NumPy array that joins a tensor of `dtype`.

    Raises:
        DTypeError: For a float array next to integers, or integers that the dtype does not hold.
    """
    source = DType.from_numpy(array.dtype)
    if source.is_float() and not dtype.is_float():
        raise DTypeError(
            f"Unsafe cast: Refusing to implicitly promote float array to dtype({dtype!r}). Hint: "
            f"Tensor(array).cast({dtype}) cuts off fractions."
        )
    is_checked = source.is_integral() and array.size
    if is_checked and not all(_holds(dtype, number) for number in _candidates(array, dtype)):
        raise DTypeError(
            "Unsafe cast: Refusing to implicitly promote integer array to "
            f"dtype({dtype!r}) with precision loss for {dtype}."
        )
    if source.is_float():
        return rounded(array, dtype)
    return narrowed(array, storage_dtype(dtype))
