"""The facts as one page of HTML that needs no other file."""

# pyright: basic
# Neither jinja2 nor Pygments says its types.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from maxmod.compiler.report import fold, text
from maxmod.compiler.report.facts import Facts, KernelFacts, StepFacts
from maxmod.compiler.report.flow import flow
from maxmod.compiler.report.lines import fold_note
from maxmod.compiler.report.listing import graph_text, nodes_lines
from maxmod.compiler.report.roofline import points, roofline
from maxmod.compiler.report.sources import Part, parts_of
from maxmod.compiler.report.table import LEAST_HIDDEN, Row, costs, rows_of
from maxmod.compiler.report.timeline import timeline
from maxmod.compiler.units import plural, scaled, seconds
from maxmod.errors import MissingPackageError
from maxmod.kernel.source import Dialect

_FOLDER = Path(__file__).parent
_LISTING_WIDTH = 100  # characters of a line in listings
_STYLES = {"light": "friendly", "dark": "github-dark"}  # of pygments
_MISSING = (
    "explain: a page needs jinja2 and pygments, which cannot be imported ({error}). "
    "Hint: pip install jinja2 pygments."
)


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table of steps.

    Attributes:
        row: The step, or views that follow each other.
        costs: Bytes read, bytes written, operations; empty for views.
        intensity: Operations for each byte.
        time: Seconds of one call.
        bandwidth: Bytes in a second.
        rate: Operations in a second.
        share: Its part of the time of all steps, or of their bytes, in percent.
        depth: 0, or 1 more for each branch or loop that it is in.
        body: The graph that it belongs to, if it is the first of it.
    """

    row: Row
    costs: list[str]
    intensity: str
    time: str
    bandwidth: str
    rate: str
    share: float
    depth: int = 0
    body: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of the table that are shown or hidden together.

    Attributes:
        note: Summary that is shown until they are expanded; empty for those always shown.
        lines: The rows.
    """

    note: str
    lines: list[Line]


