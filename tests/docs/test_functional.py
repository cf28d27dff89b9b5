"""`maxmod.functional` and its pages are what the families of ops say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from maxmod import functional
from maxmod.ops import activation

GENERATOR = Path(__file__).parents[2] / ".docs" / "generate_functional.py"


def test_functional_and_the_pages_of_ops_are_up_to_date() -> None:
    wrong = runpy.run_path(str(GENERATOR))["stale"]()
    assert not wrong, "run: python .docs/generate_functional.py"


def test_a_new_name_makes_the_files_of_a_family_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*activation.__all__, "cube"]
    monkeypatch.setattr("maxmod.ops.activation.__all__", names)
    wrong = runpy.run_path(str(GENERATOR))["stale"]()
    assert {path.name for path in wrong} == {"functional.py", "activation.md", "functional.md"}


# What the head of the reference says once for all ops.
_SHARED = re.compile(
    r"^ +TypeError: If (\S+|an operand|an input) is (no|not a|a) tensor\.$", re.MULTILINE
)


def test_errors_of_all_ops_are_not_repeated() -> None:
    repeating = [
        name for name in functional.__all__ if _SHARED.search(getattr(functional, name).__doc__)
    ]
    assert not repeating, "the head of .docs/pages/reference/functional.md says it for all ops"
