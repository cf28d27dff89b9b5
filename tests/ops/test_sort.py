"""Sorting and choosing: ties, NaN, errors, long rows, boxes, and compiled graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import tensor, values
from ops.compiling import assert_compiles, sizes_of, type_of
from ops.samples_order import chosen, suppressed

from maxmod import functional as F
from maxmod.backends.devices import CPU, Device
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, AxisError, DTypeError, ShapeError
from maxmod.tensor import Tensor

NAN, INF = float("nan"), float("inf")


def test_argsort_is_stable_and_puts_nan_last() -> None:
    x = Tensor([2.0, NAN, 1.0, 2.0, -INF, 1.0, INF])
    assert F.argsort(x).to_numpy().tolist() == [4, 2, 5, 0, 3, 6, 1]
    assert F.argsort(x, ascending=False).to_numpy().tolist() == [1, 6, 0, 3, 2, 5, 4]
    assert F.argsort(x).dtype is DType.int64


def test_argsort_of_extreme_integers() -> None:
    x = tensor(np.array([-128, 127, 0, -128], np.int8))
    assert F.argsort(x, ascending=False).to_numpy().tolist() == [1, 2, 0, 3]
    wide = tensor(np.array([2**64 - 1, 0, 2**63], np.uint64))
    assert F.argsort(wide, ascending=False).to_numpy().tolist() == [0, 2, 1]


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_argsort_takes_vectors(shape: Any) -> None:
    with pytest.raises(ShapeError, match="argsort: expected rank 1") as caught:
        F.argsort(Tensor.zeros(shape))
    assert isinstance(caught.value, ValueError)


def test_top_k_returns_a_list_with_the_first_of_equals_first() -> None:
    result = F.top_k(Tensor([[1.0, 3.0, 3.0, 2.0], [NAN, 0.0, NAN, INF]]), 3)
    assert isinstance(result, list)
    found, positions = result
    assert positions.to_numpy().tolist() == [[1, 2, 3], [0, 2, 3]]
    assert positions.dtype is DType.int64
    np.testing.assert_array_equal(found.to_numpy(), [[3, 3, 2], [NAN, NAN, INF]])
    found, positions = F.bottom_k(Tensor([3.0, NAN, 1.0, 1.0, 2.0]), 4)
    assert found.to_numpy().tolist() == [1, 1, 2, 3]
    assert positions.to_numpy().tolist() == [2, 3, 4, 0]


@pytest.mark.parametrize("name", ["top_k", "bottom_k"])
def test_long_rows(name: str, device: Device) -> None:
    """Rows of which only a few elements are sorted, with ties, NaN and infinities."""
    rng = np.random.default_rng(0)
    rows = {
        "ties": rng.integers(0, 50, (3, 400)).astype(np.float32),
        "few distinct": rng.integers(0, 2, (3, 400)).astype(np.float32),
        "plain": rng.normal(size=(3, 400)).astype(np.float32),
        "nan": np.where(rng.random((3, 400)) < 0.02, np.nan, rng.normal(size=(3, 400))),
        "mostly nan": np.where(rng.random((3, 400)) < 0.99, np.nan, 1.0),
        "infinities": np.where(rng.random((3, 400)) < 0.02, np.inf, -np.inf),
        "integers": rng.integers(-9, 9, (3, 400)),
        "bool": rng.random((3, 400)) < 0.01,
    }
    for x in rows.values():
        for k in (1, 5, 49):
            wanted = chosen(name == "top_k")(x, k, -1)
            found = getattr(F, name)(tensor(x).to(device), k)
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(values(one.to(CPU())), other)


@pytest.mark.parametrize("name", ["top_k", "bottom_k"])
def test_top_k_errors(name: str) -> None:
    fn = getattr(F, name)
    x = Tensor.zeros([2, 3])
    for k in (4, -1):
        with pytest.raises(ArgumentError, match=rf"{name}: k must lie in 0\.\.3 .*got {k}"):
            fn(x, k)
    for axis in (2, -3):
        with pytest.raises(AxisError, match=f"{name}: Invalid axis={axis}"):
            fn(x, 1, axis=axis)
    with pytest.raises(AxisError, match="Invalid axis=-1"):
        fn(Tensor(1.0), 1)
    with pytest.raises(TypeError):
        fn(x, 1.5)


def test_compiled_with_symbolic_sizes() -> None:
    rng = np.random.default_rng(1)
    calls = [(rng.normal(size=(n, 9)).astype(np.float32),) for n in (1, 4, 0)]
    assert_compiles(lambda x: F.top_k(x + 1.0, 3), (type_of("n", 9),), *calls)
    assert_compiles(lambda x: F.bottom_k(x, 2, axis=1), (type_of("n", 9),), *calls)
    vectors = [(rng.normal(size=n).astype(np.float32),) for n in (1, 6, 0)]
    assert_compiles(lambda x: F.argsort(x, ascending=False), (type_of("n"),), *vectors)
    assert sizes_of(lambda x: F.top_k(x, 2, axis=0), type_of("n", 3)) == ["2,3", "2,3"]
    assert sizes_of(lambda x: F.top_k(x, x.shape[0], axis=0), type_of("n", 3)) == ["n,3", "n,3"]


def test_a_symbolic_axis_is_checked_at_run_time() -> None:
    model = assert_compiles(
        lambda x: F.top_k(x, 3), (type_of("n"),), (np.arange(5, dtype=np.float32),)
    )
    with pytest.raises(ValueError, match="k must lie in 0..2 for axis 0"):
        model(np.zeros(2, np.float32))


# ---- boxes -------------------------------------------------------------------------------------


def limits(most: int, overlap: float, least: float) -> list[Tensor]:
    return [Tensor(most, dtype=DType.int64), Tensor(overlap), Tensor(least)]


def test_overlapping_boxes_are_dropped() -> None:
    boxes = Tensor([[[0, 0, 1, 1], [1.1, 1, 0, 0], [0, 2, 1, 3], [5, 5, 5, 5]]])
    scores = Tensor([[[0.5, 0.9, 0.3, 0.8], [0.1, 0.2, 0.7, 0.2]]])
    found = F.non_maximum_suppression(boxes, scores, *limits(10, 0.5, 0.2))
    assert found.type.short() == "int64[4,3]"
    # Class 0: the second box drops the first; class 1: a score must lie above the threshold.
    assert found.to_numpy().tolist() == [[0, 0, 1], [0, 0, 3], [0, 0, 2], [0, 1, 2]]
    assert F.non_maximum_suppression(boxes, scores, *limits(1, 0.5, 0.2)).sizes == (2, 3)
    assert F.non_maximum_suppression(boxes, scores, *limits(0, 0.5, 0.2)).sizes == (0, 3)
    assert F.non_maximum_suppression(boxes, scores, *limits(9, 0.5, 0.9)).sizes == (0, 3)


def test_random_boxes(device: Device) -> None:
    rng = np.random.default_rng(3)
    boxes = rng.uniform(0, 2, (2, 40, 4)).astype(np.float32)
    scores = rng.uniform(0, 1, (2, 3, 40)).astype(np.float32)
    wanted = suppressed(boxes.astype(np.float64), scores.astype(np.float64), 7, 0.25, 0.125)
    operands = [tensor(a).to(device) for a in (boxes, scores)]
    arrays = (np.array(7), np.array(0.25, np.float32), np.array(0.125, np.float32))
    bounds = [tensor(array).to(device) for array in arrays]
    found = F.non_maximum_suppression(*operands, *bounds)
    assert found.device == device
    assert values(found.to(CPU())).tolist() == wanted.tolist()
    again = F.non_maximum_suppression(*operands, *bounds, out_dim=len(wanted))
    assert values(again.to(CPU())).tolist() == wanted.tolist()


def test_box_errors() -> None:
    boxes, scores = Tensor.zeros([1, 2, 4]), Tensor.ones([1, 1, 2])
    good = limits(1, 0.5, 0.0)
    nms = F.non_maximum_suppression
    with pytest.raises(ValueError, match="out_dim is 2, but 1 boxes are kept"):
        nms(boxes, scores, *good, out_dim=2)
    with pytest.raises(TypeError, match="non_maximum_suppression: .*expected a Tensor, got int"):
        nms(boxes, scores, 1, *good[1:])
    with pytest.raises(ShapeError, match=r"expected boxes \[batch, n, 4\]"):
        nms(Tensor.zeros([1, 2, 5]), scores, *good)
    with pytest.raises(ShapeError, match="and scores"):
        nms(boxes, Tensor.ones([1, 1, 3]), *good)
    with pytest.raises(DTypeError, match="of one float dtype"):
        nms(boxes, scores.cast(DType.float64), *good)
    with pytest.raises(DTypeError, match="max_output_boxes_per_class: expected an integer"):
        nms(boxes, scores, Tensor(1.0), *good[1:])
    with pytest.raises(DTypeError, match="thresholds must be floats"):
        nms(boxes, scores, good[0], good[0], good[2])
    with pytest.raises(ShapeError, match="must be scalars"):
        nms(boxes, scores, good[0], Tensor([0.5]), good[2])


def test_boxes_in_a_graph_need_a_named_number() -> None:
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]], np.float32)
    scores = np.array([[[0.5, 0.6, 0.7]]], np.float32)

    def fn(b: Tensor, s: Tensor) -> Tensor:
        return F.non_maximum_suppression(b, s, *limits(9, 0.5, 0.0), out_dim=2)

    types = (type_of("n", 3, 4), type_of("n", "classes", 3))
    assert_compiles(fn, types, (boxes, scores))
