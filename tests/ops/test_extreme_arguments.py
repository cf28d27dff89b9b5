"""Functions of floats far out: huge angles, results next to 0, denormal operands, infinities."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers import tensor

from maxmod import functional as F
from maxmod.backends.host import compiler as host_compiler
from maxmod.dtype import DType, compute_dtype, storage_dtype
from maxmod.op import FUNCTIONS
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType

Array = np.ndarray[Any, Any]
DTYPES = (DType.float32, DType.bfloat16, DType.float16, DType.float64)
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _logistic(x: Array) -> Array:
    return np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x)))


def _twice_u(x: Array) -> Array:
    return math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)


# Function, oracle in float64, and the error in units of the last place of the compute dtype. The
# exponents of gelu by tanh and of quick gelu are products, whose rounding grows by the exponent.
CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Array], Array], float]] = {
    "exp": (F.exp, np.exp, 4),
    "log": (F.log, np.log, 4),
    "log1p": (F.log1p, np.log1p, 4),
    "expm1": (FUNCTIONS["expm1"], np.expm1, 4),
    "tanh": (F.tanh, np.tanh, 4),
    "atanh": (F.atanh, np.arctanh, 4),
    "erf": (F.erf, np.vectorize(math.erf, otypes=[np.float64]), 6),
    "sqrt": (F.sqrt, np.sqrt, 1),
    "rsqrt": (F.rsqrt, lambda x: 1 / np.sqrt(x), 3),
    "sin": (F.sin, np.sin, 4),
    "cos": (F.cos, np.cos, 4),
    "sigmoid": (F.sigmoid, _logistic, 6),
    "silu": (F.silu, lambda x: x * _logistic(x), 6),
    "gelu": (F.gelu, lambda x: 0.5 * x * _erfc(-x / math.sqrt(2)), 16),
    "gelu tanh": (lambda x: F.gelu(x, "tanh"), lambda x: x * _logistic(_twice_u(x)), 256),
    "gelu quick": (lambda x: F.gelu(x, "quick"), lambda x: x * _logistic(1.702 * x), 128),
}


@functools.cache
def _compiled(dtype: DType) -> CompiledModel:
    def fn(x: Tensor) -> list[Tensor]:
        return [call(x) for call, _, _ in CASES.values()]

    return compile_function(fn, [TensorType(dtype, ["n"], CPU_REF)], name="far", parameters={})


def _arguments(dtype: DType) -> Array:
    info = ml_dtypes.finfo(storage_dtype(dtype))
    tiny, least = float(info.tiny), float(info.smallest_subnormal)
    powers = 2.0 ** np.arange(-40, 41)
    falling = [*np.arange(-120, -80, 0.25), *np.arange(-14.5, -3, 0.125)]
    angles = [1.2e15, 2.0**50, 1e17, 1e22, 3e30, 1e38, 60000.0, 32767.0, 32768.0, 40000.0]
    ends = [tiny, tiny / 2, least, 3 * least, float(info.max), np.inf, 0.0, 88.5, 89.0, 104.0]
    values = np.array([*powers, *falling, *angles, *ends])
    values = np.concatenate([values, -values, [np.nan]])
    with np.errstate(over="ignore"):
        return values.astype(storage_dtype(dtype))


def _check(name: str, dtype: DType, x: Array, found: Tensor) -> None:
    _, oracle, ulps = CASES[name]
    stored, computed = storage_dtype(dtype), storage_dtype(compute_dtype(dtype))
    with np.errstate(all="ignore"):
        exact = oracle(x.astype(np.float64))
        want = exact.astype(stored).astype(np.float64)
        got = np.asarray(found._host()).astype(np.float64)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
        error = np.abs(got - exact)
    # Twice the float64 rounding of the oracle's own argument, in float64.
    ulps *= 100 if dtype is DType.float64 else 1
    unit = float(ml_dtypes.finfo(computed).eps)
    half = float(ml_dtypes.finfo(stored).eps) / 2 if stored != computed else 0.0
    least = float(ml_dtypes.finfo(stored).smallest_subnormal)
    bound = np.abs(exact) * (ulps * unit + half) + least * (2 if stored == computed else 0.51)
    wrong = np.isfinite(want) & ~(error <= bound)
    assert not wrong.any(), f"{name}({x[wrong][:4]}) is {got[wrong][:4]}, not {exact[wrong][:4]}"


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_eager(dtype: DType) -> None:
    x = _arguments(dtype)
    for name, (call, _, _) in CASES.items():
        _check(name, dtype, x, call(tensor(x)))


@pytest.mark.skipif(
    bool(host_compiler.unavailable_reason()), reason=host_compiler.unavailable_reason()
)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_compiled(dtype: DType) -> None:
    x = _arguments(dtype)
    model = _compiled(dtype)
    assert model.kernels, "the compiler refused a kernel"
    for name, found in zip(CASES, model(tensor(x)), strict=True):
        _check(name, dtype, x, found)
