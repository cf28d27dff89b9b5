"""From a traced graph to a schedule; the order of the passes, with the reason for each place.

Importing this module imports the whole compiler, so that happens only when there is something to
plan: a stored schedule does not need it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from maxmod import config
from maxmod.compiler.dump import dump_graph
from maxmod.compiler.passes.eliminate_dead import eliminate_dead
from maxmod.compiler.passes.expand_composites import expand_composites, expand_products
from maxmod.compiler.passes.fold_constants import fold_constants
from maxmod.compiler.passes.merge_common import merge_common
from maxmod.compiler.passes.optimize_bodies import optimize_bodies
from maxmod.compiler.passes.recognize_gelu import recognize_gelu
from maxmod.compiler.passes.simplify import simplify
from maxmod.compiler.schedule import schedule
from maxmod.compiler.steps import Schedule
from maxmod.kernel.source import Dialect
from maxmod.op import ir

Pass = Callable[[ir.Graph], ir.Graph]


def plan_graph(
    graph: ir.Graph,
    dialect: Dialect | None,
    run: ir.Run,
    timed: Callable[[str], AbstractContextManager[None]],
    architecture: str = "",
) -> tuple[ir.Graph, Schedule]:
    """Optimises and plans a traced graph; with `MAXMOD_COMPILE=0` its ops run unchanged.

    Args:
        graph: The traced graph.
        dialect: The kernel language, or None to run ops one by one.
        run: Runs one op on arrays; constant folding needs it.
        timed: Measures the stages.
        architecture: The architecture to build for; an unknown one is treated as new.

    Returns:
        The optimised graph and its schedule.
    """
    with timed("passes"):
        if config.current().compile:
            graph = optimize(graph, run, dialect)
    with timed("plan"):
        return graph, schedule(graph, dialect, architecture)


def passes(run: ir.Run, dialect: Dialect | None) -> tuple[Pass, ...]:
    """Returns the passes in order.

    Args:
        run: Runs one op on arrays; constant folding needs it.
        dialect: The language of the kernels, None if there are none: composite ops stay whole then,
            because their eager body is faster than its parts.
    """
    return (
        eliminate_dead,  # first, so that no pass works on dead nodes
        *_expansions(dialect),  # before folding and merging see parts
        simplify,  # before folding and merging, which find more once views are joined
        *((recognize_gelu,) if dialect else ()),  # after it, which leaves fewer forms of the same
        # Before merging: folded values need no call at all.
        partial(fold_constants, run=run, keep_formulas=dialect is not None),
        merge_common,  # after folding, which removes the calls that feed only constants
        eliminate_dead,  # folding leaves unused sources behind
        *bodies_of_ops(run, dialect),  # last: equal branches are one by now
    )


def _expansions(dialect: Dialect | None) -> tuple[Pass, ...]:
    if dialect is None:
        return ()
    return (expand_composites, *((expand_products,) if dialect is Dialect.CUDA else ()))


def bodies_of_ops(run: ir.Run, dialect: Dialect | None) -> tuple[Pass, ...]:
    """Returns the pass for the graphs of branches and loops; without kernels, ops are run there."""
    if dialect is None:
        return ()
    return (partial(optimize_bodies, optimize=partial(optimize, run=run, dialect=dialect)),)


def optimize(graph: ir.Graph, run: ir.Run, dialect: Dialect | None) -> ir.Graph:
    """Runs every pass in order; with `MAXMOD_NOOPT=1` only those that kernels require."""
    settings = config.current()
    dump_graph(graph, "traced")
    chosen = passes(run, dialect)
    if settings.noopt:
        chosen = (eliminate_dead, *_expansions(dialect), *bodies_of_ops(run, dialect))
    for transform in chosen:
        graph = transform(graph)
        if settings.verify:
            ir.verify(graph)
        dump_graph(graph, getattr(transform, "func", transform).__name__)
    return graph
