"""Hand-written CUDA kernels with their generated part, run on the host with guarded arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cuda_shim
import numpy as np
from helpers import run_op

from maxmod.compiler.fusion.plan import plan_groups
from maxmod.compiler.groups.group import FusionGroup
from maxmod.compiler.pipeline import optimize
from maxmod.dtype import storage_dtype
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.op.ir import bind_type
from maxmod.runtime.staging import trace_function
from maxmod.values.dim import SymbolicDim, evaluate
from maxmod.values.tensor_type import TensorType

# Of a small GPU, so that blocks do several tasks one after the other.
RESIDENT_THREADS = 4096


class CudaTemplate:
    """A function whose whole graph is one group with a template.

    Args:
        fn: The function.
        types: The types of its arguments.
        emit: Makes the kernel of the group.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        types: Sequence[TensorType],
        emit: Callable[[FusionGroup, Any, str], KernelSource],
    ) -> None:
        graph = trace_function(fn, types, name="f", parameters={}).graph
        self.graph = optimize(graph, run_op, Dialect.CUDA)
        groups = plan_groups(self.graph, template_dialect=Dialect.CUDA)
        (self.group,) = [group for group in groups if group.template is not None]
        self.source = emit(self.group, self.group.template, "kernel")
        self.kernel: cuda_shim.Kernel | None = None

    def __call__(self, *arrays: Any, order: int = 0) -> np.ndarray[Any, Any]:
        """Runs the kernel; results and scratch memory start as NaN."""
        dims: dict[str, int] = {}
        for value, array in zip(self.graph.inputs, arrays, strict=True):
            for size, actual in zip(value.type.sizes, array.shape, strict=True):
                if isinstance(size, SymbolicDim):
                    assert dims.setdefault(size.name, actual) == actual
        given = dict(zip(self.graph.inputs, arrays, strict=True)) | dict(self.graph.constants)
        (output,) = self.group.outputs
        kind = bind_type(output.type, dims)
        out = np.full(kind.sizes, np.nan, storage_dtype(kind.dtype))
        source = self.source
        floats, counters = (
            evaluate(size, dims) for size in (source.scratch_floats, source.counters)
        )
        scratch = [np.full(floats, np.nan, np.float32)] if floats else []
        counted = [np.zeros(counters, np.uint32)] if counters else []
        scalars = [np.int64(dims[name]) for name in source.symbols]
        inputs = [np.ascontiguousarray(given[value]) for value in self.group.inputs]
        grid = source.launch.grid(dims, RESIDENT_THREADS)
        assert self.kernel is not None, "build first"
        if grid.blocks:
            args = [*inputs, out, *scratch, *counted, *scalars]
            shape = (grid.blocks,), (grid.threads,)
            self.kernel(*shape, args, grid.shared_nbytes, order=order)
        assert not any(array.any() for array in counted), "counters must be left at 0"
        return out


def build(templates: Sequence[CudaTemplate]) -> None:
    """Compiles the kernels of many templates at once."""
    codes = [cuda_shim.Code(t.source.plain, t.source.entry) for t in templates]
    module = cuda_shim.Module(codes, kernel_text.prelude(Dialect.CUDA), runs_long=True)
    for template, kernel in zip(templates, module.kernels, strict=True):
        template.kernel = kernel
