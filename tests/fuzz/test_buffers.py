"""Memory of any kind becomes a tensor or buffer with its values, or is refused; also subscripts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fuzz.examples import fuzzed, right_or_refused
from hypothesis import given
from hypothesis import strategies as st

from maxmod import CPU, Tensor
from maxmod.driver import Buffer

DTYPES = ["?", "i1", "u1", "<i2", ">i2", "<u2", "<i4", "<u4", ">i8", "<u8", "<f2", "<f4", ">f4"]
DTYPES += ["<f8", "<c8", "O", "S2", "M8[s]", "V3"]


@st.composite
def arrays(draw: st.DrawFn, dtypes: list[str] = DTYPES) -> np.ndarray:
    """An array of any dtype, byte order, stride and alignment; some cannot be written."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    count = int(np.prod(shape))
    array = (np.arange(count) % 2 if dtype.kind == "b" else np.arange(count)).astype(
        dtype if dtype.kind != "V" else "u1"
    )
    array = array.reshape(shape)
    way = draw(st.sampled_from(["plain", "reversed", "transposed", "unaligned", "spread", "fixed"]))
    if way == "reversed" and array.ndim:
        array = array[tuple(slice(None, None, -1) for _ in shape)]
    elif way == "transposed":
        array = array.T
    elif way == "spread" and array.ndim:
        array = np.repeat(array, 2, axis=0)[::2]
    elif way == "unaligned" and array.dtype != object:
        raw = np.empty(array.nbytes + 1, np.uint8)[1:]
        array = np.ndarray(array.shape, array.dtype, raw.data) if array.nbytes else array
        array[...] = 1
    elif way == "fixed":
        array.flags.writeable = False
    return array


@fuzzed(100)
@given(array=arrays())
def test_arrays_become_tensors(array: np.ndarray) -> None:
    before = array.copy()
    with right_or_refused():
        tensor = Tensor(array, device=CPU())
        np.testing.assert_array_equal(tensor.to_numpy(), before)
        np.testing.assert_array_equal((tensor == tensor).to_numpy(), before == before)
    np.testing.assert_array_equal(array, before)


@fuzzed(100)
@given(array=arrays())
def test_arrays_become_buffers(array: np.ndarray) -> None:
    before = array.copy()
    with right_or_refused():
        buffer = Buffer.from_numpy(array)
        np.testing.assert_array_equal(buffer.to_numpy(), before)
        np.testing.assert_array_equal(buffer.contiguous().to_numpy(), before)
    with right_or_refused():
        np.testing.assert_array_equal(Buffer.from_dlpack(array).to_numpy(), before)
    np.testing.assert_array_equal(array, before)


INDICES = st.one_of(
    st.integers(-6, 6),
    st.slices(4),
    st.none(),
    st.just(...),
    st.booleans(),
    st.lists(st.integers(-5, 5), max_size=3),
    st.sampled_from([np.int64(1), np.array([1, 0]), np.array([True, False]), 1.0, "a", 10**30]),
)
KEYS = st.one_of(INDICES, st.lists(INDICES, max_size=4).map(tuple))


@pytest.mark.parametrize("kind", [Tensor, Buffer])
@fuzzed(100)
@given(array=arrays(["<f4", "<i4"]), key=KEYS)
def test_subscripts(kind: type, array: np.ndarray, key: Any) -> None:
    """What is read has the values that NumPy reads."""
    array = np.ascontiguousarray(array)
    with right_or_refused():
        whole = Tensor(array, device=CPU()) if kind is Tensor else Buffer.from_numpy(array.copy())
        found = whole[key].to_numpy()
        np.testing.assert_array_equal(found, array[key])


@pytest.mark.parametrize("kind", [Tensor, Buffer])
@fuzzed(100)
@given(array=arrays(["<f4", "<i4"]), key=KEYS, value=st.one_of(st.integers(-3, 3), st.floats()))
def test_stores(kind: type, array: np.ndarray, key: Any, value: Any) -> None:
    """A store changes what NumPy changes; a refused one changes nothing."""
    array = np.ascontiguousarray(array)
    whole = (
        Tensor(array.copy(), device=CPU()) if kind is Tensor else Buffer.from_numpy(array.copy())
    )
    stored = False
    with right_or_refused():
        whole[key] = value
        stored = True
    expected = array.copy()
    if stored:
        with np.errstate(all="ignore"):
            expected[key] = value
    np.testing.assert_array_equal(whole.to_numpy(), expected)
