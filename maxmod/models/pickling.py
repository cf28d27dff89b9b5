"""How models are pickled: with their weights, and without what they compiled."""

from __future__ import annotations

from maxmod.runtime.compiled import CompiledModel


class PickledWithoutPrograms:
    """A model that can be pickled before and after its use; a copy compiles when it is used.

    What was compiled holds addresses and functions of this process, and comes from the kernel
    cache in another one.
    """

    def __getstate__(self) -> dict[str, object]:
        return {name: _kept(value) for name, value in vars(self).items() if not _is_program(value)}


def _is_program(value: object) -> bool:
    return isinstance(value, CompiledModel)


def _kept(value: object) -> object:
    """The value itself; a dict of programs becomes an empty one."""
    is_dict = isinstance(value, dict) and any(map(_is_program, value.values()))
    return {} if is_dict else value
