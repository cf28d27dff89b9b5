"""Every exception class of maxmod.

A class extends `MaxmodError` and the built-in exception that a Python user would expect, so both
`except MaxmodError` and `except ValueError` work. Messages have the form
``op: what is wrong: expected ..., got .... Hint.`` and never print tensor contents.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable
from types import FrameType

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


class MaxmodError(Exception):
    """Base class of every error that maxmod raises on purpose."""


class ShapeError(MaxmodError, ValueError):
    """Sizes, ranks or arguments about shapes do not fit together."""


class AxisError(MaxmodError, IndexError, ValueError):
    """An axis is outside the rank of a tensor."""


class SliceError(MaxmodError, IndexError, ValueError):
    """An index or slice bound is outside the tensor; nothing is clipped."""


class DTypeError(MaxmodError, ValueError):
    """An op does not support a dtype, or dtypes cannot be combined without loss."""


class DeviceError(MaxmodError, ValueError):
    """Operands live on different devices, or a device name is invalid."""


class OperandError(MaxmodError, TypeError):
    """An operand is of a kind that the op does not accept."""


class ArgumentError(MaxmodError, ValueError):
    """A static argument has an illegal value."""


class ExchangeError(MaxmodError, ValueError, BufferError):
    """Memory of another library would have to be copied, and that was forbidden."""


class PaddingError(MaxmodError, ValueError, AssertionError):
    """The padding does not fit the rank."""


class ArgumentTypeError(MaxmodError, TypeError, ValueError):
    """An argument of a compiled call, or a position between brackets, is of another type."""


class DimError(MaxmodError, ValueError):
    """A dimension is malformed or cannot be decided."""


class NoAcceleratorError(MaxmodError, RuntimeError, ValueError):
    """An accelerator was asked for and there is none; the message says why."""


class OutOfMemoryError(MaxmodError, MemoryError):
    """A device has not enough memory for an allocation; the message has the sizes."""


class TraceError(MaxmodError, TypeError):
    """A traced function did something that depends on data, or returned no tensors."""


class LazyError(MaxmodError, TypeError):
    """Data of a lazily declared tensor was needed before it can exist."""


class GraphError(MaxmodError, ValueError):
    """A graph violates a rule of the IR (a bug in maxmod, never in user code)."""


class NoGraphError(MaxmodError, LookupError):
    """No graph is being built."""


class CompileError(MaxmodError, RuntimeError):
    """A kernel could not be built; the message has the compiler's log.

    Attributes:
        log: Output of the compiler; may be empty.
        source_path: Where the source was saved; empty if it was not.
    """

    def __init__(self, message: str = "", *, log: str = "", source_path: str = "") -> None:
        super().__init__(message)
        self.log = log
        self.source_path = source_path


class LibraryError(MaxmodError, RuntimeError):
    """A device library returned an error; the message has the function and the status."""


class RandomError(MaxmodError, RuntimeError):
    """A random op was traced without a seed."""


class ForwardError(MaxmodError, TypeError, NotImplementedError):
    """A module was called that defines neither `forward` nor `__call__`."""


class WeightsError(MaxmodError, ValueError, KeyError):
    """Weights do not match the parameters of a module; lists every missing, extra and wrong one."""

    def __str__(self) -> str:  # KeyError would print the repr, with escaped newlines
        return str(self.args[0]) if self.args else ""


class CheckpointError(MaxmodError, ValueError):
    """A weight file or index is malformed, truncated or unsafe."""


class ConfigError(MaxmodError, ValueError):
    """A MAXMOD_* variable or `configure` option has an illegal value."""


class MissingPackageError(MaxmodError, ImportError):
    """A package that only some users need is not installed; the hint names the extra."""


class ModelError(MaxmodError, ValueError):
    """A model folder cannot be used: unknown architecture, missing or wrong configuration."""


class NoSuchModuleError(MaxmodError, ModuleNotFoundError):
    """A MAX module that `maxmod.compat` does not provide."""


class MaxmodWarning(UserWarning):
    """Base class of every warning that maxmod emits."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `` Did you mean 'x'?`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def class_name(value: object) -> str:
    """Returns the name of the class of a value, with its package unless it is Python's or ours."""
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    return kind.__name__ if package in ("builtins", "maxmod") else f"{package}.{kind.__name__}"


def user_level() -> int:
    """Returns the `stacklevel` for a warning of the caller: the line of the user."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    return level
