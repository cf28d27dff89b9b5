"""The text of tensors."""

from __future__ import annotations

import ast

import numpy as np
import pytest
from helpers import tensor

from maxmod import CPU, DType, Tensor
from maxmod import functional as F


def _data(x):
    text = repr(x)
    assert text.startswith("Tensor(")
    shape = ", ".join(map(str, x.shape))
    tail = f", shape=[{shape}], dtype={x.dtype}, device=Device(type=cpu,id=0))"
    assert text.endswith(tail)
    return text[len("Tensor(") : -len(tail)].replace("\n" + " " * 7, "\n")


def _range(*shape):
    return tensor(np.arange(np.prod(shape, dtype=int)).reshape(shape))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (2.5, "2.5"),
        ([1.23456, 2.5, 100.0], "[1.235   2.5   100]"),
        ([1e5, 1e-5], "[1e+05 1e-05]"),
        ([float("nan"), float("inf"), float("-inf")], "[ nan  inf -inf]"),
        ([[1.0, 2.0], [3.0, 4.0]], "[[1 2]\n [3 4]]"),
        ([], "[]"),
    ],
)
def test_floats(values, expected):
    assert _data(Tensor(values)) == expected


def test_bools_and_integers():
    x = Tensor([[True, False], [False, True]], dtype=DType.bool)
    assert _data(x) == "[[ True False]\n [False  True]]"
    assert _data(Tensor([1, -20], dtype=DType.int8)) == "[  1 -20]"
    assert _data(Tensor(123456, dtype=DType.int64)) == "123456"


def test_narrow_floats():
    assert _data(Tensor([1.0, 0.3], dtype=DType.bfloat16)) == "[     1 0.3008]"


def test_brackets_nest_like_the_axes():
    assert _data(_range(2, 2, 2)) == "[[[0 1]\n  [2 3]]\n\n [[4 5]\n  [6 7]]]"
    assert _data(_range(2, 1, 1, 2)) == "[[[[0 1]]]\n\n\n [[[2 3]]]]"
    for shape in ((1, 2, 1, 3), (2, 1, 1, 1, 2)):
        read = ast.literal_eval(",".join(_data(_range(*shape)).split()))
        assert read == _range(*shape).to_numpy().tolist()


def test_empty_axes():
    assert _data(Tensor.zeros([2, 0, 3])) == "[]"


def test_long_axes_are_shortened():
    row = _data(_range(2000))
    assert row == "[   0    1    2 ... 1997 1998 1999]"
    lines = _data(_range(100, 20)).splitlines()
    assert len(lines) == 7
    assert lines[0] == "[[   0    1    2 ...   17   18   19]"
    assert lines[3].strip() == "..."
    assert lines[6].endswith("1999]]")
    assert "..." not in _data(_range(1000))
    assert max(map(len, repr(_range(100, 4, 4)).splitlines()[:-1])) <= 100


def test_long_rows_are_wrapped():
    lines = repr(_range(200)).splitlines()
    assert len(lines) > 1
    assert max(map(len, lines[:-1])) <= 100
    assert [int(word) for word in _data(_range(200))[1:-1].split()] == list(range(200))


def test_format_of_one_element():
    assert f"{Tensor([[2.25]]):.1f}|{Tensor(-3.0):8.3e}" == "2.2|-3.000e+00"
    assert f"{Tensor(7, dtype=DType.int64):03d}" == "007"
    assert f"{Tensor([1.0])}" == str(Tensor([1.0]))
    with pytest.raises(TypeError, match=r"format: expected one element, got float32\[2\]. Hint: "):
        format(Tensor([1.0, 2.0]), ".2f")


def test_without_data():
    with F.lazy():
        x = Tensor.ones([2])
    assert repr(x) == (
        "Tensor(<unrealized>, shape=[2], dtype=DType.float32, device=Device(type=cpu,id=0))"
    ).replace("float32", x.dtype.name)
    assert not x.real
    assert "<unrealized>" not in repr(x.materialize())


def test_device(emulated_accelerator):
    x = Tensor([1.0], dtype=DType.float32, device=emulated_accelerator)
    assert repr(x) == "Tensor([1], shape=[1], dtype=DType.float32, device=Device(type=gpu,id=0))"
    assert repr(x.to(CPU())).endswith("device=Device(type=cpu,id=0))")
