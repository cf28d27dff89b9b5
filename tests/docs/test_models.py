"""The table of models in README.md, and what the command `maxmod models` says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from maxmod.cli import main
from maxmod.models.architectures import KINDS
from maxmod.models.names import NAMES, supported

SCRIPT = Path(__file__).parents[2] / ".docs" / "generate_models.py"


def _script() -> Any:
    spec = importlib.util.spec_from_file_location("generate_models", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_architecture_has_a_name() -> None:
    assert set(NAMES) == {name for kinds in KINDS.values() for name in kinds}


def test_table_of_the_readme_is_fresh() -> None:
    script = _script()
    text = script.README.read_text("utf-8")
    assert script.written(text) == text, "run: python .docs/generate_models.py"
    for found in supported():
        assert found.names in script.table()


def test_command_lists_every_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("  ")]) == len(NAMES)
    start = lines.index("load_encoder, load_classifier, load_tagger, load_masked_model:")
    assert "  modernbert   ModernBERT" in lines[start:]
    assert max(map(len, lines)) < 90
