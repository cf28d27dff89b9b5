"""All memory of a launch: every access is checked, counted, and looked at for races."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ptx.counts import Counts, count_passes, count_sectors
from ptx.races import Clock, Found, Tracker
from ptx.spaces import (
    GLOBAL,
    LOCAL,
    READABLE,
    SHARED,
    WRITABLE,
    WRITTEN,
    Buffer,
    Fault,
    Heap,
    Space,
)
from ptx.text import Instruction, Kernel, bits_of

if TYPE_CHECKING:
    from ptx.machine import Machine

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.int64]
SHARED_LIMIT = 227 << 10  # of a block; CUDA C++ Programming Guide, compute capability 9.0


@dataclass(frozen=True)
class Place:
    """An access: by which instruction, of which threads, where.

    Attributes:
        machine: The blocks that run.
        position: Of the instruction.
        instruction: The instruction.
        space: "global", "shared" or "local".
        places: Offsets in its memory.
        nbytes: How many bytes each thread moves.
        lanes: The threads.
    """

    machine: Machine
    position: int
    instruction: Instruction
    space: str
    places: Numbers
    nbytes: int
    lanes: Numbers

    def fault(self, what: str, index: int) -> Fault:
        """Returns an error that says which thread did it."""
        lane = self.lanes[index]
        block, thread = self.machine.blocks[lane], self.machine.threads[lane]
        return Fault(f"{what}: block {block}, thread {thread}: {self.instruction.text}")


def constants_of(kernel: Kernel) -> dict[str, Buffer]:
    """Returns the tables in global and constant memory that a kernel mentions."""
    words = {w for i in kernel.code for o in i.operands for w in re.findall(r"[\w$]+", o)}
    found: dict[str, Buffer] = {}
    for name in sorted(words & kernel.variables.keys()):
        variable = kernel.variables[name]
        if variable.space in ("global", "const"):
            data = variable.data.ljust(variable.nbytes, b"\0")
            found[name] = Buffer(np.frombuffer(data, np.uint8).copy(), is_changed=False)
    return found


def _unit(kernel: Kernel, space: str) -> int:
    """Returns the bytes of the narrowest access to a space."""
    widths = [4]
    for instruction in kernel.code:
        parts = instruction.parts
        if parts[0] in ("ld", "st") and (space in parts or _is_generic(parts)):
            widths.append(bits_of(parts[-1]) // 8)
    return min(widths)


def _is_generic(parts: tuple[str, ...]) -> bool:
    return not {"param", "shared", "global", "local", "const"} & set(parts)


class Memory:
    """Global memory of a launch, and shared and local memory of the blocks that run.

    Args:
        kernel: The kernel.
        heap: Global memory.
        clock: Who is ordered before whom.
        counts: Where accesses are counted.
        constants: Addresses of the tables that the kernel mentions.
    """

    def __init__(
        self, kernel: Kernel, heap: Heap, clock: Clock, counts: Counts, constants: dict[str, int]
    ) -> None:
        self._kernel = kernel
        self.heap = heap
        self.clock = clock
        self._counts = counts
        self._constants = constants
        changed = len(heap.data) - heap.first_changed
        self._races = Tracker(changed, _unit(kernel, "global"), clock, is_shared=False)
        self._copies: list[tuple[Place, Array, Numbers]] = []
        self.shared_nbytes = 0

    def begin(self, blocks: int, dynamic_nbytes: int, lanes: int) -> dict[str, int]:
        """Starts some blocks: gives them fresh shared and local memory.

        Returns:
            The addresses of all variables, each in its own space.
        """
        addresses = dict(self._constants)
        shared = local = 0
        dynamic: list[str] = []
        for name, variable in self._kernel.variables.items():
            if variable.space == "shared" and variable.nbytes == 0:
                dynamic.append(name)
            elif variable.space == "shared" and self._mentions(name):
                shared += -shared % variable.align
                addresses[name] = shared
                shared += variable.nbytes
            elif variable.space == "local":
                local += -local % 16
                addresses[name] = local
                local += variable.nbytes
        shared += -shared % 128
        addresses |= dict.fromkeys(dynamic, shared)
        self.shared_nbytes = shared + dynamic_nbytes
        if self.shared_nbytes > SHARED_LIMIT:
            raise Fault(f"{self.shared_nbytes} bytes of shared memory")
        self._stride = -(-self.shared_nbytes // 128) * 128 + 128
        self._shared = Space(blocks * self._stride)
        for start in range(0, blocks * self._stride, self._stride):
            self._shared.state[start : start + self.shared_nbytes] = WRITABLE
        self._shared_races = Tracker(
            blocks * self._stride, _unit(self._kernel, "shared"), self.clock, is_shared=True
        )
        self._local_stride = -(-local // 16) * 16
        self._local = Space(lanes * self._local_stride)
        self._local.state[: lanes * self._local_stride] = WRITABLE
        self._commits = np.zeros(lanes, np.int64)
        return addresses

    def _mentions(self, name: str) -> bool:
        return any(name in operand for i in self._kernel.code for operand in i.operands)

    # ---- accesses --------------------------------------------------------------------------------

    def load(
        self, place: Place, width: int, *, is_constant: bool = False, is_strong: bool = False
    ) -> Array:
        """Returns numbers of `width` bytes, [thread, number].

        Args:
            place: Where.
            width: Bytes of a number.
            is_strong: True if it may meet writes of other threads, as atomics may.
            is_constant: True if it goes past the caches that see writes of this launch.
        """
        space = self._check(place, READABLE, "reads what nobody wrote")
        if is_constant and place.places.max() >= self.heap.first_changed:
            wrong = space.wrong(place.places, place.nbytes, WRITTEN)
            if wrong is None or not wrong.all():
                raise place.fault("reads past the caches what this launch writes", 0)
        self._count(place)
        if not is_strong:
            numbers = self._numbers(place)
            self._watch(place, lambda races, at: races.read(at, place.nbytes, numbers))
        return space.load(place.places, width, place.nbytes // width)

    def store(self, place: Place, numbers: Array, *, is_strong: bool = False) -> None:
        """Writes numbers, [thread, number]; see `load`."""
        space = self._check(place, WRITABLE, "writes where it must not")
        self._count(place)
        if not is_strong:
            self._watch_store(place, space, numbers)
        space.store(place.places, numbers)
        equal = self._equal(place, space, numbers)
        if not equal.all():
            raise place.fault(f"{place.space} memory: two threads write here", int(equal.argmin()))

    def _equal(self, place: Place, space: Space, numbers: Array) -> npt.NDArray[np.bool_]:
        """True for the threads whose numbers are in memory."""
        found = space.load(place.places, numbers.dtype.itemsize, numbers.shape[1])
        return (found == numbers).all(1)

    def _watch_store(self, place: Place, space: Space, numbers: Array) -> None:
        who = self._numbers(place)
        self._watch(
            place,
            lambda races, at: races.write(
                at, place.nbytes, who, lambda: self._equal(place, space, numbers)
            ),
        )

    def atomic(
        self, place: Place, width: int, change: Callable[[Array, int], Any], *, is_ordered: bool
    ) -> Array:
        """Changes a number of each thread, one thread after the other; returns the old ones.

        Args:
            place: Where.
            width: Bytes of a number.
            change: Gives the new number from the old one and the position of the thread.
            is_ordered: True if what a block did before is for all to see that ask later.
        """
        self._check(place, READABLE, "reads what nobody wrote")
        space = self._check(place, WRITABLE, "writes where it must not")
        self._count(place)
        old = np.empty((len(place.places), 1), f"u{width}")
        for index in range(len(place.places)):
            at = place.places[index : index + 1]
            old[index] = space.load(at, width, 1)
            space.store(at, np.asarray(change(old[index], index)).reshape(1, 1))
            if is_ordered:
                self.clock.atomic(int(place.machine.blocks[place.lanes[index]]))
        return old

    def place(
        self,
        machine: Machine,
        position: int,
        instruction: Instruction,
        space: str,
        addresses: Any,
        nbytes: int,
        lanes: Numbers | None = None,
    ) -> Place:
        """Finds the bytes of an access; refuses addresses that are not multiples of its size."""
        lanes = machine.lanes if lanes is None else lanes
        at = np.broadcast_to(np.asarray(addresses).astype(np.int64), lanes.shape)
        if space == "generic":
            space, at = _specific(at)
        if space == "global":
            at = at - GLOBAL
        found = Place(machine, position, instruction, space, at, nbytes, lanes)
        wrong = at & (nbytes - 1)
        if wrong.any():
            raise found.fault(f"not aligned to {nbytes} bytes", int(wrong.argmax()))
        if space == "shared":
            self._inside(found, self.shared_nbytes)
            at = at + machine.slots[lanes] * self._stride
        elif space == "local":
            self._inside(found, self._local_stride)
            at = at + lanes * self._local_stride
        else:
            self._inside(found, self.heap.top)
        return Place(machine, position, instruction, space, at, nbytes, lanes)

    def _inside(self, place: Place, size: int) -> None:
        """Refuses what is outside of a space as a whole."""
        beyond = place.places.astype(np.uint64) > max(size - place.nbytes, 0)
        if size == 0 or beyond.any():
            index = int(beyond.argmax())
            where = f"byte {place.places[index]} of {size}"
            raise place.fault(f"outside of {place.space} memory, {where}", index)

    def _space(self, place: Place) -> Space:
        return {"shared": self._shared, "local": self._local}.get(place.space, self.heap)

    def _check(self, place: Place, flag: int, what: str) -> Space:
        space = self._space(place)
        wrong = space.wrong(place.places, place.nbytes, flag)
        if wrong is not None:
            index = int(wrong.argmax())
            offset = int(place.places[index])
            if space is self.heap:
                known = bool(self.heap.state[offset])
                what = f"{what if known else 'outside of every array'}, {self.heap.place(offset)}"
            raise place.fault(f"{place.space} memory: {what}", index)
        return space

    def _count(self, place: Place) -> None:
        if place.space == "local":
            return
        access = self._counts.access(place.position, place.instruction, place.space)
        warps = place.machine.numbers[place.lanes] // 32
        if place.space == "global":
            count_sectors(access, warps, place.places, place.nbytes)
        else:
            inside = place.places - place.machine.slots[place.lanes] * self._stride
            count_passes(access, warps, place.lanes % 32, inside, place.nbytes)

    def _numbers(self, place: Place) -> Numbers:
        return place.machine.numbers[place.lanes]

    def _watch(self, place: Place, look: Callable[[Tracker, Numbers], Found | None]) -> None:
        """Refuses an access that races with an earlier one."""
        at = place.places
        if place.space == "local":
            return
        races = self._shared_races
        if place.space == "global":
            if at.max() < self.heap.first_changed:
                return  # nobody writes there
            races, at = self._races, np.maximum(at - self.heap.first_changed, 0)
        other = look(races, at)
        if other is not None:
            block, thread = divmod(other[0], place.machine.padded)
            what = f"{place.space} memory: a race with thread {thread} of block {block}"
            raise place.fault(what, 0)

    def order_warps(self, machine: Machine) -> None:
        """The threads of some warps see what each of them did before."""
        self.clock.synced[np.unique(machine.numbers[machine.lanes] // 32)] = self.clock.tick()

    # ---- asynchronous copies ---------------------------------------------------------------------

    def copy_later(self, place: Place, numbers: Array) -> None:
        """Writes to shared memory when the thread waits for it; until then nobody may read it."""
        space = self._check(place, WRITABLE, "writes where it must not")
        self._count(place)
        who = self._numbers(place)
        nobody = np.zeros(len(place.places), np.bool_)
        self._watch(place, lambda races, at: races.check(at, place.nbytes, who, lambda: nobody))
        space.unmark(place.places, place.nbytes, READABLE)
        self._copies.append((place, numbers, self._commits[place.lanes]))

    def commit(self, lanes: Numbers) -> None:
        """Ends a group of copies of each thread."""
        self._commits[lanes] += 1

    def wait_for_copies(self, lanes: Numbers, pending: int | None) -> None:
        """Finishes the copies of threads, but for the last groups.

        Args:
            lanes: The threads.
            pending: How many groups need not be finished; None for no copy at all.
        """
        kept: list[tuple[Place, Array, Numbers]] = []
        for place, numbers, groups in self._copies:
            is_done = np.isin(place.lanes, lanes)
            if pending is not None:
                is_done &= groups < self._commits[place.lanes] - pending
            if is_done.any():
                done = _part(place, is_done)
                self._watch_store(done, self._shared, numbers[is_done])
                self._shared.store(done.places, numbers[is_done])
            if not is_done.all():
                kept.append((_part(place, ~is_done), numbers[~is_done], groups[~is_done]))
        self._copies = kept


def _part(place: Place, chosen: npt.NDArray[np.bool_]) -> Place:
    return Place(
        place.machine,
        place.position,
        place.instruction,
        place.space,
        place.places[chosen],
        place.nbytes,
        place.lanes[chosen],
    )


def _specific(addresses: Numbers) -> tuple[str, Numbers]:
    """Returns the space that generic addresses are in, which is one for all threads."""
    lowest, highest = int(addresses.min()), int(addresses.max())
    if lowest >= LOCAL:
        return "local", addresses - LOCAL
    if lowest >= SHARED and highest < LOCAL:
        return "shared", addresses - SHARED
    if highest < SHARED:
        return "global", addresses
    raise Fault("one instruction reaches several kinds of memory")
