"""What steps do in a call: functions of the slots, one maker for each kind of step.

Sizes and static arguments are already filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from maxmod.backends.base import Backend, Launch
from maxmod.compiler.steps import RunCollective, RunKernel, RunOp, RunProduct
from maxmod.distributed import Group
from maxmod.runtime.stats import Stats
from maxmod.runtime.work import Action, KernelCall, Slots
from maxmod.values.array import Array
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

# An op with the slots that it reads and writes, its static arguments and the types of its results.
BoundOp = tuple[RunOp, Attrs, Sequence[TensorType]]


def run_kernel(call: KernelCall) -> Action:
    """Launches a kernel, with the arguments of a call."""
    action = _launch(call.launch, call.varying)
    if call.stored:
        action = _overwrite_buffers(action, call.launch, call.stored)
    if call.flag is not None and call.again is not None:
        action = _repeat_if_flagged(action, call.flag, call.again)
    return action


def _launch(launch: Launch, varying: Sequence[tuple[int, int]]) -> Action:
    fill = launch.fill

    def run(slots: Slots) -> None:
        for position, slot in varying:
            fill(position, slots[slot])
        launch()

    return run


def _overwrite_buffers(
    action: Action, launch: Launch, stored: Sequence[tuple[int, int, int]]
) -> Action:
    """Gives a kernel the buffers that it overwrites."""
    fill = launch.fill

    def run(slots: Slots) -> None:
        used = [fill(position, slots[target]) for position, _, target in stored]
        action(slots)
        for array, (_, slot, target) in zip(used, stored):
            slots[slot] = slots[target]
            if array is not slots[target]:  # the kernel got a copy
                slots[target][...] = array

    return run


def _repeat_if_flagged(action: Action, flag: Array, again: Action) -> Action:
    """Runs the ops if a kernel met an index out of range, so that one of them raises the error."""

    def run(slots: Slots) -> None:
        action(slots)
        if flag[0]:
            again(slots)

    return run


def run_ops_of_kernel(step: RunKernel, ops: Sequence[BoundOp], backend: Backend) -> Action:
    """Runs the ops of a kernel one by one instead of the kernel."""
    arguments = [slot for slot in (*step.inputs, *step.targets) if slot >= 0]

    def run(slots: Slots) -> None:
        found = {slot: slots[slot] for slot in arguments}
        for call, attrs, types in ops:
            arrays = [found[slot] for slot in call.inputs]
            found.update(zip(call.outputs, backend.run(call.op, arrays, attrs, types)))
        for slot, target in zip(step.outputs, step.targets):
            if target >= 0:
                slots[slot] = slots[target]
            if slot in found:  # memory that only the kernel needs is not
                slots[slot][...] = found[slot]

    return run


def multiply(step: RunProduct, backend: Backend, stats: Stats) -> Action:
    """Multiplies with the matrix library of a backend; counts where that falls back."""
    contract = backend.contract
    left, right, *added = step.inputs
    (out,) = step.outputs
    names = [*(["bias"] if step.has_bias else []), *(["addend"] if step.has_addend else [])]
    more = dict(zip(names, added, strict=True))
    activation = step.activation

    def run(slots: Slots) -> None:
        reason = contract(slots[left], slots[right], slots[out])
        if reason:
            stats.count_fallback(reason)

    def run_with_epilogue(slots: Slots) -> None:
        arrays = {name: slots[slot] for name, slot in more.items()}
        reason = contract(slots[left], slots[right], slots[out], activation=activation, **arrays)
        if reason:
            stats.count_fallback(reason)

    return run_with_epilogue if step.has_epilogue else run


def exchange(step: RunCollective, group: Group, backend: Backend) -> Action:
    """Exchanges data with the other processes of a group."""
    method = getattr(group, step.name)
    contiguous = backend.contiguous
    (source,), (target,) = step.inputs, step.outputs

    def run(slots: Slots) -> None:
        method(contiguous(slots[source]), slots[target])

    return run


def run_op(
    step: RunOp,
    attrs: Attrs,
    types: Sequence[TensorType],
    backend: Backend,
    frees: Sequence[int],
) -> Action:
    """Runs an op on new memory, or makes a view.

    Args:
        step: The op.
        attrs: Its static arguments.
        types: The types of its results.
        backend: Where it runs.
        frees: Slots whose arrays are freed afterwards.
    """
    op, inputs, outputs = step.op, step.inputs, step.outputs

    def run(slots: Slots) -> None:
        results = backend.run(op, [slots[slot] for slot in inputs], attrs, types)
        for slot, array in zip(outputs, results):
            slots[slot] = array
        for slot in frees:
            slots[slot] = None

    return run


def store(step: RunOp, attrs: Mapping[str, Any]) -> Action:
    """Overwrites the first operand of an op, which is a buffer of the caller."""
    assign = step.op.meaning.assign
    assert assign is not None
    target, *others = step.inputs
    (result,) = step.outputs

    def run(slots: Slots) -> None:
        assign(slots[target], *(slots[slot] for slot in others), **attrs)
        slots[result] = slots[target]

    return run


def update_buffer(target: int, content: int) -> Action:
    """Copies new contents into a buffer of the caller, unless they are already in place."""

    def run(slots: Slots) -> None:
        if slots[content] is not slots[target]:
            slots[target][...] = slots[content]

    return run


def use_buffers(places: Mapping[int, int]) -> Action:
    """Sets results to the buffers that they were written into.

    Args:
        places: The slot of the buffer for the slot of each result.
    """

    def run(slots: Slots) -> None:
        for slot, target in places.items():
            slots[slot] = slots[target]

    return run


def wait(synchronize: Callable[[], None]) -> Action:
    """Waits for the device (`MAXMOD_SYNC=1`)."""
    return lambda slots: synchronize()
