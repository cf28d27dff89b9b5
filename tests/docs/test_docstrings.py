"""Docstrings: examples run and print what they say, sections say all that a function takes."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import maxmod
from maxmod import Tensor, functional

MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(maxmod.__path__, "maxmod.")
    if not info.name.endswith((".__main__", ".train"))
)


def _examples(name: str) -> list[doctest.DocTest]:
    """Returns the examples of a module, those of its ops included."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    module = importlib.import_module(name)
    found = finder.find(module, name, globs={})  # an example imports what it uses
    for function in vars(module).values():
        # The decorator of an op is in another module, so `find` skips the op.
        if inspect.isfunction(function) and hasattr(function, "op"):
            found += finder.find(function, f"{name}.{function.__name__}", module=False, globs={})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", ["maxmod", *MODULES])
def test_examples(name: str, no_accelerator: None, unoptimised_host_kernels: None) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in _examples(name):
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_there_are_examples() -> None:
    for name in ("maxmod.tensor.tensor", "maxmod.tensor.buffer"):
        assert _examples(name)


# ---- sections ----------------------------------------------------------------------------------

# Functions of maxmod.functional and methods of Tensor that lack a section, with the reason.
_INSIDE = "made and used inside of maxmod; the reference leaves it out"
INCOMPLETE: dict[str, str] = {
    "Tensor.deferred": _INSIDE,
    "Tensor.own": _INSIDE,
    "Tensor.symbolic": _INSIDE,
    "Tensor.views": _INSIDE,
    "Tensor.wrap": _INSIDE,
}


def _parameters(value: Callable[..., Any]) -> list[str]:
    found = list(inspect.signature(value).parameters.values())
    if "." in value.__qualname__ and found and found[0].name in ("self", "cls"):
        found = found[1:]
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [stars.get(parameter.kind, "") + parameter.name for parameter in found]


def _documented(doc: str) -> list[str] | None:
    """Returns the names in the section of arguments, None if there is none."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)+)", doc + "\n", re.MULTILINE)
    return re.findall(r"^    (\*{0,2}\w+):", section[1], re.MULTILINE) if section else None


def _public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yields the functions and methods of the public modules and their classes."""
    for name in ("maxmod", *MODULES):
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            if key.startswith("_") or getattr(value, "__module__", None) != name:
                continue
            if inspect.isfunction(value):
                yield f"{name}.{key}", value
            elif inspect.isclass(value):
                for inner, member in vars(value).items():
                    member = getattr(member, "__func__", member)
                    if inspect.isfunction(member) and not inner.startswith("_"):
                        yield f"{name}.{key}.{inner}", member


def _methods(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yields the public methods of a class and of its bases, without properties."""
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        member = getattr(member, "__func__", member)
        if inspect.isfunction(member) and not name.startswith("_"):
            yield f"{cls.__name__}.{name}", member


def _missing_sections(value: Callable[..., Any]) -> list[str]:
    doc = inspect.getdoc(value) or ""
    found = []
    if _parameters(value) and _documented(doc) is None:
        found.append("Args")
    if not re.search(r"^Returns:\n", doc, re.MULTILINE):
        found.append("Returns")
    if not re.search(r"^Example:\n(?:.*\n)*? +>>> ", doc, re.MULTILINE):
        found.append("Example")
    return found


def test_functions_and_methods_have_all_sections() -> None:
    public = [(name, getattr(functional, name)) for name in functional.__all__]
    missing = {name: _missing_sections(value) for name, value in (*public, *_methods(Tensor))}
    wrong = [f"{n}: {', '.join(m)}" for n, m in missing.items() if m and n not in INCOMPLETE]
    assert not wrong, "\n".join(wrong)
    assert all(missing[name] for name in INCOMPLETE), "strike off what is done"


def test_documented_arguments_match_the_signature() -> None:
    wrong = []
    for name, value in _public_functions():
        documented = _documented(inspect.getdoc(value) or "")
        if documented is not None and documented != _parameters(value):
            wrong.append(f"{name}: {documented}, takes {_parameters(value)}")
    assert not wrong, "\n".join(wrong)
