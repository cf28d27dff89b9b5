"""Each exception class can be caught as the built-in exception that a user expects."""

from __future__ import annotations

import inspect

import pytest

from maxmod import errors
from maxmod.errors import MaxmodError, did_you_mean

BUILT_INS = {
    "ArgumentError": (ValueError,),
    "ArgumentTypeError": (TypeError, ValueError),
    "AxisError": (IndexError, ValueError),
    "CheckpointError": (ValueError,),
    "CompileError": (RuntimeError,),
    "ConfigError": (ValueError,),
    "DTypeError": (ValueError,),
    "DeviceError": (ValueError,),
    "DimError": (ValueError,),
    "ForwardError": (TypeError, NotImplementedError),
    "GraphError": (ValueError,),
    "LazyError": (TypeError,),
    "MaxmodError": (Exception,),
    "MissingPackageError": (ImportError,),
    "ModelError": (ValueError,),
    "NoAcceleratorError": (RuntimeError, ValueError),
    "NoGraphError": (LookupError,),
    "NoSuchModuleError": (ModuleNotFoundError, ImportError),
    "OperandError": (TypeError,),
    "OutOfMemoryError": (MemoryError,),
    "ExchangeError": (ValueError, BufferError),
    "PaddingError": (ValueError, AssertionError),
    "LibraryError": (RuntimeError,),
    "RandomError": (RuntimeError,),
    "ShapeError": (ValueError,),
    "SliceError": (IndexError, ValueError),
    "TraceError": (TypeError,),
    "WeightsError": (ValueError, KeyError),
}
CLASSES = {
    name: value
    for name, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, Exception) and not issubclass(value, Warning)
}


def test_every_class_is_listed() -> None:
    assert CLASSES.keys() == BUILT_INS.keys()


@pytest.mark.parametrize("name", BUILT_INS)
def test_bases(name: str) -> None:
    error = CLASSES[name]("what is wrong")
    assert isinstance(error, MaxmodError)
    for built_in in BUILT_INS[name]:
        assert isinstance(error, built_in)
    assert str(error) == "what is wrong"
    assert CLASSES[name].__doc__


def test_weights_error_keeps_all_lines() -> None:
    """A plain KeyError would print the repr of its message."""
    assert str(errors.WeightsError("missing:\n  a.weight")) == "missing:\n  a.weight"
    assert str(errors.WeightsError()) == ""


def test_warning() -> None:
    assert issubclass(errors.MaxmodWarning, UserWarning)


def test_did_you_mean() -> None:
    assert did_you_mean("relu6", ["relu", "gelu"]) == " Did you mean 'relu'?"
    assert did_you_mean("xyz", ["relu", "gelu"]) == ""
