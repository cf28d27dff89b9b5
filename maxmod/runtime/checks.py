"""What can be put around the steps of a program: times, and comparisons with the ops one by one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from maxmod import log
from maxmod.backends.base import Backend
from maxmod.compiler.steps import RunKernel, RunProduct, Step
from maxmod.errors import CompileError
from maxmod.op import ir
from maxmod.runtime.recording import Action
from maxmod.values.tensor_type import TensorType


def timed(step: Step, name: str, action: Action, backend: Backend, index: int) -> Action:
    """Logs time, bytes and bandwidth of a step in every call (`MAXMOD_DEBUG=2`)."""

    def run(slots: list[Any]) -> None:
        backend.synchronize(index)
        start_s = time.perf_counter()
        action(slots)
        backend.synchronize(index)
        time_s = time.perf_counter() - start_s
        arrays = [slots[slot] for slot in (*step.inputs, *step.outputs)]
        nbytes = sum(array.nbytes for array in arrays if array is not None)
        log.show(
            log.TIMES,
            "%9.3f ms %9.3f MB %7.1f GB/s  %s",
            time_s * 1e3,
            nbytes / 1e6,
            nbytes / max(time_s, 1e-9) / 1e9,
            name,
        )

    return run


def checked(
    step: RunKernel | RunProduct,
    name: str,
    action: Action,
    backend: Backend,
    types: Sequence[TensorType],
    dims: Mapping[str, int],
) -> Action:
    """Compares every launch with the group run op by op (`MAXMOD_CHECK=1`).

    Args:
        step: A step with a group.
        name: What an error calls it.
        action: Runs it.
        backend: Runs the ops.
        types: The types of its results.
        dims: The value of each symbol.
    """
    assert step.group is not None
    graph = step.group.as_graph("group")
    targets = step.targets if isinstance(step, RunKernel) else ()
    operands = [*dict.fromkeys(step.inputs), *(slot for slot in targets if slot >= 0)]

    def run(slots: list[Any]) -> None:
        arrays = [slots[slot] for slot in operands]
        expected = ir.interpret(graph, backend.run, arrays, {}, dims)
        action(slots)
        for slot, type, want in zip(step.outputs, types, expected):
            if not backend.is_close(slots[slot], want, type.dtype):
                raise CompileError(
                    f"{name} disagrees with its graph, result {type.short()}:\n{graph}"
                )

    return run
