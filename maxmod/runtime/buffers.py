"""Checks of the memory that a call stores into: writable, and shared with nothing else it uses.

Kernels take the arrays of a call for separate memory, and write through bare addresses. Eager
execution sees a store through every tensor that has the same memory, in program order; a compiled
function cannot, so it refuses such arguments before anything runs.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from maxmod import backends
from maxmod.errors import ArgumentError, OperandError
from maxmod.op import ir
from maxmod.tensor import Tensor
from maxmod.values.array import Array
from maxmod.values.device import DeviceRef

_EXACT_WORK = 1000  # steps that deciding whether strided arrays share an element may take


class _Memory(NamedTuple):
    """An array, and where it lies: the addresses of its first byte and after its last one."""

    name: str
    array: Array
    device: DeviceRef
    start: int
    end: int


class _Places:
    """Memories by address, so that each is compared with those near it only.

    Args:
        all: The memories.
    """

    def __init__(self, all: Sequence[_Memory]) -> None:
        self.all = all
        self._order = sorted(range(len(all)), key=lambda number: all[number].start)
        self._starts = [all[number].start for number in self._order]
        # For each, the end of what lies before it and of itself.
        self._ends = [*accumulate((all[number].end for number in self._order), max)]

    def near(self, memory: _Memory) -> list[int]:
        """Returns the numbers of those whose bytes may be among those of a memory, in order."""
        found: list[int] = []
        position = bisect_left(self._starts, memory.end) - 1
        while position >= 0 and self._ends[position] > memory.start:
            found.append(self._order[position])
            position -= 1
        return sorted(found)


class StoredArguments:
    """The arguments that a graph stores into, and what must not share their memory.

    Args:
        graph: The graph.
        labels: What messages call each argument.
    """

    def __init__(self, graph: ir.Graph, labels: Sequence[str]) -> None:
        used = {value for node in graph.nodes for value in node.inputs}.union(graph.results)
        self._labels = labels
        self._stored = [position for position, _ in graph.updates]
        self._read = [
            position
            for position, value in enumerate(graph.inputs)
            if value in used and position not in self._stored
        ]
        self._weights = _Places([])
        self._seen: list[weakref.ref[Tensor]] = []
        self._spans: list[tuple[int, int]] = []

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Takes the weights, which must not share memory with what is stored into."""
        if self._stored:
            labelled = ((f"the weight {name!r}", tensor) for name, tensor in weights.items())
            self._weights = _Places([_memory(*weight) for weight in labelled])
            self._seen = []

    def check(self, tensors: Sequence[Tensor]) -> None:
        """Checks the arguments of a call. Those that were stored into last time cost little.

        A tensor that is a view of another one gets memory of its own first, as eagerly.

        Raises:
            OperandError: (a TypeError) If one that is stored into is read-only.
            ArgumentError: (a ValueError) If it shares memory with another argument or a weight.
        """
        if not self._stored:
            return
        stored = [tensors[position] for position in self._stored]
        for tensor in stored:
            if tensor._alias is not None:
                tensor.own()
                self._seen = []
        seen = [reference() for reference in self._seen]
        if len(seen) != len(stored) or any(a is not b for a, b in zip(seen, stored)):
            self._check_stored(stored)
        self._check_read(tensors, stored)

    def _check_stored(self, stored: Sequence[Tensor]) -> None:
        self._seen = []
        found = [_memory(self._labels[p], t) for p, t in zip(self._stored, stored)]
        places = _Places(found)
        for number, memory in enumerate(found):
            _expect_writable(memory)
            earlier = [other for other in places.near(memory) if other < number]
            _expect_apart(memory, [found[other] for other in earlier])
            _expect_apart(memory, [self._weights.all[n] for n in self._weights.near(memory)])
        self._spans = [(memory.start, memory.end) for memory in found]
        self._seen = [weakref.ref(tensor) for tensor in stored]

    def _check_read(self, tensors: Sequence[Tensor], stored: Sequence[Tensor]) -> None:
        for position in self._read:
            memory = _memory(self._labels[position], tensors[position])
            for number, (start, end) in enumerate(self._spans):
                if memory.start < end and start < memory.end:
                    name = self._labels[self._stored[number]]
                    _expect_apart(_memory(name, stored[number]), [memory])


def _memory(name: str, tensor: Tensor) -> _Memory:
    array, device = tensor.data, tensor.type.device
    start = end = backends.get(device).address(array)
    if not array.size:
        return _Memory(name, array, device, start, start)
    for size, stride in zip(array.shape, array.strides):
        if stride < 0:
            start += (size - 1) * stride
        else:
            end += (size - 1) * stride
    return _Memory(name, array, device, start, end + array.itemsize)


def _expect_writable(memory: _Memory) -> None:
    array = memory.array
    steps = zip(array.shape, array.strides)
    is_repeated = array.size > 1 and any(n > 1 and stride == 0 for n, stride in steps)
    if is_repeated or not getattr(array.flags, "writeable", True):
        raise OperandError(
            f"compiled call: {memory.name} is stored into, but it is read-only memory (a mapped "
            "file, or one element repeated?). Hint: pass a copy: Tensor(x.to_numpy().copy())."
        )


def _expect_apart(stored: _Memory, others: Sequence[_Memory]) -> None:
    for other in others:
        if _overlap(stored, other):
            raise ArgumentError(
                f"compiled call: {stored.name} is stored into, but shares memory with "
                f"{other.name}, so the result would depend on the order of the kernels. Hint: pass "
                "a copy of one of them: Tensor(x.to_numpy().copy())."
            )


def _overlap(one: _Memory, other: _Memory) -> bool:
    """True if two arrays have an element in common, or if that would take long to find out."""
    if one.device != other.device or one.end <= other.start or other.end <= one.start:
        return False
    if not isinstance(one.array, np.ndarray) or not isinstance(other.array, np.ndarray):
        return True
    try:
        work = _EXACT_WORK
        return np.shares_memory(one.array, other.array, max_work=work)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
