"""Host kernels read no byte outside of their operands; one that does ends the process.

Tiles and vectors that are not full are the places where a kernel can read too far and still return
the right numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled
from guarded import guarded
from helpers import numbers, tensor, values

from maxmod import DType, TensorType
from maxmod import functional as F
from maxmod.ops.choose import choose_tokens
from maxmod.values.device import CPU_REF

F32, BF16, F16 = DType.float32, DType.bfloat16, DType.float16
Case = tuple[Callable[..., Any], list[tuple[DType, list[Any]]]]


def _by_rows(x: Any, w: Any) -> Any:
    return x @ w.T


def _attention(q: Any, k: Any, v: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v)


def _scaled(table: Any, rows: Any) -> Any:
    return F.gather(table, rows, axis=0) * 2.0


# A function, and the dtype and shape of each argument. No size is a multiple of a tile.
CASES: dict[str, Case] = {
    "product by rows": (_by_rows, [(F32, ["n", 37]), (F32, [21, 37])]),
    "product by rows of bfloat16": (_by_rows, [(BF16, ["n", 37]), (BF16, [21, 37])]),
    "product by rows of float16": (_by_rows, [(F16, ["n", 37]), (F16, [21, 37])]),
    "product by columns": (lambda x, w: x @ w, [(F32, ["n", 37]), (F32, [37, 21])]),
    "product by columns of bfloat16": (lambda x, w: x @ w, [(BF16, ["n", 37]), (BF16, [37, 21])]),
    "attention": (_attention, [(F32, ["n", 19]), (F32, [77, 19]), (F32, [77, 21])]),
    "int8 product": (
        F.quantized_linear,
        [(F32, ["n", 37]), (DType.int8, [21, 37]), (F32, [21, 1])],
    ),
    "int4 product": (
        F.quantized_linear,
        [(F32, ["n", 96]), (DType.uint8, [21, 48]), (F32, [21, 3])],
    ),
    "tokens": (
        choose_tokens,
        [(F32, ["n", 77]), (DType.float64, [4]), (DType.uint64, []), (DType.uint64, ["n"])],
    ),
    "softmax": (F.softmax, [(F32, ["n", 37])]),
    "gelu of bfloat16": (lambda x: F.gelu(x) + 1.0, [(BF16, ["n", 37])]),
    "lookup": (_scaled, [(F32, [7, 37]), (DType.int64, ["n"])]),
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.parametrize("name", CASES)
def test_nothing_outside_of_operands_is_read(name: str) -> None:
    fn, kinds = CASES[name]
    model = compiled(fn, *[TensorType(dtype, shape, CPU_REF) for dtype, shape in kinds])
    assert model.kernels
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 5, 13, 70):
        shapes = [(dtype, [n if size == "n" else size for size in shape]) for dtype, shape in kinds]
        arrays = [abs(numbers(rng, dtype, shape, 0.1, 0.9)) for dtype, shape in shapes]
        if name == "lookup":
            arrays[1] %= 7
        wanted = values(model(*map(tensor, arrays)))
        for at_end in (True, False):
            given = [guarded(array, at_end=at_end) for array in arrays]
            np.testing.assert_array_equal(values(model(*map(tensor, given))), wanted)


# A function of symbolic sizes, and the shapes of its arguments for one size.
SIZED: dict[str, tuple[Callable[..., Any], Callable[[Any], list[list[Any]]]]] = {
    "product by rows": (_by_rows, lambda k: [[3, k], [21, k]]),
    "product by columns": (lambda x, w: x @ w, lambda k: [[3, k], [k, 21]]),
    "product of many rows": (_by_rows, lambda k: [[40, k], [21, k]]),
    "attention of few keys": (_attention, lambda t: [[2, 19], [t, 19], [t, 21]]),
    "attention": (_attention, lambda t: [[40, 19], [t, 19], [t, 21]]),
}


@pytest.mark.parametrize("name", SIZED)
def test_memory_of_an_earlier_call_does_not_matter(name: str) -> None:
    """Kernels pad tiles in memory that the call before, all of NaN, has just given back."""
    fn, shapes = SIZED[name]
    model = compiled(fn, *[TensorType(F32, shape, CPU_REF) for shape in shapes("k")])
    rng = np.random.default_rng(1)
    for size in range(33, 49):
        arrays = [numbers(rng, F32, shape, 0.1, 0.9) for shape in shapes(size)]
        wanted = values(model(*map(tensor, arrays)))
        model(*[tensor(np.full(shape, np.nan, np.float32)) for shape in shapes(48)])
        found = values(model(*map(tensor, arrays)))
        assert np.isfinite(wanted).all()
        np.testing.assert_array_equal(found, wanted)
