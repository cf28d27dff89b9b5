"""Every example in a docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import maxmod

MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(maxmod.__path__, "maxmod.")
    if not info.name.endswith((".__main__", ".train"))
)


def _examples(name: str) -> list[doctest.DocTest]:
    """Returns the examples of a module, those of its ops included."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    module = importlib.import_module(name)
    found = finder.find(module, name)
    for function in vars(module).values():
        # The decorator of an op stands in another module, so that `find` passes the op over.
        if inspect.isfunction(function) and hasattr(function, "op"):
            found += finder.find(function, f"{name}.{function.__name__}", module=False, globs={})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", ["maxmod", *MODULES])
def test_examples(name: str, no_accelerator: None) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in _examples(name):
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_there_are_examples() -> None:
    for name in ("maxmod.tensor", "maxmod.buffer"):
        assert _examples(name)
