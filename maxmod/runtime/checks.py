"""Wrappers of the steps of a program: timing, and comparison with the ops run one by one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar

from maxmod import log
from maxmod.compiler.steps import RunKernel, RunProduct, Step
from maxmod.errors import CompileError
from maxmod.op import ir, lookup
from maxmod.runtime.environment import Environment
from maxmod.runtime.work import Action, Slots
from maxmod.values.array import Array
from maxmod.values.tensor_type import TensorType

# Seconds of every run of a step, by the slot of its first result.
StepTimes = dict[int, list[float]]

# Of a product with quantised weights on the host: kernels/host/quantized.h makes integers of 16
# bits of the other operand, ops multiply it as it is.
QUANTIZED_ERROR = 2.0**-12
_QUANTIZED = lookup("quantized_linear")

_COLLECTED: ContextVar[StepTimes | None] = ContextVar("collected", default=None)


@contextlib.contextmanager
def collected_times() -> Iterator[StepTimes]:
    """Collects the times of the steps of programs that are bound in this block."""
    found: StepTimes = {}
    token = _COLLECTED.set(found)
    try:
        yield found
    finally:
        _COLLECTED.reset(token)


def wants_times(*, inside: bool) -> bool:
    """True if steps are to be timed.

    Args:
        inside: Whether they run in a step of another program; it is that step that is collected.
    """
    return log.wants(log.TIMES) or (_COLLECTED.get() is not None and not inside)


def timed(step: Step, name: str, action: Action, environment: Environment) -> Action:
    """Times a step in every call, and collects the times or logs them (`MAXMOD_DEBUG=2`)."""
    collected = _COLLECTED.get()

    def run(slots: Slots) -> None:
        environment.synchronize()
        start_s = time.perf_counter()
        action(slots)
        environment.synchronize()
        time_s = time.perf_counter() - start_s
        if collected is None:
            _log_time(step, name, slots, time_s)
        else:
            collected.setdefault(step.outputs[0], []).append(time_s)

    return run


def _log_time(step: Step, name: str, slots: Sequence[Array], time_s: float) -> None:
    """Logs time, bytes and bandwidth of a step."""
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


def checked(
    step: RunKernel | RunProduct,
    name: str,
    action: Action,
    types: Sequence[TensorType],
    dims: Mapping[str, int],
    environment: Environment,
) -> Action:
    """Compares every launch with the group run op by op (`MAXMOD_CHECK=1`).

    Args:
        step: A step with a group.
        name: What an error calls it.
        action: Runs it.
        types: The types of its results.
        dims: The value of each symbol.
        environment: Where the ops run.
    """
    assert step.group is not None
    backend = environment.backend
    graph = step.group.as_graph("group")
    targets = step.targets if isinstance(step, RunKernel) else ()
    is_quantized = any(node.op is _QUANTIZED for node in step.group.nodes)
    error = QUANTIZED_ERROR if is_quantized else 0.0
    operands = [*dict.fromkeys(step.inputs), *(slot for slot in targets if slot >= 0)]

    def run(slots: Slots) -> None:
        arrays = [slots[slot] for slot in operands]
        expected = ir.interpret(graph, backend.run, arrays, {}, dims)
        action(slots)
        for slot, type, want in zip(step.outputs, types, expected):
            if not backend.is_close(slots[slot], want, type.dtype, error):
                raise CompileError(
                    f"{name} disagrees with its graph, result {type.short()}:\n{graph}"
                )

    return run
