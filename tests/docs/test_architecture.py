"""The architecture page: its picture and its table are those of the code."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from rooms import FLOORS

DOCS = Path(__file__).parents[2] / ".docs"
PAGE = DOCS / "ARCHITECTURE.md"
BEGIN = "<!-- rooms: the table of tests/rooms.py, held by tests/docs/test_architecture.py -->\n"


def _table() -> str:
    """Returns the rooms as a table, from the highest floor down, as in the picture."""
    rows = [
        f"| {floor} | `{room}` | {purpose} |"
        for floor, rooms in reversed([*enumerate(FLOORS)])
        for room, purpose in rooms.items()
    ]
    return "\n".join(["", "| Floor | Room | Holds |", "|---|---|---|", *rows, ""])


def test_table_of_rooms(update_golden: bool) -> None:
    text = PAGE.read_text("utf-8")
    pattern = re.compile(re.escape(BEGIN) + r"(?:\n\|.*?\n(?=\n))?", re.DOTALL)
    wanted = pattern.sub(lambda _: BEGIN + _table(), text, count=1)
    if update_golden:
        PAGE.write_text(wanted, "utf-8")
        text = wanted
    assert text == wanted, "pytest tests/docs/test_architecture.py --update-golden writes the table"


def test_picture_of_rooms() -> None:
    drawn = runpy.run_path(str(DOCS / "draw_rooms.py"))["draw"]()
    assert (DOCS / "rooms.svg").read_text("utf-8") == drawn, "run: python .docs/draw_rooms.py"


def test_longest_ways_keep_every_reachable_room() -> None:
    reduced = runpy.run_path(str(DOCS / "draw_rooms.py"))["longest_ways"]
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "LIFE_OF_RSQRT.md"])
def test_files_that_pages_name_exist(page: str) -> None:
    """Paths in code spans, such as `compiler/pipeline.py`, lead somewhere."""
    root = DOCS.parent
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text("utf-8"), flags=re.M | re.S)
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text)
    assert named
    for path in named:
        assert (root / path).exists() or (root / "maxmod" / path).exists(), path
