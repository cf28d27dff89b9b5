"""`max.experimental.testing`: comparisons for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from maxmod.tensor import Tensor
from maxmod.values.array import HostArray


def assert_all_close(
    actual: object, expected: object, rtol: float = 1e-5, atol: float = 1e-8
) -> None:
    """Asserts that two tensors are equal within a tolerance: `|a - e| <= atol + rtol |e|`.

    They are compared in float64; NaN is equal to NaN, and an infinity to itself.

    Args:
        actual: A tensor, or what `Tensor` takes.
        expected: Another, of the same shape.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Raises:
        AssertionError: If shapes differ, or elements do; it says how many, and the worst.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.compat.testing import assert_all_close
        >>> assert_all_close(Tensor([1.0, 2.0]), [1.0, 2.000001])
    """
    np.testing.assert_allclose(_wide(actual), _wide(expected), rtol=rtol, atol=atol, strict=True)


def _wide(value: object) -> HostArray:
    host = np.asarray(value) if isinstance(value, Tensor) else _array(value)
    return host.astype(np.float64)


def _array(value: Any) -> HostArray:
    nested = isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value)
    return np.stack([_wide(v) for v in value]) if nested else np.asarray(value)


__all__ = ["assert_all_close"]
