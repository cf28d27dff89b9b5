"""Binding: a schedule with sizes, memory and kernels filled in becomes a program.

Everything that does not change between calls is done here once: offsets in the arena, views of
weights, ops without arguments, grid sizes and argument tables of kernels. `maxmod.runtime.actions`
holds what remains for each call; `maxmod.runtime.program` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from maxmod import backends, config
from maxmod.backends.base import Kernel, Launch
from maxmod.compiler.memory import placed
from maxmod.compiler.steps import (
    RunCollective,
    RunKernel,
    RunOp,
    RunProduct,
    Schedule,
    Step,
)
from maxmod.distributed import group_for
from maxmod.errors import CompileError
from maxmod.op import Kind, ir
from maxmod.ops.known_sizes import SizeChecks
from maxmod.runtime import actions
from maxmod.runtime.arena import Arena
from maxmod.runtime.bound_parts import BoundStep, Parts, Reuse
from maxmod.runtime.chains import with_chains
from maxmod.runtime.checks import checked, timed, wants_times
from maxmod.runtime.environment import Environment
from maxmod.runtime.late_sizes import LateSize, cut
from maxmod.runtime.nested import BoundBody, Continuation
from maxmod.runtime.program import Program
from maxmod.runtime.recording import with_recordings
from maxmod.runtime.work import Action, KernelCall, Work
from maxmod.values.array import Array
from maxmod.values.dim import evaluate
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType


def bind(
    schedule: Schedule,
    dims: Mapping[str, int],
    environment: Environment,
    earlier: Parts | None = None,
) -> Program:
    """Makes the program of a schedule for one set of sizes.

    Args:
        schedule: What to run.
        dims: The value of each symbol that is known before the call.
        environment: What it runs with.
        earlier: The parts of a program for other sizes, which are used again where they can be.
    """
    return _Binder(schedule, dims, environment, earlier).program()


class _Binder:
    """Turns steps into work, one after another; see `bind`.

    `template` has the arrays that are the same in every call: those of weights and constants,
    views of the arena, and results computed at binding.
    """

    def __init__(
        self,
        schedule: Schedule,
        dims: Mapping[str, int],
        environment: Environment,
        earlier: Parts | None,
    ) -> None:
        self.schedule, self.late = cut(schedule, dims)
        self.dims = dict(dims)
        self.environment = environment
        self.backend = environment.backend
        self.settings = config.current()
        self.is_timed = wants_times(inside=environment.inside)
        self.steps = self.schedule.bound_steps(dims)
        self.is_watched = self.settings.sync or self.settings.check or self.is_timed
        self.is_plain = self.late is None and not environment.inside and not self.is_watched
        earlier = earlier if self.is_plain else None
        self.reuse = Reuse(self.schedule, self.dims, environment, earlier)
        self.parts = self.reuse.parts
        self.parts.order = self.steps
        self.offsets, self.block = self.parts.memory.offsets, self.parts.block
        self.template = list(environment.fixed)
        self.fresh: list[tuple[int, Callable[[], Array]]] = []
        self.works: list[Work] = []
        self.bound_types: dict[TensorType, TensorType] = {}
        self.counters = self._new_counters()

    def program(self) -> Program:
        """Binds every step and puts the program together."""
        for step in self.steps:
            self._bind(step)
        copied = self._copied()
        late_updates: list[Action] = []
        if self.late is None:
            updates = [self._update_work(*update) for update in self.schedule.updates]
            if copied:  # results that share memory with buffers are copied first
                late_updates = [update.run for update in updates]
            else:
                self.works += updates
        return Program(
            backend=self.backend,
            arena=self.environment.arena,
            block=self.block,
            template=self.template,
            fresh=self.fresh,
            inputs=self.schedule.inputs,
            actions=self._actions(),
            rest=self._continuation(self.late) if self.late is not None else None,
            outputs=self.schedule.outputs,
            copied=copied,
            updates=late_updates,
            types=self._types(self.schedule.output_types) if self.late is None else None,
            parts=self.parts if self.is_plain else None,
        )

    # ---- the program as a whole ------------------------------------------------------------------

    def _copied(self) -> list[int]:
        """Returns the positions of results whose memory the caller has or gets twice."""
        outputs, borrowed = self.schedule.outputs, self.schedule.borrowed
        if self.environment.inside:
            return []
        return [
            position
            for position, slot in enumerate(outputs)
            if position in borrowed or slot in outputs[:position]
        ]

    def _actions(self) -> list[Action]:
        if self.is_plain and self.settings.cuda_graphs and self.backend.records:
            return with_recordings(self.works, self.schedule.outputs, self.environment)
        if self.is_watched:
            return [work.run for work in self.works]
        return with_chains(self.works, self.backend)

    def _continuation(self, late: LateSize) -> Continuation:
        """Returns what runs the steps that need a size that is known only then."""
        dims, environment = self.dims, self.environment
        # Steps after a data-dependent size read results of steps before it.
        arena = Arena(self.backend, environment.device.id)
        inner = replace(environment, arena=arena)

        def bind_rest(size: int) -> Program:
            return bind(late.rest, environment.complete({**dims, late.name: size}), inner)

        return Continuation(late, arena, bind_rest)

    # ---- steps -----------------------------------------------------------------------------------

    def _bind(self, step: Step) -> None:
        known = self.reuse.step(step, self.template)
        if known is None:
            known = self._bind_now(step)
        else:
            for slot, array in zip(step.outputs, known.outputs):
                self.template[slot] = array
                if array is not None and slot in self.offsets:
                    self.parts.views[slot] = array
            self.fresh += known.fresh
            if known.work is not None:
                self.works.append(known.work)
        if not (isinstance(step, RunOp) and step.bodies):
            self.parts.steps[id(step)] = known
        if self.settings.sync:
            self.works.append(Work(actions.wait(self.environment.synchronize)))

    def _bind_now(self, step: Step) -> BoundStep:
        fresh = len(self.fresh)
        types = self._types(step.types)
        if isinstance(step, RunKernel):
            self._place(step)
            work = self._kernel_work(step, types)
        elif isinstance(step, RunProduct):
            self._place(step)
            work = self._product_work(step, types)
        elif isinstance(step, RunCollective):
            self._place(step)
            work = self._collective_work(step)
        else:
            work = self._op_work(step, types)
        if work is not None:
            if self.is_timed:
                work.run = timed(step, self._name(step), work.run, self.environment)
            self.works.append(work)
        inputs, outputs = (
            [self.template[s] for s in slots] for slots in (step.inputs, step.outputs)
        )
        return BoundStep(work, inputs, outputs, self.fresh[fresh:])

    def _place(self, step: RunKernel | RunProduct | RunCollective) -> None:
        """Finds memory for the results of a step: in the arena, or new in every call."""
        for slot, unbound in placed(step):
            if slot not in self.offsets:
                self.fresh.append((slot, self.backend.allocator(self._type(unbound))))
                continue
            view = self.reuse.view(slot, unbound)
            if view is None:
                offset = self.offsets[slot]
                view = self.backend.view_bytes(self.block, offset, self._type(unbound))
            self.template[slot] = self.parts.views[slot] = view

    def _launch_work(
        self,
        step: RunKernel | RunProduct | RunCollective,
        action: Action,
        call: KernelCall | None = None,
        *,
        records: bool = True,
    ) -> Work:
        # Results that a kernel writes into a buffer of the caller, and the slots of the buffers.
        targets = step.targets if isinstance(step, RunKernel) else ()
        stored = {slot: target for slot, target in zip(step.outputs, targets) if target >= 0}
        outputs = [slot for slot in step.outputs if slot not in stored]
        return Work(
            action,
            self._varying([*step.inputs, *stored.values()]),
            self._varying([*outputs, *stored.values()]),
            tuple(stored),
            records=records,
            remake=actions.use_buffers(stored) if stored else None,
            call=call,
        )

    # ---- kernels ---------------------------------------------------------------------------------

    def _kernel_work(self, step: RunKernel, types: Sequence[TensorType]) -> Work:
        kernel = self.environment.kernels[step.kernel]
        is_empty = any(evaluate(size, self.dims) < 1 for size in step.nonempty)
        if is_empty or isinstance(kernel, CompileError):
            return self._launch_work(step, self._ops_action(step), records=False)
        call = self._kernel_call(step, kernel)
        action = self._checked(step, actions.run_kernel(call), types)
        return self._launch_work(step, action, call, records=call.flag is None)

    def _kernel_call(self, step: RunKernel, kernel: Kernel) -> KernelCall:
        source = self.environment.sources[step.kernel]
        has_counters = source.counters != 0
        count = len(step.inputs) + len(step.outputs)
        scalars = [self.dims[name] for name in step.symbols]
        launch = kernel.bind(count + source.has_flag + has_counters, scalars)
        if has_counters and self.counters is not None:
            launch.keep(count, self.counters)
        varying, stored = self._arguments(step, launch)
        if not source.has_flag:
            return KernelCall(launch, varying, stored)
        flag = np.zeros(1, np.int64)
        launch.keep(count, flag)
        return KernelCall(launch, varying, stored, flag, self._ops_action(step))

    def _arguments(
        self, step: RunKernel, launch: Launch
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int, int]]]:
        """Gives a kernel the arrays that stay the same.

        Returns:
            (position, slot) of the other arguments, and (position, slot of the result, slot of the
            buffer) of those that overwrite a buffer.
        """
        varying, stored = [], []
        overwritten = dict(zip(step.outputs, step.targets))
        for position, slot in enumerate((*step.inputs, *step.outputs)):
            target = overwritten.get(slot, -1)
            array = self.template[slot]
            if target >= 0:
                stored.append((position, slot, target))
            elif array is not None and (_is_contiguous(array) or not self._in_arena(array)):
                launch.keep(position, self.backend.contiguous(array))
            else:
                varying.append((position, slot))
        return varying, stored

    def _ops_action(self, step: RunKernel) -> Action:
        calls = [
            (call, ir.bind_attrs(call.attrs, self.dims), self._types(call.types))
            for call in step.ops
        ]
        return actions.run_ops_of_kernel(step, calls, self.backend)

    def _new_counters(self) -> Array | None:
        """Returns zeros for the kernels that count; all of them leave zeros behind."""
        sources = self.environment.sources
        kernels = {step.kernel for step in self.steps if isinstance(step, RunKernel)}
        counts = [evaluate(sources[kernel].counters, self.dims) for kernel in kernels]
        if max(counts, default=0) == 0:
            return None
        found = self.parts.counters
        if found is None or found.nbytes < 4 * max(counts):
            found = self.backend.empty_bytes(4 * max(counts), self.environment.device.id)
            found[...] = 0
            self.parts.counters = found
        return found

    # ---- products, ops and stores ----------------------------------------------------------------

    def _product_work(self, step: RunProduct, types: Sequence[TensorType]) -> Work:
        action = actions.multiply(step, self.backend, self.environment.stats)
        if step.has_epilogue:
            action = self._checked(step, action, types)
        return self._launch_work(step, action)

    def _collective_work(self, step: RunCollective) -> Work:
        group = group_for(step.size, self.backend.xp)
        work = self._launch_work(step, actions.exchange(step, group, self.backend))
        work.group = group
        return work

    def _op_work(self, step: RunOp, types: Sequence[TensorType]) -> Work | None:
        """Runs the op now if its operands never change (and returns None), else in every call."""
        attrs = ir.bind_attrs(step.attrs, self.dims)
        attrs.update((name, self._body(attrs, name, body)) for name, body in step.bodies)
        if step.in_place:
            return self._store_work(step, attrs)
        if self._run_now(step, attrs, types):
            return None
        # A view gives no memory back: what it is a view of is still used through it.
        frees = () if step.is_view else self._varying(step.frees)
        backend = backends.get(types[0].device)
        run = actions.run_op(step, attrs, types, backend, frees)
        reads = self._varying(step.inputs)
        if step.is_view:
            return Work(run, reads, makes=step.outputs, launches=False, records=True, remake=run)
        return Work(run, reads, makes=step.outputs)

    def _run_now(self, step: RunOp, attrs: Attrs, types: Sequence[TensorType]) -> bool:
        """Runs an op whose result is the same in every call; returns False for others."""
        inputs = [self.template[slot] for slot in step.inputs]
        arrays = [array for array in inputs if array is not None]
        is_constant = step.is_view or step.op.kind is Kind.SOURCE
        if not is_constant or len(arrays) != len(inputs):
            return False
        results = backends.run(step.op, arrays, attrs, types)
        # A view of an intermediate had to copy it: a reshape after a permute does.
        if any(map(self._in_arena, arrays)) and not all(map(self._in_arena, results)):
            return False
        for slot, array in zip(step.outputs, results):
            self.template[slot] = array
        return True

    def _body(self, attrs: Mapping[str, Any], name: str, body: Schedule) -> BoundBody:
        """Returns what runs a graph of a branch or a loop."""
        outer = self.environment
        complete = SizeChecks(attrs[name])
        environment = replace(
            outer,
            fixed=[None] * body.slot_count,
            buffers=(),
            arena=outer.arena.inner,
            complete=complete,
            inside=True,
        )
        return BoundBody(lambda: bind(body, complete(dict(attrs["sizes"])), environment))

    def _store_work(self, step: RunOp, attrs: Mapping[str, Any]) -> Work:
        target, *others = step.inputs
        (result,) = step.outputs
        # Where the store goes is known, unless it is another operand that says so.
        return Work(
            actions.store(step, attrs),
            (target, *self._varying(others)),
            (target,),
            (result,),
            records=len(others) == 1,
            remake=actions.use_buffers({result: target}),
        )

    def _update_work(self, target: int, content: int) -> Work:
        reads = (target, *self._varying([content]))
        return Work(actions.update_buffer(target, content), reads, (target,), records=True)

    # ---- what several of them need ---------------------------------------------------------------

    def _types(self, types: Sequence[TensorType]) -> list[TensorType]:
        return [self._type(type) for type in types]

    def _type(self, type: TensorType) -> TensorType:
        """Returns a type with the sizes of the call; equal layers share theirs."""
        found = self.bound_types.get(type)
        if found is None:
            found = self.bound_types[type] = ir.bind_type(type, self.dims)
        return found

    def _varying(self, slots: Sequence[int]) -> tuple[int, ...]:
        """Returns the slots whose arrays are not the same in every call."""
        return tuple(slot for slot in slots if self.template[slot] is None)

    def _in_arena(self, array: Array) -> bool:
        return bool(self.backend.xp.may_share_memory(array, self.block))

    def _checked(
        self, step: RunKernel | RunProduct, action: Action, types: Sequence[TensorType]
    ) -> Action:
        if not self.settings.check:
            return action
        return checked(step, self._name(step), action, types, self.dims, self.environment)

    def _name(self, step: Step) -> str:
        if isinstance(step, RunKernel):
            return self.environment.sources[step.kernel].name
        return step.op.name if isinstance(step, RunOp) else step.name


def _is_contiguous(array: Array) -> bool:
    return bool(array.flags.c_contiguous)
