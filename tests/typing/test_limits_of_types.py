"""How much of the package type checkers see: few annotations say `Any`, three rooms are strict."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import maxmod

PACKAGE = Path(maxmod.__file__).parent
PROJECT = PACKAGE.parent / "pyproject.toml"
STRICT = {"maxmod/values", "maxmod/op", "maxmod/compiler"}
MOST_LINES = 300  # of 49,000; before arrays and numbers had types, 1,260

# Files of strict rooms that are checked as the others are.
LENIENT = {"compiler/report/page.py": "jinja2 and Pygments do not say their types"}


def _lines_with_any() -> list[str]:
    return [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"\bAny\b", line) and "import" not in line
    ]


def test_few_annotations_say_any() -> None:
    found = _lines_with_any()
    assert any(line.startswith("values/array.py") for line in found)
    assert len(found) < MOST_LINES, "\n".join(found)


@pytest.mark.skipif(not PROJECT.exists(), reason="needs a checkout")
def test_values_ops_and_the_compiler_are_checked_strictly() -> None:
    settings = tomllib.loads(PROJECT.read_text("utf-8"))["tool"]["pyright"]
    assert set(settings["strict"]) == STRICT
    assert all((PACKAGE.parent / room).is_dir() for room in STRICT)


def test_strict_files_opt_out_for_a_reason() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for room in STRICT
        for path in (PACKAGE.parent / room).rglob("*.py")
        if "# pyright: basic" in path.read_text("utf-8")
    }
    assert found == LENIENT.keys()
