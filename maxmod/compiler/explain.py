"""The text of `CompiledModel.explain`: graph, steps, kernels, and why they were formed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from maxmod import ir
from maxmod.compiler.steps import RunKernel, Schedule
from maxmod.dim import Size, as_size
from maxmod.op import Kind
from maxmod.tensor_type import TensorType

if TYPE_CHECKING:
    from maxmod.compiler.fusion.group import FusionGroup


def explain(graph: ir.Graph, plan: Schedule) -> str:
    """Describes a compiled graph for a person.

    Returns:
        The optimised graph; then each step with its lines of user code and the reasons why
        producers were kept out of a kernel; then the source of every distinct kernel.
    """
    lines = ["== graph", str(graph), "", "== steps", explain_steps(graph, plan)]
    for number, source in enumerate(plan.kernels):
        lines += ["", f"== kernel {number} {source.name} ({source.dialect.value})", source.code]
    return "\n".join(lines)


def explain_steps(graph: ir.Graph, plan: Schedule) -> str:
    """Describes the steps of a schedule, one line each, with the reasons of the fusion planner."""
    names = ir.value_names(graph)
    lines = []
    for number, step in enumerate(plan.steps):
        shown = ", ".join(type.short() for type in step.types)
        if not isinstance(step, RunKernel):
            what = "view" if step.is_view else "call"
            lines.append(f"{number}: {what} {step.op.name} -> {shown}")
            continue
        assert step.group is not None
        source = plan.kernels[step.kernel]
        made = ", ".join(f"{names[v]}: {v.type.short()}" for v in step.group.outputs)
        lines.append(f"{number}: kernel {step.kernel} {source.name} -> {made}")
        read = sum_nbytes(_read_types(step.group))
        lines.append(f"     reads {read} bytes, writes {sum_nbytes(step.types)} bytes")
        places = {f"{n.source.file}:{n.source.line}" for n in step.group.ordered if n.source}
        if places:
            lines.append(f"     from {', '.join(sorted(places))}")
        lines += [f"     {reason}" for reason in dict.fromkeys(step.group.reasons)]
    return "\n".join(lines)


def _read_types(group: FusionGroup) -> list[TensorType]:
    """Returns the types of what a kernel reads; of a table that is what is looked up."""
    found = []
    for value in group.inputs:
        users = [node for node in group.nodes if value in node.inputs]
        is_table = all(n.op.kind is Kind.INDEX and n.inputs[0] is value for n in users)
        found += [node.output.type for node in users] if is_table else [value.type]
    return found


def sum_nbytes(types: Iterable[TensorType]) -> Size:
    """Returns the bytes of several values, symbolic if a size is."""
    total: Any = 0
    for type in types:
        total = total + type.nbytes
    return as_size(total)
