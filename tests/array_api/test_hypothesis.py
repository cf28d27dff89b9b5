"""The strategies of Hypothesis for the standard, which know nothing of maxmod, make our arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from array_api.both import numpy_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.array_api import make_strategies_namespace

from maxmod import array_api as xp

xps = make_strategies_namespace(xp)
EXAMPLES = 30
DTYPES = xps.boolean_dtypes() | xps.real_dtypes()


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_arrays_and_indices(data: Any) -> None:
    x = data.draw(xps.arrays(DTYPES, xps.array_shapes(max_side=4)))
    key = data.draw(xps.indices(x.shape, allow_newaxis=True))
    np.testing.assert_array_equal(numpy_of(x[key]), numpy_of(x)[key])


@settings(max_examples=EXAMPLES)
@given(xps.arrays(DTYPES, xps.array_shapes(max_side=5), unique=True))
def test_unique_elements(x: Any) -> None:
    assert xp.unique_values(x).size == x.size


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_broadcasting(data: Any) -> None:
    shapes, wanted = data.draw(xps.mutually_broadcastable_shapes(3, max_side=3))
    arrays = [data.draw(xps.arrays(xp.int32, shape)) for shape in shapes]
    assert all(x.shape == wanted for x in xp.broadcast_arrays(*arrays))
    total = arrays[0] + arrays[1] * arrays[2]
    assert total.shape == wanted


@settings(max_examples=EXAMPLES)
@given(xps.arrays(xps.real_dtypes(), xps.array_shapes(min_side=1, max_side=5)), st.booleans())
def test_order(x: Any, descending: bool) -> None:
    line = numpy_of(xp.sort(x, axis=-1, descending=descending))
    wanted = np.sort(numpy_of(x), axis=-1)
    np.testing.assert_array_equal(line, wanted[..., ::-1] if descending else wanted)
    order = xp.argsort(x, axis=-1, descending=descending)
    picked = xp.take_along_axis(x, order, axis=-1)
    np.testing.assert_array_equal(numpy_of(picked), line)


def test_no_warnings_of_missing_names() -> None:
    """`make_strategies_namespace` warns of every name that it misses; warnings are errors here."""
    make_strategies_namespace(xp, api_version="2024.12")
    with pytest.raises(Exception, match="complex"):
        xps.complex_dtypes().example()
