"""The phases of a row kernel: which instructions each loop over the row computes."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from maxmod.compiler.groups.instructions import Apply, Lowered, Reduction, Store, operands
from maxmod.op import Kind


class Keep(enum.Enum):
    """Which values that several loops need are kept instead of being computed again."""

    COSTLY = "function calls; loads hit the cache"
    ALL = "every value that a later loop needs: nothing is loaded or computed twice"
    NOTHING = "none: the row is too long to be kept"


@dataclass(frozen=True, slots=True)
class Phase:
    """One loop over the row.

    Attributes:
        before: Row-invariant instructions to compute before the loop.
        body: Instructions inside the loop, in order.
        reductions: Reductions that the loop completes.
        keeps: Instructions of `body` whose value for the whole row is kept in scratch.
        writes_outputs: True for the last loop, which stores the outputs.
    """

    before: tuple[int, ...]
    body: tuple[int, ...]
    reductions: tuple[int, ...]
    keeps: tuple[int, ...]
    writes_outputs: bool


@dataclass(frozen=True, slots=True)
class RowPlan:
    """All phases, and the row-invariant instructions that only scalar outputs need."""

    phases: tuple[Phase, ...]
    after: tuple[int, ...]
    scratch: tuple[int, ...]


def plan_rows(lowered: Lowered, keep: Keep = Keep.COSTLY) -> RowPlan:
    """Cuts a row group into loops: one for each level of reductions, and one for the outputs."""
    reductions = _reductions(lowered)
    levels = sorted({lowered.instructions[r].level for r in reductions})
    targets = [
        ([_argument(lowered, r) for r in at], at)
        for at in ([r for r in reductions if lowered.instructions[r].level == n] for n in levels)
    ]
    row_stores = [s for s in lowered.stores if lowered.row and s.index.factor(lowered.row)]
    if row_stores:
        targets.append((_stored(row_stores), []))
    scratch = _kept(lowered, [wanted for wanted, _ in targets], keep)
    done: set[int] = set(reductions)
    kept: set[int] = set()
    phases: list[Phase] = []
    for wanted, completes in targets:
        body, before = _needed(lowered, wanted, done, kept)
        keeps = tuple(i for i in body if i in scratch and i not in kept)
        phases.append(Phase(tuple(before), tuple(body), tuple(completes), keeps, not completes))
        done.update(before)
        kept.update(keeps)
    _, after = _needed(lowered, _stored(lowered.stores), done, kept)
    return RowPlan(tuple(phases), tuple(after), tuple(sorted(scratch)))


def _stored(stores: Sequence[Store]) -> list[int]:
    """Returns the instructions that stores need: values and places."""
    return [number for store in stores for number in (store.value, *store.index.data)]


def _reductions(lowered: Lowered) -> list[int]:
    """Returns the reductions in order; there are no unused instructions."""
    return [
        n
        for n, instruction in enumerate(lowered.instructions)
        if isinstance(instruction.what, Reduction)
    ]


def _argument(lowered: Lowered, reduction: int) -> int:
    what = lowered.instructions[reduction].what
    assert isinstance(what, Reduction)
    return what.arg


def _needed(
    lowered: Lowered, wanted: list[int], done: set[int], kept: set[int]
) -> tuple[list[int], list[int]]:
    """Returns the row-dependent and the row-invariant instructions that `wanted` needs."""
    found: set[int] = set()
    pending = list(wanted)
    while pending:
        number = pending.pop()
        if number in found or number in done:
            continue
        found.add(number)
        what = lowered.instructions[number].what
        if number not in kept and not isinstance(what, Reduction):
            pending += operands(what)
    body = [n for n in sorted(found) if lowered.instructions[n].in_row]
    before = [n for n in sorted(found) if not lowered.instructions[n].in_row]
    return body, before


def _kept(lowered: Lowered, targets: list[list[int]], keep: Keep) -> set[int]:
    if keep is Keep.NOTHING:
        return set()
    return _taken_over(lowered, targets) if keep is Keep.ALL else _costly(lowered, targets)


def _taken_over(lowered: Lowered, targets: list[list[int]]) -> set[int]:
    """Returns the values of earlier loops at which each loop can start."""
    done = set(_reductions(lowered))
    computed: set[int] = set()
    taken: set[int] = set()
    for wanted in targets:
        body, _ = _needed(lowered, wanted, done, computed)
        taken.update(computed.intersection(body))
        computed.update(body)
    return taken


def _costly(lowered: Lowered, targets: list[list[int]]) -> set[int]:
    """Returns the function calls that several loops need."""
    seen: dict[int, int] = {}
    for wanted in targets:
        done = set(_reductions(lowered))
        body, _ = _needed(lowered, wanted, done, set())
        for number in body:
            seen[number] = seen.get(number, 0) + 1
    return {n for n, count in seen.items() if count > 1 and is_costly(lowered, n)}


def is_costly(lowered: Lowered, number: int) -> bool:
    """True for instructions that cost more than keeping and reading their value."""
    what = lowered.instructions[number].what
    if not isinstance(what, Apply) or what.op.lowering.scalar is None:
        return False
    return (
        what.op.kind is Kind.ELEMENTWISE
        and what.op.meaning.upcasts
        and "mm_" in what.op.lowering.scalar
    )
