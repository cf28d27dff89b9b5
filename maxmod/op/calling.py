"""How the call of an op is dispatched: from its public function to the innermost interpreter.

Tracers are pushed with `interpreter`; eager execution, which `maxmod.interpreters.eager` registers,
is at the bottom, so that a new thread always starts eager.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Generator, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, cast

from maxmod.errors import OperandError
from maxmod.op.record import REQUIRED, Op
from maxmod.op.spelling import misuse, respelled
from maxmod.values.dim import Dim, as_size
from maxmod.values.plain import Attrs


class Interpreter(Protocol):
    """Handles a call: runs, records or postpones it."""

    def apply(self, op: Op, args: Sequence[Any], attrs: Attrs) -> Any:
        """Returns the result tensor, or a list of them."""
        ...

    def later(self, make: Callable[[], Any]) -> Callable[[], Any] | None:
        """Returns what makes the data of a literal when it is needed, None to make it at once."""
        ...


_INNERMOST: ContextVar[Interpreter | None] = ContextVar("maxmod_interpreter", default=None)
_bottom: Interpreter | None = None


def register_bottom(interpreter: Interpreter) -> None:
    """Sets the interpreter that is used outside every `interpreter` block (eager execution)."""
    global _bottom
    _bottom = interpreter


def innermost() -> Interpreter:
    """Returns the interpreter that the next call goes to."""
    current = _INNERMOST.get()
    if current is not None:
        return current
    assert _bottom is not None, "maxmod.interpreters.eager registers itself when it is imported"
    return _bottom


@contextlib.contextmanager
def interpreter(inner: Interpreter) -> Generator[None, None, None]:
    """Sends every op call of this context to `inner`."""
    token = _INNERMOST.set(inner)
    try:
        yield
    finally:
        _INNERMOST.reset(token)


def bind(op: Op, args: Sequence[Any], attrs: Attrs) -> Any:
    """The single entry point of every op call: dispatches to the innermost interpreter."""
    return (_INNERMOST.get() or _bottom).apply(op, args, attrs)  # type: ignore[union-attr]


def freeze(value: Any) -> Any:
    """Makes a static argument hashable: lists become tuples, static Dims become ints."""
    if type(value) is int:  # most of them
        return value
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[object]", value)
        return tuple([item if type(item) is int else freeze(item) for item in items])
    return as_size(value) if isinstance(value, Dim) else value


def public_function(op: Op, fn: Callable[..., object], signature: inspect.Signature) -> Any:
    """Makes the function that users call: it sorts arguments and calls `bind`.

    Args:
        op: The record of the op, which becomes the attribute `op` of the function.
        fn: The eager body; name, module and docstring are taken from it.
        signature: The signature that users see.
    """
    count = -1 if op.signature.variadic else len(op.signature.tensor_names)
    defaults = op.signature.defaults
    needed = frozenset(name for name, value in defaults.items() if value is REQUIRED)
    statics = _statics_in_order(op, signature)

    def public(*args: Any, **kwargs: Any) -> Any:
        if len(args) == count:  # the common case, ten times as fast as the general one
            if not kwargs and not needed:
                return bind(op, args, defaults.copy())
            if kwargs.keys() <= defaults.keys() and kwargs.keys() >= needed:
                return bind(op, args, {**defaults, **kwargs})
        elif statics and not kwargs and count < len(args) <= count + len(statics):
            given = dict(zip(statics, args[count:]))
            if given.keys() >= needed:
                return bind(op, args[:count], {**defaults, **given})
        operands, attrs = _sorted_arguments(op, signature, args, kwargs)
        return bind(op, operands, attrs)

    public.__name__ = public.__qualname__ = fn.__name__
    public.__doc__ = fn.__doc__
    public.__module__ = fn.__module__
    public.__signature__ = signature  # type: ignore[attr-defined]
    public.op = op  # type: ignore[attr-defined]
    return public


def _statics_in_order(op: Op, signature: inspect.Signature) -> tuple[str, ...]:
    """Returns the static arguments that may follow the operands by position; none if others do."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = tuple(p.name for p in signature.parameters.values() if p.kind is kind)
    count = len(op.signature.tensor_names)
    is_first = names[:count] == op.signature.tensor_names and not op.signature.variadic
    return names[count:] if is_first else ()


def _sorted_arguments(
    op: Op, signature: inspect.Signature, args: tuple[object, ...], kwargs: Attrs
) -> tuple[tuple[object, ...], Attrs]:
    """Returns operands and static arguments of a call, given by position or keyword."""
    kwargs = respelled(kwargs, op.signature.defaults)
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise OperandError(misuse(op.name, signature, kwargs, error)) from None
    tensors = [bound.pop(name) for name in op.signature.tensor_names]
    if op.signature.variadic:
        tensors = _listed(op, tensors[0])
    return tuple(tensors), {**op.signature.defaults, **bound}


def _listed(op: Op, values: object) -> list[object]:
    """Lists the operands of an op that takes several; one tensor alone is a mistake."""
    if hasattr(values, "sizes") or not isinstance(values, Iterable):
        raise OperandError(
            f"{op.name}: {op.signature.tensor_names[0]}: expected a list of tensors, got "
            f"{type(values).__name__}. Hint: F.{op.name}([x, y])."
        )
    return list(cast("Iterable[object]", values))
