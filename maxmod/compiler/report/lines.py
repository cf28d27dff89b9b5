"""Lines that fit a width, and notes instead of those that equal layers repeat."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Hashable, Iterator, Sequence

from maxmod.compiler.report import fold

INDENT = "    "
# Spaces at which no line breaks: before a unit, after the sign of a remark.
_KEPT = re.compile(r"(?<=\d) (?=[kMGTPE]?(?:B|FLOP)\b)|(?<= #) ")
_GLUE = "\N{NO-BREAK SPACE}"
_LEAST_WIDTH = 40  # narrower than this, lines are broken for this width


def wrapped(text: str, width: int, first: str = "", later: str = "") -> list[str]:
    """Breaks a line between words, but not before a unit; a word longer than a line stays whole.

    Args:
        text: The line.
        width: Characters of a line.
        first: Prefix of the first line.
        later: Stands before the following ones.
    """
    found = textwrap.wrap(
        _KEPT.sub(_GLUE, text),
        max(width, _LEAST_WIDTH),
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_GLUE, " ") for line in found] or [first.rstrip()]


def indented(text: str, indent: str = INDENT) -> list[str]:
    """Returns the lines of text, each after an indent."""
    return [f"{indent}{line}".rstrip() for line in text.splitlines()]


def folded(
    entries: Sequence[list[str]],
    keys: Sequence[Hashable],
    reads: Sequence[Sequence[str]],
    noun: str,
    indent: str,
    least: int,
) -> Iterator[str]:
    """Yields the lines of entries, with a note instead of those that equal layers repeat.

    Args:
        entries: The lines of each entry.
        keys: What entries of equal layers have in common.
        reads: Names that each entry reads.
        noun: What an entry is.
        indent: Stands before a note.
        least: How many entries a note hides at least.
    """
    for entry in fold.visible(keys, least):
        if isinstance(entry, int):
            yield from entries[entry]
        else:
            yield f"{indent}{fold_note(entry, reads, noun)}"


def fold_note(found: fold.Fold, reads: Sequence[Sequence[str]], noun: str) -> str:
    """Returns the line that replaces a fold: `... the last 3 steps 28 more times ...`.

    Args:
        found: The fold.
        reads: Names that each entry reads.
        noun: What an entry is.
    """

    def names(start: int) -> list[str]:
        return [name for read in reads[start : start + found.period] for name in read]

    last = found.hidden.stop - found.period
    layers = fold.layers(names(found.start), names(found.hidden.start), names(last))
    times = "once more" if found.repeats == 1 else f"{found.repeats} more times"
    what = noun if found.period == 1 else f"{found.period} {noun}s"
    return f"... the last {what} {times}{f', for {layers}' if layers else ''} ..."
