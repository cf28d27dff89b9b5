"""`max.profiler`: spans of time, which are logged at `MAXMOD_DEBUG=2`."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import ParamSpec, Self, TypeVar, overload

from maxmod import log

P = ParamSpec("P")
R = TypeVar("R")

_COLOR = "modular_purple"


class Tracer:
    """A span of time, or a stack of them: a context manager.

    Args:
        message: What the span is called; without one, only spans that are pushed are logged.
        color: No effect.

    Example:
        >>> from maxmod.compat.profiler import Tracer
        >>> with Tracer("load") as tracer:
        ...     tracer.push("read")
        ...     tracer.next("convert")
        ...     tracer.pop()
    """

    def __init__(self, message: str | None = None, color: str = _COLOR) -> None:
        self._message = message
        self._spans: list[tuple[str, float]] = []

    def push(self, message: str | None = None, color: str = _COLOR) -> None:
        """Starts a span inside the current one.

        Args:
            message: What it is called.
            color: No effect.
        """
        self._spans.append((message or self._message or "", time.perf_counter()))

    def pop(self) -> None:
        """Ends the innermost span and logs its time."""
        if self._spans:
            message, start = self._spans.pop()
            log.show(log.TIMES, "%.3f ms  %s", (time.perf_counter() - start) * 1e3, message)

    def next(self, message: str, color: str = _COLOR) -> None:
        """Ends the innermost span and starts another.

        Args:
            message: What it is called.
            color: No effect.
        """
        self.pop()
        self.push(message)

    def mark(self) -> None:
        """Logs that this point is reached."""
        log.show(log.TIMES, "reached %s", self._message or "a mark")

    def __enter__(self) -> Self:
        self.push()
        return self

    def __exit__(self, *error: object) -> None:
        while self._spans:
            self.pop()


@overload
def traced(
    func: Callable[P, R], *, message: str | None = None, color: str = ...
) -> Callable[P, R]: ...


@overload
def traced(
    func: None = None, *, message: str | None = None, color: str = ...
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def traced(
    func: Callable[..., object] | None = None, *, message: str | None = None, color: str = _COLOR
) -> object:
    """Logs the time of every call of a function: a decorator, bare or with arguments.

    Args:
        func: The function, which may be a coroutine function.
        message: What the span is called; the name of the function by default.
        color: No effect.

    Returns:
        The function, with its name and docstring.

    Example:
        >>> from maxmod.compat.profiler import traced
        >>> @traced
        ... def half(x):
        ...     return x / 2
        >>> half(3)
        1.5
    """
    if func is None:
        return functools.partial(traced, message=message, color=color)
    name = message or func.__qualname__
    if inspect.iscoroutinefunction(func):

        @functools.wraps(func)
        async def waits(*args: object, **kwargs: object) -> object:
            with Tracer(name):
                return await func(*args, **kwargs)

        return waits

    @functools.wraps(func)
    def wrapper(*args: object, **kwargs: object) -> object:
        with Tracer(name):
            return func(*args, **kwargs)

    return wrapper


__all__ = ["Tracer", "traced"]
