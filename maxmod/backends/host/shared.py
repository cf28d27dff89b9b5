"""What many kernels share: libraries that are built once for a machine."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping

from maxmod.backends.host.library import CachedLibraries, HostCompiler, Place
from maxmod.backends.host.units import shared_source, shared_text
from maxmod.kernel import cache as kernel_cache
from maxmod.kernel.source import KernelSource


class SharedLibraries:
    """Libraries of what kernels share.

    Args:
        compiler: What compiles them.
    """

    def __init__(self, compiler: HostCompiler) -> None:
        self._compiler = compiler
        self._keys: dict[tuple[str, tuple[str, ...]], str] = {}
        self._loaded: dict[str, ctypes.CDLL] = {}
        self._asked: set[str] = set()
        self._cached = CachedLibraries()

    def missing(self, sources: Iterable[KernelSource]) -> dict[str, KernelSource]:
        """Returns what kernels share and the cache lacks, by its key; each only once."""
        found: dict[str, KernelSource] = {}
        for source in sources:
            key = self.key(source)
            if not key or key in self._asked:
                continue
            self._asked.add(key)
            library = self._cached.library(key)
            if library is None:
                found[key] = shared_source(source)
            else:
                self._loaded[key] = library
        return found

    def key(self, source: KernelSource) -> str:
        """Returns the key of what a kernel shares; empty if there is nothing."""
        text = shared_text(source)
        if not text:
            return ""
        if (text, source.options) not in self._keys:
            flags = "\0".join((*self._compiler.flags, *source.options))
            whole = shared_source(source).full_text()
            key = kernel_cache.make_key("host shared", self._compiler.identity, flags, whole)
            self._keys[text, source.options] = key
        return self._keys[text, source.options]

    def library(self, source: KernelSource, built: Mapping[str, Place]) -> ctypes.CDLL | None:
        """Returns what a kernel shares, from the cache or built now; None if it was refused."""
        key = self.key(source)
        return built[key].library if key in built else self._loaded.get(key)
