"""Many names as few: weights of equal layers, lines of a file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence

_NUMBER = re.compile(r"\d+")


def together(entries: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, int]]:
    """Writes names that differ in numbers, and have the same type, as one.

    Args:
        entries: Names with their types.

    Yields:
        (name, type, how many it represents): `@blocks.{0-29}.up.weight`.
    """
    families: dict[tuple[str, str], list[str]] = {}
    for name, type in entries:
        families.setdefault((_NUMBER.sub("#", name), type), []).append(name)
    for (_, type), names in families.items():
        shown = _common_name(names)
        if shown is None:
            yield from ((name, type, 1) for name in names)
        else:
            yield shown, type, len(names)


def _common_name(names: Sequence[str]) -> str | None:
    """Returns the name of all of them; None if they are not all combinations of their numbers."""
    columns = [sorted(set(found)) for found in zip(*(map(int, _NUMBER.findall(n)) for n in names))]
    if math.prod(map(len, columns)) != len(names):
        return None
    numbers = iter(columns)
    return _NUMBER.sub(lambda _: _braced(next(numbers)), names[0])


def _braced(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{{{ranges(numbers)}}}"


def ranges(numbers: Sequence[int]) -> str:
    """Returns sorted numbers as ranges: `3-5, 8`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def places(lines: Iterable[str]) -> str:
    """Returns lines of files together: `gpt2.py:41-43, 57`.

    Args:
        lines: Places such as `gpt2.py:41`.
    """
    files: dict[str, set[int]] = {}
    for place in lines:
        file, _, line = place.rpartition(":")
        files.setdefault(file, set()).add(int(line))
    return ", ".join(f"{file}:{ranges(sorted(found))}" for file, found in files.items())
