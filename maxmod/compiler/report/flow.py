"""The order of the steps, drawn: a box for each step, and lines for what it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from maxmod.compiler.report import fold
from maxmod.compiler.report.facts import Facts
from maxmod.compiler.report.lines import fold_note
from maxmod.compiler.report.svg import drawing, element
from maxmod.compiler.report.table import LEAST_HIDDEN, Row, rows_of
from maxmod.compiler.units import plural

_BOXES = 610  # width of the boxes; the lines are left of them
_LANE = 11  # between two lines
_HEIGHT, _GAP, _TOP = 30, 14, 4
_CHARACTERS = 84  # of the small font, in a box
_BEND = 7  # radius of a corner


class _Box:
    """A box of the drawing."""

    def __init__(self, kind: str, title: str, note: str, rows: Sequence[Row] = ()) -> None:
        self.kind = kind
        self.title = title
        self.note = note
        self.rows = rows


def flow(facts: Facts) -> str:
    """Returns the drawing; equal layers are one box, and weights are counted."""
    boxes = [_Box("end", "arguments", ""), *_boxes(facts), _Box("end", "results", "")]
    edges = _edges(facts, boxes)
    lanes = _lanes(edges)
    left = 24 + _LANE * (1 + max(lanes.values(), default=-1))
    places = [_TOP + number * (_HEIGHT + _GAP) for number in range(len(boxes))]
    parts = [
        part for source in edges for part in _lines(source, edges[source], lanes, left, places)
    ]
    parts += [part for box, y in zip(boxes, places) for part in _drawn(box, left, y)]
    height = places[-1] + _HEIGHT + _TOP
    title = f"the {plural(len(facts.running), 'step')} of a call"
    return drawing(left + _BOXES + 2, height, parts, title)


def _boxes(facts: Facts) -> Iterator[_Box]:
    rows = [row for row in rows_of(facts) if row.steps[0].runs]
    reads = [row.reads for row in rows]
    for entry in fold.visible([row.key for row in rows], LEAST_HIDDEN):
        if isinstance(entry, int):
            yield _box(facts, rows[entry])
        else:
            hidden = rows[entry.hidden.start : entry.hidden.stop]
            yield _Box("fold", fold_note(entry, reads, "step"), "", hidden)


def _box(facts: Facts, row: Row) -> _Box:
    weights = len({name for name in row.reads if name.startswith("@")})
    values = {name: value for value, name in facts.names.items()}
    made = [values[name] for step in row.steps for name in step.results if name in values]
    types = [value.type.with_sizes(tuple(map(facts.number, value.type.sizes))) for value in made]
    notes = [type.short() for type in types[-1:]]
    notes += [plural(weights, "weight")] if weights else []
    kind = row.runs.split()[0]
    return _Box(kind, f"{row.number}  {row.name}", ", ".join(notes), [row])


def _edges(facts: Facts, boxes: Sequence[_Box]) -> dict[int, list[int]]:
    """Returns the boxes that read what a box makes, in order; weights are not drawn."""
    made = {facts.names[value]: 0 for value in facts.graph.inputs}
    for number, box in enumerate(boxes):
        made.update((name, number) for row in box.rows for s in row.steps for name in s.results)
    found: set[tuple[int, int]] = set()
    for number, box in enumerate(boxes):
        read = {name for row in box.rows for name in row.reads}
        found.update((made[name], number) for name in read if made.get(name, number) < number)
    results = [facts.names[value] for value in facts.graph.results]
    found.update((made[name], len(boxes) - 1) for name in results if name in made)
    edges: dict[int, list[int]] = {}
    for source, target in sorted(found):
        edges.setdefault(source, []).append(target)
    return edges


def _lanes(edges: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Returns a lane for the line of each source that is read beyond its neighbour, short ones
    first: lines in a lane do not touch.
    """
    spans = {source: (source, targets[-1]) for source, targets in edges.items()}
    taken: list[list[tuple[int, int]]] = []
    found: dict[int, int] = {}
    for source, (begin, end) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
        if end == begin + 1:
            continue
        free = (n for n, lane in enumerate(taken) if all(b >= end or e <= begin for b, e in lane))
        found[source] = lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((begin, end))
    return found


def _lines(
    source: int,
    targets: Sequence[int],
    lanes: Mapping[int, int],
    left: int,
    places: Sequence[int],
) -> Iterator[str]:
    """An arrow to the next box, and a line next to the boxes to later ones."""
    if targets[0] == source + 1:
        yield _arrow(f"M{left + 40} {places[source] + _HEIGHT} V{places[source + 1] - 3}")
    if source not in lanes:
        return
    x, first = left - 18 - _LANE * lanes[source], places[source] + _HEIGHT // 2 + 5
    for target in targets:
        if target > source + 1:
            last = places[target] + _HEIGHT // 2 - 5
            yield _arrow(
                f"M{left} {first} H{x + _BEND} q{-_BEND} 0 {-_BEND} {_BEND} "
                f"V{last - _BEND} q0 {_BEND} {_BEND} {_BEND} H{left - 4}"
            )


def _arrow(d: str) -> str:
    return element("path", d=d, class_="edge", marker_end="url(#to)")


def _drawn(box: _Box, left: int, y: int) -> str:
    room = _CHARACTERS - len(box.title)
    note = box.note if len(box.note) <= room else ""
    title = box.title if room > 0 else box.title[: _CHARACTERS - 1] + "…"
    right = left + _BOXES
    return element(
        "g",
        element("title", text=f"{box.title}: {box.note}" if box.note else box.title),
        element("rect", x=left, y=y, width=_BOXES, height=_HEIGHT, rx=5, class_=f"box {box.kind}"),
        element("text", text=title, x=left + 10, y=y + 20),
        element("text", text=note, x=right - 10, y=y + 20, text_anchor="end", class_="small"),
    )
