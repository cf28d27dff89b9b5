"""`x[...]` and `x[...] = v` with lists, integer arrays and masks: NumPy is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maxmod import CPU, BufferType, DType, Module, Tensor, TensorType
from maxmod import functional as F
from maxmod.tensor import era

F32, I64, BOOL = DType.float32, DType.int64, DType.bool
A = np.arange(20, dtype=np.float32).reshape(4, 5)
ROWS, COLUMNS = np.array([3, 1, -1]), np.array([0, -2, 4])
MASK = A % 3 == 0
MASKED_ROWS = np.array([True, False, True, False])


def _grid() -> Tensor:
    return Tensor(A.copy())


@st.composite
def _arrays(draw: Any, size: int, shape: tuple[int, ...]) -> Any:
    count = int(np.prod(shape))
    flat = draw(st.lists(st.integers(-size, size - 1), min_size=count, max_size=count))
    dtype = draw(st.sampled_from([np.int64, np.int32, np.int8]))
    array = np.array(flat, dtype).reshape(shape)
    return array.tolist() if draw(st.booleans()) else array


@st.composite
def _cases(draw: Any) -> tuple[np.ndarray, tuple[Any, ...], Any]:
    """Returns an array, an index with ints, slices, None, arrays and a mask, and a value."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    common: tuple[int, ...] | None = None
    items: list[Any] = []
    axis = 0
    while axis < len(shape) and len(items) < 6 and draw(st.integers(0, 4)):
        size = shape[axis]
        kind = draw(st.sampled_from(["int", "slice", "array", "array", "mask", "none"]))
        axis += kind != "none"
        if kind == "none":
            items.append(None)
        elif kind == "int":
            items.append(draw(st.integers(-size, size - 1)))
        elif kind == "slice":
            start, stop = sorted(draw(st.tuples(*[st.integers(0, size)] * 2)))
            forward = slice(start, stop, draw(st.sampled_from([None, 1, 2])))
            items.append(draw(st.sampled_from([forward, slice(None, None, -1)])))
        elif kind == "mask" and common is None:
            rank = draw(st.integers(1, len(shape) - axis + 1))
            covered = shape[axis - 1 : axis - 1 + rank]
            flags = draw(st.lists(st.booleans(), min_size=int(np.prod(covered))))
            items.append(np.resize(np.array([*flags, True]), covered))
            common = (int(items[-1].sum()),)
            axis += rank - 1
        else:
            if common is None:
                common = draw(st.sampled_from([(3,), (1,), (2, 2), (0,)]))
            items.append(draw(_arrays(size, common)))
    if draw(st.booleans()):
        items.append(...)
    selected = array[tuple(items)].shape
    cut = draw(st.integers(0, len(selected)))
    sizes = [1 if draw(st.booleans()) else size for size in selected[cut:]]
    values = np.arange(100, 100 + np.prod(sizes), dtype=np.float32).reshape(sizes)
    return array, tuple(items), draw(st.sampled_from([3, 2.5, values, Tensor(values)]))


@settings(max_examples=300)
@given(_cases(), st.booleans())
def test_indexing_by_arrays_follows_numpy(case: Any, as_tensors: bool) -> None:
    array, items, value = case
    index = tuple(
        Tensor(item) if as_tensors and isinstance(item, np.ndarray) else item for item in items
    )
    x = Tensor(array.copy())
    wanted = array[items]
    found = x[index]
    assert found.shape == list(wanted.shape)
    np.testing.assert_array_equal(found.to_numpy(), wanted)
    x[index] = value
    stored = array.copy()
    stored[items] = value.to_numpy() if isinstance(value, Tensor) else value
    np.testing.assert_array_equal(x.to_numpy(), stored)


def test_a_list_holds_positions() -> None:
    assert _grid()[[0, 2]].to_numpy().tolist() == A[[0, 2]].tolist()
    assert _grid()[np.array([1])].shape == [1, 5]
    assert _grid()[Tensor([1], dtype=I64)].shape == [1, 5]
    assert _grid()[[]].shape == [0, 5]
    assert _grid()[[[0, 1], [2, 3]]].shape == [2, 2, 5]
    assert _grid()[[True, False, True, False]].to_numpy().tolist() == A[[0, 2]].tolist()
    # Where a list cannot hold positions it is a tuple, as in MAX.
    assert _grid()[[slice(None), None, 0]].to_numpy().tolist() == A[:, None, 0].tolist()
    assert F.slice_tensor(_grid(), [0, 1]).item() == 1


def test_scripts_for_max_keep_the_rules_of_max() -> None:
    one = Tensor([1], dtype=I64, device=CPU())
    era.follow("26.7")
    try:
        assert _grid()[[0, 1]].item() == A[0, 1]
        assert _grid()[one].shape == [5]
        assert _grid()[1:, one].shape == [3]
    finally:
        era.follow(None)
    assert _grid()[1:, one].shape == [3, 1]


