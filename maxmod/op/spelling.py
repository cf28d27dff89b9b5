"""Calls with the arguments of other libraries: taken where they mean the same, else explained."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Container, Sequence, Set
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

from maxmod.errors import OperandError, did_you_mean
from maxmod.values.plain import Attrs

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


def spelled(fn: Callable[P, R], name: str = "") -> Callable[P, R]:
    """Returns a function that also takes `dim` for `axis`, and explains arguments it cannot take.

    Keywords of a function that takes any (`**keywords`) are left to it.

    Args:
        fn: The function.
        name: What to call it in errors; its own name by default.
    """
    name = name or fn.__name__
    known, least, most, is_open = _taken(fn)

    @functools.wraps(fn)
    def public(*args: P.args, **kwargs: P.kwargs) -> R:
        count = len(args)
        is_known = not kwargs or is_open or kwargs.keys() <= known
        if is_known and count <= most and count + len(kwargs) >= least:
            return fn(*args, **kwargs)
        named: Any = kwargs if is_open else respelled(kwargs, known)
        signature = inspect.signature(fn)
        try:
            signature.bind(*args, **named)
        except TypeError as error:
            raise OperandError(misuse(name, signature, named, error)) from None
        loose: Any = fn
        return loose(*args, **named)

    return public


def _taken(fn: Callable[..., object]) -> tuple[Set[str], int, int, bool]:
    """Returns what a function takes, from its code: a signature takes ten times as long to make.

    Returns:
        The names of its parameters, the smallest number of arguments and the largest one without
        keywords, and whether it takes any keyword.
    """
    inner = inspect.unwrap(fn)
    assert isinstance(inner, FunctionType)
    code = inner.__code__
    count = code.co_argcount + code.co_kwonlyargcount
    given = len(inner.__defaults__ or ()) + len(inner.__kwdefaults__ or ())
    most = sys.maxsize if code.co_flags & inspect.CO_VARARGS else code.co_argcount
    is_open = bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return frozenset(code.co_varnames[:count]), count - given, most, is_open


def explained_init(fn: Callable[P, R]) -> Callable[P, R]:
    """Applies `spelled` to the `__init__` of a class, under the name of the class."""
    name = fn.__qualname__.split(".")[0]
    return spelled(fn, name)


def explained(cls: C) -> C:
    """Applies `spelled` to the public methods of a class, which is part of `Tensor`."""
    for name, member in list(vars(cls).items()):
        if name.startswith("_"):
            continue
        if inspect.isfunction(member):
            setattr(cls, name, spelled(member))
        elif isinstance(member, classmethod):
            setattr(cls, name, classmethod(spelled(member.__func__)))  # pyright: ignore
    return cls


def respelled(kwargs: Attrs, known: Container[str]) -> Attrs:
    """Takes `dim`, as PyTorch calls it, for `axis` where a function has an axis and no `dim`."""
    if "dim" not in kwargs or "dim" in known or "axis" not in known or "axis" in kwargs:
        return kwargs
    return {"axis" if name == "dim" else name: value for name, value in kwargs.items()}


def misuse(name: str, signature: inspect.Signature, kwargs: Attrs, error: TypeError) -> str:
    """Returns the message for arguments that do not fit the signature of a function."""
    known = [parameter for parameter in signature.parameters if parameter not in ("self", "cls")]
    unknown = [keyword for keyword in kwargs if keyword not in known]
    if unknown:
        return unknown_keyword(name, unknown[0], known)
    return f"{name}: {error}; it takes ({', '.join(known)}).{_keyword_hint(name, '*')}"


def unknown_keyword(name: str, keyword: str, known: Sequence[str]) -> str:
    """Returns the message for a keyword that a function does not take."""
    hint = _keyword_hint(name, keyword) or did_you_mean(keyword, known)
    return (
        f"{name}: got an unexpected keyword argument {keyword!r}; it takes ({', '.join(known)})."
        f"{hint}"
    )


def _keyword_hint(name: str, keyword: str) -> str:
    """Returns what to write for a keyword of another library; the table is read for errors only."""
    return importlib.import_module("maxmod.op.foreign.keywords").keyword_hint(name, keyword)
