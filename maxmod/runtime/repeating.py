"""Calls with the same arguments again and again: what depends on them is found once.

A step of decoding takes the same buffers each time, a hundred of them, and changes what is in them.
To flatten, check and look up all of them takes the host longer than to start the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from maxmod.runtime.program import Program
from maxmod.runtime.stats import Stats
from maxmod.runtime.work import Slots
from maxmod.tensor import Tensor
from maxmod.values.array import Array


class Repeatable(Protocol):
    """What is called: a `CompiledModel`."""

    stats: Stats

    @property
    def version(self) -> object:
        """Another object when other weights are used."""
        ...

    def checked_program(self, tensors: Sequence[Tensor]) -> Program:
        """Returns the program for these arguments, and counts a call."""
        ...


class RepeatedCall:
    """A call of a compiled model with given tensors; made by `CompiledModel.repeated`.

    Between calls, what is in the tensors may change, but not their memory.

    Args:
        model: The compiled model.
        tensors: Its arguments, in order.
    """

    def __init__(self, model: Repeatable, tensors: Sequence[Tensor]) -> None:
        self._model = model
        self._tensors = tensors
        self._version: object = None
        self._program: Program | None = None
        self._slots: Slots = []
        self._keys: dict[int, tuple[int, ...] | None] = {}

    def __call__(self) -> list[Array]:
        """Runs the model; returns the arrays of the results."""
        model, program = self._model, self._program
        if program is None or self._version is not model.version or not program.is_current:
            program = self._bound()
        else:
            model.stats.calls += 1
        return program.repeat(self._slots, self._keys)

    def _bound(self) -> Program:
        """Finds the program, after weights were replaced or a larger arena was needed as well."""
        self._version = self._model.version
        self._program = program = self._model.checked_program(self._tensors)
        self._slots = program.filled([tensor.data for tensor in self._tensors])
        self._keys = {}
        return program
