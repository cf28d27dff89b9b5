"""A roofline: what kernels reach, over the operations that they do for each byte.

Below the slope a kernel waits for memory, below the level part for arithmetic. Source: Williams,
Waterman and Patterson, Roofline: an insightful visual performance model, CACM 52 (4), 2009.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from maxmod.compiler.report.facts import Facts, StepFacts
from maxmod.compiler.report.svg import drawing, element
from maxmod.compiler.units import scaled

WIDTH, HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 92, 16, 16, 44
_RADIUS = 10


@dataclass(frozen=True, slots=True)
class Point:
    """All launches of a kernel, or all calls of an op.

    Attributes:
        mark: Its mark in the drawing: the number of the kernel, or a letter.
        kernel: The number of the kernel; -1 for a call.
        name: Its name.
        uses: Steps that run it.
        nbytes: Bytes that they move.
        flops: Operations that they do.
        time_s: Seconds that they take; None if they were not measured.
    """

    mark: str
    kernel: int
    name: str
    uses: int
    nbytes: int
    flops: int
    time_s: float | None

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / max(self.nbytes, 1)

    @property
    def rate(self) -> float | None:
        """Operations in a second."""
        return self.flops / self.time_s if self.time_s else None

    @property
    def bandwidth(self) -> float | None:
        """Bytes in a second."""
        return self.nbytes / self.time_s if self.time_s else None


def points(facts: Facts) -> list[Point]:
    """Returns the kernels and calls that move bytes; empty if sizes are not known."""
    if not facts.is_bound:
        return []
    found: dict[str, list[StepFacts]] = {}
    for step in facts.running:
        if step.kind != "view":
            found.setdefault(step.title, []).append(step)
    calls = iter(_letters())
    return [
        _point(facts, steps, str(steps[0].kernel) if steps[0].kernel >= 0 else next(calls))
        for steps in found.values()
    ]


def _letters() -> Iterator[str]:
    number = 0
    while True:
        letters, rest = "", number
        while rest >= 0:
            letters, rest = chr(ord("a") + rest % 26) + letters, rest // 26 - 1
        yield letters
        number += 1


def _point(facts: Facts, steps: Sequence[StepFacts], mark: str) -> Point:
    def whole(column: int) -> int:
        sizes = (facts.number(step.cost[column]) for step in steps)
        return sum(size for size in sizes if isinstance(size, int))

    times = [step.time_s for step in steps if step.time_s is not None]
    return Point(
        mark,
        steps[0].kernel,
        steps[0].name,
        len(steps),
        whole(0) + whole(1),
        whole(2),
        sum(times) if times else None,
    )


def roofline(facts: Facts) -> str:
    """Returns the chart; without times, bytes replace the measured rates."""
    shown = [point for point in points(facts) if point.flops and point.nbytes]
    measured = facts.measured
    if measured is not None:
        shown = [point for point in shown if point.rate is not None]
    if not shown:
        return ""
    heights = [point.rate or point.nbytes for point in shown]
    intensities = [point.intensity for point in shown]
    limits: list[float] = []
    if measured is not None:
        ridge = measured.flops_per_s / measured.bytes_per_s
        limits = [measured.flops_per_s]
        intensities.append(ridge)
    x = _Axis(intensities, _LEFT, WIDTH - _RIGHT)
    y = _Axis([*heights, *limits], HEIGHT - _BOTTOM, _TOP)
    unit = "FLOP/s" if measured is not None else "B"
    parts = [*_grid(x, y, unit)]
    if measured is not None:
        parts += _roof(x, y, measured.bytes_per_s, measured.flops_per_s)
    parts += [_mark(point, x.at(point.intensity), y.at(h)) for point, h in zip(shown, heights)]
    return drawing(WIDTH, HEIGHT, parts, "kernels over the operations that they do for each byte")


class _Axis:
    """A logarithmic axis around some values, from one power of ten to another."""

    def __init__(self, values: Iterable[float], start: float, end: float) -> None:
        logs = [math.log10(value) for value in values]
        self.low = math.floor(min(logs) - 0.1)
        self.high = max(math.ceil(max(logs) + 0.1), self.low + 2)
        self._start = start
        self._step = (end - start) / (self.high - self.low)

    @property
    def powers(self) -> range:
        """The powers of ten on it."""
        return range(self.low, self.high + 1)

    def at(self, value: float) -> float:
        """Where a value lies."""
        return self._start + (math.log10(value) - self.low) * self._step


def _grid(x: _Axis, y: _Axis, unit: str) -> Iterator[str]:
    for power in x.powers:
        at = x.at(10.0**power)
        yield element("path", d=f"M{at:.5g} {_TOP} V{HEIGHT - _BOTTOM}", class_="grid")
        text, y_text = f"{10.0**power:g}", HEIGHT - _BOTTOM + 17
        yield element("text", text=text, x=at, y=y_text, text_anchor="middle", class_="small")
    for power in y.powers:
        at = y.at(10.0**power)
        yield element("path", d=f"M{_LEFT} {at:.5g} H{WIDTH - _RIGHT}", class_="grid")
        text = scaled(10**power if power >= 0 else 10.0**power, unit)
        yield element("text", text=text, x=_LEFT - 8, y=at + 4, text_anchor="end", class_="small")
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    text = "FLOP per byte"
    yield element("text", text=text, x=middle, y=HEIGHT - 8, text_anchor="middle", class_="small")


def _roof(x: _Axis, y: _Axis, bytes_per_s: float, flops_per_s: float) -> Iterator[str]:
    """The slope of the memory, from the left or the lower edge, and the level of arithmetic."""
    ridge = flops_per_s / bytes_per_s
    first = max(10.0**x.low, 10.0**y.low / bytes_per_s)
    start = (x.at(first), y.at(bytes_per_s * first))
    top = y.at(flops_per_s)
    d = f"M{start[0]:.5g} {start[1]:.5g} L{x.at(ridge):.5g} {top:.5g} H{WIDTH - _RIGHT}"
    yield element("path", d=d, class_="roof")


def _mark(point: Point, x: float, y: float) -> str:
    return element(
        "g",
        element("title", text=f"{point.name}: {point.intensity:.3g} FLOP per byte"),
        element("circle", cx=x, cy=y, r=_RADIUS, class_="kernel" if point.kernel >= 0 else "call"),
        element("text", text=point.mark, x=x, y=y + 4, text_anchor="middle", class_="mark"),
    )
