"""The public names of each face, checked in as a list, and their docstrings.

A name that appears or disappears is a change of the API: look at the difference, then run
`pytest tests/test_public_names.py --update-golden` and note it in CHANGELOG.md.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import maxmod
from maxmod.op import FUNCTIONS

PACKAGE = Path(maxmod.__file__).parent
GOLDEN = Path(__file__).parent / "golden" / "public_names.txt"
FACES = (
    "maxmod",
    "maxmod.array_api",
    "maxmod.array_api.linalg",
    "maxmod.compat",
    "maxmod.driver",
    "maxmod.dtype",
    "maxmod.engine",
    "maxmod.errors",
    "maxmod.functional",
    "maxmod.graph",
    "maxmod.graph.ops",
    "maxmod.graph.ops.allreduce",
    "maxmod.graph.ops.random",
    "maxmod.graph.type",
    "maxmod.models",
    "maxmod.nn",
    "maxmod.random",
    "maxmod.tensor",
    "maxmod.weights",
)


def _names(face: str) -> list[str]:
    module = importlib.import_module(face)
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == face
    )


def read_names() -> dict[str, list[str]]:
    """Reads sections: a line with the face, then indented names."""
    found: dict[str, list[str]] = {}
    for line in GOLDEN.read_text("utf-8").splitlines():
        if line.startswith(" "):
            found[list(found)[-1]].append(line.strip())
        elif line:
            found[line] = []
    return found


def test_snapshot(update_golden: bool) -> None:
    actual = {face: _names(face) for face in FACES}
    if update_golden:
        lines = [text for face in FACES for text in (face, *(f"  {n}" for n in actual[face]), "")]
        GOLDEN.write_text("\n".join(lines), "utf-8")
    assert actual == read_names()


def _public_objects() -> list[tuple[str, Any]]:
    found: dict[str, Any] = {}
    for face in FACES:
        module = importlib.import_module(face)
        for name in _names(face):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
                found[f"{face}.{name}"] = value
    return list(found.items())


@pytest.mark.parametrize("face", FACES)
def test_every_name_exists(face: str) -> None:
    module = importlib.import_module(face)
    missing = [name for name in _names(face) if not hasattr(module, name)]
    assert not missing


def test_every_public_object_has_a_docstring() -> None:
    objects = dict(_public_objects())
    missing = [path for path, value in objects.items() if not inspect.getdoc(value)]
    for path, value in objects.items():
        if not inspect.isclass(value):
            continue
        for name, member in vars(value).items():
            inner = getattr(member, "fget", None) or getattr(member, "__func__", member)
            public = inspect.isfunction(inner) and not name.startswith("_")
            # An override may inherit the docstring of what it overrides.
            if public and not inspect.getdoc(getattr(value, name)):
                missing.append(f"{path}.{name}")
    assert not missing, "\n".join(sorted(set(missing)))


def test_lazy_names_can_be_listed_and_misspelt() -> None:
    assert set(maxmod.__all__) <= set(dir(maxmod))
    with pytest.raises(AttributeError, match="module 'maxmod' has no attribute 'Tensr'"):
        _ = maxmod.Tensr
    assert maxmod.Module is maxmod.nn.Module


# Functions that methods of Tensor call already, and that come with a later family of ops.
PLANNED: set[str] = set()


def _called_names() -> list[tuple[str, str]]:
    """Returns (place, name) of each `call("name", ...)` in the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else None
            name = function.id if isinstance(function, ast.Name) else name
            first = node.args[0]
            if name == "call" and isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.append((f"{path.relative_to(PACKAGE)}:{node.lineno}", first.value))
    return found


def test_functions_that_are_called_by_name_exist() -> None:
    importlib.import_module("maxmod.functional")
    calls = _called_names()
    assert len(calls) > 40  # the operators and methods of Tensor at least
    known = FUNCTIONS.keys() | PLANNED
    wrong = [f"{place}: {name}" for place, name in calls if name not in known]
    assert not wrong, "\n".join(wrong)
    assert not FUNCTIONS.keys() & PLANNED, "strike off what has come"
