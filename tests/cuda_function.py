"""Functions that become one CUDA kernel, run on the host with guarded arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cuda_shim
import numpy as np
from helpers import run_op

from maxmod.compiler.pipeline import optimize
from maxmod.compiler.schedule import schedule
from maxmod.compiler.steps import RunKernel, Schedule
from maxmod.dtype import storage_dtype
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.op import ir
from maxmod.runtime.staging import trace_function
from maxmod.values.dim import SymbolicDim
from maxmod.values.tensor_type import TensorType

# As on a GPU with two small SMs: grids are capped, and loops over the grid take several steps.
RESIDENT_THREADS = 2048


def planned(fn: Callable[..., Any], *types: TensorType) -> Schedule:
    """Returns the CUDA schedule of a function."""
    graph = trace_function(fn, types, name="f", parameters={}).graph
    return schedule(optimize(graph, run_op, Dialect.CUDA), Dialect.CUDA)


def sources_of(fn: Callable[..., Any], *types: TensorType) -> tuple[KernelSource, ...]:
    """Returns the CUDA kernels of a function."""
    return planned(fn, *types).kernels


class CudaFunction:
    """A function whose whole graph is one kernel.

    Args:
        fn: The function.
        *types: The types of its arguments.
    """

    def __init__(self, fn: Callable[..., Any], *types: TensorType) -> None:
        self.types = types
        self.plan = planned(fn, *types)
        (step,) = self.plan.steps
        assert isinstance(step, RunKernel)
        self.step = step
        (self.source,) = self.plan.kernels
        self.kernel: cuda_shim.Kernel | None = None

    def __call__(self, *arrays: Any, order: int = 0) -> list[np.ndarray[Any, Any]]:
        """Runs the kernel; results start as bytes of ones, so that a gap shows as NaN."""
        dims: dict[str, int] = {}
        for type, array in zip(self.types, arrays, strict=True):
            for size, actual in zip(type.sizes, array.shape, strict=True):
                if isinstance(size, SymbolicDim):
                    assert dims.setdefault(size.name, actual) == actual
        slots = dict(zip(self.plan.inputs, arrays, strict=True)) | dict(self.plan.constants)
        for slot, type in zip(self.step.outputs, self.step.types, strict=True):
            bound = ir.bind_type(type, dims)
            nbytes = bound.num_elements() * type.dtype.size_in_bytes
            empty = np.full(nbytes, 255, np.uint8)
            slots[slot] = empty.view(storage_dtype(type.dtype)).reshape(bound.sizes)
        self._launch([slots[slot] for slot in (*self.step.inputs, *self.step.outputs)], dims, order)
        return [slots[slot] for slot in self.plan.outputs]

    def _launch(self, buffers: list[Any], dims: dict[str, int], order: int) -> None:
        if self.kernel is None:
            build([self])
        assert self.kernel is not None
        grid = self.source.launch.grid(dims, RESIDENT_THREADS)
        if grid.blocks:
            scalars = [np.int64(dims[name]) for name in self.source.symbols]
            args = [np.ascontiguousarray(buffer) for buffer in buffers[: len(self.step.inputs)]]
            args += buffers[len(self.step.inputs) :]
            shape = (grid.blocks,), (grid.threads,)
            self.kernel(*shape, [*args, *scalars], grid.shared_nbytes, order=order)


def build(functions: Sequence[CudaFunction]) -> None:
    """Compiles the kernels of many functions at once, which is much faster than one by one."""
    codes = [cuda_shim.Code(f.source.plain, f.source.entry) for f in functions]
    module = cuda_shim.Module(codes, kernel_text.prelude(Dialect.CUDA))
    for function, kernel in zip(functions, module.kernels, strict=True):
        function.kernel = kernel