def test_arrays_of_other_libraries_are_positions() -> None:
    class Foreign:
        def __dlpack__(self, **options: Any) -> Any:
            return np.array([2, 0]).__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return (1, 0)

    assert _grid()[Foreign()].to_numpy().tolist() == A[[2, 0]].tolist()


def _read(x: Any, rows: Any, columns: Any) -> list[Any]:
    return [
        x[rows],
        x[:, columns],
        x[rows, columns],
        x[rows, 1:3],
        x[[0, 2]],
        x[np.array([[0, 1], [2, 3]])],
        x[1, columns],
        x[rows, None],
        x[:, [True, False, True, False, True]],
        x[rows[:, None], columns],
        x[1:, columns],
        x[rows][0],
    ]


class _Calls(Module[..., Any]):
    """A module that is one function."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def forward(self, *args: Any) -> Any:
        return self.fn(*args)


_POSITIONS = TensorType(I64, ["k"], CPU())
_GRID = TensorType(F32, ["n", 5], CPU())


def test_positions_in_a_compiled_function() -> None:
    compiled = _Calls(_read).compile(_GRID, _POSITIONS, _POSITIONS)
    results = compiled(_grid(), Tensor(ROWS), Tensor(COLUMNS))
    for found, wanted in zip(results, _read(A, ROWS, COLUMNS), strict=True):
        assert found.shape == list(wanted.shape)
        np.testing.assert_array_equal(found.to_numpy(), wanted)


@pytest.mark.parametrize(("row", "column"), [(0, 5), (0, -6), (3, 5), (4, 0), (-5, 0)])
def test_each_axis_is_checked_in_a_compiled_function(row: int, column: int) -> None:
    compiled = _Calls(lambda x, i, j: x[i, j]).compile(_GRID, _POSITIONS, _POSITIONS)
    indices = (Tensor([row], dtype=I64), Tensor([column], dtype=I64))
    with pytest.raises(IndexError, match="out of range for an axis of size"):
        compiled(_grid(), *indices)
    with pytest.raises(IndexError, match="out of range for an axis of size"):
        _grid()[indices]


def _store(x: Any, rows: Any, mask: Any, flags: Any) -> Any:
    x[rows] = 1.0
    x[:, rows] = x[:, rows] * 2
    x[mask] = -5.0
    x[flags] = x[0:1] + 1
    x[0] = np.arange(5, dtype=np.float32)
    x[1:, [0, 3]] = 7
    x[rows, rows] = x[0, 1:2]
    x[1:3] = x[3]
    x[[2, 2, 2]] = np.arange(15, dtype=np.float32).reshape(3, 5)  # the last row stays
    x[None, -1, ::2] = 9
    return x * 1


def test_stores_in_a_compiled_function() -> None:
    given = (ROWS, MASK, MASKED_ROWS)
    wanted = A.copy()
    returned = _store(wanted, *given)
    flags = [TensorType(BOOL, ["n", 5], CPU()), TensorType(BOOL, ["n"], CPU())]
    compiled = _Calls(_store).compile(BufferType(F32, ["n", 5], CPU()), _POSITIONS, *flags)
    for run in (_store, compiled):
        buffer = _grid()
        found = run(buffer, *map(Tensor, given))
        np.testing.assert_array_equal(found.to_numpy(), returned)
        np.testing.assert_array_equal(buffer.to_numpy(), wanted)


def test_results_of_ops_are_changed_in_a_compiled_function() -> None:
    def fn(x: Any, flags: Any, sin: Callable[[Any], Any]) -> Any:
        y = x * 2
        y[:, 0::2] = sin(x[:, 0::2])
        y[flags] = 0
        y[flags, :] = x[1]
        return y, x

    compiled = _Calls(lambda x, flags: fn(x, flags, F.sin)).compile(
        _GRID, TensorType(BOOL, ["n"], CPU())
    )
    x = _grid()
    changed, given = compiled(x, Tensor(MASKED_ROWS))
    wanted, _ = fn(A, MASKED_ROWS, np.sin)
    np.testing.assert_allclose(changed.to_numpy(), wanted, rtol=1e-6)
    np.testing.assert_array_equal(given.to_numpy(), A)
    np.testing.assert_array_equal(x.to_numpy(), A)


def _compiled_with_mask(fn: Callable[[Any, Any], Any]) -> Any:
    return _Calls(fn).compile(_GRID, TensorType(BOOL, ["n"], CPU()))


def test_a_mask_in_a_trace_gets_a_hint() -> None:
    with pytest.raises(TypeError, match=r'not known while tracing. Hint: F.where.*"k"\)\[:, 0\]\]'):
        _compiled_with_mask(lambda x, mask: x[mask])
    written = _compiled_with_mask(lambda x, mask: x[F.nonzero(mask, "k")[:, 0]])
    found = written(_grid(), Tensor(MASKED_ROWS))
    np.testing.assert_array_equal(found.to_numpy(), A[MASKED_ROWS])


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x, mask: x.__setitem__(0, 1.0), "only arguments of a BufferType and results of"),
        (lambda x, mask: (x * 2).__setitem__(mask, x[:2]), "F.masked_scatter"),
        (lambda x, mask: (x * 2).__setitem__((mask, 0), 1.0), "with whole axes"),
    ],
    ids=["argument", "rows_of_a_mask", "mask_and_int"],
)
def test_stores_that_cannot_be_traced(fn: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        _compiled_with_mask(fn)


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (True, TypeError, r"a bool is not a position. Hint: x\[None\]"),
        (np.False_, TypeError, "a bool is not a position"),
        (Tensor(True, dtype=BOOL), TypeError, "a bool is not a position"),
        (([0, 1], True), TypeError, "a bool is not a position"),
        ([1.5], TypeError, r"positions must be integers, got float64\[1\]. Hint: x\[\[0, 2\]\]"),
        (Tensor([0.0, 1.0]), TypeError, r"dtype=DType.int64\); Tensor\(\[0, 2\]\) holds floats"),
        (["a"], TypeError, "the list holds something else"),
        ([Tensor(1, dtype=I64)], TypeError, r"Hint: x\[i, j\] takes one element, x\[F.stack"),
        ({1}, TypeError, "got set"),
        ([[1], [1, 2]], ValueError, "differ in length"),
        ([0, 4], IndexError, "position 4 out of range for an axis of size 4"),
        (([0, 1], -6), IndexError, "index -6 out of range"),
        (([0, 1], slice(0, 9)), IndexError, "not clipped"),
        (([0, 1], [0, 1, 2]), ValueError, "sizes 2 and 3 are neither equivalent nor"),
        (([0], 0, 0), IndexError, "too many items"),
        (MASK[:2], IndexError, r"expected \[4,5\], got bool\[2,5\]"),
        (([0], (slice(0, 2), 2)), TypeError, r"Hint: two steps, x\[a\]\[b\]"),
    ],
)
def test_refused_indices(index: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _grid()[index]
    changed = _grid()
    with pytest.raises(error):
        changed[index] = 0
    np.testing.assert_array_equal(changed.to_numpy(), A)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, Tensor([1.0, 2.0]), r"does not broadcast .* expected \[5\], got float32\[2\]"),
        ([0, 1], np.ones((3, 5)), r"expected \[2,5\], got float32\[3,5\]"),
        (MASK, [1.0], "expected a tensor, a number or an array, got list"),
        (0, None, "expected a tensor, a number or an array, got NoneType.$"),
        (0, Tensor([1], dtype=I64), r"the dtypes differ.*Hint: x\[i\] = value.cast\(x.dtype\)"),
        (0, 2**24 + 1, "would lose precision"),
    ],
)
def test_refused_values(index: Any, value: Any, message: str) -> None:
    changed = _grid()
    with pytest.raises((ValueError, TypeError), match=message):
        changed[index] = value
    np.testing.assert_array_equal(changed.to_numpy(), A)


def test_integers_refuse_a_fraction() -> None:
    counts = Tensor([1, 2], dtype=I64)
    with pytest.raises(ValueError, match="Can't promote python float"):
        counts[0] = 1.5
    counts[0] = 7
    assert counts.to_numpy().tolist() == [7, 2]


def test_a_store_is_seen_by_no_other_tensor() -> None:
    x = _grid()
    row, reshaped = x[0], x.reshape([20])
    x[0] = 0
    x[[1, 2]] = x[0]
    assert row.to_numpy().tolist() == A[0].tolist()
    assert reshaped.to_numpy().tolist() == A.ravel().tolist()


def test_positions_on_an_accelerator(emulated_accelerator: Any) -> None:
    x = _grid().to(emulated_accelerator)
    x[[0, 2]] = 1.0
    x[Tensor(MASK, device=emulated_accelerator)] = 2.0
    wanted = A.copy()
    wanted[[0, 2]] = 1.0
    wanted[MASK] = 2.0
    np.testing.assert_array_equal(x.to(CPU()).to_numpy(), wanted)
    np.testing.assert_array_equal(x[ROWS, COLUMNS].to(CPU()).to_numpy(), wanted[ROWS, COLUMNS])
    with pytest.raises(ValueError, match="same device"):
        x[Tensor(ROWS, device=CPU())]
