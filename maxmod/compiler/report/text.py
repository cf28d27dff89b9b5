"""The facts as text, in lines that fit a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from maxmod.compiler.report.cost import total
from maxmod.compiler.report.facts import Facts, Intermediate, KernelFacts, StepFacts, counted
from maxmod.compiler.report.lines import INDENT, wrapped
from maxmod.compiler.report.listing import graph_text, nodes_lines
from maxmod.compiler.report.sources import parts_of
from maxmod.compiler.report.table import steps_text
from maxmod.compiler.units import plural, scaled, seconds
from maxmod.op import ir
from maxmod.values.dim import Size

SHOWN_PLACES = 8  # the largest ones, in the memory plan
SHOWN_KERNELS = 3  # those with most bytes, in the summary


def everything(facts: Facts, width: int) -> str:
    """Returns all of it: summary, graph, steps, memory, kernels."""
    sections = {
        "summary": summary(facts, width),
        "graph": graph_text(facts.graph, width),
        "steps": steps_text(facts, width, fold=True),
        "memory": memory(facts, width),
    }
    parts = [f"== {title}\n{text}" for title, text in sections.items()]
    return "\n\n".join([*parts, *(kernel(k, width) for k in facts.kernels)])


# ---- the summary ---------------------------------------------------------------------------------


def summary(facts: Facts, width: int) -> str:
    """The first thing to read: how many steps and kernels, how much they read and compute."""
    lines = [signature(facts), counts(facts), traffic(facts)]
    if facts.measured is not None:
        lines.append(f"a call takes {seconds(facts.measured.call_s)}")
    if facts.memory is not None:
        lines.append(f"memory: {facts.memory}")
    lines += slower(facts)
    lines += _heaviest(facts)
    return "\n".join(part for line in lines for part in wrapped(line, width, "", INDENT))


def slower(facts: Facts) -> list[str]:
    """Returns what ran slower than planned so far."""
    return [
        f"slower than planned, {plural(count, 'time')}: {reason}"
        for reason, count in facts.slower.items()
    ]


def signature(facts: Facts) -> str:
    """Returns the types of a call: `mlp(float32[8,64]) -> float32[8,64]`."""
    ins = ", ".join(counted(value.type.short() for value in facts.graph.inputs))
    outs = ", ".join(counted(value.type.short() for value in facts.graph.outputs))
    return f"{facts.graph.name}({ins}) -> {outs or 'nothing'}"


def counts(facts: Facts) -> str:
    """Returns what a call does, in numbers of things: `3 launches of 2 kernels, 1 call`."""
    kinds = Counter(step.kind for step in facts.running)
    launches = plural(kinds.pop("kernel", 0), "launch")
    replaced = kinds.pop("ops", 0)
    rest = [plural(count, kind) for kind, count in kinds.items()]
    if replaced:
        refused = plural(len(facts.plan.refused), "kernel")
        rest.append(f"{plural(replaced, 'step')} op by op for want of {refused}")
    count = len(facts.plan.kernels) - len(facts.plan.refused)
    return ", ".join([f"{launches} of {plural(count, 'kernel')}", *rest])


def totals(facts: Facts) -> tuple[Size, Size, Size]:
    """Returns the bytes that a call reads, those that it writes, and its operations."""
    moving = moving_steps(facts)
    reads, writes, flops = (
        facts.number(total(step.cost[column] for step in moving)) for column in range(3)
    )
    return reads, writes, flops


def traffic(facts: Facts) -> str:
    """Returns the bytes and operations of a call as words."""
    reads, writes, flops = totals(facts)
    sizes = ", ".join(f"{name}={size}" for name, size in facts.dims.items())
    return (
        f"a call reads {scaled(reads, 'B')}, writes {scaled(writes, 'B')} and computes "
        f"{scaled(flops, 'FLOP')}{f' with {sizes}' if sizes else ''}"
    )


def moving_steps(facts: Facts) -> list[StepFacts]:
    """Returns the steps that run and move bytes."""
    return [step for step in facts.running if step.kind != "view"]


def _heaviest(facts: Facts) -> Iterator[str]:
    """Which kernels move most bytes, which is mostly where the time goes."""
    moved: Counter[str] = Counter()
    for step in moving_steps(facts):
        nbytes = facts.number(total(step.cost[:2]))
        if not isinstance(nbytes, int):
            return
        moved[step.title] += nbytes
    whole = sum(moved.values())
    if whole:
        shares = [f"{n / whole:.0%} {name}" for name, n in moved.most_common(SHOWN_KERNELS)]
        yield f"most bytes: {', '.join(shares)}"


# ---- kernels -------------------------------------------------------------------------------------


def kernel(facts: KernelFacts, width: int, *, source: bool = True, whole: bool = False) -> str:
    """What a kernel computes, why it was formed, and its source.

    Args:
        facts: The kernel.
        width: Characters of a line; the source stays as it is.
        source: Show the source.
        whole: Show the files that are part of the source, too.
    """
    found = facts.source
    title = f"kernel {facts.number} {found.name} ({found.dialect.value}), used {used(facts)}"
    lines = wrapped(f"== {title}", width, "", INDENT)
    for reason in facts.reasons:
        lines += wrapped(reason, width, "- ", "  ")
    for entry in nodes_lines(facts.group.ordered, facts.names, width):
        lines += entry
    if source:
        lines += ["", found.code if whole else _shortened(facts)]
    return "\n".join(lines)


def used(facts: KernelFacts) -> str:
    """Returns how often a kernel is launched, and where first."""
    first, count = facts.uses[0], len(facts.uses)
    return f"{count} times, first in step {first}" if count > 1 else f"in step {first}"


def _shortened(facts: KernelFacts) -> str:
    """The source with the names of included files instead of their text."""
    parts: list[str] = []
    for part in parts_of(facts.source):
        note = f"// kernels/{part.file}: {plural(part.line_count, 'line')}, always the same"
        parts.append(note if part.file else part.text.strip("\n"))
    return "\n".join(parts)


# ---- memory --------------------------------------------------------------------------------------


def memory(facts: Facts, width: int) -> str:
    """Where intermediates live."""
    if facts.memory is None:
        missing = ", ".join(f"{name}=..." for name in ir.symbols(facts.graph))
        return f"known when the sizes are: explain({missing})"
    lines = wrapped(str(facts.memory), width, "", INDENT)
    found = facts.intermediates
    if found:
        apart = scaled(facts.apart_nbytes, "B")
        note = f"side by side, the intermediates would take {apart}; the largest places are:"
        lines += wrapped(note, width, "", INDENT)
        lines.append(f"{'offset':>12}  {'size':>9}  value")
    places: dict[tuple[int, int], list[Intermediate]] = {}
    for one in found:
        places.setdefault((one.offset, one.nbytes), []).append(one)
    largest = sorted(places, key=lambda place: (-place[1], place[0]))[:SHOWN_PLACES]
    for offset, nbytes in sorted(largest):
        front = f"{offset:>12}  {scaled(nbytes, 'B'):>9}  "
        values = _values(facts, places[offset, nbytes])
        lines += wrapped(values, width, front, " " * (len(front) + 2))
    return "\n".join(lines)


def _values(facts: Facts, found: list[Intermediate]) -> str:
    """The values that share a place, one after the other."""
    first = found[0]
    born, dies = (facts.running[at].number for at in (first.born, first.dies))
    text = f"{first.name}, made in step {born}, last read in step {dies}"
    return f"{text}; then {plural(len(found) - 1, 'other')}" if len(found) > 1 else text