def page(facts: Facts) -> str:
    """Returns the page.

    Raises:
        MissingPackageError: (an ImportError) If jinja2 or pygments is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from pygments.formatters import HtmlFormatter
    except ImportError as error:
        raise MissingPackageError(_MISSING.format(error=error)) from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string((_FOLDER / "page.html").read_text("utf-8"))
    colours = {
        scheme: HtmlFormatter(style=style).get_token_style_defs(".source")
        for scheme, style in _STYLES.items()
    }
    return template.render(
        facts=facts,
        css=(_FOLDER / "page.css").read_text("utf-8"),
        colours={scheme: "\n".join(lines) for scheme, lines in colours.items()},
        signature=text.signature(facts),
        tiles=list(_tiles(facts)),
        flow=flow(facts),
        listing=graph_text(facts.graph, _LISTING_WIDTH),
        groups=list(_groups(facts)),
        timeline=timeline(facts),
        apart=facts.apart_nbytes,
        roofline=roofline(facts),
        points=sorted(points(facts), key=lambda one: -(one.time_s or one.nbytes)),
        kernels=facts.kernels,
        files=_files(facts),
        parts_of=lambda kernel: parts_of(kernel.source),
        ops_of=_ops_of,
        used=text.used,
        highlighted=partial(_highlighted, facts),
        scaled=scaled,
        seconds=seconds,
        plural=plural,
        limits=_limits(facts),
        missing=" and ".join(_missing(facts)),
    )


def _missing(facts: Facts) -> list[str]:
    found = {s.name for value in facts.graph.inputs for s in value.type.parameters}
    return sorted(found - set(facts.dims))


def _tiles(facts: Facts) -> Iterator[tuple[str, str]]:
    """The numbers at the top: what each is called, and its value."""
    reads, writes, flops = text.totals(facts)
    launches = sum(step.kind == "kernel" for step in facts.running)
    calls = sum(step.kind == "call" for step in facts.running)
    yield "kernels", f"{len(facts.kernels)}"
    yield "launches", f"{launches}"
    if calls:
        yield "library calls and ops", f"{calls}"
    yield "read in a call", scaled(reads, "B")
    yield "written", scaled(writes, "B")
    yield "computed", scaled(flops, "FLOP")
    if facts.memory is not None:
        yield "peak memory", scaled(facts.memory.peak_nbytes, "B")
    if facts.measured is not None:
        yield "time of a call", seconds(facts.measured.call_s)
    for reason, count in facts.slower.items():
        yield f"times slower than planned: {reason}", f"{count}"


def _limits(facts: Facts) -> str:
    measured = facts.measured
    if measured is None:
        return ""
    return (
        f"Measured here: a copy moves {scaled(measured.bytes_per_s, 'B/s')}, a matrix product in "
        f"{measured.dtype} reaches {scaled(measured.flops_per_s, 'FLOP/s')}. A kernel whose data "
        f"stays in a cache can be above the slope."
    )


# ---- the table of steps --------------------------------------------------------------------------


def _groups(facts: Facts) -> Iterator[Group]:
    """The rows of the table; those of equal layers can be opened."""
    rows = rows_of(facts)
    reads = [row.reads for row in rows]
    whole = _whole(facts)
    for entry in fold.visible([row.key for row in rows], LEAST_HIDDEN):
        if isinstance(entry, int):
            yield Group("", list(_lines(facts, rows[entry], whole)))
        else:
            hidden = rows[entry.hidden.start : entry.hidden.stop]
            lines = [line for row in hidden for line in _lines(facts, row, whole)]
            yield Group(fold_note(entry, reads, "step").strip(". "), lines)


def _whole(facts: Facts) -> float:
    """The time of all steps, or their bytes without times."""
    return sum(_weight(facts, step) for step in facts.running if step.kind != "view")


def _weight(facts: Facts, step: StepFacts) -> float:
    if facts.measured is not None:
        return step.time_s or 0.0
    sizes = [facts.number(size) for size in step.cost[:2]]
    return float(sum(size for size in sizes if isinstance(size, int)))


def _lines(facts: Facts, row: Row, whole: float, depth: int = 0, body: str = "") -> Iterator[Line]:
    step = row.steps[0]
    if row.is_view:
        yield Line(row, [], "", "", "", "", 0.0, depth, body)
        return
    reads, writes, flops = (facts.number(size) for size in step.cost)
    intensity = bandwidth = rate = ""
    if isinstance(reads, int) and isinstance(writes, int) and isinstance(flops, int):
        nbytes = reads + writes
        intensity = f"{flops / nbytes:.3g}" if nbytes else ""
        if step.time_s:
            bandwidth = scaled(nbytes / step.time_s, "B/s")
            rate = scaled(flops / step.time_s, "FLOP/s") if flops else ""
    time = seconds(step.time_s) if step.time_s is not None else ""
    share = 100 * _weight(facts, step) / whole if whole and step.runs and not depth else 0.0
    yield Line(row, costs(facts, step), intensity, time, bandwidth, rate, share, depth, body)
    for name, inner in step.bodies:
        for number, below in enumerate(rows_of(inner)):
            yield from _lines(inner, below, 0.0, depth + 1, "" if number else name)


# ---- kernels -------------------------------------------------------------------------------------


def _ops_of(kernel: KernelFacts) -> str:
    entries = nodes_lines(kernel.group.ordered, kernel.names, _LISTING_WIDTH)
    return "\n".join(line for entry in entries for line in entry)


def _files(facts: Facts) -> dict[str, Part]:
    """The files that sources contain, each once."""
    parts = [part for kernel in facts.kernels for part in parts_of(kernel.source)]
    return {part.file: part for part in parts if part.file}


def _highlighted(facts: Facts, source: str) -> Any:
    """Returns text of C or CUDA as HTML with classes for its words."""
    from markupsafe import Markup
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import CLexer, CudaLexer

    is_cuda = any(kernel.source.dialect is Dialect.CUDA for kernel in facts.kernels)
    lexer = CudaLexer() if is_cuda else CLexer()
    return Markup(highlight(source.strip("\n"), lexer, HtmlFormatter(nowrap=True)))
