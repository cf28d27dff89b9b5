"""The operators of `Array`: each is one call of the function with its meaning.

Functions are found by name in a registry, because their files import this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar

import numpy as np

from maxmod.array_api.dtypes import is_number
from maxmod.errors import OperandError
from maxmod.tensor import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])
FUNCTIONS: dict[str, Callable[..., Any]] = {}


def function(fn: Function) -> Function:
    """Registers a public function, so that operators find it."""
    assert fn.__name__ not in FUNCTIONS, fn.__name__
    FUNCTIONS[fn.__name__] = fn
    return fn


def dispatch(name: str, *args: Any) -> Any:
    """Calls a public function by name."""
    return FUNCTIONS[name](*args)


def _apply(name: str, first: Any, second: Any) -> Any:
    """Calls a function; defers to the other operand's class if it is neither array nor number.

    A NumPy scalar counts as the Python number that it holds.
    """
    if isinstance(first, np.generic):
        first = first.item()
    if isinstance(second, np.generic):
        second = second.item()
    if all(isinstance(value, Operators) or is_number(value) for value in (first, second)):
        return dispatch(name, first, second)
    return NotImplemented


class Operators:
    """Abstract: the arithmetic of `Array`, which is the only class that extends it."""

    __slots__ = ("tensor",)
    __array_ufunc__ = None  # NumPy arrays on the left leave operators to us
    __hash__ = None  # type: ignore[assignment]

    tensor: Tensor

    def _store(self, name: str, other: object) -> Self:
        """Lets the array refer to a result of the same type: what `x += y` does."""
        result = _apply(name, self, other)
        if result is NotImplemented:
            return result
        if result.tensor.type != self.tensor.type:
            raise OperandError(
                f"{name}: the result {result.tensor.type.short()} cannot be kept in "
                f"{self.tensor.type.short()}."
            )
        self.tensor = result.tensor
        return self

    def __pos__(self) -> Self:
        return dispatch("positive", self)

    def __neg__(self) -> Self:
        return dispatch("negative", self)

    def __abs__(self) -> Self:
        return dispatch("abs", self)

    def __invert__(self) -> Self:
        return dispatch("bitwise_invert", self)

    def __eq__(self, other: object, /) -> Self:  # type: ignore[override]
        return _apply("equal", self, other)

    def __ne__(self, other: object, /) -> Self:  # type: ignore[override]
        return _apply("not_equal", self, other)

    def __lt__(self, other: object, /) -> Self:
        return _apply("less", self, other)

    def __le__(self, other: object, /) -> Self:
        return _apply("less_equal", self, other)

    def __gt__(self, other: object, /) -> Self:
        return _apply("greater", self, other)

    def __ge__(self, other: object, /) -> Self:
        return _apply("greater_equal", self, other)

    def __add__(self, other: object, /) -> Self:
        return _apply("add", self, other)

    def __radd__(self, other: object, /) -> Self:
        return _apply("add", other, self)

    def __iadd__(self, other: object, /) -> Self:
        return self._store("add", other)

    def __sub__(self, other: object, /) -> Self:
        return _apply("subtract", self, other)

    def __rsub__(self, other: object, /) -> Self:
        return _apply("subtract", other, self)

    def __isub__(self, other: object, /) -> Self:
        return self._store("subtract", other)

    def __mul__(self, other: object, /) -> Self:
        return _apply("multiply", self, other)

    def __rmul__(self, other: object, /) -> Self:
        return _apply("multiply", other, self)

    def __imul__(self, other: object, /) -> Self:
        return self._store("multiply", other)

    def __truediv__(self, other: object, /) -> Self:
        return _apply("divide", self, other)

    def __rtruediv__(self, other: object, /) -> Self:
        return _apply("divide", other, self)

    def __itruediv__(self, other: object, /) -> Self:
        return self._store("divide", other)

    def __floordiv__(self, other: object, /) -> Self:
        return _apply("floor_divide", self, other)

    def __rfloordiv__(self, other: object, /) -> Self:
        return _apply("floor_divide", other, self)

    def __ifloordiv__(self, other: object, /) -> Self:
        return self._store("floor_divide", other)

    def __mod__(self, other: object, /) -> Self:
        return _apply("remainder", self, other)

    def __rmod__(self, other: object, /) -> Self:
        return _apply("remainder", other, self)

    def __imod__(self, other: object, /) -> Self:
        return self._store("remainder", other)

    def __pow__(self, other: object, /) -> Self:
        return _apply("pow", self, other)

    def __rpow__(self, other: object, /) -> Self:
        return _apply("pow", other, self)

    def __ipow__(self, other: object, /) -> Self:
        return self._store("pow", other)

    def __matmul__(self, other: object, /) -> Self:
        return _apply("matmul", self, other)

    def __rmatmul__(self, other: object, /) -> Self:
        return _apply("matmul", other, self)

    def __imatmul__(self, other: object, /) -> Self:
        return self._store("matmul", other)

    def __and__(self, other: object, /) -> Self:
        return _apply("bitwise_and", self, other)

    def __rand__(self, other: object, /) -> Self:
        return _apply("bitwise_and", other, self)

    def __iand__(self, other: object, /) -> Self:
        return self._store("bitwise_and", other)

    def __or__(self, other: object, /) -> Self:
        return _apply("bitwise_or", self, other)

    def __ror__(self, other: object, /) -> Self:
        return _apply("bitwise_or", other, self)

    def __ior__(self, other: object, /) -> Self:
        return self._store("bitwise_or", other)

    def __xor__(self, other: object, /) -> Self:
        return _apply("bitwise_xor", self, other)

    def __rxor__(self, other: object, /) -> Self:
        return _apply("bitwise_xor", other, self)

    def __ixor__(self, other: object, /) -> Self:
        return self._store("bitwise_xor", other)

    def __lshift__(self, other: object, /) -> Self:
        return _apply("bitwise_left_shift", self, other)

    def __rlshift__(self, other: object, /) -> Self:
        return _apply("bitwise_left_shift", other, self)

    def __ilshift__(self, other: object, /) -> Self:
        return self._store("bitwise_left_shift", other)

    def __rshift__(self, other: object, /) -> Self:
        return _apply("bitwise_right_shift", self, other)

    def __rrshift__(self, other: object, /) -> Self:
        return _apply("bitwise_right_shift", other, self)

    def __irshift__(self, other: object, /) -> Self:
        return self._store("bitwise_right_shift", other)
