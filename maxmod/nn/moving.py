"""The state of `Module.to` while a tree of modules moves: tied tensors stay tied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from maxmod.nn.places import Owner, parameters_of
from maxmod.tensor import Tensor


@dataclass(slots=True)
class Move:
    """State of a call of `to` on a tree of modules.

    Attributes:
        copies: The ids of tied tensors, with their copies once there are some.
        around: The ids of the modules that are being moved.
    """

    copies: dict[int, Tensor | None]
    around: set[int]


MOVING: ContextVar[Move | None] = ContextVar("maxmod_moving", default=None)


@contextmanager
def one_move(module: Owner) -> Iterator[Move]:
    """Yields the state of the current call of `to`; the outermost module creates it."""
    move = MOVING.get()
    if move is not None:
        move.around.add(id(module))
        yield move
        move.around.discard(id(module))
        return
    tied = [p.tensor for p in parameters_of(module) if len(p.places) > 1]
    move = Move({id(tensor): None for tensor in tied}, {id(module)})  # `tied` keeps the ids valid
    token = MOVING.set(move)
    try:
        yield move
    finally:
        MOVING.reset(token)
        del tied
