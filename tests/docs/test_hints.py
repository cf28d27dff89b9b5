"""Hints name packages that pip can install: this one is not on the package index."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_hint_installs_maxmod_by_name() -> None:
    paths = [*(ROOT / "maxmod").rglob("*.py"), *(ROOT / ".docs").rglob("*.md"), ROOT / "README.md"]
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in paths
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"maxmod\[\w+\]|pip install maxmod", line)
    ]
    assert found == []
