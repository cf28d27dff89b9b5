"""What README.md says is true: its Python runs, its commands print what it shows.

Each `python` block runs on its own, as a script would, in an empty folder. In a `console` block,
lines after `$ maxmod ...` are the expected output; `...` stands for anything, and a command without
expected lines only has to succeed. A block after the comment `<!-- not tested: REASON -->` is left
out. The table of variables lists exactly those of `maxmod.config`.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from maxmod.config import VARIABLES

README = Path(__file__).parents[2] / "README.md"
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_TESTED = re.compile(r"<!-- not tested: [^>]+ -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block of README.md."""

    language: str
    text: str
    line: int
    tested: bool

    def __str__(self) -> str:
        return f"line {self.line}"


def _blocks() -> list[Block]:
    source = README.read_text("utf-8")
    return [
        Block(
            language=match[1],
            text=match[2],
            line=source.count("\n", 0, match.start()) + 1,
            tested=not _NOT_TESTED.search(source[: match.start()]),
        )
        for match in _FENCE.finditer(source)
    ]


def _tested(language: str) -> list[Block]:
    return [block for block in _blocks() if block.language == language and block.tested]


@pytest.mark.parametrize("block", _tested("python"), ids=str)
def test_python(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_accelerator: None
) -> None:
    monkeypatch.chdir(tmp_path)
    # Padding puts the line of README.md into tracebacks.
    code = compile("\n" * block.line + block.text, str(README), "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {"__name__": "__main__"})
    expected = "\n".join(
        line.removeprefix("# prints: ")
        for line in block.text.splitlines()
        if line.startswith("# prints: ")
    )
    if expected:
        assert _matches(expected, printed.getvalue())


def _commands(block: Block) -> list[tuple[str, str]]:
    """Returns (command, expected output) of the maxmod commands of a block."""
    found: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        if command.split()[:1] == ["maxmod"]:
            found.append((command, expected))
    return found


@pytest.mark.parametrize("block", _tested("console"), ids=str)
def test_console(block: Block, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "100",
        "PYTHONPATH": str(README.parent),
    }
    for command, expected in _commands(block):
        done = subprocess.run(
            [sys.executable, "-m", "maxmod", *shlex.split(command, comments=True)[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if expected.strip():
            both = done.stdout + done.stderr  # timings, warnings
            assert _matches(expected, done.stdout) or _matches(expected, both), both


def _matches(expected: str, found: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(
        expected.strip() + "\n", found.strip() + "\n", flags
    )


def test_the_main_commands_are_tested() -> None:
    commands = [command for block in _tested("console") for command, _ in _commands(block)]
    assert any(command.startswith("maxmod generate") for command in commands)
    assert _tested("python")


def test_variables() -> None:
    rows = re.findall(r"^\| *`(MAXMOD_[A-Z_]+)[=`]", README.read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(variable.env_name for variable in VARIABLES)


def test_links_to_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README.read_text("utf-8")):
        assert (README.parent / target).exists(), target
