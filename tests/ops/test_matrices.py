"""Tensors made by a rule for their positions; NumPy is the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maxmod import CPU, DType, Module, Tensor, TensorType
from maxmod import functional as F

A = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("diagonal", [-4, -1, 0, 1, 2, 5])
def test_triangles(diagonal: int) -> None:
    np.testing.assert_array_equal(F.tril(Tensor(A), diagonal).to_numpy(), np.tril(A, diagonal))
    np.testing.assert_array_equal(F.triu(Tensor(A), diagonal).to_numpy(), np.triu(A, diagonal))


def test_triangles_keep_no_infinity_and_every_dtype() -> None:
    x = Tensor.full([2, 2], -np.inf)
    assert F.triu(x, 1).to_numpy().tolist() == [[0, -np.inf], [0, 0]]
    assert F.tril(Tensor.ones([2, 2], dtype=DType.bool)).to_numpy().tolist() == [
        [True, False],
        [True, True],
    ]
    with pytest.raises(ValueError, match="at least two axes"):
        F.tril(Tensor([1.0]))


def test_identity() -> None:
    for shape in ((3,), (2, 4), (3, 1), (0, 2)):
        np.testing.assert_array_equal(F.eye(*shape).to_numpy(), np.eye(*shape))
    assert F.eye(2, dtype=DType.int8).dtype is DType.int8


def test_one_hot() -> None:
    classes = Tensor([[2, 0], [1, -1]], dtype=DType.int32)
    found = F.one_hot(classes, 3)
    assert found.dtype is DType.int64
    np.testing.assert_array_equal(found.to_numpy(), np.eye(3)[[[2, 0], [1, 2]]])
    assert F.one_hot(classes, 3, dtype=DType.float32).dtype is DType.float32
    for wrong, error, message in (
        (Tensor([1, 2]), ValueError, r"Tensor\(\[1, 2\], dtype=DType.int64\) holds integers"),
        (Tensor([3], dtype=DType.int64), IndexError, "position 3 out of range"),
    ):
        with pytest.raises(error, match=message):
            F.one_hot(wrong, 3)
    with pytest.raises(ValueError, match=r"Hint: F.one_hot\(x, int\(x.max\(axis=None\)"):
        F.one_hot(classes, -1)


@pytest.mark.parametrize(("start", "stop", "num"), [(0, 1, 5), (3, -2, 7), (1, 1, 1), (0, 9, 0)])
def test_linspace(start: float, stop: float, num: int) -> None:
    wanted = np.linspace(start, stop, num, dtype=np.float32)
    np.testing.assert_array_equal(F.linspace(start, stop, num).to_numpy(), wanted)
    with pytest.raises(ValueError, match="expected a number of elements and a float dtype"):
        F.linspace(start, stop, num, dtype=DType.int64)
    with pytest.raises(TypeError, match="the number is called num"):
        F.linspace(0, 1, steps=num)  # type: ignore[call-arg]


def test_patterns_in_a_compiled_function() -> None:
    class Patterns(Module[..., Any]):
        def forward(self, x: Tensor, classes: Tensor) -> list[Tensor]:
            return [
                F.tril(x, -1),
                F.triu(x),
                F.eye(x.shape[0], 4),
                F.one_hot(classes, 4),
                F.linspace(0, 1, 4) + x,
            ]

    compiled = Patterns().compile(
        TensorType(DType.float32, ["n", 4], CPU()), TensorType(DType.int64, ["k"], CPU())
    )
    x = A[0]
    wanted = [np.tril(x, -1), np.triu(x), np.eye(3, 4), np.eye(4)[[3, 1]], np.linspace(0, 1, 4) + x]
    found = compiled(Tensor(x), Tensor([3, 1], dtype=DType.int64))
    for result, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(result.to_numpy(), expected, rtol=1e-6)
