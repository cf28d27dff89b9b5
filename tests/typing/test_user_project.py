"""A project of a user runs, and passes pyright in strict mode without an error."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import maxmod

PROJECT = Path(__file__).parent / "project"


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project in a separate folder, as a user has it."""
    shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_project_runs(copied: Path, no_accelerator: None) -> None:
    module = importlib.import_module("project.use")
    total, text, steps = module.scripts(copied).split()
    assert float(total) == pytest.approx(float(total))
    assert (text, steps) == ("46", "1")


@pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="needs pyright")
def test_pyright_finds_nothing_but_the_mistakes(copied: Path) -> None:
    settings = {
        "include": ["project"],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "extraPaths": [str(Path(maxmod.__file__).parents[1])],
    }
    (copied / "pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=copied,
        capture_output=True,
        text=True,
        timeout=240,
    )
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == 4, done.stderr
    lines = [
        f"{Path(d['file']).name}:{d['range']['start']['line'] + 1}: {d['message']}"
        for d in found["generalDiagnostics"]
    ]
    assert not lines, "\n".join(lines)
