"""The order of the passes, with the reason for each place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from maxmod import config, ir
from maxmod.compiler.dump import dump
from maxmod.compiler.passes.eliminate_dead import eliminate_dead
from maxmod.compiler.passes.fold_constants import fold_constants
from maxmod.compiler.passes.merge_common import merge_common

Pass = Callable[[ir.Graph], ir.Graph]


def passes(run: ir.Run) -> tuple[Pass, ...]:
    """Returns the passes in order.

    Args:
        run: Runs one op on arrays; constant folding needs it.
    """
    return (
        eliminate_dead,  # first, so that no pass works on what is thrown away
        partial(fold_constants, run=run),  # before merging: folded values need no call at all
        merge_common,  # after folding, which removes the calls that feed only constants
        eliminate_dead,  # folding leaves unused sources behind
    )


def optimize(graph: ir.Graph, run: ir.Run) -> ir.Graph:
    """Runs every pass in order; with `MAXMOD_NOOPT=1` only the removal of dead nodes."""
    settings = config.current()
    dump(graph, "traced")
    for transform in (eliminate_dead,) if settings.noopt else passes(run):
        graph = transform(graph)
        if settings.verify:
            ir.verify(graph)
        dump(graph, getattr(transform, "func", transform).__name__)
    return graph
