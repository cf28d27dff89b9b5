"""Pooling and fold: defaults, rounding up, windows of padding, errors, sizes, compiled graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_close, numbers, tensor, values, wide
from ops.compiling import assert_compiles, sizes_of, type_of
from ops.samples_windows import average_pooling, folding, max_pooling

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DTypeError, OperandError, ShapeError
from maxmod.tensor import Tensor

IMAGE = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
DEFAULTS = {"stride": 1, "dilation": 1, "padding": 0, "ceil_mode": False}


def test_the_default_stride_is_1() -> None:
    x = tensor(IMAGE)
    mean = average_pooling(wide(IMAGE), kernel_size=(2, 3), count_boundary=True, **DEFAULTS)
    assert_close(F.avg_pool2d(x, (2, 3)), mean)
    assert_close(F.max_pool2d(x, (2, 3)), max_pooling(wide(IMAGE), kernel_size=(2, 3), **DEFAULTS))
    assert F.max_pool2d(x, (2, 3)).sizes == (1, 4, 3, 1)


def test_divisors() -> None:
    """Padding counts if that is asked for; what lies beyond it, with ceil_mode, never does."""
    x = Tensor.ones([1, 4, 4, 1])
    common: dict[str, Any] = {"stride": 2, "padding": 1, "ceil_mode": True}
    # On each axis three windows, over 2 and 1 of padding, 3 and 0, 1 and 1 elements.
    counted = F.avg_pool2d(x, (3, 3), **common).to_numpy()[0, :, :, 0]
    share = np.array([2 / 3, 1, 1 / 2])
    np.testing.assert_allclose(counted, np.outer(share, share), rtol=1e-6)
    alone = F.avg_pool2d(x, (3, 3), count_boundary=False, **common)
    assert (alone.to_numpy() == 1).all()


def test_ceil_mode_counts_a_last_window_that_is_not_whole() -> None:
    x = tensor(IMAGE[:, :, :4])
    assert F.max_pool2d(x, (2, 2), 2).sizes == (1, 2, 2, 1)
    found = F.max_pool2d(x, (2, 2), 2, ceil_mode=True)
    assert found.to_numpy()[0, :, :, 0].tolist() == [[6, 8], [16, 18], [21, 23]]
    mean = F.avg_pool2d(x, (2, 2), 2, ceil_mode=True)
    assert mean.to_numpy()[0, 2, :, 0].tolist() == [20.5, 22.5]  # of two elements, not four


def test_windows_of_nothing_but_padding() -> None:
    x = tensor(IMAGE)
    found = F.max_pool2d(x, (1, 1), 3, padding=1)
    assert found.to_numpy()[0, :, :, 0].tolist() == [
        [-np.inf, -np.inf, -np.inf],
        [-np.inf, 12, -np.inf],
        [-np.inf, -np.inf, -np.inf],
    ]
    whole = F.max_pool2d(x.cast(DType.int8), (1, 1), 3, padding=1)
    assert whole.to_numpy()[0, 0, 0, 0] == -128
    assert F.avg_pool2d(x, (1, 1), 3, padding=1).to_numpy()[0, 0, 0, 0] == 0
    alone = F.avg_pool2d(x, (1, 1), 3, padding=1, count_boundary=False)
    assert np.isnan(alone.to_numpy()[0, 0, 0, 0])
    assert alone.to_numpy()[0, 1, 1, 0] == 12


def test_nan_wins_in_the_windows_that_hold_one() -> None:
    x = IMAGE.copy()
    x[0, 2, 2] = np.nan
    found = F.max_pool2d(tensor(x), (2, 2)).to_numpy()[0, :, :, 0]
    assert np.isnan(found).sum() == 4
    assert np.isnan(found[1:3, 1:3]).all()


def test_empty_batches_and_channels() -> None:
    for shape in ((0, 4, 4, 2), (2, 4, 4, 0)):
        for fn in (F.max_pool2d, F.avg_pool2d):
            assert fn(Tensor.zeros(shape), 2).sizes == (shape[0], 3, 3, shape[3])


@pytest.mark.parametrize("name", ["avg_pool2d", "max_pool2d"])
def test_pooling_errors(name: str) -> None:
    fn = getattr(F, name)
    x = Tensor.zeros([1, 4, 4, 1])
    with pytest.raises(ShapeError, match=rf"{name}: expected \[N, H, W, C\], got float32\[4,4,1\]"):
        fn(Tensor.zeros([4, 4, 1]), (2, 2))
    with pytest.raises(ShapeError, match=f"{name}: a window of 5 elements .* does not fit"):
        fn(x, (1, 5))
    with pytest.raises(DTypeError, match=f"{name}: input has an unsupported dtype"):
        fn(x.cast(DType.bool), (2, 2))
    for argument in ("kernel_size", "stride", "dilation", "padding"):
        given: dict[str, Any] = {"kernel_size": (2, 2), argument: -1}
        with pytest.raises(ArgumentError, match=f"{name}: {argument}: expected at least"):
            fn(x, **given)
        with pytest.raises(ArgumentError, match=f"{name}: {argument}: expected 2 ints"):
            fn(x, **{**given, argument: (1, 1, 1)})
        with pytest.raises(OperandError, match=f"{name}: {argument}: expected an int, got 1.5"):
            fn(x, **{**given, argument: 1.5})
    with pytest.raises(TypeError, match="expected a Tensor, got numpy.ndarray"):
        fn(IMAGE, (2, 2))


def test_means_need_floats() -> None:
    with pytest.raises(DTypeError, match="avg_pool2d: input .*expected floating point"):
        F.avg_pool2d(Tensor.zeros([1, 4, 4, 1], dtype=DType.int32), 2)


def test_fold_puts_windows_back() -> None:
    rng = np.random.default_rng(0)
    x = numbers(rng, DType.float32, (2, 3 * 4, 6))
    attrs = {"output_size": (3, 4), "kernel_size": 2}
    wanted = folding(wide(x), **attrs, stride=1, dilation=1, padding=0)
    assert_close(F.fold(tensor(x), **attrs), wanted, length=4)
    assert F.fold(Tensor.ones([1, 4, 9]), 4, 2).sizes == (1, 1, 4, 4)


def test_fold_errors() -> None:
    x = Tensor.zeros([1, 8, 6])
    with pytest.raises(ShapeError, match=r"fold: expected \[N, C \* KH \* KW, L\]"):
        F.fold(Tensor.zeros([8, 6]), (3, 4), (2, 2))
    with pytest.raises(ShapeError, match="axis 1 of .* cannot be divided by the 3 elements"):
        F.fold(x, (3, 4), (1, 3))
    with pytest.raises(ShapeError, match="one element for each window: expected 9, got 6"):
        F.fold(x, (4, 4), (2, 2))
    with pytest.raises(ShapeError, match="fold: a window of 2 elements .* does not fit"):
        F.fold(x, (1, 4), (2, 2))
    with pytest.raises(ArgumentError, match="fold: output_size: expected 2 sizes"):
        F.fold(x, (3, 4, 1), (2, 2))
    with pytest.raises(ArgumentError, match="fold: kernel_size: expected at least 1"):
        F.fold(x, (3, 4), (0, 2))
    with pytest.raises(DTypeError, match="fold: input has an unsupported dtype"):
        F.fold(x.cast(DType.bool), (3, 4), (2, 2))


def test_symbolic_sizes() -> None:
    x = type_of("n", "h", 7, "c")
    assert sizes_of(lambda x: F.max_pool2d(x, (2, 2), (2, 1)), x) == ["n,((h + -2) // 2) + 1,6,c"]
    assert sizes_of(lambda x: F.avg_pool2d(x, 3, 1, padding=1), x) == ["n,h,7,c"]
    assert sizes_of(lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True), x) == [
        "n,((h + -1) // 2) + 1,4,c"
    ]
    assert sizes_of(lambda x: F.fold(x, (3, 4), (2, 2)), type_of("n", 8, "l")) == ["n,2,3,4"]
    assert sizes_of(lambda x: F.fold(x, (x.shape[2], 2), (1, 2)), type_of("n", 8, "l")) == [
        "n,4,l,2"
    ]


def test_compiled_with_symbolic_sizes() -> None:
    rng = np.random.default_rng(1)

    def image(n: int, h: int) -> tuple[Any]:
        return (numbers(rng, DType.float32, (n, h, 7, 2)),)

    types = (type_of("n", "h", 7, 2),)
    calls = [image(1, 5), image(2, 4), image(0, 3)]
    for ceil_mode in (False, True):
        assert_compiles(
            lambda x, c=ceil_mode: F.max_pool2d(x * 2.0, 3, 2, 1, 1, c) + 1.0, types, *calls
        )
        assert_compiles(
            lambda x, c=ceil_mode: F.avg_pool2d(x, (2, 3), 2, 1, (0, 1), c), types, *calls
        )
    model = assert_compiles(
        lambda x: F.fold(x, (3, 4), 2, padding=0),
        (type_of("n", 8, "l"),),
        *[(numbers(rng, DType.float32, (n, 8, 6)),) for n in (1, 3, 0)],
    )
    with pytest.raises(ShapeError, match="one element for each window: expected 6, got 5"):
        model(np.zeros((1, 8, 5), np.float32))


@pytest.mark.oracle
def test_torch_agrees() -> None:
    import torch

    f = torch.nn.functional
    # Sizes at which rounding up gives one window more, which torch keeps.
    x = numbers(np.random.default_rng(0), DType.float32, (2, 8, 6, 3))
    first = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    for ceil_mode in (False, True):
        for count in (False, True):
            found = F.avg_pool2d(tensor(x), 3, 2, 1, 1, ceil_mode, count)
            wanted = f.avg_pool2d(first, 3, 2, 1, ceil_mode, count).permute(0, 2, 3, 1)
            np.testing.assert_allclose(values(found), wanted.numpy(), rtol=1e-5, atol=1e-6)
        found = F.max_pool2d(tensor(x), 3, 2, 1, 1, ceil_mode)
        wanted = f.max_pool2d(first, 3, 2, 1, 1, ceil_mode).permute(0, 2, 3, 1)
        np.testing.assert_array_equal(values(found), wanted.numpy())
    patches = numbers(np.random.default_rng(1), DType.float32, (2, 12, 20))
    found = F.fold(tensor(patches), (7, 6), (3, 2), (2, 1), (1, 1), (1, 0))
    wanted = f.fold(torch.from_numpy(patches), (7, 6), (3, 2), 1, (1, 0), (2, 1))
    np.testing.assert_allclose(values(found), wanted.numpy(), rtol=1e-5, atol=1e-5)
