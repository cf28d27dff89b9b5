"""Chains: consecutive kernels of the host that one call from Python runs.

A step of a decoder with 30 layers is some 300 kernels. Calling each from Python takes 2.5 us, as
long as a third of them run: 0.75 of the 7.3 ms of a token of SmolLM2-135M in int8 (2 cores of an
AMD EPYC, Zen 3, December 2026).
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from maxmod.backends.base import Backend, Chain
from maxmod.runtime.work import Action, KernelCall, Slots, Work
from maxmod.values.array import Array

LEAST_LAUNCHES = 2


def with_chains(works: Sequence[Work], backend: Backend) -> list[Action]:
    """Returns the actions, with a `ChainOfKernels` for consecutive kernels."""
    actions: list[Action] = []
    start = 0
    while start < len(works):
        end = start
        calls: list[KernelCall] = []
        while end < len(works) and (call := works[end].call) is not None:
            calls.append(call)
            end += 1
        end = max(end, start + 1)
        singly = [work.run for work in works[start:end]]
        chain = _chained(calls, singly, backend) if len(calls) >= LEAST_LAUNCHES else None
        actions += singly if chain is None else [chain]
        start = end
    return actions


def _chained(
    calls: Sequence[KernelCall], singly: Sequence[Action], backend: Backend
) -> ChainOfKernels | None:
    numbers: dict[int, int] = {}  # of the address in each slot that varies
    fillings: list[tuple[int, int, int]] = []
    for n, call in enumerate(calls):
        places = [*call.varying, *((position, target) for position, _, target in call.stored)]
        for position, slot in places:
            fillings.append((n, position, numbers.setdefault(slot, len(numbers))))
    flags = {n: call.flag for n, call in enumerate(calls) if call.flag is not None}
    chain = backend.chain([call.launch for call in calls], fillings, flags)
    if chain is None:
        return None
    return ChainOfKernels(calls, singly, backend, chain, [*numbers])


class ChainOfKernels:
    """Runs kernels by one call, or singly where one needs a copy of an argument.

    Args:
        calls: The kernels.
        singly: What runs each of them.
        backend: Where they run.
        chain: All launches.
        slots: Where the arrays are whose addresses the chain gets.
    """

    def __init__(
        self,
        calls: Sequence[KernelCall],
        singly: Sequence[Action],
        backend: Backend,
        chain: Chain,
        slots: Sequence[int],
    ) -> None:
        self._calls = calls
        self._singly = singly
        self._chain = chain
        self._stored = [(slot, target) for call in calls for _, slot, target in call.stored]
        self._addresses = _Addresses(backend, slots)

    def __call__(self, slots: Slots) -> None:
        # Kernels overwrite buffers in place, so what they will hold is known before they do.
        for slot, target in self._stored:
            slots[slot] = slots[target]
        addresses = self._addresses(slots)
        if addresses is None:
            for action in self._singly:
                action(slots)
            return
        done = 0
        while done < len(self._calls):
            done = self._chain(done, addresses)
            call = self._calls[done - 1]
            if call.flag is not None and call.flag[0]:
                assert call.again is not None
                call.again(slots)


class _Addresses:
    """Addresses of arrays; those of a cache, which come in every call, are looked up once."""

    def __init__(self, backend: Backend, slots: Sequence[int]) -> None:
        self._backend = backend
        self._slots = slots
        self._seen: list[weakref.ref[Array]] = []
        self._found: list[int] = []

    def __call__(self, slots: Slots) -> list[int] | None:
        """Returns the address of each array; None if one of them is not contiguous."""
        arrays = [slots[slot] for slot in self._slots]
        if len(self._seen) != len(arrays):
            return self._all(arrays)
        for n, array in enumerate(arrays):
            if self._seen[n]() is not array:
                found = self._backend.addresses([array])
                if found is None:
                    self._seen = []
                    return None
                self._seen[n], self._found[n] = weakref.ref(array), found[0]
        return self._found

    def _all(self, arrays: Sequence[Array]) -> list[int] | None:
        found = self._backend.addresses(arrays)
        if found is None:
            return None
        self._seen, self._found = [weakref.ref(array) for array in arrays], [*found]
        return self._found
