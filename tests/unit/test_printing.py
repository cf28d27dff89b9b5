"""The text of tensors."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import tensor

from maxmod import CPU, DType, Tensor
from maxmod import functional as F


def _data(x):
    text = repr(x)
    assert text.startswith("Tensor(")
    tail = f", dtype={x.dtype}, device=Device(type=cpu,id=0))"
    assert text.endswith(tail)
    return text[len("Tensor(") : -len(tail)]


def _range(*shape):
    return tensor(np.arange(np.prod(shape, dtype=int)).reshape(shape))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (2.5, "2.5"),
        ([1.23456, 2.5, 100.0], "[1.235   2.5   100]"),
        ([1e5, 1e-5], "[1e+05 1e-05]"),
        ([float("nan"), float("inf"), float("-inf")], "[ nan  inf -inf]"),
        ([[1.0, 2.0], [3.0, 4.0]], "[1 2\n 3 4]"),
        ([], "[]"),
    ],
)
def test_floats(values, expected):
    assert _data(Tensor(values)) == expected


def test_bools_and_integers():
    x = Tensor([[True, False], [False, True]], dtype=DType.bool)
    assert _data(x) == "[ True False\n False  True]"
    assert _data(Tensor([1, -20], dtype=DType.int8)) == "[  1 -20]"
    assert _data(Tensor(123456, dtype=DType.int64)) == "123456"


def test_narrow_floats():
    assert _data(Tensor([1.0, 0.3], dtype=DType.bfloat16)) == "[     1 0.3008]"


def test_matrices_side_by_side_and_stacked():
    assert _data(_range(2, 2, 2)) == "[0 1 | 4 5\n 2 3 | 6 7]"
    assert _data(_range(2, 2, 1, 2)) == "[0 1 | 2 3\n \n 4 5 | 6 7]"
    assert _data(_range(2, 1, 1, 1, 2)) == "[0 1 : 2 3]"
    assert _data(_range(2, 1, 1, 1, 1, 2)) == "[0 1\n ---\n 2 3]"
    assert _data(_range(2, 1, 1, 1, 1, 1, 2)) == "[0 1 :: 2 3]"


def test_empty_axes():
    assert _data(Tensor.zeros([2, 0, 3])) == "[]"


def test_long_axes_are_shortened():
    row = _data(_range(2000))
    assert row == "[   0    1    2 ... 1997 1998 1999]"
    lines = _data(_range(100, 20)).splitlines()
    assert len(lines) == 7
    assert lines[0] == "[   0    1    2 ...   17   18   19"
    assert lines[3].strip() == "..."
    assert lines[6].endswith("1999]")
    assert "..." not in _data(_range(1000))
    assert _data(_range(6, 200)).count("...") == 6


def test_long_axis_of_matrices():
    text = _data(_range(100, 4, 4))
    assert text.splitlines()[0].count(" | ") == 6
    assert "..." in text


def test_without_data():
    with F.lazy():
        x = Tensor.ones([2])
    assert repr(x) == (
        "Tensor(<unrealized>, shape=[Dim(2)], dtype=DType.float32, device=Device(type=cpu,id=0))"
    ).replace("float32", x.dtype.name)
    assert not x.real
    assert "<unrealized>" not in repr(x.materialize())


def test_device(emulated_accelerator):
    x = Tensor([1.0], dtype=DType.float32, device=emulated_accelerator)
    assert repr(x) == "Tensor([1], dtype=DType.float32, device=Device(type=gpu,id=0))"
    assert repr(x.to(CPU())) == "Tensor([1], dtype=DType.float32, device=Device(type=cpu,id=0))"
