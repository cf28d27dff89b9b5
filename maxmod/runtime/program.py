"""Bound programs: a schedule with sizes, memory and kernels filled in, ready to run.

Everything that does not change between calls is done here once: views of the arena, views of
weights, constant sources, kernel argument tables. A call fills in the addresses of its arguments
and results and goes through a list of functions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from maxmod import backends, config
from maxmod.backends.base import Backend, Kernel, Launch
from maxmod.compiler.memory import MemoryPlan, is_planned, placed, plan_memory
from maxmod.compiler.steps import RunKernel, RunOp, RunProduct, Schedule, Step
from maxmod.op import Kind, ir
from maxmod.ops.control_flow.bodies import Body
from maxmod.ops.shape import rebound_sizes
from maxmod.runtime.arena import Arena
from maxmod.runtime.checks import checked, timed, wants_times
from maxmod.runtime.late_sizes import LateSize, cut
from maxmod.runtime.recording import Action, Counts, Work, with_recordings
from maxmod.values.device import DeviceRef
from maxmod.values.dim import evaluate
from maxmod.values.tensor_type import TensorType

# Programs kept for the rest of a schedule, one for each value of a size that is known late.
CONTINUATION_LIMIT = 16


class Program:
    """A schedule for one set of sizes.

    Args:
        plan: The schedule.
        dims: The value of each symbol.
        backend: Where it runs.
        device: The device of the backend.
        kernels: The built kernels of the schedule.
        fixed: Arrays of the slots of weights and constants; None elsewhere.
        arena: Memory for intermediates.
        buffers: Slots of arguments that the caller owns and keeps.
        counts: Counts what is recorded.
        complete: Returns the sizes with those that follow from them; raises if they contradict
            each other.
        inside: Whether it runs in a step of another program, which holds the lock.

    Attributes:
        types: The types of the results; None if a size in them may be known only afterwards.
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
        arena: Arena,
        buffers: Collection[int],
        counts: Counts,
        complete: Callable[[Mapping[str, int]], Mapping[str, int]] = dict,
        *,
        inside: bool = False,
    ) -> None:
        plan, self._rest = cut(plan, dims)
        self._complete = complete
        self._fixed = fixed
        self._continuations: OrderedDict[int, Program] = OrderedDict()
        # What is computed after a late size reads what was computed before it.
        self._late_arena = Arena(backend, device.id) if self._rest is not None else arena
        self._buffers = buffers
        self._counts = counts
        self._backend = backend
        self._device = device
        self._kernels = kernels
        self._sources = plan.kernels
        self._dims = dict(dims)
        self._inputs = plan.inputs
        self._outputs = plan.outputs
        late = self._rest is not None
        self.types = None if late else [ir.bind_type(type, dims) for type in plan.output_types]
        self._copied = [
            position
            for position, slot in enumerate(plan.outputs)
            if (position in plan.borrowed or slot in plan.outputs[:position]) and not inside
        ]
        self._arena = arena
        self._lock = arena.lock
        self._is_queued = backend.records
        self._inside = inside
        weight_nbytes = sum(int(array.nbytes) for array in fixed if array is not None)
        self.memory: MemoryPlan = plan_memory(plan, dims, weight_nbytes)
        self._template = list(fixed)
        self._static = {slot for slot, array in enumerate(fixed) if array is not None}
        self._fresh: list[tuple[int, Callable[[], Any]]] = []
        self._block = arena.reserve(self.memory.arena_nbytes)
        settings = config.current()
        self._sync = settings.sync
        self._check = settings.check
        self._works: list[Work] = []
        steps = plan.bound_steps(dims)
        self._counters = self._new_counters(steps)
        is_timed = wants_times(inside=inside)
        for step in steps:
            count = len(self._works)
            self._bind(step)
            if is_timed and len(self._works) > count:
                work = self._works[count]
                work.run = timed(step, self._name(step), work.run, backend, device.id)
        updates = [self._update_work(update) for update in plan.updates]
        self._late_updates: list[Action] = []
        if self._copied:  # results that share memory with buffers are copied first
            self._late_updates = [update.run for update in updates]
        elif not late:
            self._works += updates
        is_plain = not (self._sync or self._check or late or inside or is_timed)
        if is_plain and settings.cuda_graphs and backend.records:
            self._actions = with_recordings(
                self._works, buffers, plan.outputs, backend, device.id, counts
            )
        else:
            self._actions = [work.run for work in self._works]

    def _bind(self, step: Step) -> None:
        types = [ir.bind_type(type, self._dims) for type in step.types]
        if is_planned(step):
            self._place(step)
        if isinstance(step, RunKernel):
            self._add_kernel(step, types)
        elif isinstance(step, RunProduct):
            self._add_product(step, types)
        else:
            self._bind_op(step, types)
        if self._sync:
            self._works.append(Work(lambda slots: self._backend.synchronize(self._device.id)))

    def _add_launch(
        self, step: RunKernel | RunProduct, action: Action, *, records: bool = True
    ) -> None:
        # Results that a kernel writes into a buffer of the caller, and the slots of the buffers.
        targets = step.targets if isinstance(step, RunKernel) else ()
        stored = {slot: target for slot, target in zip(step.outputs, targets) if target >= 0}
        outputs = [slot for slot in step.outputs if slot not in stored]
        work = Work(
            action,
            self._varying([*step.inputs, *stored.values()]),
            self._varying([*outputs, *stored.values()]),
            tuple(stored),
            records=records,
        )
        if stored:
            work.replay = partial(_alias, stored)
        self._works.append(work)

    def _varying(self, slots: Sequence[int]) -> tuple[int, ...]:
        """Returns the slots whose arrays are not the same in every call."""
        return tuple(slot for slot in slots if slot not in self._static)

    def _place(self, step: Step) -> None:
        for slot, unbound in placed(step):
            type = ir.bind_type(unbound, self._dims)
            if slot in self.memory.offsets:
                offset = self.memory.offsets[slot]
                self._template[slot] = self._backend.view_bytes(self._block, offset, type)
                self._static.add(slot)
            else:
                self._fresh.append((slot, self._backend.allocator(type)))

    def _add_kernel(self, step: RunKernel, types: Sequence[TensorType]) -> None:
        is_empty = any(evaluate(size, self._dims) < 1 for size in step.nonempty)
        action = self._ops_action(step) if is_empty else self._kernel_action(step)
        if self._check:
            action = checked(step, self._name(step), action, self._backend, types, self._dims)
        has_flag = self._sources[step.kernel].has_flag
        self._add_launch(step, action, records=not (is_empty or has_flag))

    def _kernel_action(self, step: RunKernel) -> Action:
        scalars = [self._dims[name] for name in step.symbols]
        has_flag = self._sources[step.kernel].has_flag
        has_counters = self._sources[step.kernel].counters != 0
        count = len(step.inputs) + len(step.outputs)
        launch = self._kernels[step.kernel].bind(count + has_flag + has_counters, scalars)
        if has_counters:
            launch.keep(count, self._counters)
        dynamic, stored = [], []
        overwritten = dict(zip(step.outputs, step.targets))
        for position, slot in enumerate((*step.inputs, *step.outputs)):
            if overwritten.get(slot, -1) >= 0:
                stored.append((position, slot, overwritten[slot]))
                continue
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

        action = self._in_place(run, fill, stored) if stored else run
        return self._flagged(step, launch, count, action) if has_flag else action

    def _in_place(
        self, action: Action, fill: Callable[[int, Any], Any], stored: list[tuple[int, int, int]]
    ) -> Action:
        """Gives a kernel the buffers that it overwrites: (position, slot of the result, buffer)."""

        def run(slots: list[Any]) -> None:
            used = [fill(position, slots[target]) for position, _, target in stored]
            action(slots)
            for array, (_, slot, target) in zip(used, stored):
                slots[slot] = slots[target]
                if array is not slots[target]:  # the kernel got a copy
                    slots[target][...] = array

        return run

    def _new_counters(self, steps: Sequence[Step]) -> Any:
        """Returns zeros for the kernels that count; all of them leave zeros behind."""
        kernels = {step.kernel for step in steps if isinstance(step, RunKernel)}
        counts = [evaluate(self._sources[kernel].counters, self._dims) for kernel in kernels]
        if max(counts, default=0) == 0:
            return None
        found = self._backend.empty_bytes(4 * max(counts), self._device.id)
        found[...] = 0
        return found

    def _flagged(self, step: RunKernel, launch: Launch, count: int, action: Action) -> Action:
        """Runs the ops of a kernel that met a position out of range: one of them refuses it."""
        flag = np.zeros(1, np.int64)
        launch.keep(count, flag)
        again = self._ops_action(step)

        def run(slots: list[Any]) -> None:
            action(slots)
            if flag[0]:
                again(slots)

        return run

    def _ops_action(self, step: RunKernel) -> Action:
        """Runs the ops of a kernel one by one."""
        arguments = [slot for slot in (*step.inputs, *step.targets) if slot >= 0]
        calls = []
        for call in step.ops:
            types = [ir.bind_type(type, self._dims) for type in call.types]
            calls.append((call, ir.bind_attrs(call.attrs, self._dims), types))

        def run(slots: list[Any]) -> None:
            found = {slot: slots[slot] for slot in arguments}
            for call, attrs, types in calls:
                arrays = [found[slot] for slot in call.inputs]
                found.update(zip(call.outputs, self._backend.run(call.op, arrays, attrs, types)))
            for slot, target in zip(step.outputs, step.targets):
                if target >= 0:
                    slots[slot] = slots[target]
                slots[slot][...] = found[slot]

        return run

    def _add_product(self, step: RunProduct, types: Sequence[TensorType]) -> None:
        contract = self._backend.contract
        left, right, *added = step.inputs
        (out,) = step.outputs
        names = [*(["bias"] if step.has_bias else []), *(["addend"] if step.has_addend else [])]
        more = dict(zip(names, added, strict=True))
        activation = step.activation

        def multiply(slots: list[Any]) -> None:
            contract(slots[left], slots[right], slots[out])

        def finish(slots: list[Any]) -> None:
            arrays = {name: slots[slot] for name, slot in more.items()}
            contract(slots[left], slots[right], slots[out], activation=activation, **arrays)

        action = finish if step.has_epilogue else multiply
        if self._check and step.has_epilogue:
            action = checked(step, self._name(step), action, self._backend, types, self._dims)
        self._add_launch(step, action)

    def _bind_op(self, step: RunOp, types: Sequence[TensorType]) -> None:
        """Runs the op now if its operands never change, else in every call."""
        attrs = ir.bind_attrs(step.attrs, self._dims)
        attrs.update((name, self._body(name, plan, attrs)) for name, plan in step.bodies)
        op, inputs, outputs = step.op, step.inputs, step.outputs
        backend = backends.get(types[0].device)
        if step.in_place:
            self._works.append(self._store_work(step, attrs))
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
        # A view gives no memory back: what it is a view of is still used through it.
        frees = [] if step.is_view else [slot for slot in step.frees if slot not in self._static]

        def run(slots: list[Any]) -> None:
            results = backend.run(op, [slots[slot] for slot in inputs], attrs, types)
            for slot, array in zip(outputs, results):
                slots[slot] = array
            for slot in frees:
                slots[slot] = None

        reads = self._varying(inputs)
        if step.is_view:
            self._works.append(
                Work(run, reads, makes=outputs, launches=False, records=True, replay=run)
            )
        else:
            self._works.append(Work(run, reads, makes=outputs))

    def _body(self, name: str, plan: Schedule, attrs: Mapping[str, Any]) -> Body:
        """Makes what runs a graph of a branch or a loop, which is bound when it is first needed."""
        arena = self._arena.inner
        complete = partial(rebound_sizes, attrs[name])

        def bind() -> Program:
            return Program(
                replace(plan, kernels=self._sources),
                complete(dict(attrs["sizes"])),
                self._backend,
                self._device,
                self._kernels,
                [None] * plan.slot_count,
                arena,
                (),
                self._counts,
                complete,
                inside=True,
            )

        bound: list[Program] = []

        def run(arrays: Sequence[Any]) -> list[Any]:
            if not bound or not bound[0].is_current:
                bound[:] = [bind()]
            return bound[0].run_inside(arrays)

        return run

    @property
    def is_current(self) -> bool:
        """False once a larger block took the place of the one that this is bound to."""
        return self._block is self._arena.block

    def _store_work(self, step: RunOp, attrs: dict[str, Any]) -> Work:
        """Overwrites the first operand, which is a buffer of the caller."""
        assign = step.op.meaning.assign
        assert assign is not None
        target, *others = step.inputs
        (result,) = step.outputs

        def run(slots: list[Any]) -> None:
            assign(slots[target], *(slots[slot] for slot in others), **attrs)
            slots[result] = slots[target]

        # Where the store goes is known, unless it is another operand that says so.
        return Work(
            run,
            (target, *self._varying(others)),
            (target,),
            (result,),
            records=len(others) == 1,
            replay=partial(_alias, {result: target}),
        )

    def _update_work(self, update: tuple[int, int]) -> Work:
        """Gives a buffer of the caller its new contents, unless they are there already."""
        target, content = update

        def run(slots: list[Any]) -> None:
            if slots[content] is not slots[target]:
                slots[target][...] = slots[content]

        return Work(run, (target, *self._varying([content])), (target,), records=True)

    def _is_contiguous(self, array: Any) -> bool:
        return bool(array.flags.c_contiguous)

    def _in_arena(self, array: Any) -> bool:
        return bool(self._backend.xp.may_share_memory(array, self._block))

    def _is_copy_of_arena(self, arrays: Sequence[Any], results: Sequence[Any]) -> bool:
        """True if a view of an intermediate had to copy it: a reshape after a permute does."""
        return any(map(self._in_arena, arrays)) and not all(map(self._in_arena, results))

    def _name(self, step: Step) -> str:
        if isinstance(step, RunKernel):
            return self._sources[step.kernel].name
        return step.op.name if isinstance(step, RunOp) else step.name

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Runs the program on argument arrays and returns result arrays."""
        with self._lock:
            if self._is_queued:
                self._arena.follow()
            return self.run_inside(inputs)

    def run_inside(self, inputs: Sequence[Any]) -> list[Any]:
        """Runs the program as `run` does, while the lock of the arena is held."""
        slots = list(self._template)
        for slot, array in zip(self._inputs, inputs):
            slots[slot] = array
        return self._finish(slots)

    def _finish(self, slots: list[Any]) -> list[Any]:
        for slot, allocate in self._fresh:
            slots[slot] = allocate()
        for action in self._actions:
            action(slots)
        if self._rest is not None:
            return self._continue(slots, self._rest)
        results = [slots[slot] for slot in self._outputs]
        for position in self._copied:  # what the caller has already
            results[position] = self._backend.copy(results[position])
        for update in self._late_updates:
            update(slots)
        return results

    def _continue(self, slots: list[Any], rest: LateSize) -> list[Any]:
        """Runs what needs a size that is known only now, with a program for this size."""
        size = int(slots[rest.count])
        slots[rest.result] = slots[rest.count]
        program = self._continuations.get(size)
        if program is None:
            dims = self._complete({**self._dims, rest.name: size})
            block = self._late_arena.block
            program = Program(
                rest.plan,
                dims,
                self._backend,
                self._device,
                self._kernels,
                self._fixed,
                self._late_arena,
                self._buffers,
                self._counts,
                self._complete,
                inside=self._inside,
            )
            if self._late_arena.block is not block:
                self._continuations.clear()
            self._continuations[size] = program
            if len(self._continuations) > CONTINUATION_LIMIT:
                self._continuations.popitem(last=False)
        return program._finish(
            [found if kept is None else kept for kept, found in zip(program._template, slots)]
        )


def _alias(places: Mapping[int, int], slots: list[Any]) -> None:
    """Gives results the arrays of the buffers that they were written into."""
    for slot, target in places.items():
        slots[slot] = slots[target]
