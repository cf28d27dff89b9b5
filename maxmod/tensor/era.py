"""The version of MAX that a script was written for, where versions disagree.

`maxmod.compat` says what the script imports, and `maxmod run --max` what it was written for.
Without either, maxmod's own rules hold.
"""

from __future__ import annotations

from maxmod.errors import ArgumentError

VERSIONS = ("25.7", "26.1", "26.7")
# What a script imports that only one of the versions has. The first that is seen wins: the newest
# has the strictest rules, and `max.nn` is imported by the way in the oldest.
_SIGNS = {
    "26.7": ("max.experimental.nn", "max.experimental.sharding", "max.experimental.compilation"),
    "25.7": ("max.nn.module_v3",),
    "26.1": ("max.nn", "max.tensor", "max.functional", "max.random"),
}

_asked: list[str] = []
_imported: set[str] = set()


def follow(version: str | None) -> None:
    """Asks for the rules of a version, whatever is imported; None asks for none.

    Raises:
        ValueError: If the version is not known.
    """
    if version is not None and version not in VERSIONS:
        raise ArgumentError(
            f"max: expected one of {', '.join(VERSIONS)}, got {version!r}: these are the versions "
            "of MAX whose rules are known."
        )
    _asked[:] = [] if version is None else [version]


def note_import(path: str) -> None:
    """Notes that a script imports a module of MAX."""
    _imported.add(path)


def forget() -> None:
    """Goes back to maxmod's own rules."""
    _asked.clear()
    _imported.clear()


def current() -> str | None:
    """Returns the version whose rules hold, None for maxmod's own."""
    if _asked:
        return _asked[0]
    if not _imported:
        return None
    for version, paths in _SIGNS.items():
        if not _imported.isdisjoint(paths):
            return version
    return None
