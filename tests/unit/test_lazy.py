"""`F.lazy()`: what waits, in which order it is done, and what stores in a block change."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from maxmod import DType, Tensor
from maxmod import functional as F
from maxmod.interpreters import lazy as waiting


def row(*numbers: float) -> Tensor:
    return Tensor(np.array(numbers, np.float32))


def listed(x: Tensor) -> object:
    return x.to_numpy().tolist()


# ---- what has no data yet ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tensor(1),
        lambda: Tensor([1.0, 2.0]),
        lambda: Tensor(range(3), dtype=DType.int8),
        lambda: Tensor.constant([[1]]),
        lambda: F.constant(2.0),
        lambda: Tensor.zeros([2]),
        lambda: Tensor.arange(4),
        lambda: F.ones([2]) + 1,
        lambda: F.uniform([5]),
    ],
    ids=[
        *("number", "list", "range", "class_method", "constant", "zeros", "arange", "sum"),
        "random",
    ],
)
def test_tensors_made_in_a_block_are_not_real(make: Callable[[], Tensor]) -> None:
    with F.lazy():
        x = make()
        assert not x.real
        assert x.storage is None
        with pytest.raises(TypeError, match="before realization context is completed"):
            x.item()
    assert not x.real
    wanted = make()
    assert x.type == wanted.type
    assert x.materialize().real
    if x.sizes != (5,):  # random numbers differ
        np.testing.assert_array_equal(x.to_numpy(), wanted.to_numpy())


def test_literals_are_checked_and_read_at_once() -> None:
    numbers = [1.0, 2.0]
    with F.lazy():
        with pytest.raises(ValueError, match="rectangular"):
            Tensor([[1], [1, 2]])
        x = Tensor(numbers)
        numbers[0] = 9.0
    assert listed(x) == [1, 2]


def test_arrays_have_data() -> None:
    with F.lazy():
        assert row(1, 2).real


# ---- stores --------------------------------------------------------------------------------------


def test_a_store_waits() -> None:
    array = np.array([1, 2, 3], np.float32)
    x = Tensor.from_dlpack(array)
    with F.lazy():
        F.buffer_store(x, Tensor([4.0, 5.0, 6.0]))
        x[:1] = Tensor([7.0])
        assert not x.real
        with pytest.raises(TypeError, match="before realization context is completed"):
            x.to_numpy()
    assert not x.real
    assert array.tolist() == [1, 2, 3]
    assert listed(x) == [7, 5, 6]
    assert array.tolist() == [7, 5, 6]  # the memory that the array shares
    assert x.real


def test_stores_and_reads_keep_the_order() -> None:
    """Each result holds what the program has at its line, whichever is asked for first."""

    def program() -> dict[str, Tensor]:
        x = row(1, 2, 3)
        first = x + 0
        part = x[1:]
        F.buffer_store(x, x * 10)
        second = x + 0
        x[0] = part[1] + second[2]
        third = F.flip(x)
        F.buffer_store(x, x)
        return {"first": first, "part": part, "second": second, "third": third, "x": x}

    wanted = {name: listed(tensor) for name, tensor in program().items()}
    assert wanted["x"] == [33, 20, 30]
    assert wanted["part"] == [2, 3]
    for names in (list(wanted), list(reversed(wanted)), ["x", "second", "part", "first", "third"]):
        with F.lazy():
            found = program()
        assert {name: listed(found[name]) for name in names} == wanted


def test_a_store_into_a_lazy_tensor() -> None:
    with F.lazy():
        x = Tensor.zeros([2, 2])
        y = x.reshape([4])
        x[1] = Tensor([1.0, 2.0])
    assert listed(x) == [[0, 0], [1, 2]]
    assert listed(y) == [0, 0, 0, 0]


def test_an_eager_store_leaves_postponed_tensors_alone() -> None:
    x = row(1, 2)
    with F.lazy():
        total, view = x + 10, x[::1]
        last = F.reshape(x, [1, 2])
    F.buffer_store(x, row(5, 6))
    assert (listed(total), listed(view), listed(last)) == ([11, 12], [1, 2], [[1, 2]])
    assert listed(x) == [5, 6]


def test_lazy_views_do_not_change_with_the_operand() -> None:
    x = row(1, 2)
    with F.lazy():
        view = x.reshape([2, 1])
    assert listed(view) == [[1], [2]]
    F.buffer_store(x, row(5, 6))
    assert listed(view) == [[1], [2]]
    view[0] = Tensor([7.0])
    assert (listed(x), listed(view)) == ([5, 6], [[7], [2]])


def test_wrong_stores_are_refused_at_once() -> None:
    x = row(1, 2)
    with F.lazy():
        for wrong in (Tensor([1.0]), Tensor([1, 2], dtype=DType.int32)):
            with pytest.raises(ValueError, match="buffer_store"):
                F.buffer_store(x, wrong)
        assert x.real
    assert listed(x) == [1, 2]


def test_rows_at_a_position() -> None:
    x = row(1, 2, 3).reshape([3, 1])
    with F.lazy():
        at = Tensor(1, dtype=DType.int64)
        F.buffer_store_slice(x, Tensor([[9.0]]), [(slice(at, None), 1)])
    assert listed(x) == [[1], [9], [3]]


def test_unused_tensors_are_forgotten() -> None:
    x = row(1, 2)
    gc.collect()
    before = len(waiting._PENDING)
    with F.lazy():
        for _ in range(10):
            _ = x + 1
    del _
    gc.collect()
    assert len(waiting._PENDING) == before
