"""The wheel: its contents, its size, and complete metadata."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import maxmod

ROOT = Path(__file__).parents[1]
MAX_NBYTES = 1_600_000  # about 1.4 MB, a quarter of it the embedded model


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Builds the wheel of this checkout, offline."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1577836800"},
        check=True,
        capture_output=True,
        text=True,
    )
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def _metadata(wheel: zipfile.ZipFile, file: str) -> str:
    (name,) = [n for n in wheel.namelist() if n.endswith(f".dist-info/{file}")]
    return wheel.read(name).decode()


def test_size(wheel: zipfile.ZipFile) -> None:
    assert wheel.filename is not None
    assert os.path.getsize(wheel.filename) < MAX_NBYTES


def test_is_pure_python(wheel: zipfile.ZipFile) -> None:
    assert str(wheel.filename).endswith("-py3-none-any.whl")
    assert "Root-Is-Purelib: true" in _metadata(wheel, "WHEEL")


def test_the_wheel_has_every_source_file(wheel: zipfile.ZipFile) -> None:
    """Compared with the checkout, so that a new file cannot be forgotten."""
    packed = set(wheel.namelist())
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "maxmod").rglob("*.py")}
    kernels = {
        f"maxmod/_kernels/{p.relative_to(ROOT / 'kernels').as_posix()}"
        for p in (ROOT / "kernels").rglob("*")
        if p.is_file() and p.suffix != ".md"
    }
    development = {"maxmod/models/adder/train.py"}
    assert kernels
    assert sources - development <= packed
    assert kernels <= packed
    assert development.isdisjoint(packed)
    assert "maxmod/py.typed" in packed
    assert {f"maxmod/compiler/report/page.{end}" for end in ("html", "css")} <= packed


def test_the_wheel_has_the_embedded_model(wheel: zipfile.ZipFile) -> None:
    folder = ROOT / "maxmod" / "models" / "adder"
    files = {p.name for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".md")}
    assert {"config.json", "model.safetensors"} <= files
    assert {f"maxmod/models/adder/{name}" for name in files} <= set(wheel.namelist())


def test_the_wheel_has_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"maxmod", f"maxmod-{maxmod.__version__}.dist-info"}
    stray = ("__pycache__", ".pyc", ".so", "test_", "conftest")
    assert [name for name in wheel.namelist() if any(part in name for part in stray)] == []


def test_command(wheel: zipfile.ZipFile) -> None:
    assert "[console_scripts]\nmaxmod = maxmod.cli:main" in _metadata(wheel, "entry_points.txt")


def test_metadata(wheel: zipfile.ZipFile) -> None:
    found = email.message_from_string(_metadata(wheel, "METADATA"))
    assert found["Name"] == "maxmod"
    assert found["Version"] == maxmod.__version__
    assert found["Requires-Python"] == ">=3.11"
    assert found["License-Expression"] == "Apache-2.0"
    assert {"cuda12", "cuda13", "text", "progress", "html", "test", "dev"} <= set(
        found.get_all("Provides-Extra")
    )
    core = [r for r in found.get_all("Requires-Dist") if "extra ==" not in r]
    names = {re.split("[<>=!]", r)[0].strip().replace("-", "_") for r in core}
    assert names == {"numpy", "ml_dtypes", "safetensors", "platformdirs"}
    assert found.get_payload().startswith("# maxmod")


def test_core_dependencies_are_used() -> None:
    """A package that nothing imports is not asked for."""
    text = "".join(p.read_text("utf-8") for p in (ROOT / "maxmod").rglob("*.py"))
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    for requirement in project["dependencies"]:
        name = re.split("[<>=!]", requirement)[0]
        assert f"import {name}" in text or f"from {name}" in text, name


def test_changelog_has_this_version_or_unreleased_changes() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## [{maxmod.__version__}]" in text or "## [Unreleased]" in text
    assert maxmod.__version__.count(".") == 2
