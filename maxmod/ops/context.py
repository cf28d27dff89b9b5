"""Who runs the ops right now (eager or lazy execution, or a trace), and functions made of ops."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from maxmod.eager import EagerInterpreter, LazyInterpreter
from maxmod.op import Interpreter, innermost
from maxmod.operands import strong
from maxmod.tensor import Tensor


def active_trace() -> Interpreter | None:
    """Returns the interpreter that records ops in this context, None if they are executed."""
    inner = innermost()
    return None if isinstance(inner, (EagerInterpreter, LazyInterpreter)) else inner


def in_graph_context() -> bool:
    """True while a function is being traced to a graph in this context."""
    return active_trace() is not None


@contextlib.contextmanager
def ensure_context() -> Iterator[None]:
    """A block in which ops can be called; they can everywhere, so nothing is done."""
    yield


def functional(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of ops return tensors: one, a list of them for several, or None.

    Raises:
        TypeError: When the function is called and returns something else.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> @F.functional
        ... def double(x):
        ...     return x + x
        >>> double(Tensor([1.0, 2.0])).to_numpy().tolist()
        [2.0, 4.0]
    """

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = fn(*args, **kwargs)
        if result is None:
            return None
        if isinstance(result, Iterable) and not isinstance(result, Tensor):
            return [strong(wrapper.__name__, item) for item in result]
        return strong(wrapper.__name__, result)

    return wrapper
