"""Bound steps: what a program does in a call, before kernels are joined to chains or recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from maxmod.backends.base import Launch
from maxmod.distributed import Group
from maxmod.values.array import Array

Slots = list[Any]
Action = Callable[[Slots], None]


@dataclass(frozen=True, slots=True)
class KernelCall:
    """A launch, and what each call gives to it.

    Attributes:
        launch: The kernel, with the buffers that are the same in every call.
        varying: (position, slot) of the other buffers.
        stored: (position, slot of the result, slot of the buffer) of each overwritten buffer.
        flag: What the kernel sets where it cannot do its work; None if it always can.
        again: Does the work of the kernel if it set the flag, or raises the error.
    """

    launch: Launch
    varying: Sequence[tuple[int, int]]
    stored: Sequence[tuple[int, int, int]] = ()
    flag: Array | None = None
    again: Action | None = None


@dataclass(slots=True)
class Work:
    """A bound step.

    Attributes:
        run: Runs the step.
        reads: Slots it reads that change between calls.
        writes: Slots among them whose arrays it overwrites.
        makes: Slots it sets.
        launches: Whether it queues work for an accelerator.
        records: Whether it can be captured: no allocation escapes, nothing synchronizes.
        remake: Sets `makes` after a replay, as views of the first slot that it reads.
        call: The kernel that it launches, if that is all it does.
        group: The processes that run it together, if it needs more than this one.
    """

    run: Action
    reads: Sequence[int] = ()
    writes: Sequence[int] = ()
    makes: Sequence[int] = ()
    launches: bool = True
    records: bool = False
    remake: Action | None = None
    call: KernelCall | None = None
    group: Group | None = None
