"""Kernels that one run of the C compiler builds together, which is several times as cheap.

Of the 57 ms that a kernel of a few lines takes alone (GCC 12, Zen 3, December 2026), 35 are the
start of the compiler and the linker, and 17 the prelude. So kernels are joined in units: the
prelude once, then their texts one after the other. Each is in the cache under its own key, as a
note of where it is; other models find it there, whatever it was built with.

What a kernel defines at file scope starts with `mm_` or `MM_`, in a line that is not indented. In a
unit those names get a number, so that each kernel has its own, and macros end with the kernel.

What kernels share (see `maxmod.kernel.source.OWN`) takes most of the time of a product. It is built
once for a machine, as a library whose entry the loader gives to the kernels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from maxmod.backends.host.library import SHARED_ENTRY
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import OWN, Dialect, KernelSource

ENTRY = "mm_kernel"  # the entry of everything that the compiler generates
_POINTER = "mm_run_shared"

# Estimates for a processor of 2026; they decide which kernels are built together, and nothing else.
_START_S = 0.02  # of a kernel: for a map, all that it takes
_CHARACTER_S = 1e-5  # of its text; 30 KB of a product take 0.25 s
_SMALLEST_S = 0.15  # below, starting another compiler costs more than a second CPU gains
_LARGEST_S = 0.6  # above, the others could wait for this unit, and nobody sees that work goes on

_NAME = re.compile(r"\bmm_\w+")
_DEFINED = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.MULTILINE)
_FILE_SCOPE = re.compile(r"^[A-Za-z}].*", re.MULTILINE)
_DECLARED = re.compile(r"\bmm_\w+(?=\s*(?:[(;\[={)]|__attribute__))")


class Unit:
    """Kernels that are built together.

    Args:
        sources: The kernels by their keys.
        is_whole: True for a kernel with all that it needs in its own library.
    """

    def __init__(self, sources: Mapping[str, KernelSource], *, is_whole: bool = False) -> None:
        self.sources = dict(sources)
        first = next(iter(self.sources.values()))
        self.is_whole = is_whole or (len(self.sources) == 1 and not shared_text(first))
        self.options = first.options
        self._commons = list(dict.fromkeys(map(shared_text, self.sources.values())))

    @cached_property
    def text(self) -> str:
        """What the compiler gets."""
        sources = list(self.sources.values())
        return sources[0].full_text() if self.is_whole else self._joined(sources)

    def entry(self, key: str) -> str:
        """Returns the name of a kernel's entry in the library."""
        if self.is_whole:
            return self.sources[key].entry
        return f"{ENTRY}_{list(self.sources).index(key)}"

    def pointer(self, key: str) -> str:
        """Returns the name of the pointer to what a kernel shares; empty if there is none."""
        common = shared_text(self.sources[key])
        return "" if self.is_whole or not common else f"{_POINTER}_{self._suffix(common)}"

    def smaller(self) -> list[Unit]:
        """Returns the units that are left to try where this one is refused."""
        if self.is_whole:
            return []
        parts = [{key: source} for key, source in self.sources.items()]
        return [Unit(part, is_whole=len(parts) == 1) for part in parts]

    def _suffix(self, common: str) -> str:
        return f"s{self._commons.index(common)}"

    def _joined(self, sources: Sequence[KernelSource]) -> str:
        """Returns the text of the kernels; those that share text follow each other."""
        before = kernel_text.prelude(Dialect.HOST, "".join(source.plain for source in sources))
        known = {*_NAME.findall(before), *_DEFINED.findall(before)}
        parts = [before, "#define MM_SHARED_ELSEWHERE"]
        for common in self._commons:
            texts = [_own_text(s) if shared_text(s) == common else "" for s in sources]
            parts += _of_group(self._suffix(common), common, texts, known)
        return "\n".join((*parts, ""))


def shared_text(source: KernelSource) -> str:
    """Returns what a kernel shares with others; empty if there is nothing."""
    return source.plain.rpartition(OWN)[0]


def shared_source(source: KernelSource) -> KernelSource:
    """Returns what a kernel shares with others, as a library of its own."""
    entry = f"void {SHARED_ENTRY}(void *const *buffers, const int64_t *scalars)"
    code = f"{shared_text(source)}\n{entry}\n{{\n    {_POINTER}(buffers, scalars);\n}}\n"
    options = source.options
    return KernelSource("shared", Dialect.HOST, code, SHARED_ENTRY, 0, 0, options=options)


def _own_text(source: KernelSource) -> str:
    return source.plain[len(shared_text(source)) :]


def cost_s(source: KernelSource) -> float:
    """Returns about how long a kernel takes in a unit."""
    return _START_S + _CHARACTER_S * len(_own_text(source))


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
    return sorted(found, key=lambda unit: -_group_cost_s(unit.sources))


def _distributed(sources: Mapping[str, KernelSource], cpus: int) -> list[Unit]:
    """Gives each group of kernels, the large ones first, to the unit that has least to do."""
    groups = _groups(sources)
    total = sum(map(_group_cost_s, groups))
    count = max(min(cpus, int(total / _SMALLEST_S)), int(total / _LARGEST_S), 1)
    parts: list[dict[str, KernelSource]] = [{} for _ in range(min(count, len(groups)))]
    loads = [0.0] * len(parts)
    for group in sorted(groups, key=lambda group: (-_group_cost_s(group), min(group))):
        least = loads.index(min(loads))
        parts[least] |= group
        loads[least] += _group_cost_s(group)
    return [Unit(part) for part in parts]


def _groups(sources: Mapping[str, KernelSource]) -> list[dict[str, KernelSource]]:
    """Returns kernels with the same long text behind the prelude together, others alone."""
    base = kernel_text.prelude(Dialect.HOST)
    found: dict[str, dict[str, KernelSource]] = {}
    for key, source in sources.items():
        more = _prelude(source)[len(base) :]
        found.setdefault(more or key, {})[key] = source
    return list(found.values())


def _group_cost_s(group: Mapping[str, KernelSource]) -> float:
    before = max(len(_prelude(source)) for source in group.values())
    extra = before - len(kernel_text.prelude(Dialect.HOST))
    return _CHARACTER_S * extra + sum(map(cost_s, group.values()))


def _prelude(source: KernelSource) -> str:
    return kernel_text.prelude(Dialect.HOST, source.plain)


def _of_group(suffix: str, common: str, owns: Sequence[str], known: set[str]) -> list[str]:
    """Returns shared text and what follows it: the own texts of kernels, with their numbers.

    Args:
        suffix: What the names of the shared text get.
        common: The shared text.
        owns: The own text of every kernel of the unit; empty for those of other groups.
        known: Names that are defined before.
    """
    names, macros = _defined(common, known)
    shared = {word: f"{word}_{suffix}" for word in names}
    parts = ['#line 1 "kernel.c"', _renamed(common, shared)] if common else []
    for number, text in enumerate(owns):
        names, own_macros = _defined(text, known)
        own = {word: f"{word}_{number}" for word in names}
        parts += ['#line 1 "kernel.c"', _renamed(text, {**shared, **own})] if text else []
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
