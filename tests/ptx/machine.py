"""Which threads run when: branches, barriers, the launch of a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ptx.counts import Counts
from ptx.memory import Memory, constants_of
from ptx.races import Clock
from ptx.registers import Registers
from ptx.spaces import Buffer, Fault, Heap
from ptx.text import Instruction, Kernel

WARP = 32
LANES = 8192  # threads that run in step: NumPy is slow for few
PATIENCE = 20000  # instructions of some threads before the others have their turn
LONGEST = 20_000_000  # instructions of a launch

Mask = npt.NDArray[np.bool_]
Run = Callable[[], None]


@dataclass(frozen=True)
class Grid:
    """The numbers of a launch.

    Attributes:
        blocks: How many blocks there are.
        threads: Threads of each.
        shared_nbytes: Dynamic shared memory of each.
    """

    blocks: int
    threads: int
    shared_nbytes: int = 0


def launch(
    kernel: Kernel,
    grid: Grid,
    args: Sequence[Any],
    *,
    blocks: Sequence[int] | None = None,
    counts: Counts | None = None,
    lanes: int = LANES,
) -> Counts:
    """Runs a kernel.

    Args:
        kernel: The kernel.
        grid: How many blocks and threads.
        args: For each parameter an array, which is only read, a `Buffer`, or a number of NumPy.
        blocks: The blocks to run; all by default.
        counts: What to add the counts to.
        lanes: How many threads run in step; whole blocks, at least one.

    Returns:
        What it cost.

    Raises:
        Fault: If it did something that a GPU does not forgive.
    """
    if grid.threads > kernel.threads:
        raise Fault(f"{grid.threads} threads, but the kernel is for {kernel.threads}")
    if len(args) != len(kernel.parameters):
        raise Fault(f"{len(kernel.parameters)} parameters, {len(args)} arguments")
    wrapped = [Buffer(a, is_changed=False) if isinstance(a, np.ndarray) else a for a in args]
    tables = constants_of(kernel)
    heap = Heap([*(arg for arg in wrapped if isinstance(arg, Buffer)), *tables.values()])
    numbers = [heap.address(a) if isinstance(a, Buffer) else _bits(a) for a in wrapped]
    counts = Counts() if counts is None else counts
    padded = -(-grid.threads // WARP) * WARP
    clock = Clock(grid.blocks, padded)
    memory = Memory(kernel, heap, clock, counts, {n: heap.address(t) for n, t in tables.items()})
    chosen = np.asarray(range(grid.blocks) if blocks is None else blocks, np.int64)
    together = max(lanes // padded, 1)
    with np.errstate(all="ignore"):
        for start in range(0, len(chosen), together):
            part = chosen[start : start + together]
            Machine(kernel, grid, numbers, part, memory, counts).run()
    heap.copy_back()
    return counts


def _bits(value: Any) -> int:
    array = np.asarray(value)
    return int.from_bytes(array.tobytes(), "little")


class Machine:
    """Runs some blocks of a launch in step.

    Attributes:
        registers: Their registers.
        memory: Global memory, and the shared memory of these blocks.
        where: The threads that run, for `where=` of NumPy; True for all that are left.
        lanes: Their numbers.
        warps: How many warps have one of them.
        numbers: Of all threads in the launch, as races know them.
    """

    def __init__(
        self,
        kernel: Kernel,
        grid: Grid,
        args: Sequence[int],
        blocks: npt.NDArray[np.int64],
        memory: Memory,
        counts: Counts,
    ) -> None:
        self.kernel = kernel
        self.args = dict(zip([name for name, _ in kernel.parameters], args, strict=True))
        self.memory = memory
        self.padded = -(-grid.threads // WARP) * WARP
        self.size = len(blocks) * self.padded
        self.blocks = np.repeat(blocks, self.padded)
        self.slots = np.repeat(np.arange(len(blocks)), self.padded)  # of these blocks
        inside = np.tile(np.arange(self.padded), len(blocks))
        self.threads = inside
        self.numbers = self.blocks * self.padded + inside
        self._counts = counts
        addresses = memory.begin(len(blocks), grid.shared_nbytes, self.size)
        known = _specials(grid, self.blocks, inside)
        self.registers = Registers(kernel, self.size, known, addresses)
        self.alive: Mask = inside < grid.threads
        self.where: Any = True
        self.mask: Mask = self.alive
        self.lanes = np.flatnonzero(self.alive)
        self.warps = 0
        self._ready: dict[int, Mask] = {}
        self._waiting = np.zeros(self.size, np.bool_)
        self._behind = np.zeros(self.size, np.int64)  # where those go on that wait
        self._prepared: dict[int, Run] = {}
        self._executed = np.zeros(len(kernel.code), np.int64)

    def run(self) -> None:
        """Runs until all threads have ended.

        Raises:
            Fault: If one of them did something that a GPU does not forgive.
        """
        self._ready = {0: self.alive.copy()}
        total = turn = 0
        while self._ready:
            turn += 1
            # Those that are behind go first, so that threads meet again; but they may be
            # waiting for the others.
            is_stuck = total > turn * PATIENCE // 2
            position = max(self._ready) if is_stuck and turn % 2 else min(self._ready)
            total += self._run_from(position)
            if total > LONGEST:
                raise Fault(f"no end after {total} instructions")
        if self._waiting.any():
            raise Fault("threads wait at a barrier that others do not reach")
        for instruction, count in zip(self.kernel.code, self._executed.tolist(), strict=True):
            if count:
                self._counts.instructions[instruction.name] += count

    def _run_from(self, position: int) -> int:
        """Runs the threads at a position until they part, end, wait, or meet others."""
        self.select(self._ready.pop(position))
        limit = min((p for p in self._ready if p > position), default=len(self.kernel.code))
        steps = 0
        while True:
            if position == limit and position in self._ready:
                break
            if steps > PATIENCE:
                break  # others may have their turn
            steps += 1
            instruction = self.kernel.code[position]
            self._executed[position] += self.warps
            after = self._step(position, instruction)
            if after < 0:
                return steps
            position = after
        self._join(position, self.mask)
        return steps

    def _step(self, position: int, instruction: Instruction) -> int:
        """Executes an instruction; returns the next position, or -1 if the threads parted."""
        kind = instruction.parts[0]
        if kind == "bra":
            return self._branch(position, instruction)
        if kind in ("bar", "barrier") and instruction.parts[1] != "warp":
            return self._wait(position, instruction)
        if kind in ("ret", "exit"):
            return self._end(position, instruction)
        run = self._prepared.get(position)
        if run is None:
            run = self._prepared[position] = self._prepare(position, instruction)
        if not instruction.guard:
            run()
            return position + 1
        before = self.mask
        chosen = before & self._guard(instruction)
        if chosen.any():
            self.select(chosen)
            run()
            self.select(before)
        return position + 1

    def _prepare(self, position: int, instruction: Instruction) -> Run:
        from ptx.families import prepare

        try:
            return prepare(self, position, instruction)
        except (KeyError, ValueError, IndexError) as error:
            raise Fault(f"unknown instruction: {instruction.text} ({error})") from error

    # ---- control ---------------------------------------------------------------------------------

    def select(self, mask: Mask) -> None:
        """Makes some threads those that run."""
        self.mask = mask
        self.lanes = np.flatnonzero(mask)
        self.where = True if len(self.lanes) == np.count_nonzero(self.alive) else mask
        self.warps = int(mask.reshape(-1, WARP).any(1).sum())

    def _guard(self, instruction: Instruction) -> Mask:
        found = self.registers.bits(instruction.guard)
        return ~found if instruction.is_negated else found

    def _join(self, position: int, mask: Mask) -> None:
        known = self._ready.get(position)
        self._ready[position] = mask.copy() if known is None else known | mask

    def _branch(self, position: int, instruction: Instruction) -> int:
        target = self.kernel.labels[instruction.operands[0]]
        if not instruction.guard:
            return target
        taken = self.mask & self._guard(instruction)
        count = np.count_nonzero(taken)
        if count == len(self.lanes):
            return target
        if count == 0:
            return position + 1
        self._join(target, taken)
        self._join(position + 1, self.mask & ~taken)
        return -1

    def _end(self, position: int, instruction: Instruction) -> int:
        ended = self.mask & self._guard(instruction) if instruction.guard else self.mask
        self.alive = self.alive & ~ended
        left = self.mask & ~ended
        if left.any():
            self._join(position + 1, left)
        slots = np.unique(self.slots[ended])
        if self._waiting.reshape(-1, self.padded)[slots].any():
            raise Fault("threads end while others of their block wait at a barrier")
        return -1

    def _wait(self, position: int, instruction: Instruction) -> int:
        if instruction.operands and instruction.operands[0] not in ("0",):
            raise Fault(f"only barrier 0 is known: {instruction.text}")
        arrived = self.mask & self._guard(instruction) if instruction.guard else self.mask
        slots = np.unique(self.slots[arrived])
        self._waiting |= arrived
        self._behind[arrived] = position + 1
        left = self.mask & ~arrived
        if left.any():
            self._join(position + 1, left)
        waiting = self._waiting.reshape(-1, self.padded)
        alive = self.alive.reshape(-1, self.padded)
        self._refuse_missing(slots, instruction)
        full = (waiting[slots] == alive[slots]).all(1)
        released = np.zeros_like(waiting)
        released[slots[full]] = waiting[slots[full]]
        if full.any():
            self._release(released.reshape(-1))
        return -1

    def _refuse_missing(self, slots: npt.NDArray[np.int64], instruction: Instruction) -> None:
        """Threads of a block that have ended do not come to its barriers."""
        began = (self.threads < self._began).reshape(-1, self.padded)
        ended = began & ~self.alive.reshape(-1, self.padded)
        if ended[slots].any():
            raise Fault(f"threads ended that should come to a barrier: {instruction.text}")

    @property
    def _began(self) -> int:
        return int(self.registers.bits("%ntid.x")[0])

    def _release(self, mask: Mask) -> None:
        self._waiting &= ~mask
        self.memory.clock.barriers[np.unique(self.blocks[mask])] += 1
        for position in np.unique(self._behind[mask]).tolist():
            self._join(position, mask & (self._behind == position))


def _specials(
    grid: Grid, blocks: npt.NDArray[np.int64], threads: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Returns the special registers: one dimension, as all kernels have it."""
    values = {
        "%tid.x": threads,
        "%ntid.x": np.full_like(threads, grid.threads),
        "%ctaid.x": blocks,
        "%nctaid.x": np.full_like(threads, grid.blocks),
        "%laneid": threads % WARP,
        "%warpid": threads // WARP,
    }
    for axis in "yz":
        values |= {f"%{name}.{axis}": np.zeros_like(threads) for name in ("tid", "ctaid")}
        values |= {f"%{name}.{axis}": np.ones_like(threads) for name in ("ntid", "nctaid")}
    return {name: array.astype(np.uint32) for name, array in values.items()}
