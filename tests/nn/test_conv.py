"""`Conv2d` against sums over windows in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maxmod import CPU, DType, Tensor, TensorType
from maxmod.backends.devices import Device
from maxmod.nn import Conv2d, Sequential


def convolve(x: np.ndarray, conv: Conv2d) -> np.ndarray:
    """The definition, channels first: one window at a time."""
    weight = conv.weight.to(CPU()).cast(DType.float64).to_numpy()
    if not conv.permute:
        weight, x = weight.transpose(3, 2, 0, 1), x.transpose(0, 3, 1, 2)
    top, bottom, left, right = conv.padding
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), (top, bottom), (left, right)])
    (dy, dx), (sy, sx) = conv.dilation, conv.stride
    filters, per_group, kh, kw = weight.shape
    height = (x.shape[2] - dy * (kh - 1) - 1) // sy + 1
    width = (x.shape[3] - dx * (kw - 1) - 1) // sx + 1
    result = np.zeros([len(x), filters, height, width])
    for f in range(filters):
        first = f // (filters // conv.num_groups) * per_group
        for i in range(height):
            for j in range(width):
                rows = slice(i * sy, i * sy + dy * (kh - 1) + 1, dy)
                columns = slice(j * sx, j * sx + dx * (kw - 1) + 1, dx)
                window = x[:, first : first + per_group, rows, columns]
                result[:, f, i, j] = (window * weight[f]).sum((1, 2, 3))
    if conv.has_bias:
        assert isinstance(conv.bias, Tensor)
        bias = conv.bias.to(CPU()).cast(DType.float64).to_numpy()
        result += bias[:, None, None]
    return result if conv.permute else result.transpose(0, 2, 3, 1)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"kernel_size": (2, 3), "has_bias": True},
    {"stride": 2, "padding": 1},
    {"stride": (2, 1), "padding": (1, 2), "has_bias": True},
    {"padding": (0, 1, 2, 3)},
    {"dilation": (2, 1), "padding": 2},
    {"num_groups": 2, "has_bias": True},
    {"num_groups": 4, "padding": 1},
    {"kernel_size": 1, "num_groups": 1},
]


@pytest.mark.parametrize("permute", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_values(options: dict[str, Any], permute: bool, device: Device) -> None:
    arguments = {"kernel_size": 3, "in_channels": 4, "out_channels": 8, **options}
    conv = Conv2d(**arguments, dtype=DType.float32, permute=permute, device=device)
    shape = [2, 4, 7, 6] if permute else [2, 7, 6, 4]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = conv(Tensor(x).to(device))
    assert found.device == device
    expected = convolve(x, conv)
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-4, atol=1e-4)
    compiled = conv.compile(TensorType(DType.float32, ["n", *shape[1:]], device))
    np.testing.assert_allclose(
        compiled(Tensor(x).to(device)).to_numpy(), expected, rtol=1e-4, atol=1e-4
    )


def test_attributes(no_accelerator: None) -> None:
    conv = Conv2d(3, 4, 6, DType.bfloat16, 2, (1, 2), 1, 2, CPU(), True, True, "first")
    assert conv.weight.type == TensorType(DType.bfloat16, [6, 2, 3, 3], CPU())
    assert conv.bias.type == TensorType(DType.bfloat16, [6], CPU())
    assert [name for name, _ in conv.parameters] == ["weight", "bias"]
    assert (conv.in_channels, conv.out_channels, conv.num_groups) == (4, 6, 2)
    assert (conv.dtype, conv.device, conv.name) == (DType.bfloat16, CPU(), "first")
    assert (conv.kernel_size, conv.stride, conv.dilation) == ((3, 3), (2, 2), (1, 1))
    assert conv.padding == (1, 1, 2, 2)
    assert conv.permute
    assert conv.has_bias
    shown = "".join(line.strip() for line in repr(conv).splitlines())
    assert shown == (
        "Conv2d(kernel_size=(3, 3),in_channels=4,out_channels=6,stride=(2, 2),padding=(1, 1, 2, 2),"
        "num_groups=2,has_bias=True,permute=True)"
    )


def test_defaults(no_accelerator: None) -> None:
    conv = Conv2d((2, 3), 4, 6)
    assert conv.weight.type == TensorType(DType.float32, [2, 3, 4, 6], CPU())
    assert conv.bias == 0
    assert [name for name, _ in conv.parameters] == ["weight"]
    assert (conv.dtype, conv.device) == (None, CPU())
    assert Conv2d(1, 2, 2, padding=(1, 2, 3, 4)).padding == (1, 2, 3, 4)


def test_weights_follow_the_input(emulated_accelerator: Device) -> None:
    conv = Conv2d(1, 2, 3, has_bias=True, device=CPU(), dtype=DType.float32)
    x = Tensor.ones([1, 2, 2, 2], dtype=DType.float32, device=emulated_accelerator)
    assert conv(x).device == emulated_accelerator
    assert conv.weight.device == CPU()


def test_in_a_sequence(no_accelerator: None) -> None:
    model = Sequential(Conv2d(3, 1, 4, padding=1), Conv2d(3, 4, 2, stride=2))
    assert model(Tensor.ones([2, 8, 8, 1])).shape == [2, 3, 3, 2]
    assert [name for name, _ in model.parameters] == ["0.weight", "1.weight"]


@pytest.mark.parametrize("groups", [0, 3, -1])
def test_wrong_groups(groups: int) -> None:
    with pytest.raises(ValueError, match="num_groups: expected a divisor of in_channels=4"):
        Conv2d(3, 4, 8, num_groups=groups)


def test_wrong_inputs(no_accelerator: None) -> None:
    conv = Conv2d(3, 4, 8)
    for shape in ([2, 7, 7], [2, 7, 7, 3], [2, 2, 7, 4], [1, 2, 7, 7, 4]):
        with pytest.raises(ValueError, match="conv2d"):
            conv(Tensor.ones(shape))
    with pytest.raises(TypeError, match="kernel_size: expected an int or a pair"):
        Conv2d((1, 2, 3), 4, 8)
    with pytest.raises(TypeError, match="padding"):
        Conv2d(1, 4, 8, padding=(1, 2, 3))
