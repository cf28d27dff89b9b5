"""The current executor of ops (eager or lazy execution, or a trace), and functions of ops."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec

from maxmod.interpreters.eager import EagerInterpreter
from maxmod.interpreters.lazy import LazyInterpreter, lazy
from maxmod.interpreters.operands import strong
from maxmod.op import Interpreter, innermost
from maxmod.tensor import Tensor

P = ParamSpec("P")

__all__ = ["ensure_context", "functional", "in_graph_context", "lazy"]


def active_trace() -> Interpreter | None:
    """Returns the interpreter that records ops in this context, None if they are executed."""
    inner = innermost()
    return None if isinstance(inner, (EagerInterpreter, LazyInterpreter)) else inner


def in_graph_context() -> bool:
    """Tells whether ops are being recorded to a graph in this context, not run.

    Returns:
        True in a function that is being traced or compiled, and in a `with Graph(...)` block.

    Example:
        >>> from maxmod import CPU, DType, Module, TensorType
        >>> from maxmod import functional as F
        >>> F.in_graph_context()
        False
        >>> class Asks(Module):
        ...     def forward(self, x):
        ...         print(F.in_graph_context())
        ...         return x
        >>> _ = Asks().trace(TensorType(DType.float32, [2], CPU()))
        True
    """
    return active_trace() is not None


@contextlib.contextmanager
def ensure_context() -> Iterator[None]:
    """A block in which ops can be called; they can everywhere, so nothing is done.

    Returns:
        A context manager.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> with F.ensure_context():
        ...     print(F.sum(Tensor([1.0, 2.0])).item())
        3.0
    """
    yield


def functional(fn: Callable[P, object]) -> Callable[P, Any]:
    """Makes a function of ops return tensors: a decorator.

    Args:
        fn: A function of tensors, or of the values of a graph.

    Returns:
        The function, with its name and docstring, which returns a tensor, a list of them where `fn`
        returns several, or None. Tensor-like results (a Dim, a Shape) are converted.

    Raises:
        TypeError: When the function is called and returns something else.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> @F.functional
        ... def extent(x):
        ...     return x.shape[0], F.max(x) - F.min(x)
        >>> [result.to_numpy().tolist() for result in extent(Tensor([1.0, 4.0, 2.0]))]
        [3, [3.0]]
    """

    @functools.wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Tensor | list[Tensor] | None:
        result = fn(*args, **kwargs)
        if result is None:
            return None
        if isinstance(result, Iterable) and not isinstance(result, Tensor):
            return [strong(wrapper.__name__, item) for item in result]
        return strong(wrapper.__name__, result)

    return wrapper
