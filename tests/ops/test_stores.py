"""In-place stores: changed values, unchanged values, and rejected calls."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maxmod import DType, Tensor
from maxmod import functional as F
from maxmod.runtime.compiled import compile_function
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import BufferType, TensorType


def tensor() -> Tensor:
    return Tensor(np.arange(12, dtype=np.float32).reshape(3, 4))


def test_a_store_changes_the_memory_that_arrays_from_outside_share() -> None:
    array = np.zeros((2, 3), np.float32)
    x = Tensor.from_dlpack(array)
    F.buffer_store(x, Tensor(np.ones((2, 3), np.float32)))
    assert (array == 1).all()
    x[1, 1:] = Tensor(np.full(2, 5, np.float32))
    assert array.tolist() == [[1, 1, 1], [1, 5, 5]]


def test_results_of_earlier_ops_do_not_change() -> None:
    x = tensor()
    before = x.to_numpy().copy()
    row, transposed, again, inner = x[0], x.T, x.reshape([4, 3]), x[1:][:, 1:]
    wide = Tensor(np.ones(3, np.float32)).broadcast_to([2, 3])
    F.buffer_store(x, x * 0.0)
    np.testing.assert_array_equal(row.to_numpy(), before[0])
    np.testing.assert_array_equal(transposed.to_numpy(), before.T)
    np.testing.assert_array_equal(again.to_numpy(), before.reshape(4, 3))
    np.testing.assert_array_equal(inner.to_numpy(), before[1:, 1:])
    wide[0] = Tensor(np.zeros(3, np.float32))
    np.testing.assert_array_equal(wide.to_numpy(), [[0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("index", [..., slice(None), slice(0, 3), (slice(None, None, 1), ...)])
def test_a_slice_of_everything_does_not_change_either(index: Any) -> None:
    x = tensor()
    before = x.to_numpy().copy()
    whole = x[index]
    x[0] = 0.0
    np.testing.assert_array_equal(whole.to_numpy(), before)
    whole[1] = 5.0
    np.testing.assert_array_equal(x.to_numpy()[1:], before[1:])
    scalar = Tensor(1.0)
    same = scalar[...]
    scalar[...] = 2.0
    assert (same.item(), scalar.item()) == (1, 2)


def test_a_store_into_a_result_of_a_view_leaves_the_operand_alone() -> None:
    x = tensor()
    row = x[1]
    row[0] = Tensor(np.float32(99))
    assert row[0].item() == 99
    assert x[1, 0].item() == 4


@pytest.mark.parametrize(
    ("index", "shape"),
    [
        (0, [4]),
        ((slice(1, 3), slice(None, None, 2)), [2, 2]),
        (..., [3, 4]),
        (slice(None, None, -1), [3, 4]),
        ((slice(2, 0, -1), slice(3, None, -2)), [2, 2]),
        ((1, slice(None, None, -3)), [2]),
        ((slice(0, 0, -1), slice(-1, -4, -2)), [0, 2]),
    ],
)
def test_slices(index: object, shape: list[int]) -> None:
    x, source = tensor(), -np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    want = x.to_numpy().copy()
    want[index] = source  # type: ignore[index]
    F.buffer_store_slice(x, Tensor(source), index)
    np.testing.assert_array_equal(x.to_numpy(), want)


def test_refusals() -> None:
    x, row = tensor(), Tensor(np.zeros(4, np.float32))
    with pytest.raises(ValueError, match=r"exactly the shape.*expected \[3,4\], got float32\[4\]"):
        F.buffer_store(x, row)
    with pytest.raises(ValueError, match="dtypes differ"):
        F.buffer_store_slice(x, row.cast(DType.float64), [0])
    with pytest.raises(IndexError, match="out of range"):
        F.buffer_store_slice(x, row, [3])
    with pytest.raises(TypeError, match="not None"):
        F.buffer_store_slice(x, row, [None, 0])
    with pytest.raises(TypeError, match="expected a Tensor, got numpy.ndarray"):
        F.buffer_store(x.to_numpy(), x)  # type: ignore[arg-type]


def test_read_only_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(16))
    with (tmp_path / "data").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        array = np.frombuffer(mapped, np.float32)
        x = Tensor.wrap(array, TensorType(DType.float32, [4], CPU_REF))
        with pytest.raises(TypeError, match="read-only memory"):
            F.buffer_store(x, Tensor(np.ones(4, np.float32)))


# ---- at a position that is data ----------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1, 3])
def test_rows_at_a_position(position: int) -> None:
    array = np.zeros((2, 4, 3), np.float32)
    x = Tensor.from_dlpack(array)
    at = Tensor(np.int64(position), dtype=DType.int64)
    rows = np.arange(6, dtype=np.float32).reshape(2, 1, 3) + 1
    F.buffer_store_slice(x, Tensor(rows), [slice(None), (slice(at, None), 1)])
    want = np.zeros((2, 4, 3), np.float32)
    want[:, position : position + 1] = rows
    np.testing.assert_array_equal(array, want)  # the memory itself changed


def test_refused_positions() -> None:
    x, row = tensor(), Tensor(np.zeros((1, 4), np.float32))

    def store(position: object, *others: object, count: int = 1, source: Tensor = row) -> None:
        F.buffer_store_slice(x, source, [(slice(position, None), count), *others])

    def at(position: int) -> Tensor:
        return Tensor(position, dtype=DType.int64)

    for position in (-1, 3, 2**40):
        with pytest.raises(IndexError, match=f"{position}:{position + 1} is out of range for an"):
            store(at(position))
    with pytest.raises(ValueError, match="2 rows|exactly the shape"):
        store(at(0), count=2)
    with pytest.raises(ValueError, match="4 rows do not fit into axis 0"):
        store(at(0), count=4, source=Tensor(np.zeros((4, 4), np.float32)))
    for wrong in (1, Tensor(1.0), Tensor([0, 1], dtype=DType.int64), Tensor(0, dtype=DType.int32)):
        with pytest.raises(TypeError, match=r"int64\[\] on the host|one such pair"):
            store(wrong)
    with pytest.raises(TypeError, match="one such pair with whole axes"):
        store(at(0), slice(1, 2))
    with pytest.raises(TypeError, match="one such pair with whole axes"):
        F.buffer_store_slice(x, row, [at(0)])
    np.testing.assert_array_equal(x.to_numpy(), tensor().to_numpy())


def test_views_of_captured_tensors_can_be_viewed_again() -> None:
    x = tensor()
    before = x.to_numpy().copy()
    row = x[1]
    compile_function(lambda y: y + x, [x.type], name="f", parameters={})
    part = row[1:]
    F.buffer_store(x, x * 0.0)
    np.testing.assert_array_equal(part.to_numpy(), before[1, 1:])
    np.testing.assert_array_equal(row.to_numpy(), before[1])


def test_a_store_with_steps_back_needs_a_size() -> None:
    def fn(x: Tensor, row: Tensor) -> None:
        F.buffer_store_slice(x, row, [slice(None, None, -2)])

    row = TensorType(DType.float32, [2], CPU_REF)
    with pytest.raises(IndexError, match=r"a step below -1 needs a known size, got float32\[n\]"):
        compile_function(
            fn, [BufferType(DType.float32, ["n"], CPU_REF), row], name="f", parameters={}
        )
