"""Bound programs: a schedule with sizes, memory and kernels filled in, ready to run.

Everything that does not change between calls is done here once: views of the arena, views of
weights, constant sources, kernel argument tables. A call fills in the addresses of its arguments
and results and goes through a list of functions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from maxmod import backends, config, ir, log
from maxmod.backends.base import Backend, Kernel
from maxmod.compiler.memory import MemoryPlan, is_planned, plan_memory
from maxmod.compiler.schedule import RunKernel, RunOp, Schedule
from maxmod.device import DeviceRef
from maxmod.errors import CompileError
from maxmod.op import Kind
from maxmod.tensor_type import TensorType

Action = Callable[[list[Any]], None]


class Program:
    """A schedule for one set of sizes.

    Args:
        plan: The schedule.
        dims: The value of each symbol.
        backend: Where it runs.
        device: The device of the backend.
        kernels: The built kernels of the schedule.
        fixed: Arrays of the slots of weights and constants; None elsewhere.

    Attributes:
        types: The types of the results.
        memory: Where intermediates live.
    """

    def __init__(
        self,
        plan: Schedule,
        dims: Mapping[str, int],
        backend: Backend,
        device: DeviceRef,
        kernels: Sequence[Kernel],
        fixed: Sequence[Any],
    ) -> None:
        self._backend = backend
        self._device = device
        self._kernels = kernels
        self._dims = dict(dims)
        self._inputs = plan.inputs
        self._outputs = plan.outputs
        self.types = [ir.bind_type(type, dims) for type in plan.output_types]
        self._copied = [
            position
            for position, slot in enumerate(plan.outputs)
            if position in plan.borrowed or slot in plan.outputs[:position]
        ]
        self._updates = plan.updates
        self._lock = threading.Lock()
        weight_nbytes = sum(int(array.nbytes) for array in fixed if array is not None)
        self.memory: MemoryPlan = plan_memory(plan, dims, weight_nbytes)
        self._template = list(fixed)
        self._static = {slot for slot, array in enumerate(fixed) if array is not None}
        self._fresh: list[tuple[int, Callable[[], Any]]] = []
        self._arena = backend.empty_bytes(self.memory.arena_nbytes, device.id)
        self._sync = config.current().sync
        self._check = config.current().check
        self._actions: list[Action] = []
        for step in plan.steps:
            count = len(self._actions)
            self._bind(step)
            if log.wants(log.TIMES) and len(self._actions) > count:
                name = plan.kernels[step.kernel].name if isinstance(step, RunKernel) else ""
                self._actions[count] = self._timed(step, name, self._actions[count])

    def _bind(self, step: RunOp | RunKernel) -> None:
        types = [ir.bind_type(type, self._dims) for type in step.types]
        if is_planned(step):
            self._place(step, types)
        if isinstance(step, RunKernel):
            action = self._kernel_action(step)
            self._actions.append(self._checked(step, types, action) if self._check else action)
        elif step.op.kind is Kind.CONTRACT:
            self._actions.append(self._contract_action(step))
        else:
            self._bind_op(step, types)
        if self._sync:
            self._actions.append(lambda slots: self._backend.synchronize(self._device.id))

    def _place(self, step: RunOp | RunKernel, types: Sequence[TensorType]) -> None:
        for slot, type in zip(step.outputs, types):
            if slot in self.memory.offsets:
                offset = self.memory.offsets[slot]
                self._template[slot] = self._backend.view_bytes(self._arena, offset, type)
                self._static.add(slot)
            else:
                self._fresh.append((slot, self._backend.allocator(type)))

    def _kernel_action(self, step: RunKernel) -> Action:
        scalars = [self._dims[name] for name in step.symbols]
        launch = self._kernels[step.kernel].bind(len(step.inputs) + len(step.outputs), scalars)
        dynamic = []
        for position, slot in enumerate((*step.inputs, *step.outputs)):
            array = self._template[slot] if slot in self._static else None
            if array is not None and (self._is_contiguous(array) or not self._in_arena(array)):
                launch.keep(position, self._backend.contiguous(array))
            else:
                dynamic.append((position, slot))
        fill = launch.fill

        def run(slots: list[Any]) -> None:
            for position, slot in dynamic:
                fill(position, slots[slot])
            launch()

        return run

    def _contract_action(self, step: RunOp) -> Action:
        contract = self._backend.contract
        left, right = step.inputs
        (out,) = step.outputs

        def run(slots: list[Any]) -> None:
            contract(slots[left], slots[right], slots[out])

        return run

    def _bind_op(self, step: RunOp, types: Sequence[TensorType]) -> None:
        """Runs the op now if its operands never change, else in every call."""
        attrs = ir.bind_attrs(step.attrs, self._dims)
        op, inputs, outputs = step.op, step.inputs, step.outputs
        backend = backends.get(types[0].device)
        if step.in_place:
            self._actions.append(self._store_action(step, attrs))
            return
        constant = step.is_view or op.kind is Kind.SOURCE
        if constant and all(slot in self._static for slot in inputs):
            arrays = [self._template[slot] for slot in inputs]
            results = backend.run(op, arrays, attrs, types)
            if not self._is_copy_of_arena(arrays, results):
                for slot, array in zip(outputs, results):
                    self._template[slot] = array
                    self._static.add(slot)
                return
        frees = [slot for slot in step.frees if slot not in self._static]

        def run(slots: list[Any]) -> None:
            results = backend.run(op, [slots[slot] for slot in inputs], attrs, types)
            for slot, array in zip(outputs, results):
                slots[slot] = array
            for slot in frees:
                slots[slot] = None

        self._actions.append(run)

    def _store_action(self, step: RunOp, attrs: dict[str, Any]) -> Action:
        """Overwrites the first operand, which is a buffer of the caller."""
        assign = step.op.assign
        assert assign is not None
        target, *others = step.inputs
        (result,) = step.outputs

        def run(slots: list[Any]) -> None:
            assign(slots[target], *(slots[slot] for slot in others), **attrs)
            slots[result] = slots[target]

        return run

    def _is_contiguous(self, array: Any) -> bool:
        return bool(array.flags.c_contiguous)

    def _in_arena(self, array: Any) -> bool:
        return bool(self._backend.xp.may_share_memory(array, self._arena))

    def _is_copy_of_arena(self, arrays: Sequence[Any], results: Sequence[Any]) -> bool:
        """True if a view of an intermediate had to copy it: a reshape after a permute does."""
        return any(map(self._in_arena, arrays)) and not all(map(self._in_arena, results))

    def _timed(self, step: RunOp | RunKernel, name: str, action: Action) -> Action:
        """Logs time, bytes and bandwidth of a step in every call (`MAXMOD_DEBUG=2`)."""
        name = name or (step.op.name if isinstance(step, RunOp) else "")

        def run(slots: list[Any]) -> None:
            self._backend.synchronize(self._device.id)
            start_s = time.perf_counter()
            action(slots)
            self._backend.synchronize(self._device.id)
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

    def _checked(self, step: RunKernel, types: Sequence[TensorType], action: Action) -> Action:
        """Compares every launch with the group run op by op (`MAXMOD_CHECK=1`)."""
        graph = step.group.as_graph("group")

        def run(slots: list[Any]) -> None:
            arrays = [slots[slot] for slot in step.inputs]
            expected = ir.interpret(graph, self._backend.run, arrays, {}, self._dims)
            action(slots)
            for slot, type, want in zip(step.outputs, types, expected):
                if not self._backend.is_close(slots[slot], want, type.dtype):
                    raise CompileError(
                        f"kernel {step.kernel} disagrees with its graph, result {type.short()}:\n"
                        f"{graph}"
                    )

        return run

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Runs the program on argument arrays and returns result arrays."""
        with self._lock:
            slots = list(self._template)
            for slot, array in zip(self._inputs, inputs):
                slots[slot] = array
            for slot, allocate in self._fresh:
                slots[slot] = allocate()
            for action in self._actions:
                action(slots)
            results = [slots[slot] for slot in self._outputs]
            for position in self._copied:  # what the caller has already
                results[position] = results[position].copy()
            for target, content in self._updates:
                if slots[content] is not slots[target]:
                    slots[target][...] = slots[content]
            return results
