"""Convolutions: layouts, bias, errors, sizes, blocks, compiled graphs, and torch as a witness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import HALVES, assert_close, numbers, tensor, values, wide
from ops.compiling import assert_compiles, sizes_of, type_of
from ops.samples_windows import convolution, transposed_convolution

import maxmod.ops.conv
from maxmod import functional as F
from maxmod.backends.devices import Device
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DeviceError, DTypeError, OperandError, ShapeError
from maxmod.tensor import Tensor
from maxmod.values.layouts import ConvInputLayout, FilterLayout

NCHW = ConvInputLayout.NCHW


def arrays(*shapes: tuple[int, ...], dtype: DType = DType.float32) -> list[Any]:
    rng = np.random.default_rng(0)
    return [numbers(rng, dtype, shape) for shape in shapes]


def plain(x: Any, w: Any) -> Any:
    return convolution(wide(x), wide(w), (1, 1), (1, 1), (0, 0, 0, 0), 1)


def test_defaults() -> None:
    x, w = arrays((2, 5, 6, 3), (2, 3, 3, 4))
    assert_close(F.conv2d(tensor(x), tensor(w)), plain(x, w), length=200)


@pytest.mark.parametrize("groups", [1, 2])
def test_layouts_of_conv2d(groups: int) -> None:
    x, w, b = arrays((2, 5, 6, 4), (2, 3, 4 // groups, 6), (6,))
    attrs = {"stride": (2, 1), "dilation": (1, 2), "padding": (1, 0, 2, 1), "groups": groups}
    wanted = convolution(wide(x), wide(w), **attrs) + wide(b)
    first, fcrs = x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1)
    bias = tensor(b)
    one = F.conv2d(tensor(x), tensor(w), bias=bias, **attrs)
    assert_close(one, wanted, length=200)
    two = F.conv2d(tensor(x), tensor(fcrs), bias=bias, filter_layout=FilterLayout.FCRS, **attrs)
    assert_close(two, wanted, length=200)
    three = F.conv2d(tensor(first), tensor(w), bias=bias, input_layout=NCHW, **attrs)
    assert_close(three, wanted.transpose(0, 3, 1, 2), length=200)
    four = F.conv2d(
        tensor(first), tensor(fcrs), bias=bias, input_layout="NCHW", filter_layout="FCRS", **attrs
    )
    assert_close(four, wanted.transpose(0, 3, 1, 2), length=200)


def test_layouts_of_conv3d() -> None:
    x, w, b = arrays((1, 4, 5, 3, 2), (2, 3, 1, 2, 3), (3,))
    attrs = {"stride": (1, 2, 1), "dilation": (2, 1, 1), "padding": (1, 0, 0, 1, 0, 2)}
    wanted = convolution(wide(x), wide(w), groups=1, **attrs) + wide(b)
    assert_close(F.conv3d(tensor(x), tensor(w), bias=tensor(b), **attrs), wanted, length=100)
    second = F.conv3d(
        tensor(x.transpose(0, 4, 1, 2, 3)),
        tensor(w.transpose(4, 3, 0, 1, 2)),
        bias=tensor(b),
        input_layout=NCHW,
        filter_layout=FilterLayout.FCQRS,
        **attrs,
    )
    assert_close(second, wanted.transpose(0, 4, 1, 2, 3), length=100)


def test_layouts_of_conv2d_transpose() -> None:
    x, w, b = arrays((2, 3, 4, 3), (3, 2, 5, 3), (5,))
    attrs = {
        "stride": (2, 3),
        "dilation": (1, 2),
        "padding": (1, 0, 0, 2),
        "output_paddings": (1, 0),
    }
    wanted = transposed_convolution(wide(x), wide(w), **attrs) + wide(b)
    one = F.conv2d_transpose(tensor(x), tensor(w), bias=tensor(b), **attrs)
    assert_close(one, wanted, length=200)
    two = F.conv2d_transpose(
        tensor(x.transpose(0, 3, 1, 2)),
        tensor(w.transpose(3, 2, 0, 1)),
        bias=tensor(b),
        input_layout=NCHW,
        filter_layout=FilterLayout.FCRS,
        **attrs,
    )
    assert_close(two, wanted.transpose(0, 3, 1, 2), length=200)


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
def test_halves_are_rounded_once_after_the_bias(dtype: DType) -> None:
    x, w, b = arrays((1, 6, 6, 8), (3, 3, 8, 16), (16,), dtype=dtype)
    result = F.conv2d(tensor(x), tensor(w), bias=tensor(b))
    assert result.dtype is dtype
    assert_close(result, plain(x, w) + wide(b), length=80)


def test_dtypes_are_promoted() -> None:
    x, w, b = arrays((1, 4, 4, 2), (2, 2, 2, 3), (3,))
    half = tensor(x).cast(DType.bfloat16)
    assert F.conv2d(half, tensor(w)).dtype is DType.float32
    assert F.conv2d(half, half[:, :2, :2].permute([1, 2, 3, 0]), bias=tensor(b)[:1]).dtype is (
        DType.float32
    )
    with pytest.raises(DTypeError, match="Failed to resolve valid dtype"):
        F.conv2d(tensor(x), tensor(w).cast(DType.int32))


def test_windows_are_copied_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = arrays((2, 9, 5, 3), (3, 2, 3, 4))
    monkeypatch.setattr(maxmod.ops.conv, "BLOCK_NBYTES", 3000)  # two or three lines
    assert_close(F.conv2d(tensor(x), tensor(w)), plain(x, w), length=200)
    monkeypatch.setattr(maxmod.ops.conv, "BLOCK_NBYTES", 1)
    assert_close(F.conv2d(tensor(x), tensor(w)), plain(x, w), length=200)


@pytest.mark.parametrize("name", ["conv2d", "conv3d", "conv2d_transpose"])
def test_common_errors(name: str) -> None:
    rank = 5 if name == "conv3d" else 4
    fn = getattr(F, name)
    x, w = Tensor.ones([2] * rank), Tensor.ones([2] * rank)
    with pytest.raises(ShapeError, match=f"{name}: x: expected rank {rank}, got float32"):
        fn(Tensor.ones([2] * (rank - 1)), w)
    with pytest.raises(ShapeError, match=f"{name}: filter: expected rank {rank}"):
        fn(x, Tensor.ones([2] * (rank - 1)))
    with pytest.raises(ShapeError, match=f"{name}: bias: expected rank 1"):
        fn(x, w, bias=Tensor.ones([1, 2]))
    with pytest.raises(ShapeError, match=rf"{name}: bias: expected \[2\], got float32\[1\]"):
        fn(x, w, bias=Tensor.ones([1]))
    with pytest.raises(ShapeError, match=f"{name}: the channels differ"):
        fn(Tensor.ones([*[2] * (rank - 1), 3]), w)
    with pytest.raises(TypeError, match=f"{name}: .*expected a Tensor, got numpy.ndarray"):
        fn(x, np.ones([2] * rank, np.float32))
    for argument in ("stride", "dilation", "padding"):
        with pytest.raises(OperandError, match=f"{name}: {argument}: expected a tuple"):
            fn(x, w, **{argument: 1})
        with pytest.raises(ArgumentError, match=f"{name}: {argument}: expected . ints, got"):
            fn(x, w, **{argument: (1,)})
        with pytest.raises(OperandError, match=f"{name}: {argument}: expected an int, got 1.5"):
            fn(x, w, **{argument: (1.5,) * (2 * rank - 4 if argument == "padding" else rank - 2)})
    for argument in ("stride", "dilation"):
        with pytest.raises(ArgumentError, match=f"{name}: {argument}: expected at least 1"):
            fn(x, w, **{argument: (0,) * (rank - 2)})
    with pytest.raises(ArgumentError, match=f"{name}: padding: expected at least 0"):
        fn(x, w, padding=(-1,) * (2 * rank - 4))
    with pytest.raises(ArgumentError, match=f"{name}: input_layout: expected ConvInputLayout.NHWC"):
        fn(x, w, input_layout="NWHC")
    with pytest.raises(ArgumentError, match=f"{name}: filter_layout: expected FilterLayout"):
        fn(x, w, filter_layout=FilterLayout.CFRS)
    with pytest.raises(DTypeError, match=f"{name[:4]}.*: x has an unsupported dtype"):
        fn(x.cast(DType.bool), w.cast(DType.bool))


def test_other_errors() -> None:
    x, w = Tensor.ones([1, 4, 4, 4]), Tensor.ones([2, 2, 2, 4])
    with pytest.raises(ShapeError, match="the channels differ: expected 2 \\* 1, got 4"):
        F.conv2d(x, w)
    for groups in (0, 3, -2):
        with pytest.raises(ShapeError, match="cannot be divided into groups"):
            F.conv2d(x, w, groups=groups)
    with pytest.raises(ShapeError, match="conv2d: a window of 5 elements .* does not fit"):
        F.conv2d(x, Tensor.ones([5, 1, 4, 1]))
    with pytest.raises(ShapeError, match="with dilation 4 does not fit"):
        F.conv2d(x, w, groups=2, dilation=(4, 1))
    square = Tensor.ones([2, 2, 3, 4])
    with pytest.raises(ArgumentError, match="output_paddings must be smaller than the stride"):
        F.conv2d_transpose(x, square, stride=(2, 1), output_paddings=(1, 1))
    with pytest.raises(ArgumentError, match="output_paddings: expected at least 0"):
        F.conv2d_transpose(x, square, output_paddings=(-1, 0))
    with pytest.raises(ShapeError, match="crops more than there is on spatial axis 1"):
        F.conv2d_transpose(x, square, padding=(0, 0, 3, 3))


def test_operands_live_on_one_device(emulated_accelerator: Device) -> None:
    x = tensor(np.ones((1, 2, 2, 1), np.float32))
    with pytest.raises(DeviceError, match="must be on the same device"):
        F.conv2d(x, x.to(emulated_accelerator))


def test_symbolic_sizes() -> None:
    w = type_of(3, 2, 4, 8)
    x = type_of("n", "h", "w", 4)
    assert sizes_of(F.conv2d, x, w) == ["n,h + -2,w + -1,8"]
    assert sizes_of(lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(1, 1, 1, 0)), x, w) == [
        "n,((h + -1) // 2) + 1,w,8"
    ]
    filters = type_of(2, 2, 8, 4)
    assert sizes_of(lambda x, w: F.conv2d_transpose(x, w, stride=(2, 1)), x, filters) == [
        "n,h * 2,w + 1,8"
    ]
    assert sizes_of(
        lambda x, w: F.conv2d(x, w, groups=2, input_layout=NCHW),
        type_of("n", 8, "h", "h"),
        w,
    ) == ["n,8,h + -2,h + -1"]
    with pytest.raises(ShapeError, match="the channels differ"):
        sizes_of(F.conv2d, type_of("n", 8, 8, "c"), w)


def test_compiled_with_symbolic_sizes() -> None:
    (w,) = arrays((3, 3, 2, 4))
    weight, bias = tensor(w), tensor(np.arange(4, dtype=np.float32))
    rng = np.random.default_rng(2)

    def image(n: int, h: int) -> tuple[Any]:
        return (numbers(rng, DType.float32, (n, 2, h, 5)),)

    def fn(x: Tensor) -> Tensor:
        y = F.conv2d(x, weight, (2, 1), (1, 1), (1, 1, 0, 1), 1, bias, NCHW)
        return F.relu(y)

    model = assert_compiles(fn, (type_of("n", 2, "h", 5),), image(1, 5), image(3, 8), image(0, 3))
    with pytest.raises(ShapeError, match="does not fit"):
        model(*image(1, 0))
    assert_compiles(
        lambda x: F.conv2d_transpose(x, weight.permute([0, 1, 3, 2]), (1, 2)),
        (type_of("n", "h", "h", 2),),
        *[(numbers(rng, DType.float32, (n, h, h, 2)),) for n, h in ((1, 4), (2, 1))],
    )
    assert_compiles(
        lambda x: F.conv3d(x, F.reshape(weight, [3, 1, 3, 2, 4])),
        (type_of("n", 4, 4, "d", 2),),
        *[(numbers(rng, DType.float32, (n, 4, 4, d, 2)),) for n, d in ((1, 4), (2, 3))],
    )


@pytest.mark.oracle
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_torch_agrees(groups: int) -> None:
    import torch

    x, w, b = arrays((2, 4, 9, 8), (8, 4 // groups, 3, 2), (8,))
    found = F.conv2d(
        tensor(x),
        tensor(w),
        (2, 1),
        (1, 2),
        (1, 1, 2, 2),
        groups,
        tensor(b),
        NCHW,
        FilterLayout.FCRS,
    )
    inputs = [torch.from_numpy(a) for a in (x, w, b)]
    wanted = torch.nn.functional.conv2d(*inputs, (2, 1), (1, 2), (1, 2), groups)
    np.testing.assert_allclose(values(found), wanted.numpy(), rtol=1e-4, atol=1e-4)
    found = F.conv2d_transpose(
        tensor(x),
        tensor(arrays((4, 8, 3, 2))[0]),
        (2, 3),
        (1, 2),
        (1, 1, 0, 0),
        (1, 0),
        tensor(b),
        NCHW,
        FilterLayout.FCRS,
    )
    filters = torch.from_numpy(arrays((4, 8, 3, 2))[0])
    wanted = torch.nn.functional.conv_transpose2d(
        inputs[0], filters, inputs[2], (2, 3), (1, 0), (1, 0), 1, (1, 2)
    )
    np.testing.assert_allclose(values(found), wanted.numpy(), rtol=1e-4, atol=1e-4)
