"""What each elementwise op must give: NumPy or `math` in float64 (int64 for integers)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from helpers import ALL, BOOL, FLOATS, INTEGERS, NUMERIC, SIGNED, WIDE_FLOATS

from maxmod.dtype import DType

_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _logistic(x: Any) -> Any:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _gelu(x: Any, approximate: str = "none") -> Any:
    if approximate == "none":
        return 0.5 * x * _erfc(x / -math.sqrt(2))
    if approximate == "tanh":
        return x * _logistic(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))
    return x * _logistic(1.702 * x)


def _floor_div(x: Any, y: Any) -> Any:
    return np.floor(x / y) if x.dtype.kind == "f" else np.floor_divide(x, y)


def _pow(x: Any, y: Any) -> Any:
    return np.power(x, np.abs(y) if x.dtype.kind == "i" else y)


def _left_shift(x: Any, y: Any) -> Any:
    """In Python's integers; the low bits are what stays when the result is rounded to the dtype."""
    return np.where(y < 0, 0, x << np.where(y < 0, 0, y).astype(x.dtype))


def _right_shift(x: Any, y: Any) -> Any:
    return x >> np.where(y < 0, 63, y).astype(x.dtype)


def _nextafter(x: Any, y: Any) -> Any:
    """In float32 if that holds the operands, which only samples of float32 are sure to be."""
    pair = [x.astype(np.float32), y.astype(np.float32)]
    if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(pair, (x, y))):
        return np.nextafter(*pair).astype(np.float64)
    return np.nextafter(x, y)


@dataclass(frozen=True)
class Oracle:
    """How to test one elementwise op.

    Attributes:
        fn: The oracle, on wide arrays.
        dtypes: The dtypes that the op accepts; all others must be refused.
        attrs: Static arguments to test with, one case each.
        first: The dtype of the first operand, if it is not that of the others.
    """

    fn: Callable[..., Any]
    dtypes: tuple[DType, ...] = FLOATS
    attrs: tuple[dict[str, Any], ...] = field(default=({},))
    first: DType | None = None


ORACLES = {
    "abs": Oracle(np.abs, NUMERIC),
    "acos": Oracle(np.arccos),
    "acosh": Oracle(np.arccosh),
    "add": Oracle(np.add, NUMERIC),
    "asin": Oracle(np.arcsin),
    "asinh": Oracle(np.arcsinh),
    "atan": Oracle(np.arctan),
    "atan2": Oracle(np.arctan2),
    "atanh": Oracle(np.arctanh),
    "bitwise_and": Oracle(np.bitwise_and, INTEGERS),
    "bitwise_invert": Oracle(np.invert, INTEGERS),
    "bitwise_left_shift": Oracle(_left_shift, INTEGERS),
    "bitwise_or": Oracle(np.bitwise_or, INTEGERS),
    "bitwise_right_shift": Oracle(_right_shift, INTEGERS),
    "bitwise_xor": Oracle(np.bitwise_xor, INTEGERS),
    "cast": Oracle(lambda x, dtype: x, ALL, tuple({"dtype": d} for d in ALL)),
    "ceil": Oracle(np.ceil),
    "copysign": Oracle(np.copysign),
    "cos": Oracle(np.cos),
    "cosh": Oracle(np.cosh),
    "equal": Oracle(np.equal, ALL),
    "erf": Oracle(_erf),
    "exp": Oracle(np.exp),
    "expm1": Oracle(np.expm1),
    "floor": Oracle(np.floor),
    "floor_div": Oracle(_floor_div, NUMERIC),
    "gelu": Oracle(_gelu, attrs=tuple({"approximate": a} for a in ("none", "tanh", "quick"))),
    "greater": Oracle(np.greater, ALL),
    "greater_equal": Oracle(np.greater_equal, ALL),
    "hypot": Oracle(np.hypot),
    "is_inf": Oracle(np.isinf, NUMERIC),
    "is_nan": Oracle(np.isnan, NUMERIC),
    "log": Oracle(np.log),
    "log10": Oracle(np.log10),
    "log1p": Oracle(np.log1p),
    "log2": Oracle(np.log2),
    "logical_and": Oracle(np.logical_and, BOOL),
    "logical_not": Oracle(np.logical_not, BOOL),
    "logical_or": Oracle(np.logical_or, BOOL),
    "logical_xor": Oracle(np.logical_xor, BOOL),
    "maximum": Oracle(np.maximum, ALL),
    "minimum": Oracle(np.minimum, ALL),
    "mod": Oracle(np.mod, NUMERIC),
    "mul": Oracle(np.multiply, NUMERIC),
    "negate": Oracle(np.negative, (*FLOATS, *SIGNED)),
    "nextafter": Oracle(_nextafter, WIDE_FLOATS),
    "not_equal": Oracle(np.not_equal, ALL),
    "pow": Oracle(_pow, NUMERIC),
    "relu": Oracle(lambda x: np.maximum(x, 0), NUMERIC),
    "round": Oracle(np.rint),
    "rsqrt": Oracle(lambda x: 1 / np.sqrt(x)),
    "select": Oracle(np.where, ALL, first=DType.bool),
    "sigmoid": Oracle(_logistic),
    "signbit": Oracle(np.signbit),
    "silu": Oracle(lambda x: x * _logistic(x)),
    "sin": Oracle(np.sin),
    "sinh": Oracle(np.sinh),
    "sqrt": Oracle(np.sqrt),
    "sub": Oracle(np.subtract, NUMERIC),
    "tan": Oracle(np.tan),
    "tanh": Oracle(np.tanh),
    "true_div": Oracle(np.divide),
    "trunc": Oracle(np.trunc),
}
