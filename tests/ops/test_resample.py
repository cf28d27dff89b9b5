"""Resizing and roi_align: edges, modes, errors, sizes, compiled graphs, and torch as a witness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_close, numbers, tensor, values, wide
from ops.compiling import assert_compiles, sizes_of, type_of
from ops.samples_resample import cubic, linear, nearest, regions

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DTypeError, OperandError, ShapeError
from maxmod.tensor import Tensor
from maxmod.values.layouts import InterpolationMode


def image(*shape: int) -> Any:
    return numbers(np.random.default_rng(0), DType.float32, shape)


def test_resize_chooses_by_mode() -> None:
    x = image(2, 3, 4, 5)
    shape = (2, 3, 7, 3)
    found = F.resize(tensor(x), shape)
    assert_close(found, linear(wide(x), shape, 0, False), length=8)
    found = F.resize(tensor(x), shape, InterpolationMode.BICUBIC)
    assert_close(found, cubic(wide(x), shape), length=32)
    found = F.resize(tensor(x), list(shape), interpolation="nearest")
    assert_close(found, nearest(x, shape, 0, 0))


def test_channels_can_be_resized_too() -> None:
    x = image(1, 2, 3, 2)
    assert_close(F.resize(tensor(x), (2, 4, 3, 2)), linear(wide(x), (2, 4, 3, 2), 0, False))


def test_linear_takes_any_rank() -> None:
    assert F.resize_linear(Tensor([0.0, 1.0]), [4]).to_numpy().tolist() == [0, 0.25, 0.75, 1]
    assert F.resize_linear(Tensor([0.0, 3.0]), [4], 1).to_numpy().tolist() == [0, 1, 2, 3]
    assert F.resize_linear(Tensor(2.0), []).item() == 2
    x = image(4, 2, 3, 2, 2)
    assert_close(
        F.resize_linear(tensor(x), (3, 2, 3, 3, 2)), linear(wide(x), (3, 2, 3, 3, 2), 0, 0)
    )


def test_antialias_only_changes_axes_that_shrink() -> None:
    x = tensor(image(6))
    same = F.resize_linear(x, [11], antialias=True).to_numpy()
    np.testing.assert_array_equal(same, F.resize_linear(x, [11]).to_numpy())
    mean = F.resize_linear(x, [1], antialias=True).item()
    weights = np.array([7, 9, 11, 11, 9, 7]) / 54  # 1 - distance / 6
    assert mean == pytest.approx(float((wide(x.to_numpy()) * weights).sum()), rel=1e-5)


def test_an_infinity_reaches_only_elements_with_a_weight() -> None:
    x = Tensor([1.0, 2.0, float("inf"), 4.0])
    assert F.resize_linear(x, [7], 1).to_numpy().tolist() == [1, 1.5, 2, np.inf, np.inf, np.inf, 4]
    column = F.reshape(x, [1, 1, 4, 1])
    found = F.resize_bicubic(column, [1, 1, 2, 1]).to_numpy().ravel()
    assert np.isneginf(found[0]) or np.isposinf(found[0])
    assert not np.isnan(found).any()


def test_resizing_to_the_same_size_copies() -> None:
    x = tensor(image(1, 1, 2, 3))
    before = x.to_numpy().copy()
    for fn in (F.resize_linear, F.resize_nearest, F.resize_bicubic):
        result = fn(x, x.shape)
        F.buffer_store(result, result * 0.0)
        np.testing.assert_array_equal(x.to_numpy(), before)


def test_axes_without_elements() -> None:
    x = Tensor.zeros([1, 0, 2, 2])
    for fn in (F.resize_linear, F.resize_nearest, F.resize_bicubic):
        assert fn(x, (1, 0, 3, 3)).sizes == (1, 0, 3, 3)
        assert fn(Tensor.zeros([1, 1, 2, 2]), (1, 1, 0, 3)).sizes == (1, 1, 0, 3)
        with pytest.raises(ShapeError, match="an axis without elements cannot be resized to 2"):
            fn(x, (1, 2, 2, 2))


@pytest.mark.parametrize("name", ["resize_linear", "resize_nearest", "resize_bicubic"])
def test_resize_errors(name: str) -> None:
    fn = getattr(F, name)
    x = Tensor.zeros([1, 1, 2, 2])
    with pytest.raises(ShapeError, match=rf"{name}: size: expected 4 sizes .* got \[2,2\]"):
        fn(x, (2, 2))
    with pytest.raises(ShapeError, match=f"{name}: sizes must not be negative, got -1"):
        fn(x, (1, 1, -1, 2))
    with pytest.raises(TypeError, match=f"{name}: size: expected an iterable"):
        fn(x, 2)
    with pytest.raises(TypeError, match="expected a Tensor, got numpy.ndarray"):
        fn(np.zeros((1, 1, 2, 2)), (1, 1, 2, 2))


def test_modes_are_checked() -> None:
    x = Tensor.zeros([1, 1, 2, 2])
    for mode in (-1, 4):
        for fn in (F.resize_linear, F.resize_nearest):
            with pytest.raises(ArgumentError, match=f"transform_mode: expected 0 to 3, got {mode}"):
                fn(x, (1, 1, 3, 3), coordinate_transform_mode=mode)
        with pytest.raises(ArgumentError, match=f"round_mode: expected 0 to 3, got {mode}"):
            F.resize_nearest(x, (1, 1, 3, 3), round_mode=mode)
    with pytest.raises(OperandError, match="round_mode: expected an int"):
        F.resize_nearest(x, (1, 1, 3, 3), round_mode=0.5)
    with pytest.raises(ArgumentError, match="interpolation: expected InterpolationMode.NEAREST"):
        F.resize(x, (1, 1, 3, 3), "lanczos")
    for wrong in (Tensor.zeros([2, 2]), Tensor.zeros([1, 1, 1, 2, 2])):
        with pytest.raises(ShapeError, match="resize: expected rank 4 and 4 sizes"):
            F.resize(wrong, (1, 1, 3, 3))
    with pytest.raises(ShapeError, match="resize: expected rank 4 and 4 sizes"):
        F.resize(x, (3, 3))
    with pytest.raises(ShapeError, match="resize_bicubic: expected rank 4"):
        F.resize_bicubic(Tensor.zeros([2, 2]), (3, 3))
    with pytest.raises(DTypeError, match="resize_linear: input has an unsupported dtype"):
        F.resize_linear(x.cast(DType.int32), (1, 1, 3, 3))


def test_symbolic_sizes() -> None:
    x = type_of("n", 3, "h", 4)
    double = sizes_of(lambda x: F.resize(x, [*x.shape[:2], x.shape[2] * 2, 8]), x)
    assert double == ["n,3,h * 2,8"]
    assert sizes_of(lambda x: F.resize_nearest(x, ["n", 3, 5, 6]), x) == ["n,3,5,6"]
    rois = type_of("m", 5)
    assert sizes_of(lambda x, r: F.roi_align(x, r, 2, 3), type_of("n", "h", "w", 2), rois) == [
        "m,2,3,2"
    ]


def test_compiled_with_symbolic_sizes() -> None:
    rng = np.random.default_rng(1)
    calls = [(numbers(rng, DType.float32, (n, 2, h, 4)),) for n, h in ((1, 3), (3, 1), (0, 2))]
    types = (type_of("n", 2, "h", 4),)
    for mode in InterpolationMode:
        assert_compiles(
            lambda x, m=mode: F.resize(x * 2.0, [*x.shape[:2], x.shape[2] * 2, 3], m) + 1.0,
            types,
            *calls,
        )
    rois = np.array([[0, 0, 0, 3, 2], [1, 1, 1, 2, 3]], np.float32)
    assert_compiles(
        lambda x, r: F.roi_align(x, r, 2, 2, aligned=True),
        (type_of(2, "h", "w", 1), type_of("m", 5)),
        (image(2, 5, 4, 1), rois),
        (image(2, 3, 6, 1), rois[:0]),
    )


# ---- regions -----------------------------------------------------------------------------------

AVERAGE = {"spatial_scale": 1.0, "sampling_ratio": 0.0, "aligned": False, "mode": "AVG"}


def test_roi_defaults() -> None:
    x = image(2, 5, 6, 3)
    rois = np.array([[1, 0.5, 1, 4, 3.5]], np.float32)
    found = F.roi_align(tensor(x), tensor(rois), 2, 3)
    assert_close(found, regions(wide(x), wide(rois), 2, 3, **AVERAGE), length=16)


def test_the_largest_weighted_corner() -> None:
    """Worked out by hand: one sample halfway between 1, 2, 3 and 4, each of which weighs a quarter;
    one three quarters of the way to the right, a quarter down.
    """
    x = tensor(np.array([1, 2, 3, 4], np.float32).reshape(1, 2, 2, 1))
    rois = tensor(np.array([[0, 0, 0, 1, 1], [0, 0.25, -0.25, 1.25, 0.75]], np.float32))
    found = F.roi_align(x, rois, 1, 1, sampling_ratio=1.0, mode="MAX")
    np.testing.assert_allclose(found.to_numpy().ravel(), [4 * 0.25, 2 * 0.75 * 0.75])
    below = F.roi_align(F.negate(x), rois, 1, 1, sampling_ratio=1.0, mode="MAX")
    np.testing.assert_allclose(below.to_numpy().ravel(), [-1 * 0.25, -3 * 0.25 * 0.25])


def test_regions_outside_count_as_zero() -> None:
    x = tensor(np.ones((1, 4, 4, 1), np.float32))
    rois = tensor(np.array([[0, 10, 10, 14, 14], [0, -9, -9, -5, -5]], np.float32))
    assert (F.roi_align(x, rois, 2, 2).to_numpy() == 0).all()


def test_empty_regions() -> None:
    x = tensor(image(1, 4, 4, 2))
    assert F.roi_align(x, Tensor.zeros([0, 5]), 2, 2).sizes == (0, 2, 2, 2)
    # Without a size there are no samples when coordinates are aligned.
    point = Tensor([[0.0, 1.0, 1.0, 1.0, 1.0]])
    assert (F.roi_align(x, point, 2, 2, aligned=True).to_numpy() == 0).all()


def test_roi_errors() -> None:
    x, rois = Tensor.zeros([1, 4, 4, 1]), Tensor.zeros([1, 5])
    with pytest.raises(ShapeError, match=r"roi_align: input: expected \[N, H, W, C\]"):
        F.roi_align(Tensor.zeros([4, 4, 1]), rois, 2, 2)
    for shape in ([5], [1, 4]):
        with pytest.raises(ShapeError, match=r"roi_align: rois: expected \[M, 5\]"):
            F.roi_align(x, Tensor.zeros(shape), 2, 2)
    with pytest.raises(ArgumentError, match="roi_align: mode: expected 'AVG' or 'MAX', got 'avg'"):
        F.roi_align(x, rois, 2, 2, mode="avg")
    with pytest.raises(DTypeError, match="roi_align: input has an unsupported dtype"):
        F.roi_align(x.cast(DType.int32), rois, 2, 2)
    with pytest.raises(ShapeError, match="sizes must not be negative"):
        F.roi_align(x, rois, -1, 2)
    with pytest.raises(IndexError):
        F.roi_align(x, Tensor([[3.0, 0.0, 0.0, 1.0, 1.0]]), 2, 2)


@pytest.mark.oracle
def test_torch_agrees() -> None:
    import torch

    x = image(2, 3, 7, 5)
    given = torch.from_numpy(x)
    for size in ((11, 3), (3, 9)):
        shape = (2, 3, *size)
        for mode, antialias in (("bilinear", False), ("bilinear", True), ("bicubic", False)):
            wanted = torch.nn.functional.interpolate(
                given, size, mode=mode, align_corners=False, antialias=antialias
            )
            if mode == "bicubic":
                found = F.resize_bicubic(tensor(x), shape)
            else:
                found = F.resize_linear(tensor(x), shape, antialias=antialias)
            np.testing.assert_allclose(values(found), wanted.numpy(), rtol=1e-4, atol=1e-5)
        wanted = torch.nn.functional.interpolate(given, size, mode="bilinear", align_corners=True)
        found = F.resize_linear(tensor(x), shape, 1)
        np.testing.assert_allclose(values(found), wanted.numpy(), rtol=1e-4, atol=1e-5)
        wanted = torch.nn.functional.interpolate(given, size, mode="nearest")
        found = F.resize_nearest(tensor(x), shape, 2, 2)
        np.testing.assert_array_equal(values(found), wanted.numpy())
