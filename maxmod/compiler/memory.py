"""The memory plan: intermediates share one arena, at offsets found from their lifetimes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from maxmod.compiler.steps import RunKernel, RunOp, Schedule, Step
from maxmod.compiler.units import plural, scaled
from maxmod.errors import DimError, ShapeError
from maxmod.op import ir
from maxmod.ops.shape import rebound_sizes
from maxmod.values.dim import evaluate
from maxmod.values.tensor_type import TensorType

ALIGNMENT = 64  # bytes: one cache line, and the widest vector


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where intermediates live, for known sizes.

    Attributes:
        offsets: Byte offset in the arena of each planned slot.
        fresh: Slots that are allocated in every call, because the caller gets them.
        arena_nbytes: Size of the arena.
        output_nbytes: Bytes of the results.
        weight_nbytes: Bytes of weights and constants.
        body_nbytes: Size of the arenas of branches and loops; those that depend on
            data-dependent sizes are left out.
    """

    offsets: Mapping[int, int]
    fresh: tuple[int, ...]
    arena_nbytes: int
    output_nbytes: int
    weight_nbytes: int
    body_nbytes: int = 0

    @property
    def peak_nbytes(self) -> int:
        """Peak bytes of a call, including weights and excluding arguments."""
        return self.arena_nbytes + self.body_nbytes + self.output_nbytes + self.weight_nbytes

    def __str__(self) -> str:
        sizes = (self.weight_nbytes, self.arena_nbytes, self.body_nbytes, self.output_nbytes)
        weights, arena, inner, outputs = (scaled(nbytes, "B") for nbytes in sizes)
        bodies = f"branches and loops {inner}, " if self.body_nbytes else ""
        return (
            f"weights {weights}, arena {arena} for {plural(len(self.offsets), 'intermediate')}, "
            f"{bodies}outputs {outputs}, peak {scaled(self.peak_nbytes, 'B')}"
        )


def is_planned(step: Step) -> bool:
    """True for steps that write into preallocated memory."""
    return not isinstance(step, RunOp)


def placed(step: Step) -> Iterator[tuple[int, TensorType]]:
    """Yields slot and type of the results that need separate memory."""
    targets = step.targets if isinstance(step, RunKernel) else (-1,) * len(step.outputs)
    for slot, target, type in zip(step.outputs, targets, step.types, strict=True):
        if target < 0:
            yield slot, type


def plan_memory(plan: Schedule, dims: Mapping[str, int], weight_nbytes: int) -> MemoryPlan:
    """Places every planned intermediate at the lowest offset that is free while it lives.

    Args:
        plan: The schedule.
        dims: The value of each symbol.
        weight_nbytes: Bytes of weights and constants, for the totals.
    """
    steps = plan.bound_steps(dims)
    known: dict[TensorType, int] = {}
    end: dict[int, int] = {}
    for index, step in enumerate(steps):
        end.update((slot, index) for slot in step.frees)
    offsets: dict[int, int] = {}
    fresh: list[int] = []
    live: list[tuple[int, int, int]] = []  # (offset, size, last step)
    arena = output_nbytes = 0
    for index, step in enumerate(steps):
        live = [entry for entry in live if entry[2] >= index]
        if not is_planned(step):
            continue
        for slot, type in placed(step):
            nbytes = known.get(type, -1)
            if nbytes < 0:
                nbytes = known[type] = int(ir.bind_type(type, dims).nbytes)
            if slot not in end:
                fresh.append(slot)
                output_nbytes += nbytes
                continue
            size = -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
            offset = _lowest_gap(live, size)
            live.append((offset, size, end[slot]))
            offsets[slot] = offset
            arena = max(arena, offset + size)
    inner = max((_body_nbytes(step, dims) for step in steps), default=0)
    return MemoryPlan(offsets, tuple(fresh), arena, output_nbytes, weight_nbytes, inner)


def _body_nbytes(step: Step, dims: Mapping[str, int]) -> int:
    """Returns the arena bytes of the graphs of a branch or loop: the largest one's."""
    if not isinstance(step, RunOp) or not step.bodies:
        return 0
    sizes = {name: evaluate(size, dims) for name, size in step.attrs["sizes"]}
    most = 0
    for name, body in step.bodies:
        try:
            plan = plan_memory(body, rebound_sizes(step.attrs[name], sizes), 0)
        except (DimError, ShapeError):  # a data-dependent size, or a graph that can never run
            continue
        most = max(most, plan.arena_nbytes + plan.body_nbytes)
    return most


def _lowest_gap(live: list[tuple[int, int, int]], size: int) -> int:
    position = 0
    for offset, taken, _ in sorted(live):
        if offset - position >= size:
            return position
        position = max(position, offset + taken)
    return position
