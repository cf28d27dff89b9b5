"""`Explanation`: the parts of the output of `explain`, separately."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from types import MappingProxyType

from maxmod.compiler.memory import MemoryPlan
from maxmod.compiler.report import text
from maxmod.compiler.report.cost import total
from maxmod.compiler.report.facts import Facts
from maxmod.compiler.report.listing import graph_text
from maxmod.compiler.report.measurement import Measurement
from maxmod.compiler.report.page import page
from maxmod.compiler.report.table import steps_text
from maxmod.compiler.steps import Schedule
from maxmod.op import ir
from maxmod.values.dim import Size

_NO_TERMINAL = (80, 24)


class Explanation:
    """A compiled graph, described; `str` gives all of it as text.

    Args:
        graph: The optimised graph.
        plan: Its schedule, with the groups.
        dims: The value of each named size, to show numbers instead of expressions; may be empty.
        memory: The memory plan for these sizes; None if they are not known.
        measured: Times for these sizes; None without a measurement.
        width: Characters of a line; those of the terminal by default, and 80 where there is none.
        slower: What ran slower than planned so far, and how often.

    Attributes:
        facts: The facts, before formatting.
    """

    def __init__(
        self,
        graph: ir.Graph,
        plan: Schedule,
        dims: Mapping[str, int] = MappingProxyType({}),
        memory: MemoryPlan | None = None,
        measured: Measurement | None = None,
        width: int | None = None,
        slower: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.facts = Facts(graph, plan, dims, memory, measured, slower)
        self.width = width or shutil.get_terminal_size(_NO_TERMINAL).columns

    def __str__(self) -> str:
        return text.everything(self.facts, self.width)

    def html(self) -> str:
        """All of it as a page of HTML that needs no other file.

        Raises:
            MissingPackageError: (an ImportError) If jinja2 or pygments is not installed.
        """
        return page(self.facts)

    def summary(self) -> str:
        """The first thing to read: how many steps and kernels, how much they read and compute."""
        return text.summary(self.facts, self.width)

    def graph(self) -> str:
        """The ops in order, each with the user's line; equal layers are shown once."""
        return graph_text(self.facts.graph, self.width)

    def steps(self, *, fold: bool = False) -> str:
        """A table of what a call does, in order; views that follow each other share a line.

        Args:
            fold: Show the steps of equal layers once.
        """
        return steps_text(self.facts, self.width, fold=fold)

    def kernel(self, number: int, *, source: bool = True) -> str:
        """What a kernel computes, why it was formed, and all of its source."""
        return text.kernel(self.facts.kernels[number], self.width, source=source, whole=True)

    def memory_text(self) -> str:
        """Where intermediates live."""
        return text.memory(self.facts, self.width)

    def reads(self) -> Size:
        """Bytes that a call reads, each value as often as a step reads it."""
        moving = text.moving_steps(self.facts)
        return self.facts.number(total(step.cost.reads for step in moving))
