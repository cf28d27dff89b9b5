"""Schedules of the compiler, step by step: kernels as PTX, views and products by NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maxmod.compiler.groups.group import FusionGroup
from maxmod.compiler.steps import RunKernel, RunOp, RunProduct, Schedule
from maxmod.dtype import storage_dtype
from maxmod.kernel.source import KernelSource
from maxmod.op import ir
from maxmod.values.dim import evaluate
from ptx.compiling import kernels_of
from ptx.counts import Counts
from ptx.machine import Grid, launch
from ptx.spaces import Buffer
from ptx.text import Kernel

Array = npt.NDArray[Any]
Values = dict[ir.Value, Array]
RESIDENT_THREADS = 16384  # of a GPU so small that some blocks do several tasks one after the other
TOGETHER = 24  # kernels that are compiled at once


@dataclass(frozen=True)
class Ran:
    """What a kernel of a schedule did.

    Attributes:
        step: The step.
        source: Its kernel.
        counts: What it cost.
        given: The arrays that it read, as they were before, by their place in the graph.
        made: The arrays that it wrote.
    """

    step: RunKernel
    source: KernelSource
    counts: Counts
    given: Values
    made: Values

    @property
    def group(self) -> FusionGroup:
        """What it computes."""
        assert self.step.group is not None
        return self.step.group


class Kernels:
    """PTX of kernels: equal ones, of whatever schedule, are compiled once.

    Args:
        schedules: The schedules.
    """

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        sources = {source.plain: source for plan in schedules for source in plan.kernels}
        unique = [*sources.values()]
        self._made: dict[str, Kernel] = {}
        for start in range(0, len(unique), TOGETHER):
            part = unique[start : start + TOGETHER]
            for source, kernel in zip(part, kernels_of(part), strict=True):
                self._made[source.plain] = kernel

    def __getitem__(self, source: KernelSource) -> Kernel:
        return self._made[source.plain]


class Run:
    """Runs a schedule on arrays.

    Args:
        plan: The schedule.
        kernels: The PTX of its kernels.
        dims: The value of each symbol.
        run_op: Runs one op on arrays, such as `helpers.run_op`.
    """

    def __init__(
        self,
        plan: Schedule,
        kernels: Kernels,
        dims: Mapping[str, int],
        run_op: Callable[..., Sequence[Array]],
    ) -> None:
        self._plan = plan
        self._kernels = kernels
        self._dims = dims
        self._run_op = run_op
        self._slots: dict[int, Array] = {}
        self.ran: list[Ran] = []

    def __call__(self, arguments: Sequence[Array], weights: Mapping[str, Array]) -> Sequence[Array]:
        """Returns the results; buffers among the arguments are changed in place."""
        plan = self._plan
        self._slots = dict(zip(plan.inputs, arguments, strict=True))
        self._slots |= {slot: weights[name] for name, slot in plan.weights.items()}
        self._slots |= {slot: np.asarray(array) for slot, array in plan.constants.items()}
        for step in plan.bound_steps(self._dims):
            if isinstance(step, RunKernel):
                self._run_kernel(step)
            elif isinstance(step, RunProduct):
                self._run_product(step)
            else:
                self._run_one(step)
        for buffer, contents in plan.updates:
            if self._slots[buffer] is not self._slots[contents]:
                self._slots[buffer][...] = self._slots[contents]
        return [self._slots[slot] for slot in plan.outputs]

    def _run_one(self, step: RunOp) -> None:
        arrays = [self._slots[slot] for slot in step.inputs]
        types = [ir.bind_type(type, self._dims) for type in step.types]
        attrs = ir.bind_attrs(step.attrs, self._dims)
        for slot, array in zip(step.outputs, self._run_op(step.op, arrays, attrs, types)):
            self._slots[slot] = array

    def _run_product(self, step: RunProduct) -> None:
        """The matrix library: sums in float32 or better, rounded once."""
        wide = [self._slots[slot].astype(np.float64) for slot in step.inputs]
        found = wide[0] @ wide[1]
        for addend in wide[2:]:
            found = found + addend
        if step.activation == "gelu":
            found = found * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (found + 0.044715 * found**3)))
        elif step.activation:
            found = np.maximum(found, 0)
        self._slots[step.outputs[0]] = found.astype(storage_dtype(step.types[0].dtype))

    def _run_kernel(self, step: RunKernel) -> None:
        source, dims = self._plan.kernels[step.kernel], self._dims
        inputs = [np.asarray(self._slots[slot], order="C") for slot in step.inputs]
        buffers = [Buffer(array, is_changed=False) for array in inputs]
        group = step.group
        assert group is not None
        given = {value: array.copy() for value, array in zip(group.reads, inputs, strict=True)}
        for slot, target, type in zip(step.outputs, step.targets, step.types, strict=True):
            bound = ir.bind_type(type, dims)
            made = Buffer.made(bound.sizes, storage_dtype(bound.dtype))
            if target >= 0:
                made = Buffer(self._slots[target])
            self._slots[slot] = made.array
            buffers.append(made)
        overwritten = zip(group.outputs, step.targets)
        given |= {
            group.targets[value]: self._slots[target].copy()
            for value, target in overwritten
            if target >= 0
        }
        counters = evaluate(source.counters, dims)
        if counters:
            buffers.append(Buffer(np.zeros(counters, np.uint32)))
        counts = Counts()
        grid = source.launch.grid(dims, RESIDENT_THREADS)
        if grid.blocks:
            scalars = [np.int64(dims[name]) for name in step.symbols]
            launch(self._kernels[source], Grid(*grid), [*buffers, *scalars], counts=counts)
        assert not counters or not buffers[-1].array.any(), "counters must be left at 0"
        results = {v: self._slots[s] for v, s in zip(group.outputs, step.outputs)}
        made_arrays = {value: array.copy() for value, array in results.items()}
        self.ran.append(Ran(step, source, counts, given, made_arrays))
