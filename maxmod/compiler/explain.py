"""What was compiled, as text for a person: summary, graph, steps, kernels, memory."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from maxmod.compiler.memory import MemoryPlan
from maxmod.compiler.steps import Choice, RunKernel, RunOp, RunProduct, Schedule, Step
from maxmod.op import ir
from maxmod.op.op import Kind
from maxmod.values.dim import Size, as_size, evaluate, product
from maxmod.values.tensor_type import TensorType

if TYPE_CHECKING:
    from maxmod.compiler.groups.group import FusionGroup

SHOWN_INTERMEDIATES = 8  # the largest ones, in the memory plan
FOLDED_LINES = 3  # fewer are shown as they are
SHOWN_KERNELS = 3  # those with most bytes, in the summary
_PREFIXES = ("", "k", "M", "G", "T")
_INDENT = "    "
HEADER = ("step", "runs", "reads", "writes", "flops")
# Why an op runs by itself.
_REASONS = {
    Kind.CONTRACT: "left to the matrix library",
    Kind.REDUCE: "kernels reduce the last axis only",
}
_NO_KERNEL = "there is no generated kernel for it"


class Explanation:
    """What was compiled; `str` gives all of it.

    Args:
        graph: The optimised graph.
        plan: Its schedule, with the groups.
        dims: The value of each named size, to show numbers in place of expressions; may be empty.
        memory: The memory plan for these sizes; None if they are not known.
    """

    def __init__(
        self,
        graph: ir.Graph,
        plan: Schedule,
        dims: Mapping[str, int] = MappingProxyType({}),
        memory: MemoryPlan | None = None,
    ) -> None:
        self.graph = graph
        self.plan = plan
        self.dims = dims
        self.memory = memory
        self._values = ir.value_names(graph)
        self._names = list(self._values.values())  # slots count the values of a graph in order
        # What runs with these sizes; where they are not known, what runs for many rows.
        known = all(name in dims for name in ir.symbols(graph))
        self._steps = plan.bound_steps(dims) if known else plan.steps_for_many
        self._bodies = {
            step.outputs[0]: self._explained(step)
            for step in plan.all_steps
            if isinstance(step, RunOp) and step.bodies
        }

    def _explained(self, step: RunOp) -> dict[str, Explanation]:
        """Returns the explanation of each graph of a branch or loop, by its name."""
        assert step.node is not None
        graphs = step.node.kwargs
        kernels = self.plan.kernels
        dims = self.dims
        return {
            name: Explanation(graphs[name], replace(body, kernels=kernels), dims)
            for name, body in step.bodies
        }

    def __str__(self) -> str:
        sections = {
            "summary": self.summary(),
            "graph": str(self.graph),
            "steps": self.steps(),
            "memory": self.memory_text(),
        }
        parts = [f"== {title}\n{text}" for title, text in sections.items()]
        return "\n\n".join([*parts, *map(self.kernel, range(len(self.plan.kernels)))])

    # ---- the summary -----------------------------------------------------------------------------

    def summary(self) -> str:
        """The first thing to read: how many steps and kernels, how much they read and compute."""
        graph, plan = self.graph, self.plan
        kinds = Counter(map(_kind, self._steps))
        launches = kinds.pop("kernel", 0)
        rest = [_plural(count, kind) for kind, count in kinds.items()]
        rows = self._rows()
        ins = ", ".join(_counted(value.type.short() for value in graph.inputs))
        outs = ", ".join(value.type.short() for value in graph.outputs)
        sizes = ", ".join(f"{name}={size}" for name, size in self.dims.items())
        lines = [
            f"{graph.name}({ins}) -> {outs or 'nothing'}",
            f"{launches} launches of {len(plan.kernels)} kernels{''.join(f', {r}' for r in rest)}",
            f"a call reads {self._bytes(_total(row.reads for row in rows))}, writes "
            f"{self._bytes(_total(row.writes for row in rows))} and computes "
            f"{self._flops(_total(row.flops for row in rows))}{f' with {sizes}' if sizes else ''}",
        ]
        if self.memory is not None:
            lines.append(f"memory: {self.memory}")
        return "\n".join([*lines, *self._heaviest(rows)])

    def reads(self) -> Size:
        """Bytes that a call reads, each value as often as a step reads it."""
        return self._number(_total(row.reads for row in self._rows()))

    def _rows(self) -> list[_Row]:
        """The steps that move bytes."""
        return [row for step in self._steps if (row := self._row(step)).what != "view"]

    def _heaviest(self, rows: Sequence[_Row]) -> Iterator[str]:
        """Which kernels move most bytes, which is mostly where the time goes."""
        moved: Counter[str] = Counter()
        for row in rows:
            nbytes = self._number(row.reads + row.writes)
            if not isinstance(nbytes, int):
                return
            moved[f"{row.what} {row.name}"] += nbytes
        total = sum(moved.values())
        if total:
            shares = [f"{n / total:.0%} {name}" for name, n in moved.most_common(SHOWN_KERNELS)]
            yield f"most bytes: {', '.join(shares)}"

    # ---- the steps -------------------------------------------------------------------------------

    def steps(self, *, fold: bool = False) -> str:
        """A table of what a call does, in order; views that follow each other share a line.

        Args:
            fold: Show the steps of equal layers once.
        """
        rows: list[tuple[str, ...]] = [HEADER]
        texts = ["result = what runs (what it reads)"]
        keys: list[Any] = [None]
        bodies: dict[int, int] = {}  # lines of branches and loops, with their first result
        for number, row in self._numbered_rows():
            if row.what == "view" and keys[-1] == "view":
                first = rows[-1][0].split("-")[0]
                last = f"-{number}" if first != str(number) else ""
                rows[-1] = (f"{first}{last}", *rows[-1][1:])
                texts[-1] += f"; {row.text}"
                continue
            numbers = (self._bytes(row.reads), self._bytes(row.writes), self._flops(row.flops))
            blank = row.what == "view"
            rows.append((str(number), row.what, *(("", "", "") if blank else numbers)))
            texts.append(row.text + (f"   # {row.remark}" if row.remark and not blank else ""))
            keys.append("view" if row.what == "view" else (row.what, row.name))
            if row.body >= 0:
                bodies[len(texts) - 1] = row.body
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
        lines = [
            " ".join(cell.rjust(width) for cell, width in zip(row, widths)) + f"  {text}"
            for row, text in zip(rows, texts)
        ]
        for number, step in bodies.items():
            lines[number] += "".join(self._body_lines(step, fold))
        return "\n".join(_folded(lines, keys) if fold else lines)

    def _body_lines(self, first_output: int, fold: bool) -> Iterator[str]:
        """The steps of the graphs of a branch or loop, each line after a line break."""
        for name, body in self._bodies[first_output].items():
            yield f"\n{_INDENT}{name}:"
            for line in body.steps(fold=fold).splitlines():
                yield f"\n{_INDENT}{_INDENT}{line}"

    def _numbered_rows(self) -> Iterator[tuple[int, _Row]]:
        """The steps with their numbers; both ways of a choice have one number."""
        for number, step in enumerate(self.plan.steps):
            if not isinstance(step, Choice):
                yield number, self._row(step)
                continue
            for way, sign in ((step.few, "<="), (step.many, ">")):
                for one in way:
                    row = self._row(one)
                    condition = f"if {step.rows} {sign} {step.limit}"
                    remark = ": ".join(filter(None, (condition, row.remark)))
                    yield number, replace(row, remark=remark)

    def _name(self, slot: int) -> str:
        return self._names[slot] if slot < len(self._names) else "scratch"

    def _row(self, step: Step) -> _Row:
        made = ", ".join(map(self._name, step.outputs))
        read = ", ".join(map(self._name, step.inputs))
        writes = sum_nbytes(step.types)
        if isinstance(step, RunProduct):
            return self._product_row(step)
        if isinstance(step, RunKernel):
            assert step.group is not None
            buffers = ", ".join(self._name(slot) for slot in step.targets if slot >= 0)
            in_place = f", stored in {buffers}" if buffers else ""
            name = self.plan.kernels[step.kernel].name
            return _Row(
                f"kernel {step.kernel}",
                name,
                sum_nbytes(_read_types(step.group)),
                sum_nbytes(_written_types(step.group)),
                _total(map(_flops_of, step.group.ordered)),
                f"{made} = {name}({read}){in_place}",
                _places(step.group),
            )
        node = step.node
        assert node is not None
        what, name = _kind(step), step.op.name
        reads = sum_nbytes(value.type for value in node.inputs)
        if what == "store":
            reads = writes = sum_nbytes(value.type for value in node.inputs[1:])
        is_left = what == "call" and self.plan.kernels
        reason = _REASONS.get(step.op.kind, _NO_KERNEL) if is_left else ""
        remark = ": ".join(filter(None, (ir.place(node), reason)))
        text = f"{made} = {name}({read})"
        body = step.outputs[0] if step.bodies else -1
        return _Row(what, name, reads, writes, _flops_of(node), text, remark, body)

    def _product_row(self, step: RunProduct) -> _Row:
        """What the matrix library does; the text is the formula."""
        assert step.group is not None
        made, (left, right, *added) = self._name(step.outputs[0]), map(self._name, step.inputs)
        formula = " + ".join([f"matmul({left}, {right})", *added])
        formula = f"{step.activation}({formula})" if step.activation else formula
        is_left = step.has_epilogue or self.plan.kernels
        reason = _REASONS[Kind.CONTRACT] if is_left else ""
        return _Row(
            "call",
            step.name,
            sum_nbytes(value.type for value in step.group.inputs),
            sum_nbytes(step.types),
            _total(map(_flops_of, step.group.ordered)),
            f"{made} = {formula}",
            ": ".join(filter(None, (_places(step.group), reason))),
        )

    # ---- the kernels -----------------------------------------------------------------------------

    def kernel(self, number: int, *, source: bool = True) -> str:
        """What a kernel computes, why it was formed, and its source."""
        kernel = self.plan.kernels[number]
        uses = list(self._uses(number))
        at, step, values = uses[0]
        assert step.group is not None
        often = f"{len(uses)} times, first in step {at}" if len(uses) > 1 else f"in step {at}"
        lines = [f"== kernel {number} {kernel.name} ({kernel.dialect.value}), used {often}"]
        lines += [f"- {reason}" for reason in dict.fromkeys(_reasons(step.group))]
        lines += [ir.format_node(node, values, ir.place(node)) for node in step.group.ordered]
        return "\n".join([*lines, "", kernel.code] if source else lines)

    def _uses(self, number: int) -> Iterator[tuple[str, RunKernel, Mapping[ir.Value, str]]]:
        """The steps that launch a kernel: where they stand, and the names of values there."""
        for at, top in enumerate(self.plan.steps):
            for step in top.steps if isinstance(top, Choice) else (top,):
                if isinstance(step, RunKernel) and step.kernel == number:
                    yield str(at), step, self._values
                for name, body in self._bodies.get(step.outputs[0], {}).items():
                    for inner, found, values in body._uses(number):
                        yield f"{at}, {name} {inner}", found, values

    # ---- memory ----------------------------------------------------------------------------------

    def memory_text(self) -> str:
        """Where intermediates live."""
        if self.memory is None:
            missing = ", ".join(f"{name}=..." for name in ir.symbols(self.graph))
            return f"known when the sizes are: explain({missing})"
        offsets = self.memory.offsets
        died = {slot: at for at, step in enumerate(self._steps) for slot in step.frees}
        found = []  # (bytes, offset, step that makes it, slot)
        for number, step in enumerate(self._steps):
            for slot, type in zip(step.outputs, step.types):
                if slot in offsets:
                    found.append((evaluate(type.nbytes, self.dims), offsets[slot], number, slot))
        largest = sorted(found, reverse=True)[:SHOWN_INTERMEDIATES]
        lines = [str(self.memory)]
        if largest:
            lines.append("the largest intermediates, by their place in the arena:")
        for nbytes, offset, born, slot in sorted(largest, key=lambda entry: entry[1:]):
            steps = f"made in step {born}, read until step {died[slot]}"
            lines.append(f"{offset:>12} {self._bytes(nbytes):>10}  {self._name(slot)}, {steps}")
        return "\n".join(lines)

    # ---- numbers ---------------------------------------------------------------------------------

    def _number(self, size: Size) -> Size:
        """The value of a size if its names have one, else the size."""
        if isinstance(size, int) or any(s.name not in self.dims for s in size.parameters):
            return size
        return evaluate(size, self.dims)

    def _bytes(self, size: Size) -> str:
        return _scaled(self._number(size), "B")

    def _flops(self, size: Size) -> str:
        return _scaled(self._number(size), "FLOP")


@dataclass(frozen=True, slots=True)
class _Row:
    """One step: what runs, how much it moves and computes, and how it is written."""

    what: str
    name: str
    reads: Any
    writes: Any
    flops: Any
    text: str
    remark: str
    body: int = -1  # the first result of a branch or loop


def _places(group: FusionGroup) -> str:
    """The lines of user code that a group comes from."""
    return ", ".join(dict.fromkeys(filter(None, map(ir.place, group.ordered))))


def _kind(step: Step) -> str:
    if isinstance(step, RunKernel):
        return "kernel"
    if isinstance(step, RunProduct):
        return "call"
    if step.bodies:
        return step.op.name
    return "store" if step.in_place else "view" if step.is_view else "call"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith('ch') else 's'}"


def _scaled(number: Size, unit: str) -> str:
    if not isinstance(number, int):
        return f"{number} {unit}"
    power = min((len(str(number)) - 1) // 3, len(_PREFIXES) - 1)
    return f"{number / 1000**power:.4g} {_PREFIXES[power]}{unit}"


def _counted(texts: Iterable[str]) -> Iterator[str]:
    """Writes equal neighbours once, with their number."""
    for text, same in itertools.groupby(texts):
        count = len(list(same))
        yield f"{count} x {text}" if count > 1 else text


def _folded(lines: Sequence[str], keys: Sequence[Any]) -> list[str]:
    """Replaces steps that repeat the ones before them, as equal layers do, by one line."""
    start, period, repeats = max(
        (
            (start, period, _repeats(keys, start, period))
            for period in range(1, len(keys) // 2 + 1)
            for start in range(1, len(keys) - 2 * period + 1)
        ),
        key=lambda found: (found[1] * found[2], -found[1]),
        default=(0, 0, 0),
    )
    if period * repeats < FOLDED_LINES:
        return [*lines]
    times = "once more" if repeats == 1 else f"{repeats} more times"
    end = start + period
    what = "line" if period == 1 else f"{period} lines"
    note = f"... the last {what} {times}, for other weights ..."
    return [*lines[:end], note, *lines[end + repeats * period :]]


def _repeats(keys: Sequence[Any], start: int, period: int) -> int:
    """How often the keys after `start` come again."""
    count = 0
    block = keys[start : start + period]
    while keys[start + (count + 1) * period : start + (count + 2) * period] == block:
        count += 1
    return count


def _reasons(group: FusionGroup) -> Iterator[str]:
    """Why a kernel was formed, then what joined it or was kept out of it and why."""
    count = sum(node.op.kind not in (Kind.VIEW, Kind.SOURCE) for node in group.ordered)
    if group.template is not None and not group.reasons:
        yield "a matrix product"
    elif group.template is None and count > 1:
        yield (
            f"{count} ops on rows of {group.domain[-1]}: a row is read once and stays in the cache"
            if group.is_row
            else f"{count} ops on the same elements: nothing between them goes to memory"
        )
    yield from group.reasons


def _flops_of(node: ir.Node) -> Size:
    """One operation for each element that an op makes, or that a reduction takes."""
    if node.op.kind is Kind.ELEMENTWISE:
        return product(node.output.type.sizes)
    if node.op.kind is Kind.CONTRACT:
        return product((2, *node.output.type.sizes, node.inputs[0].type.sizes[-1]))
    if node.op.kind in (Kind.REDUCE, Kind.COMPOSITE):
        return product(node.inputs[0].type.sizes)
    return 0


def _read_types(group: FusionGroup) -> list[TensorType]:
    """Returns the types of what a kernel reads; of a table that is what is looked up."""
    found = []
    for value in group.inputs:
        # That an op stores into a value is no reason to read it.
        readers = {n: n.inputs[1:] if n.op.assign is not None else n.inputs for n in group.nodes}
        users = [node for node, inputs in readers.items() if value in inputs]
        is_table = all(n.op.kind is Kind.INDEX and n.inputs[0] is value for n in users)
        found += [node.output.type for node in users] if is_table else [value.type]
    return found


def _written_types(group: FusionGroup) -> list[TensorType]:
    """Returns the types of what a kernel writes; of a buffer that is the part that changes."""
    types = {value: value.type for value in group.outputs}
    for node in group.nodes:
        if node.op.assign is not None:
            types[node.output] = node.inputs[1].type
    return list(types.values())


def sum_nbytes(types: Iterable[TensorType]) -> Size:
    """Returns the bytes of several values, symbolic if a size is."""
    return _total(type.nbytes for type in types)


def _total(sizes: Iterable[Size]) -> Size:
    total: Any = 0
    for size in sizes:
        total = total + size
    return as_size(total)
