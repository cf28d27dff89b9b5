"""Numbers of a GPU, a line of JSON each as soon as it is known, and the table that they make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

FILE = "numbers.jsonl"


class Goal(NamedTuple):
    """What is wanted of a number on one H200, and what the hardware allows."""

    goal: float
    limit: float


# Tokens per second of one sequence. Limits: the bytes of the weights at 4.3 TB/s, the speed of a
# device copy. Goals: ahead of the best peer that was published or scaled to an H200.
GOALS = {
    "decode 8B bf16": Goal(265, 286),
    "decode 8B int8": Goal(480, 573),
    "decode 8B int4": Goal(680, 1042),
    "decode 1B bf16": Goal(1400, 1740),
    "decode GPT-2 bf16": Goal(5500, 17400),
    "prefill 8B 2048": Goal(45000, 54500),
    "load": Goal(25, 55),
}


def append(out: Path, row: dict[str, Any]) -> None:
    """Adds a line; it is in the file when this returns."""
    with (out / FILE).open("a", encoding="utf-8") as file:
        file.write("\n" * _is_cut_off(out / FILE) + json.dumps(row) + "\n")


def _is_cut_off(path: Path) -> bool:
    """True if the last line was not written to its end."""
    return path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0


class Part:
    """The numbers of a part.

    Args:
        out: The folder.
        name: Of the part.
    """

    def __init__(self, out: Path, name: str) -> None:
        self._out = out
        self._name = name

    def number(self, case: str, contender: str, value: float, unit: str) -> None:
        """Notes a number."""
        row = {"part": self._name, "case": case, "contender": contender}
        append(self._out, {**row, "value": value, "unit": unit})

    def attempt(self, case: str, contender: str, work: Callable[[], object]) -> Any:
        """Does something that may fail; then that is noted, and None returned."""
        try:
            return work()
        except (Exception, SystemExit) as error:
            row = {"part": self._name, "case": case, "contender": contender}
            append(self._out, {**row, "error": f"{type(error).__name__}: {error}"[:500]})
            return None


def rows(out: Path) -> list[dict[str, Any]]:
    """Returns all lines; one that was cut off is left out."""
    found: list[dict[str, Any]] = []
    path = out / FILE
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _is_own(row: dict[str, Any]) -> bool:
    return row["contender"].startswith("maxmod")


def table(out: Path) -> str:
    """Returns all cases with what was measured, the limit, the goal and the best peer."""
    cases: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows(out):
        if "case" in row:
            cases.setdefault((row["part"], row["case"]), []).append(row)
    lines = [
        "| part | case | unit | measured | limit | goal | best peer |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (part, case), found in cases.items():
        lines.append(f"| {part} | {case} | " + " | ".join(_cells(case, found)) + " |")
    ended = [row for row in rows(out) if "exit_status" in row]
    notes = [f"- {r['part']}: exit status {r['exit_status']}, {r['seconds']} s" for r in ended]
    return "\n".join([*lines, "", *notes, ""])


def _cells(case: str, found: list[dict[str, Any]]) -> list[str]:
    values = [row for row in found if "value" in row]
    errors = "; ".join(f"{row['contender']}: {row['error']}" for row in found if "error" in row)
    goal = GOALS.get(case)
    own = [row for row in values if _is_own(row)]
    limits = [row for row in values if row["contender"].startswith("limit")]
    peers = [row for row in values if row not in own and row not in limits]
    best = max(peers, key=lambda row: row["value"], default=None)
    shown = max((row["value"] for row in own), default=None)
    limit = max((row["value"] for row in limits), default=goal.limit if goal else None)
    unit = values[0]["unit"] if values else ""
    peer = f"{best['value']:.4g} ({best['contender']})" if best else "-"
    numbers = [shown, limit, goal.goal if goal else None]
    cells = ["-" if number is None else f"{number:.4g}" for number in numbers]
    return [unit, cells[0] + (f" ({errors})" if errors else ""), *cells[1:], peer]
