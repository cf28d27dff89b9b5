"""Stores as results of CUDA kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiler.stores import SIZES, STORES
from cuda_function import sources_of
from emulated_cuda import emulated_cuda
from helpers import assert_close, tensor, wide

from maxmod import CPU, BufferType, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.compiler.steps import RunKernel
from maxmod.kernel.source import Dialect
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.values.device import CPU_REF


def _compiled(name: str, dtype: DType, device: Any) -> CompiledModel:
    program = STORES[name]
    return compile_function(program.fn, program.types(dtype, device), name="f", parameters={})


@pytest.mark.parametrize("order", [0, 3])
def test_programs(order: int) -> None:
    """All on one emulated device, so that their kernels are built together."""
    rng = np.random.default_rng(0)
    with emulated_cuda() as (device, backend):
        backend.cuda.order = order
        models = {name: _compiled(name, DType.float32, device) for name in STORES}
        for name, model in models.items():
            assert {kernel.dialect for kernel in model.kernels} <= {Dialect.CUDA}
            for sizes, position in SIZES:
                arrays = STORES[name].arguments(rng, DType.float32, sizes, position)
                args = [tensor(array).to(device) for array in arrays]
                found = model(*args)
                buffer = wide(arrays[0]).copy()
                wanted = STORES[name].oracle(buffer, wide(arrays[1]), position)
                assert_close(args[0].to(CPU()), buffer, length=8, ulps=4)
                pairs = [] if wanted is None else [(found, wanted)]
                pairs = zip(found, wanted, strict=True) if isinstance(wanted, list) else pairs
                for one, want in pairs:
                    assert_close(one.to(CPU()), want, length=40, ulps=4)


@pytest.mark.parametrize("name", ["rows", "heads", "normed"])
def test_a_position_out_of_range_stores_nothing(name: str) -> None:
    """Nobody waits for the device to hear of it."""
    with emulated_cuda() as (device, _):
        model = _compiled(name, DType.float32, device)
        arrays = STORES[name].arguments(np.random.default_rng(1), DType.float32, *SIZES[0])
        for position in (4, 6, -1, 2**62, -(2**62)):
            buffer = tensor(arrays[0]).to(device)
            model(buffer, tensor(arrays[1]).to(device), tensor(np.array(position)).to(device))
            np.testing.assert_array_equal(buffer.to(CPU()).to_numpy(), arrays[0])


def test_a_misaligned_buffer_is_written_through() -> None:
    with emulated_cuda() as (device, backend):
        model = _compiled("rows", DType.float32, device)
        block = backend.xp.asarray(np.zeros(49, np.float32))
        assert {(block.data.ptr + 4 * start) % 16 for start in range(4)} == {0, 4, 8, 12}
        for start in range(1, 5):
            block[...] = 0
            kind = TensorType(DType.float32, [5, 8], device)
            buffer = Tensor.wrap(block[start : start + 40].reshape(5, 8), kind)
            x = tensor(np.ones((1, 8), np.float32)).to(device)
            model(buffer, x, tensor(np.array(2)).to(device))
            found = np.asarray(block)
            assert found.sum() == 24
            assert (found[start + 16 : start + 24] == 3).all()


def _turned(keys: Tensor, x: Tensor, turn: Tensor, used: Tensor) -> None:
    k = x.reshape([1, 1, 8, 64]).permute([0, 2, 1, 3]) * turn
    F.buffer_store_slice(keys, k, [slice(None), slice(None), (slice(used, None), 1)])


@pytest.mark.parametrize(("dtype", "width"), [(DType.float32, 4), (DType.bfloat16, 8)])
def test_rows_of_a_buffer_are_written_as_vectors(dtype: DType, width: int) -> None:
    """The position is read by the kernel."""
    (source,) = sources_of(
        _turned,
        BufferType(dtype, [1, 8, "length", 64], CPU_REF),
        TensorType(dtype, [1, 1, 512], CPU_REF),
        TensorType(dtype, [64], CPU_REF),
        TensorType(DType.int64, [], CPU_REF),
    )
    assert f"constexpr int V = {width};" in source.code
    assert "mm_write(b3 + mm_i" in source.plain
    assert "const int64_t t0 = b2[0];" in source.plain


@pytest.mark.parametrize("rows", [3, 12, "n"])
def test_a_product_goes_into_a_part_of_a_buffer(rows: int | str) -> None:
    """A few rows or many, known or not: nothing is made that is as large as the buffer."""
    length, width = 512, 16
    rng = np.random.default_rng(3)
    w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((width, 8), (width,)))
    with emulated_cuda() as (device, _):
        sizes: list[Any] = [[length, width], [rows, 8], [width, 8], [width], []]
        kinds = [TensorType(DType.float32, shape, device) for shape in sizes[1:4]]
        types = [
            BufferType(DType.float32, sizes[0], device),
            *kinds,
            TensorType(DType.int64, [], device),
        ]

        def fn(cache: Tensor, x: Tensor, w: Tensor, b: Tensor, used: Tensor) -> Tensor:
            made = F.relu(x @ w.T + b)
            F.buffer_store_slice(cache, made, [(slice(used, None), x.shape[0]), slice(None)])
            return made * 2

        model = compile_function(fn, types, name="f", parameters={})
        plan = model._schedule
        for count in (3, 12) if rows == "n" else (rows,):
            assert isinstance(count, int)
            dims = {"n": count} if rows == "n" else {}
            ((buffer, content),) = plan.updates
            stored = [
                dict(zip(step.outputs, step.targets))
                for step in plan.bound_steps(dims)
                if isinstance(step, RunKernel)
            ]
            assert [targets[content] for targets in stored if content in targets] == [buffer]
            memory = model.memory_plan(**dims)
            assert memory.arena_nbytes + memory.output_nbytes < 4 * length * width / 4
            x = rng.standard_normal((count, 8)).astype(np.float32)
            cache = np.zeros((length, width), np.float32)
            args = [tensor(a).to(device) for a in (cache, x, w, b, np.array(7))]
            made = np.maximum(wide(x) @ wide(w).T + b, 0)
            assert_close(model(*args).to(CPU()), 2 * made, length=8, ulps=4)
            wanted = cache.astype(np.float64)
            wanted[7 : 7 + count] = made
            assert_close(args[0].to(CPU()), wanted, length=8, ulps=4)
