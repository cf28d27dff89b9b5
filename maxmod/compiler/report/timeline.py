"""The memory plan as a chart over time: the intermediates in the arena, step by step."""

from __future__ import annotations

from collections.abc import Iterator

from maxmod.compiler.memory import MemoryPlan
from maxmod.compiler.report.facts import Facts, Intermediate
from maxmod.compiler.report.svg import drawing, element
from maxmod.compiler.units import scaled

WIDTH, HEIGHT = 760, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 10, 10, 40
HUES = 6  # colours that follow each other
_TICKS = 12  # numbers at an axis, at most
_LEAST_ROOM = 7.5  # units for a character of a label


def timeline(facts: Facts) -> str:
    """Returns the chart; empty without intermediates or with symbolic sizes."""
    if facts.memory is None or not facts.intermediates:
        return ""
    scale = _Scale(len(facts.running), facts.memory)
    parts = [*_axes(facts, scale)]
    for number, one in enumerate(facts.intermediates):
        parts.append(_block(facts, one, scale, number % HUES))
    return drawing(WIDTH, HEIGHT, parts, "offsets in the arena over the steps of a call")


class _Scale:
    """Maps steps and offsets to coordinates of the chart."""

    def __init__(self, steps: int, memory: MemoryPlan) -> None:
        self.step = (WIDTH - _LEFT - _RIGHT) / max(steps, 1)
        self.byte = (HEIGHT - _TOP - _BOTTOM) / max(memory.arena_nbytes, 1)

    def x(self, step: int) -> float:
        """The left edge of a step."""
        return _LEFT + step * self.step

    def y(self, offset: int) -> float:
        """The height of an offset; 0 lies at the bottom."""
        return HEIGHT - _BOTTOM - offset * self.byte


def _block(facts: Facts, one: Intermediate, scale: _Scale, hue: int) -> str:
    x, width = scale.x(one.born), scale.step * (one.dies - one.born + 1)
    y, height = scale.y(one.offset + one.nbytes), one.nbytes * scale.byte
    born, dies = (facts.running[at].number for at in (one.born, one.dies))
    size = scaled(one.nbytes, "B")
    whole = f"{one.name}: {size} at {one.offset}, made in step {born}, last read in step {dies}"
    fits = width > _LEAST_ROOM * len(one.name) + 6 and height > 13
    label = element(
        "text", text=one.name, x=x + width / 2, y=y + height / 2 + 4, text_anchor="middle"
    )
    rect = element("rect", x=x, y=y, width=width, height=max(height, 1.0), class_=f"block h{hue}")
    return element("g", element("title", text=whole), rect, label if fits else "")


def _axes(facts: Facts, scale: _Scale) -> Iterator[str]:
    memory = facts.memory
    assert memory is not None
    right = WIDTH - _RIGHT
    for part in range(5):
        offset = memory.arena_nbytes * part // 4
        y = scale.y(offset)
        yield element("path", d=f"M{_LEFT} {y:.4g} H{right}", class_="grid")
        text = scaled(offset, "B")
        yield element("text", text=text, x=_LEFT - 6, y=y + 4, text_anchor="end", class_="small")
    count = len(facts.running)
    every = -(-count // _TICKS)
    for at in range(0, count, every):
        x = scale.x(at) + scale.step / 2
        number = str(facts.running[at].number)
        y = HEIGHT - _BOTTOM + 16
        yield element("text", text=number, x=x, y=y, text_anchor="middle", class_="small")
    middle = (_LEFT + right) / 2
    yield element("text", text="step", x=middle, y=HEIGHT - 6, text_anchor="middle", class_="small")
