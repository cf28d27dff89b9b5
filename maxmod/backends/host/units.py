"""Kernels that one run of the C compiler builds together, which is several times as cheap.

Of the 57 ms that a kernel of a few lines takes alone (GCC 12, Zen 3, December 2026), 35 are the
start of the compiler and the linker, and 17 the prelude. So kernels are joined in units: the
prelude once, then their texts one after the other. Each is in the cache under its own key, as a
note of where it is; other models find it there, whatever it was built with.

What a kernel defines at file scope starts with `mm_` or `MM_`, in a line that is not indented. In a
unit those names get a number, so that each kernel has its own, and macros end with the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import OWN, Dialect, KernelSource

ENTRY = "mm_kernel"  # the entry of everything that the compiler generates

# Estimates for a processor of 2026; they decide which kernels are built together, and nothing else.
_START_S = 0.02  # of a kernel: for a map, all that it takes
_CHARACTER_S = 1e-5  # of its text; 30 KB of a product take 0.25 s
_SMALLEST_S = 0.15  # below, starting another compiler costs more than a second CPU gains
_LARGEST_S = 0.6  # above, the others could wait for this unit, and nobody sees that work goes on

_NAME = re.compile(r"\bmm_\w+")
_DEFINED = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.MULTILINE)
_FILE_SCOPE = re.compile(r"^[A-Za-z}].*", re.MULTILINE)
_DECLARED = re.compile(r"\bmm_\w+(?=\s*(?:[(;\[={]|__attribute__))")


class Unit:
    """Kernels that are built together.

    Args:
        sources: The kernels by their keys.
    """

    def __init__(self, sources: Mapping[str, KernelSource]) -> None:
        self.sources = dict(sources)

    @property
    def is_single(self) -> bool:
        """True if it is the kernel itself, with nothing around it."""
        return len(self.sources) == 1

    @property
    def options(self) -> tuple[str, ...]:
        """Extra options of the compiler."""
        return next(iter(self.sources.values())).options

    @cached_property
    def text(self) -> str:
        """What the compiler gets."""
        sources = list(self.sources.values())
        return sources[0].full_text() if self.is_single else _joined(sources)

    def entry(self, key: str) -> str:
        """Returns the name of a kernel's entry in the library."""
        if self.is_single:
            return self.sources[key].entry
        return f"{ENTRY}_{list(self.sources).index(key)}"

    def singles(self) -> list[Unit]:
        """Returns a unit for each kernel."""
        return [Unit({key: source}) for key, source in self.sources.items()]


def cost_s(source: KernelSource) -> float:
    """Returns about how long a kernel takes in a unit."""
    return _START_S + _CHARACTER_S * len(source.plain)


def units(sources: Mapping[str, KernelSource], cpus: int) -> list[Unit]:
    """Distributes kernels over units, the one that takes longest first.

    Args:
        sources: The kernels by their keys.
        cpus: How many units can be built at the same time.
    """
    by_options: dict[tuple[str, ...], dict[str, KernelSource]] = {}
    found: list[Unit] = []
    for key, source in sources.items():
        if source.entry == ENTRY:
            by_options.setdefault(source.options, {})[key] = source
        else:
            found.append(Unit({key: source}))
    for alike in by_options.values():
        found += _distributed(alike, cpus)
    return sorted(found, key=lambda unit: -sum(map(cost_s, unit.sources.values())))


def _distributed(sources: Mapping[str, KernelSource], cpus: int) -> list[Unit]:
    """Gives each group of kernels, the large ones first, to the unit that has least to do."""
    groups = _groups(sources)
    total = sum(map(_group_cost_s, groups))
    count = max(min(cpus, int(total / _SMALLEST_S)), int(total / _LARGEST_S), 1)
    parts: list[dict[str, KernelSource]] = [{} for _ in range(min(count, len(groups)))]
    loads = [0.0] * len(parts)
    for group in sorted(groups, key=lambda group: (-_group_cost_s(group), min(group))):
        least = loads.index(min(loads))
        parts[least].update(group)
        loads[least] += _group_cost_s(group)
    return [Unit(part) for part in parts]


def _groups(sources: Mapping[str, KernelSource]) -> list[dict[str, KernelSource]]:
    """Returns kernels that share text together, in several groups where it is worth it."""
    alike: dict[str, dict[str, KernelSource]] = {}
    for key in sorted(sources, key=lambda key: (-len(sources[key].plain), key)):
        shared, _ = _divided(sources[key].plain)
        alike.setdefault(shared or key, {})[key] = sources[key]
    found: list[dict[str, KernelSource]] = []
    for group in alike.values():
        count = min(max(int(_group_cost_s(group) / _LARGEST_S), 1), len(group))
        found += [dict(list(group.items())[start::count]) for start in range(count)]
    return found


def _group_cost_s(group: Mapping[str, KernelSource]) -> float:
    shared = {_divided(source.plain)[0] for source in group.values()}
    own = (len(_divided(source.plain)[1]) for source in group.values())
    return _START_S * len(group) + _CHARACTER_S * (sum(map(len, shared)) + sum(own))


def _divided(text: str) -> tuple[str, str]:
    """Returns what a kernel shares with others, and its own text."""
    shared, mark, own = text.rpartition(OWN)
    return shared, mark + own


def _joined(sources: Sequence[KernelSource]) -> str:
    """Returns the text of several kernels; those that share text follow each other."""
    before = kernel_text.prelude(Dialect.HOST, "".join(source.plain for source in sources))
    known = {*_NAME.findall(before), *_DEFINED.findall(before)}
    parts, shared = [before], dict[str, list[tuple[int, str]]]()
    for number, source in enumerate(sources):
        common, own = _divided(source.plain)
        shared.setdefault(common, []).append((number, own))
    for number, (common, owns) in enumerate(shared.items()):
        parts += _of_group(f"s{number}", common, owns, known)
    return "\n".join((*parts, ""))


def _of_group(
    name: str, common: str, owns: Sequence[tuple[int, str]], known: set[str]
) -> list[str]:
    """Returns shared text and what follows it: the own texts of kernels, with their numbers."""
    names, macros = _defined(common, known)
    shared = {word: f"{word}_{name}" for word in names}
    parts = ['#line 1 "kernel.c"', _renamed(common, shared)] if common else []
    for number, text in owns:
        names, own_macros = _defined(text, known)
        own = {word: f"{word}_{number}" for word in names}
        parts += ['#line 1 "kernel.c"', _renamed(text, {**shared, **own})]
        parts += [f"#undef {macro}" for macro in sorted(own_macros - own.keys() - macros)]
    return parts + [f"#undef {macro}" for macro in sorted(macros - shared.keys())]


def _defined(text: str, known: Iterable[str]) -> tuple[set[str], set[str]]:
    """Returns the names that a text declares at file scope, and its macros.

    Args:
        text: The text of a kernel, or a part of it.
        known: Names that are defined before.
    """
    macros = set(_DEFINED.findall(text)).difference(known)
    lines = "\n".join(_FILE_SCOPE.findall(text))
    names = {*_DECLARED.findall(lines), *(name for name in macros if name.startswith("mm_"))}
    return names.difference(known), macros


def _renamed(text: str, names: Mapping[str, str]) -> str:
    return _NAME.sub(lambda found: names.get(found[0], found[0]), text)
