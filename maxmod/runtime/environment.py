"""What the programs of one compiled model run with: a device, kernels, arrays and memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from maxmod.backends.base import Backend, Kernel
from maxmod.errors import CompileError
from maxmod.kernel.source import KernelSource
from maxmod.runtime.arena import Arena
from maxmod.runtime.stats import Stats
from maxmod.values.array import Array
from maxmod.values.device import DeviceRef


@dataclass(frozen=True, slots=True, eq=False)
class Environment:
    """Everything besides the sizes that a schedule is bound to.

    The graphs of branches and loops, and what follows a late size, run in a copy of the environment
    of their model, with other memory.

    Attributes:
        backend: Where steps run.
        device: The device of the backend.
        kernels: The built kernels of the model, by number; the error of one that cannot be built.
        sources: Their sources, by number.
        stats: Counts CUDA graphs.
        fixed: Arrays of the slots of weights and constants; None elsewhere.
        buffers: Slots of arguments that the caller owns and keeps.
        arena: Memory for intermediates.
        complete: Returns the sizes with those that follow from them; raises if they contradict
            each other.
        inside: Whether programs run in a step of another program, which holds the lock.
    """

    backend: Backend
    device: DeviceRef
    kernels: Sequence[Kernel | CompileError]
    sources: Sequence[KernelSource]
    stats: Stats
    fixed: Sequence[Array | None]
    buffers: Collection[int]
    arena: Arena
    complete: Callable[[Mapping[str, int]], Mapping[str, int]]
    inside: bool = False

    def synchronize(self) -> None:
        """Waits for everything that is queued on the device."""
        self.backend.synchronize(self.device.id)
