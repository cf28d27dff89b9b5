"""What README.md and the pages of `.docs` say is true: their Python runs, their commands print what
they show.

Each `python` block runs on its own, as a script would, in an empty folder; after the comment
`<!-- continues -->` it runs after the `python` block before it. In a `console` block,
lines after `$ maxmod ...` are the expected output; `...` matches anything, and a command without
expected lines only has to succeed. A block after the comment `<!-- not tested: REASON -->` is left
out. The table of variables lists exactly those of `maxmod.config`.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from build_cache import unoptimised_children
from test_public_names import read_names

from maxmod.config import VARIABLES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [
    README,
    *sorted((ROOT / ".docs").glob("*.md")),
    *sorted((ROOT / ".docs" / "pages").glob("*.md")),
]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_TESTED = re.compile(r"<!-- not tested: [^>]+ -->\s*\Z")
_CONTINUES = re.compile(r"<!-- continues -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str
    line: int
    tested: bool

    @property
    def end(self) -> int:
        """The line after the last one."""
        return self.line + self.text.count("\n")

    def __str__(self) -> str:
        return f"{self.page.stem} line {self.end}"


def _blocks(page: Path) -> list[Block]:
    source = page.read_text("utf-8")
    found: list[Block] = []
    for match in _FENCE.finditer(source):
        before, text = source[: match.start()], match[2]
        line = before.count("\n") + 1
        if _CONTINUES.search(before):
            earlier = [block for block in found if block.language == match[1]][-1]
            # Lines between keep the numbers of the page.
            text = earlier.text + "\n" * (line - earlier.end) + text
            line = earlier.line
        found.append(Block(page, match[1], text, line, not _NOT_TESTED.search(before)))
    return found


def _tested(language: str) -> list[Block]:
    blocks = [block for page in PAGES for block in _blocks(page)]
    return [block for block in blocks if block.language == language and block.tested]


@pytest.mark.parametrize("block", _tested("python"), ids=str)
def test_python(
    block: Block,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_accelerator: None,
    unoptimised_host_kernels: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    # Padding puts the line of the page into tracebacks.
    code = compile("\n" * block.line + block.text, str(block.page), "exec")
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
        **({} if block.page == README else unoptimised_children()),
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
    assert {block.page for block in _tested("python")} >= {README, ROOT / ".docs/pages/kernels.md"}


SCORES = """\
from maxmod import CPU, DType, Module, Tensor, TensorType
from maxmod import functional as F


class Scores(Module[[Tensor], Tensor]):
    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x * 0.125)


fast = Scores().compile(TensorType(DType.float32, ["rows", 64], CPU()))
"""


def test_the_kernel_that_is_shown() -> None:
    """The C in README is in the kernel generated for that softmax, line by line in this order."""
    (shown,) = [block for block in _blocks(README) if block.language == "c"]
    names: dict[str, Any] = {"__name__": "scores"}
    exec(compile(SCORES, "scores.py", "exec"), names)
    (kernel,) = names["fast"].kernels
    generated = iter(line.strip() for line in kernel.code.splitlines())
    head, *lines = [line.strip() for line in shown.text.splitlines()]
    assert kernel.name in head and head.partition(": ")[2] in names["fast"].explain()
    for line in lines:
        assert line in generated, line  # what comes before is passed over


def test_variables() -> None:
    page = ROOT / ".docs" / "pages" / "variables.md"
    rows = re.findall(r"^\| *`(MAXMOD_[A-Z_]+)[=`]", page.read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(variable.env_name for variable in VARIABLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_to_files_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_the_reference_names_everything() -> None:
    """Each public name has an entry: `::: path.name`, in a list of members, or a heading."""
    pages = (ROOT / ".docs/pages/reference").rglob("*.md")
    text = "\n".join(page.read_text("utf-8") for page in pages)
    entries = {path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)", text, re.MULTILINE)}
    for listed in re.findall(r"members: \[([^\]]*)\]", text):
        entries.update(name.strip() for name in listed.split(","))
    entries.update(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    entries.update(re.findall(r"`driver\.(\w+)`", text))
    faces = read_names()
    entries.update(faces.pop("maxmod.errors"))  # shown as a whole
    del faces["maxmod.dtype"]  # DType alone is meant for users
    missing = []
    for face, names in faces.items():
        if face.startswith("maxmod.array_api"):  # the standard describes them
            continue
        module = importlib.import_module(face)
        missing += [
            f"{face}.{name}"
            for name in names
            if name not in entries and not isinstance(getattr(module, name), ModuleType)
        ]
    assert not missing, "add `::: PATH` of these to a page in .docs/pages/reference"
