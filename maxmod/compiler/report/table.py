"""The steps of a call as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from maxmod.compiler.report import names
from maxmod.compiler.report.facts import Facts, StepFacts
from maxmod.compiler.report.lines import INDENT, folded, wrapped
from maxmod.compiler.units import scaled, seconds

_LEAST_COLUMN = 60  # characters; with fewer, the operands and results of a step get separate lines
LEAST_HIDDEN = 3  # steps; fewer are shown as they are
_UNITS = ("B", "B", "FLOP")


@dataclass(frozen=True, slots=True)
class Row:
    """A step, or several views that follow each other.

    Attributes:
        steps: The steps.
    """

    steps: list[StepFacts]

    @property
    def number(self) -> str:
        """`3`, or `3-5`."""
        return names.ranges(sorted({step.number for step in self.steps}))

    @property
    def key(self) -> tuple[str, ...]:
        """What rows of equal layers have in common."""
        step = self.steps[0]
        return (step.kind, step.condition) if self.is_view else step.key

    @property
    def is_view(self) -> bool:
        """True for what moves no bytes."""
        return self.steps[0].kind == "view"

    @property
    def runs(self) -> str:
        """What runs: `kernel 3`, or the kind of the step."""
        step = self.steps[0]
        if step.kind == "ops":
            return f"ops of {step.kernel}"
        return f"kernel {step.kernel}" if step.kernel >= 0 else step.kind

    @property
    def name(self) -> str:
        """The names of what runs, each once."""
        return ", ".join(dict.fromkeys(step.name for step in self.steps))

    @property
    def detail(self) -> str:
        """The results and operands of the step."""
        return "; ".join(step.detail for step in self.steps)

    @property
    def remark(self) -> str:
        """When it runs, the lines that it comes from, and why it is not a kernel."""
        step = self.steps[0]
        idle = "" if step.runs else "not with these sizes"
        why = ("",) if self.is_view else (names.places(step.places), step.reason)
        return ": ".join(filter(None, (step.condition, idle, *why)))

    @property
    def reads(self) -> list[str]:
        """Names of the values that it reads."""
        return [name for step in self.steps for name in step.operands]


def rows_of(facts: Facts) -> list[Row]:
    """Returns the rows of the table; views that follow each other share one."""
    rows: list[Row] = []
    for step in facts.steps:
        last = rows[-1] if rows else None
        if last and last.is_view and last.key == (step.kind, step.condition):
            last.steps.append(step)
        else:
            rows.append(Row([step]))
    return rows


def costs(facts: Facts, step: StepFacts) -> list[str]:
    """Returns the bytes that a step reads, those that it writes, and its operations."""
    return [scaled(facts.number(size), unit) for size, unit in zip(step.cost, _UNITS)]


def steps_text(facts: Facts, width: int, *, fold: bool) -> str:
    """Returns the table of what a call does, in order.

    Args:
        facts: The facts.
        width: Characters of a line.
        fold: Show the steps of equal layers once.
    """
    rows = rows_of(facts)
    # Expressions of sizes are longer than a column: they follow as words.
    is_known = all(
        isinstance(facts.number(size), int) for row in rows for size in row.steps[0].cost
    )
    cells = [_header(facts, is_known), *(_cells(facts, row, is_known) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    fronts = [_joined(row, widths) for row in cells]
    wide = width - len(fronts[0]) - 2 >= _LEAST_COLUMN
    entries = [
        [*_entry(facts, row, front, width, wide, is_known), *_body_lines(row, width, fold)]
        for row, front in zip(rows, fronts[1:])
    ]
    if not fold:
        lines = [line for entry in entries for line in entry]
    else:
        keys, reads = [row.key for row in rows], [row.reads for row in rows]
        lines = list(folded(entries, keys, reads, "step", " " * (widths[0] + 2), LEAST_HIDDEN))
    return "\n".join([f"{fronts[0]}  what", *lines])


def _header(facts: Facts, is_known: bool) -> list[str]:
    numbers = ["reads", "writes", "flops"] if is_known else []
    return ["step", "runs", *numbers, *(["time"] if facts.measured else [])]


def _cells(facts: Facts, row: Row, is_known: bool) -> list[str]:
    step = row.steps[0]
    numbers = ["", "", ""] if row.is_view else costs(facts, step)
    time = [seconds(step.time_s) if step.time_s is not None else ""] if facts.measured else []
    return [row.number, row.runs, *(numbers if is_known else []), *time]


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Joins the cells of a row: the first and the numbers to the right, what runs to the left."""
    number, runs, *rest = cells
    first = f"{number:>{widths[0]}}  {runs:<{widths[1]}}"
    return "  ".join([first, *(f"{c:>{w}}" for c, w in zip(rest, widths[2:]))])


def _entry(facts: Facts, row: Row, front: str, width: int, wide: bool, is_known: bool) -> list[str]:
    text = row.detail
    if not is_known and not row.is_view:
        reads, writes, flops = costs(facts, row.steps[0])
        text += f"; reads {reads}, writes {writes}, computes {flops}"
    text += f"  # {row.remark}" if row.remark else ""
    if wide:
        indent = " " * (len(front) + 2)
        return wrapped(f"{row.name}: {text}", width, f"{front}  ", indent + INDENT)
    if len(front) + 2 + len(row.name) > width:
        return [front.rstrip(), *wrapped(f"{row.name}: {text}", width, INDENT * 2, INDENT * 3)]
    return [f"{front}  {row.name}", *wrapped(text, width, INDENT * 2, INDENT * 3)]


def _body_lines(row: Row, width: int, fold: bool) -> Iterator[str]:
    """The steps of the graphs of a branch or loop."""
    for name, body in row.steps[0].bodies:
        yield f"{INDENT}{name}:"
        for line in steps_text(body, width - 2 * len(INDENT), fold=fold).splitlines():
            yield f"{INDENT}{INDENT}{line}"
