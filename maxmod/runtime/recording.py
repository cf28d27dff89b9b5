"""CUDA graphs: consecutive steps that are recorded once and replayed with one launch.

A recording holds addresses, so its memory must not move: weights, constants and intermediates do
not. Addresses of the caller's buffers and of large arguments are the key of a recording; for other
addresses the steps run without one until these come again. Several recordings are kept, so that
callers who take turns, such as two conversations with a cache each, replay theirs. Small arguments
and all results go through memory owned by the recording: arguments are copied in before it, results
are copied out after it.

Steps with collectives are recorded by all processes of the group in the same call, and replayed in
the same calls, as NCCL asks for: a process that cannot lets the others run them one by one as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any

from maxmod import log
from maxmod.backends.base import NotRecorded
from maxmod.errors import GraphError
from maxmod.runtime.environment import Environment
from maxmod.runtime.work import Action, Slots, Work
from maxmod.values.array import Array

# Replaying and copying in and out cost about as much as this many launches from Python.
LEAST_LAUNCHES = 4
# A launch from Python takes about 3 us, in which a GPU copies this much (at 2 TB/s, a third of it
# kept as a margin).
COPIED_NBYTES = 1 << 20
DIRECT_NBYTES = 1 << 20  # larger arguments are not copied, so their addresses must not change
KEPT = 8  # recordings for different addresses; the one used last is dropped last
SEEN = 64  # addresses of earlier calls that are remembered
# A recording costs milliseconds: make another only after this many replays of each earlier one, or
# after as many calls with its addresses that had none.
PAYING = 8
# What a process would do with steps that it runs together with others; the least is done by all.
_RUN, _RECORD, _REPLAY = range(3)
MOST_REFUSALS = 3  # of captures, one after another; then no other is tried


def with_recordings(
    works: Sequence[Work], wanted: Collection[int], environment: Environment
) -> list[Action]:
    """Returns the actions, with a `Segment` for consecutive steps that can be recorded.

    Args:
        works: The bound steps.
        wanted: Slots that are read after all steps.
        environment: Where they run; it counts recordings.
    """
    actions: list[Action] = []
    start = 0
    while start < len(works):
        end = start
        while end < len(works) and works[end].records:
            end += 1
        run = works[start:end]
        if sum(work.launches for work in run) >= LEAST_LAUNCHES:
            later = {slot for work in works[end:] for slot in work.reads}
            actions.append(Segment(run, later.union(wanted), environment))
            start = end
        else:
            actions += [work.run for work in works[start : end + 1]]
            start = end + 1
    return actions


class Recording:
    """Recorded steps with the memory that they work on.

    Attributes:
        start: Launches the recorded graph.
        copied_in: (slot, memory) of arrays that are copied before the launch.
        copied_out: (slot, memory) of arrays that are copied after the launch.
    """

    def __init__(self) -> None:
        self.start: Callable[[], None] | None = None
        self.copied_in: list[tuple[int, Array]] = []
        self.copied_out: list[tuple[int, Array]] = []

    def __del__(self) -> None:
        """Ends the arrays before the graph, which gives their memory back."""
        self.clear()
        self.start = None

    def clear(self) -> None:
        """Lets go of the memory."""
        self.copied_in.clear()
        self.copied_out.clear()


class RepeatedSlots(list[Any]):
    """Slots of a call whose arguments are those of the call before.

    Attributes:
        keys: The key of each segment, which need not be made again.
    """

    __slots__ = ("keys",)

    def __init__(self, slots: Slots, keys: dict[int, tuple[int, ...] | None]) -> None:
        super().__init__(slots)
        self.keys = keys


class Segment:
    """Steps that run as they are, or as a recording; see `with_recordings`."""

    def __init__(
        self, works: Sequence[Work], wanted: Collection[int], environment: Environment
    ) -> None:
        self._works = works
        self._backend = environment.backend
        self._index = environment.device.id
        self._stats = environment.stats
        self._launches = sum(work.launches for work in works)
        self._read, self._written = _from_outside(works)
        used = self._read | self._written
        # The caller owns buffers and may change them.
        self._buffers = sorted(used.intersection(environment.buffers))
        self._outer = sorted(used.difference(environment.buffers))
        self._remade = _needed(works, wanted)
        self._group = next((work.group for work in works if work.group is not None), None)
        self._recordings: OrderedDict[tuple[int, ...], Recording] = OrderedDict()
        self._seen: OrderedDict[tuple[int, ...], int] = OrderedDict()  # calls without a recording
        self._direct: list[int] | None = None  # slots in the key; known after the first call
        self._made = self._used = self._failures = 0
        self._refused = self._is_misaligned = False

    def __call__(self, slots: Slots) -> None:
        recording = self._recorded(slots) if self._group is None else self._agreed(slots)
        if recording is not None:
            self._replay(recording, slots)
            return
        for work in self._works:
            work.run(slots)

    def _recorded(self, slots: Slots) -> Recording | None:
        """Returns what to replay for the arguments of a call, which may be recorded now."""
        key = None if self._refused else self._key(slots)
        if key is None:
            return None
        recording = self._recordings.get(key)
        if recording is None and self._is_due(key):
            recording = self._record(slots, key)
        if recording is not None:
            self._recordings.move_to_end(key)
        return recording

    def _agreed(self, slots: Slots) -> Recording | None:
        """Returns what `_recorded` does, or None for all processes of the group."""
        assert self._group is not None
        key = None if self._refused else self._key(slots)
        recording = None if key is None else self._recordings.get(key)
        state = _RUN
        if recording is not None:
            state = _REPLAY
        elif key is not None and not self._refused and self._is_due(key):
            state = _RECORD
        agreed = self._group.least(state)
        if agreed == _RECORD:
            assert key is not None
            self._recordings.pop(key, None)
            recording = self._record(slots, key)
            if not self._group.least(recording is not None):
                self._recordings.pop(key, None)
                return None
        if agreed == _RUN or recording is None or key is None:
            return None
        self._recordings.move_to_end(key)
        return recording

    def _key(self, slots: Slots) -> tuple[int, ...] | None:
        """Returns the addresses that a recording depends on; None if it cannot be recorded."""
        keys = slots.keys if isinstance(slots, RepeatedSlots) else None
        if keys is not None and id(self) in keys:
            return keys[id(self)]
        key = self._new_key(slots)
        if keys is not None:
            keys[id(self)] = key
        return key

    def _new_key(self, slots: Slots) -> tuple[int, ...] | None:
        if self._direct is None:
            self._direct = self._choose(slots)
        key = self._backend.addresses([slots[slot] for slot in self._direct])
        if key is None and not self._is_misaligned:
            self._is_misaligned = True
            self._stats.count_refusal("an argument is not contiguous, or not aligned")
        return key

    def _is_due(self, key: tuple[int, ...]) -> bool:
        """True if a recording for addresses without one should be made now."""
        calls = self._seen.pop(key, 0) + 1
        self._seen[key] = calls
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        return calls > 1 and (self._used >= PAYING * self._made or calls > PAYING)

    def _choose(self, slots: Slots) -> list[int]:
        """Returns the slots that are not copied; disables recording if too much would be copied."""
        only_read = [slot for slot in self._outer if slot not in self._written]
        large = [slot for slot in only_read if slots[slot].nbytes > DIRECT_NBYTES]
        copied = [slot for slot in self._outer if slot not in large]
        nbytes = sum(slots[slot].nbytes for slot in copied)
        self._refused = nbytes > self._launches * COPIED_NBYTES
        if self._refused:
            reason = f"{nbytes} bytes would have to be copied"
            log.show(log.DEVICES, "no CUDA graph: %s", reason)
            self._stats.count_refusal(reason)
        return [*self._buffers, *large]

    def _record(self, slots: Slots, key: tuple[int, ...]) -> Recording | None:
        """Records the steps, with memory of the recording for slots that are not in the key."""
        recording = Recording()

        def work() -> None:
            try:
                self._run_in(recording, slots)
            except BaseException:
                recording.clear()
                raise

        start = self._backend.record(work, self._index)
        if isinstance(start, NotRecorded):
            self._stats.count_refusal(start.reason)
            self._failures += 1
            self._refused = start.is_final or self._failures == MOST_REFUSALS
            return None
        recording.start = start
        self._failures = 0
        self._made += 1
        self._stats.recordings += 1
        self._recordings[key] = recording
        if len(self._recordings) > KEPT:
            self._recordings.popitem(last=False)
        return recording

    def _run_in(self, recording: Recording, slots: Slots) -> None:
        """Runs the steps in the memory of a recording."""
        direct = frozenset(self._direct or ())
        inner = list(slots)
        for slot in self._outer:
            if slot in direct:
                continue
            inner[slot] = memory = self._backend.empty_like(slots[slot])
            if slot in self._read:
                recording.copied_in.append((slot, memory))
            if slot in self._written:
                recording.copied_out.append((slot, memory))
        for step in self._works:
            step.run(inner)
        self._check_views(inner)

    def _check_views(self, slots: Slots) -> None:
        """Raises if a slot to remake is not a view of the memory that the steps wrote."""
        for work in self._remade:
            for slot in () if work.launches else work.makes:
                if not self._backend.xp.may_share_memory(slots[slot], slots[work.reads[0]]):
                    raise GraphError("a view would need a copy")

    def _replay(self, recording: Recording, slots: Slots) -> None:
        self._used += 1
        self._stats.replays += 1
        copy_into = self._backend.copy_into
        for slot, memory in recording.copied_in:
            copy_into(memory, slots[slot])
        assert recording.start is not None
        recording.start()
        for work in self._remade:
            assert work.remake is not None
            work.remake(slots)
        for slot, memory in recording.copied_out:
            copy_into(slots[slot], memory)


def _from_outside(works: Sequence[Work]) -> tuple[frozenset[int], frozenset[int]]:
    """Returns the slots that are read before any of these steps sets them, and those written."""
    read: set[int] = set()
    written: set[int] = set()
    made: set[int] = set()
    for work in works:
        read.update(slot for slot in work.reads if slot not in written and slot not in made)
        written.update(slot for slot in work.writes if slot not in made)
        made.update(work.makes)
    return frozenset(read), frozenset(written)


def _needed(works: Sequence[Work], wanted: Collection[int]) -> list[Work]:
    """Returns the steps whose results `wanted` needs, directly or through other steps."""
    needed = set(wanted)
    found = []
    for work in reversed(works):
        if work.remake is not None and not needed.isdisjoint(work.makes):
            found.append(work)
            needed.update(work.reads)
    return found[::-1]
