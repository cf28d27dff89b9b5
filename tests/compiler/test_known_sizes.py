"""What only the sizes of a call decide is refused, or has the value that it has eagerly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from compiler.graphs import compiled, f32
from helpers import tensor

import maxmod
from maxmod import Tensor
from maxmod import functional as F
from maxmod.errors import ShapeError

EXTREMES = [F.max, F.min, F.argmax, F.argmin]


def zeros(*shape: int) -> Tensor:
    return tensor(np.zeros(shape, np.float32))


def both(fn: Callable[..., object], *types: object) -> list[Callable[..., object]]:
    """A function as kernels, and op by op."""
    with maxmod.configure(compile=False):
        ops = compiled(fn, *types)
    return [compiled(fn, *types), ops]


def test_a_fused_row_without_elements_is_refused_as_eagerly() -> None:
    def fn(x: Tensor) -> Tensor:
        return F.exp(x - F.max(x * 2.0)) + 1.0

    for model in both(fn, f32("m", "n")):
        with pytest.raises(
            ShapeError, match=r"max: axis 1 of float32\[2,0\] is empty.*\n  at .*py"
        ):
            model(zeros(2, 0))
        assert model(zeros(0, 3)).shape == [0, 3]
        np.testing.assert_array_equal(model(zeros(1, 2)), np.full((1, 2), 2.0))


@pytest.mark.parametrize("fn", EXTREMES, ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("axis", [0, 1, None])
def test_extremes_of_nothing_are_refused_over_every_axis(
    fn: Callable[..., Tensor], axis: int | None
) -> None:
    def call(x: Tensor) -> Tensor:
        return fn(x, axis=axis)

    with maxmod.configure(compile=False):
        model = compiled(call, f32("m", "n"))
    for shape in [(0, 3), (3, 0), (0, 0)]:
        if axis is None or shape[axis] == 0:
            with pytest.raises(ShapeError, match=f"{fn.__name__}: axis .* is empty"):
                model(zeros(*shape))
        else:
            assert model(zeros(*shape)).shape == [
                size if n != axis else 1 for n, size in enumerate(shape)
            ]


def test_nothing_that_a_branch_does_not_run_is_refused() -> None:
    def fn(x: Tensor, use: Tensor) -> Tensor:
        return F.cond(use, [x.type], lambda: x - F.max(x), lambda: x * 2.0)[0]

    with maxmod.configure(compile=False):
        model = compiled(fn, f32("n"), maxmod.TensorType(maxmod.DType.bool, [], Tensor(0.0).device))
    assert model(zeros(0), tensor(np.array(False))).shape == [0]
    with pytest.raises(ShapeError, match="max: axis 0 of"):
        model(zeros(0), tensor(np.array(True)))


def test_empty_reductions_give_the_identity() -> None:
    def fn(x: Tensor) -> list[Tensor]:
        return [
            F.sum(x),
            F.prod(x),
            F.mean(x),
            F.sum(x, axis=0),
            F.softmax(x),
            F.softmax(x, axis=0),
        ]

    for model in both(fn, f32("m", "n")):
        total, product, mean, columns, *rows = model(zeros(2, 0))
        assert total.to_numpy().tolist() == [[0.0], [0.0]]
        assert product.to_numpy().tolist() == [[1.0], [1.0]]
        assert np.isnan(mean.to_numpy()).all()
        assert columns.shape == [1, 0]
        assert all(row.shape == [2, 0] for row in rows)
        assert model(zeros(0, 2))[3].to_numpy().tolist() == [[0.0, 0.0]]
        assert model(zeros(0, 2))[5].shape == [0, 2]


def test_other_rules_are_applied_to_known_sizes() -> None:
    def fn(x: Tensor) -> list[Tensor]:
        return F.top_k(x, 2)

    with maxmod.configure(compile=False):
        model = compiled(fn, f32(2, "n"))
    with pytest.raises(ValueError, match=r"top_k: k must lie in 0\.\.1 for axis 1") as eager:
        fn(zeros(2, 1))
    with pytest.raises(ValueError, match="top_k") as found:
        model(zeros(2, 1))
    assert str(found.value).startswith(str(eager.value))
    assert model(zeros(2, 3))[0].shape == [2, 2]


def test_a_function_without_arguments_returns_captured_tensors() -> None:
    captured = tensor(np.arange(3, dtype=np.float32))
    for model in both(lambda: [captured, captured]):
        first, second = model()
        first.data[...] = 7.0
        assert second.to_numpy().tolist() == [0.0, 1.0, 2.0]
        assert model()[0].to_numpy().tolist() == [0.0, 1.0, 2.0]
