"""Draws the rooms of maxmod and their imports: `python .docs/draw_rooms.py` writes `rooms.svg`.

The floors are those of `tests/rooms.py`, the arrows are read from the imports. An arrow is
left out where a longer way leads to the same room, so that the picture shows the way up, not every
import. `tests/docs/test_architecture.py` fails when the picture is not that of the code.
"""

from __future__ import annotations

import html
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from rooms import FLOORS, SOURCES, imports_of, room_of, trees

PICTURE = Path(__file__).with_name("rooms.svg")

WIDTH = 1120
ROW = 92  # from one floor to the next
BOX_HEIGHT = 56
MARGIN = 44  # for the number of the floor
GAP = 26  # between two boxes at least
LETTER = 6.1  # width of a letter of the purpose, in pixels

_STYLE = """
  svg { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
  .paper { fill: #ffffff; }
  .box { fill: #eef1fb; stroke: #5566bb; stroke-width: 1.2; }
  .name { fill: #1d2550; font-size: 15px; font-weight: 600; text-anchor: middle; }
  .purpose { fill: #4a5278; font-size: 11px; text-anchor: middle; }
  .floor { fill: #8a90ab; font-size: 12px; text-anchor: middle; }
  .line { stroke: #d9dcea; stroke-width: 1; }
  .arrow { fill: none; stroke: #8d97c8; stroke-width: 1.3; }
  .head { fill: #8d97c8; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #14161f; }
    .box { fill: #232842; stroke: #8290d8; }
    .name { fill: #eef0ff; }
    .purpose { fill: #b4bbdd; }
    .floor { fill: #767c9a; }
    .line { stroke: #262a3c; }
    .arrow { stroke: #5d689f; }
    .head { fill: #5d689f; }
  }
"""


@dataclass(frozen=True)
class Box:
    """A room in the picture, by its centre and its width."""

    name: str
    lines: tuple[str, ...]
    x: float
    y: float
    width: float


def imports() -> dict[str, set[str]]:
    """Returns the rooms that each room imports."""
    found: dict[str, set[str]] = {room: set() for level in FLOORS for room in level}
    for name, tree in trees().items():
        targets = {room_of(target) for _, target in imports_of(name, tree) if target in SOURCES}
        found[room_of(name)] |= targets - {room_of(name)}
    return found


def longest_ways(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Drops each arrow to a room that another imported room leads to as well."""
    below: dict[str, set[str]] = {}

    def reach(room: str) -> set[str]:
        if room not in below:
            below[room] = set().union(*({t} | reach(t) for t in graph[room]))
        return below[room]

    return {
        room: {t for t in targets if not any(t in reach(other) for other in targets)}
        for room, targets in graph.items()
    }


def _wrapped(text: str, columns: int) -> tuple[str, ...]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= columns:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return tuple(lines)


def _row(rooms: dict[str, str], y: float, order: dict[str, float]) -> list[Box]:
    """Places the rooms of a floor side by side, near the rooms that they import."""
    names = sorted(rooms, key=lambda name: order.get(name, 0.5))
    most = (WIDTH - MARGIN) / len(names) - GAP
    boxes = []
    for number, name in enumerate(names):
        lines = _wrapped(rooms[name], int(min(most, 250) / LETTER) - 2)
        width = min(most, 24 + max(len(line) for line in (*lines, name + "  ")) * LETTER)
        x = MARGIN + (WIDTH - MARGIN) * (number + 0.5) / len(names)
        boxes.append(Box(name, lines, x, y, width))
    return boxes


def _place(levels: tuple[dict[str, str], ...], arrows: dict[str, set[str]]) -> dict[str, Box]:
    boxes: dict[str, Box] = {}
    for level, rooms in enumerate(levels):
        y = (len(levels) - level - 0.5) * ROW
        order = {
            room: sum(boxes[t].x for t in arrows[room]) / len(arrows[room])
            for room in rooms
            if arrows[room]
        }
        boxes.update({box.name: box for box in _row(rooms, y, order)})
    return boxes


def _arrow(above: Box, below: Box) -> str:
    """A curve from the lower edge of a box to the upper edge of one that it imports."""
    x0, y0 = above.x, above.y + BOX_HEIGHT / 2
    x1, y1 = below.x, below.y - BOX_HEIGHT / 2 - 6
    shift = max(-0.4, min(0.4, (above.x - below.x) / WIDTH)) * below.width
    x1 += shift
    bend = max(24.0, (y1 - y0) / 2)
    return (
        f'<path class="arrow" d="M{x0:.0f} {y0:.0f} C{x0:.0f} {y0 + bend:.0f} '
        f'{x1:.0f} {y1 - bend:.0f} {x1:.0f} {y1:.0f}"/>'
        f'<path class="head" d="M{x1 - 4:.0f} {y1:.0f} h8 l-4 6 z"/>'
    )


def _box(box: Box) -> str:
    height = BOX_HEIGHT
    top = box.y - 4 - 6.5 * (len(box.lines) - 1)
    lines = "".join(
        f'<text class="purpose" x="{box.x:.0f}" y="{top + 15 + 13 * n:.0f}">'
        f"{html.escape(line.replace('`', ''))}</text>"
        for n, line in enumerate(box.lines)
    )
    return (
        f'<rect class="box" x="{box.x - box.width / 2:.0f}" y="{box.y - height / 2:.0f}" '
        f'width="{box.width:.0f}" height="{height}" rx="6"/>'
        f'<text class="name" x="{box.x:.0f}" y="{top:.0f}">{html.escape(box.name)}</text>{lines}'
    )


def draw() -> str:
    """Returns the picture as SVG."""
    levels = FLOORS
    arrows = longest_ways(imports())
    boxes = _place(levels, arrows)
    height = len(levels) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The rooms of maxmod: each imports from lower floors only">',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
    ]
    for level in range(len(levels)):
        y = (len(levels) - level) * ROW
        parts.append(f'<text class="floor" x="16" y="{y - ROW / 2 + 4:.0f}">{level}</text>')
        if level:
            parts.append(f'<path class="line" d="M0 {y} H{WIDTH}"/>')
    parts += [
        _arrow(boxes[room], boxes[target])
        for room in sorted(arrows)
        for target in sorted(arrows[room])
    ]
    parts += [_box(box) for box in boxes.values()]
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
    print(f"{PICTURE.name}: {len(FLOORS)} floors")
