"""From a traced graph to a schedule: passes, fusion, kernel text.

Imports everything that the compiler consists of, so it is itself imported only when there is
something to plan: a stored schedule needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from maxmod import config
from maxmod.compiler.pipeline import optimize
from maxmod.compiler.schedule import schedule
from maxmod.compiler.steps import Schedule
from maxmod.kernel.source import Dialect
from maxmod.op import ir


def plan_graph(
    graph: ir.Graph,
    dialect: Dialect | None,
    run: ir.Run,
    timed: Callable[[str], AbstractContextManager[None]],
    architecture: str = "",
) -> tuple[ir.Graph, Schedule]:
    """Optimises and plans a traced graph; with `MAXMOD_COMPILE=0` its ops run as they stand.

    Args:
        graph: The traced graph.
        dialect: The kernel language, or None to run ops one by one.
        run: Runs one op on arrays; constant folding needs it.
        timed: Measures the stages.
        architecture: What kernels are made for; one that is not known is taken for new.

    Returns:
        The optimised graph and its schedule.
    """
    with timed("passes"):
        if config.current().compile:
            graph = optimize(graph, run, dialect)
    with timed("plan"):
        return graph, schedule(graph, dialect, architecture)
