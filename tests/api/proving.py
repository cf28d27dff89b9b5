"""Which case proves which public name.

A case is a function that asserts rules of the API and says, with `@proves`, which names it is
about. `test_api.py` runs it and looks at what was entered meanwhile: a case that does not run the
code of a name that it claims fails.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

Case = Callable[[], None]
CASES: dict[str, tuple[Case, tuple[str, ...]]] = {}

# How the names of the lists below begin, and where they are found.
ROOTS = {
    "F": "maxmod.functional",
    "ops": "maxmod.graph.ops",
    "Tensor": "maxmod.tensor:Tensor",
    "tensor": "maxmod.tensor",
    "driver": "maxmod.driver",
    "Device": "maxmod.driver:Device",
    "Buffer": "maxmod.driver:Buffer",
    "DType": "maxmod.dtype:DType",
    "graph": "maxmod.graph",
    "Dim": "maxmod.graph:Dim",
    "Shape": "maxmod.graph:Shape",
    "DeviceRef": "maxmod.graph:DeviceRef",
    "TensorType": "maxmod.graph:TensorType",
    "BufferType": "maxmod.graph:BufferType",
    "Graph": "maxmod.graph:Graph",
    "TensorValue": "maxmod.graph:TensorValue",
    "engine": "maxmod.engine",
    "random": "maxmod.random",
    "graph_random": "maxmod.graph.ops.random",
    "nn": "maxmod.nn",
    "norm": "maxmod.nn.norm",
    "rope": "maxmod.nn.rope",
    "yarn": "maxmod.nn.rope.yarn",
    "Module": "maxmod.nn:Module",
    "CompiledModel": "maxmod.runtime.compiled:CompiledModel",
    "StagedGraph": "maxmod.runtime.staging:StagedGraph",
}


def named(root: str, names: str) -> list[str]:
    """Returns `root.name` for each of several names."""
    return [f"{root}.{name}" for name in names.split()]


def proves(*names: str) -> Callable[[Case], Case]:
    """Registers a case and what it is about."""

    def register(case: Case) -> Case:
        name = case.__name__
        known, before = CASES.get(name, (case, ()))
        assert known is case, f"two cases are called {name}"
        CASES[name] = (case, before + names)
        return case

    return register


@dataclass(frozen=True)
class Found:
    """The object that a name refers to, and the code that using it runs (none for a constant)."""

    value: Any
    codes: frozenset[CodeType]


def find(name: str) -> Found:
    """Returns the object of a listed name; AttributeError if there is none."""
    root, _, rest = name.partition(".")
    path, _, inner = ROOTS[root].partition(":")
    owner: Any = importlib.import_module(path)
    if inner:
        owner = getattr(owner, inner)
    value = inspect.getattr_static(owner, rest) if inspect.isclass(owner) else getattr(owner, rest)
    return Found(value, frozenset(_codes(value)))


def _codes(value: Any) -> set[CodeType]:
    if isinstance(value, (staticmethod, classmethod)):
        return _codes(value.__func__)
    if isinstance(value, property):
        return set().union(*map(_codes, filter(None, (value.fget, value.fset))))
    if hasattr(value, "op"):  # all ops are called through one function: look for its own body
        return {value.op.meaning.eager.__code__}
    value = inspect.unwrap(value) if callable(value) and not inspect.isclass(value) else value
    if isinstance(value, FunctionType):
        return {value.__code__}
    if getattr(value, "_is_protocol", False):  # has no code: isinstance looks at names
        return set()
    if inspect.isclass(value) and value.__module__.startswith("maxmod"):
        return set().union(*(_codes(member) for member in vars(value).values()))
    return set()


@contextmanager
def entered() -> Any:
    """Gives the set of all code that is entered in the block."""
    codes: set[CodeType] = set()

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            codes.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield codes
    finally:
        sys.setprofile(before)
