"""What to write in place of a name of PyTorch or NumPy."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Mapping

from maxmod.op.foreign.absent import REASONS
from maxmod.op.foreign.known import KNOWN
from maxmod.op.foreign.names import LINES, OF_MODULES, OF_PACKAGES


@functools.cache
def _lines(of: str) -> Mapping[str, str]:
    """Returns the lines by name, with those of one kind of object."""
    own = {"module": OF_MODULES, "package": OF_PACKAGES}.get(of, ())
    return {name: line for names, line in (*LINES, *own) for name in names.split()}


def hint(name: str, call_of: Callable[[str], str], of: str = "") -> str:
    """Returns what follows `no attribute ...`: a full stop and a hint, or an empty string.

    Args:
        name: The name that was asked for.
        call_of: Returns the call of a function of `F`, or an empty string if there is none.
        of: "module", "package", or nothing for a tensor: what lacks the name.
    """
    line = line_for(name, call_of, of)
    if line:
        code, _, remark = line.partition("  #")
        return f". Hint: {code}{',' if remark else ''}{remark}."
    if name not in KNOWN:
        return ""
    reason = next(why for why, names in REASONS if _matches(name, names))
    return f". It is absent: {reason}."


def line_for(name: str, call_of: Callable[[str], str], of: str = "") -> str:
    """Returns the line to write for a name, perhaps with a remark, or an empty string."""
    found = _lines(of).get(name) or call_of(name)
    if not found and name.endswith("_") and not name.startswith("_"):
        plain = line_for(name[:-1], call_of)
        code = plain.partition("  #")[0]
        return f"x = {code}  # results are new tensors" if plain else ""
    return found


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns.split())
