"""The coroutine that makes the data of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T")


class Realization(Coroutine[object, object, T], Generic[T]):
    """A coroutine without anything to wait for: its first step makes the data.

    `await`, `asyncio.run`, `gather` and tasks take it. Unlike one of an `async def`, it may be left
    alone, and be awaited again.

    Args:
        make: Makes the data and returns the result.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def __await__(self) -> Generator[object, object, T]:
        return self._make()
        yield  # makes this a generator

    def send(self, value: object) -> NoReturn:
        """Makes the data: raises `StopIteration` with the result, as a finished coroutine does."""
        raise StopIteration(self._make())

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> Any:
        """Raises an exception, as a coroutine that does not catch it."""
        error = typ if val is None else val
        error = error() if isinstance(error, type) else error
        raise error.with_traceback(tb) if tb is not None else error

    def close(self) -> None:
        """Does nothing: there is nothing to release."""
