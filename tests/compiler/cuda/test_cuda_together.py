"""Elementwise kernels over different positions in one launch, each with blocks of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_function import CudaFunction, planned
from emulated_cuda import emulated_cuda
from helpers import tensor

from maxmod import CPU, BufferType, DType, TensorType
from maxmod import functional as F
from maxmod.compiler.steps import RunKernel
from maxmod.runtime.compiled import compile_function
from maxmod.values.device import CPU_REF

ORDERS = (0, 2, 3, 17)


def _f32(*sizes: int | str) -> TensorType:
    return TensorType(DType.float32, sizes, CPU_REF)


def test_blocks_of_each_group() -> None:
    """More blocks than are resident, with and without vectors, and one without an axis."""
    types = [_f32(3, 700), _f32(5, 77), _f32()]
    function = CudaFunction(lambda x, y, z: [F.exp(x) + z, y.T * 2, z - 1], *types)
    assert function.source.name == "map_exp_add_mul_sub"
    assert function.source.plain.count("const int mm_mine") == 3
    arrays = [np.random.default_rng(1).standard_normal(t.sizes).astype(np.float32) for t in types]
    x, y, z = arrays
    for order in ORDERS:
        found = function(*arrays, order=order)
        for one, other in zip(found, [np.exp(x) + z, y.T * 2, z - 1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_names_of_values_in_a_joined_kernel() -> None:
    """Numbers of variables would be used twice; each is declared and remarked once in its part."""
    (source,) = planned(lambda x, y: [F.exp(x) * 2, F.tanh(y)], _f32(8), _f32(5)).kernels
    text = source.code
    assert "v_y" in text and "v_x" in text
    assert text.count("mm_exp(v_x)") == text.count("mm_tanh(v_y)") == 1


@pytest.mark.parametrize(
    ("fn", "types", "count"),
    [
        (lambda x, y: [F.exp(x), F.sum(F.exp(x)) * y], [_f32(3, 8), _f32(7)], 2),
        (lambda x, y: [x + 1, y * 2], [_f32(3, 8), _f32("n")], 2),
        (lambda x, y: [x + 1, y * 2], [_f32(300, 800), _f32(7)], 2),
        (lambda x, y: [x + 1, y * 2], [_f32(3, 8), _f32(7)], 1),
    ],
    ids=["a chain", "symbolic", "large", "together"],
)
def test_launches(fn: Callable[..., Any], types: list[TensorType], count: int) -> None:
    steps = [step for step in planned(fn, *types).steps if isinstance(step, RunKernel)]
    assert len(steps) == count


def _store_and_map(buffer: Any, x: Any, position: Any, y: Any) -> Any:
    F.buffer_store_slice(buffer, x * 2, [(slice(position, None), x.shape[0])])
    return F.tanh(y)


@pytest.mark.parametrize("order", [0, 3])
def test_stores_beside_other_maps(order: int) -> None:
    """A position out of range stores nothing, and keeps no other part from its blocks."""
    rng = np.random.default_rng(2)
    with emulated_cuda() as (device, backend):
        backend.cuda.order = order
        buffer_type = BufferType(DType.float32, ["n", 8], device)
        types = [TensorType(DType.float32, [2, 8], device), TensorType(DType.int64, [], device)]
        types = [buffer_type, *types, TensorType(DType.float32, [5, 33], device)]
        model = compile_function(_store_and_map, types, name="f", parameters={})
        (step,) = (step for step in model._schedule.steps if isinstance(step, RunKernel))
        assert len(step.outputs) == 2
        for position in (0, 3, 5, 7, -1, 2**40):
            arrays = [rng.standard_normal(s).astype(np.float32) for s in ((6, 8), (2, 8), (5, 33))]
            wanted = arrays[0].copy()
            if 0 <= position <= 4:
                wanted[position : position + 2] = arrays[1] * 2
            buffer, x, y = (tensor(array).to(device) for array in arrays)
            found = model(buffer, x, tensor(np.array(position)).to(device), y)
            np.testing.assert_array_equal(buffer.to(CPU()).to_numpy(), wanted)
            np.testing.assert_allclose(found.to(CPU()).to_numpy(), np.tanh(arrays[2]), rtol=2e-6)
