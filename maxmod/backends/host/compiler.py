"""Host kernels: the system's C compiler, found and probed once, and kernels loaded with ctypes.

With a warm cache nothing is started and nothing is compiled: finding the compiler is a look along
PATH, what it can do is read from the kernel cache, and so are the kernels. Everything that runs the
compiler is in `host_build`, which is imported when there is something to build.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from maxmod import config
from maxmod.backends.host.finding import first_that_works
from maxmod.backends.host.library import (
    THREADS_FILES,
    CachedLibraries,
    HostCompiler,
    Place,
    connect,
    start_threads,
    thread_count,
)
from maxmod.backends.host.processor import processor as processor  # also of tests
from maxmod.errors import CompileError
from maxmod.kernel import cache as kernel_cache
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.system.locks import fork_safe_lock

_BUILD = "maxmod.backends.host.build"  # imports subprocess; needed only where something is missing


class HostKernel:
    """A loaded kernel. Calling it costs one foreign call, during which other threads may run.

    Attributes:
        name: The name of its source.
        key: Its key in the kernel cache.
        entry_pointer: Address of ``void entry(void *const *buffers, const int64_t *scalars)``.
        call: The bare foreign function of two addresses.
        cached: Whether it came from the cache.
        library: Where it is.
        shared: The library of what it shares with others, if there is one.
    """

    __slots__ = ("cached", "call", "entry_pointer", "key", "library", "name", "shared")

    def __init__(self, name: str, key: str, place: Place, *, cached: bool) -> None:
        function = getattr(place.library, place.entry)
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        function.restype = None
        self.name = name
        self.key = key
        self.call: Callable[[object, object], object] = function
        self.entry_pointer = ctypes.cast(function, ctypes.c_void_p).value or 0
        self.cached = cached
        self.library = place.library
        self.shared = place.shared

    def __call__(self, buffers: object, scalars: object) -> None:
        """Runs the kernel.

        Args:
            buffers: Address of a table of pointers, or a ctypes array of them.
            scalars: Address of a table of int64, or a ctypes array of them; None if there are none.
        """
        self.call(buffers, scalars)

    def __repr__(self) -> str:
        return f"HostKernel({self.name!r})"


def find() -> HostCompiler | None:
    """Returns the C compiler, or None if there is none that works."""
    return _find(*_settings())[0]


def unavailable_reason() -> str:
    """Returns why kernels cannot be built, with a hint; empty if they can."""
    return _find(*_settings())[1]


def build_all(sources: Sequence[KernelSource]) -> list[HostKernel]:
    """Builds and loads kernels, as `build_each` does.

    Raises:
        CompileError: Also for the first kernel that is refused, after all were tried.
    """
    kernels: list[HostKernel] = []
    for made in build_each(sources):
        if isinstance(made, CompileError):
            raise made
        kernels.append(made)
    return kernels


def build_each(sources: Sequence[KernelSource]) -> list[HostKernel | CompileError]:
    """Builds and loads kernels; those that are not in the cache are compiled side by side.

    Args:
        sources: Kernels of the host dialect.

    Returns:
        For each source, in order, its kernel, or the error of one that the compiler refuses or
        that cannot be loaded; it has the log and the path where the source was saved.

    Raises:
        CompileError: If there is no C compiler, or no threads can be had for kernels.
    """
    return start_each(sources)()


def start_each(
    sources: Sequence[KernelSource],
) -> Callable[[], list[HostKernel | CompileError]]:
    """Starts to build kernels as `build_each` does.

    Returns:
        A function that waits for them and loads them. What is started before it is called is built
        together, and what is the same only once.

    Raises:
        CompileError: As for `build_each`, except that the function tells about threads.
    """
    compiler = find()
    if compiler is None:
        raise CompileError(unavailable_reason())
    if not sources:
        return list
    needs_threads = "functions" not in _threads  # built together with the first kernels
    needed = [*sources, *([_threads_source()] if needs_threads else [])]
    keys = [_key(compiler, source) for source in needed]
    kernels, missing = _cached(zip(keys, needed, strict=True))
    if missing:
        building, new = importlib.import_module(_BUILD).start(compiler, missing)

    def finish() -> list[HostKernel | CompileError]:
        for key, found in (building.results(missing) if missing else {}).items():
            is_loaded = not isinstance(found, CompileError)
            cached = key not in new
            kernels[key] = _entered(missing[key], key, found, cached) if is_loaded else found
        made = [kernels[key] for key in keys]
        if needs_threads:
            _start_threads(made.pop())
        return [_connected(kernel) for kernel in made]

    return finish


def _start_threads(built: HostKernel | CompileError) -> None:
    """Starts the threads of all kernels, given their library, unless that was done."""
    if isinstance(built, CompileError):
        raise built
    with _THREADS_LOCK:
        _threads.setdefault("library", built.library)
        if "functions" not in _threads:
            count = thread_count(config.current().threads)
            _threads["functions"] = start_threads(_threads["library"], count)


def _connected(kernel: HostKernel | CompileError) -> HostKernel | CompileError:
    if isinstance(kernel, HostKernel):
        for library in filter(None, (kernel.library, kernel.shared)):
            connect(library, _threads["functions"])
    return kernel


def _cached(
    sources: Iterable[tuple[str, KernelSource]],
) -> tuple[dict[str, HostKernel | CompileError], dict[str, KernelSource]]:
    """Returns what the cache has, and the sources of the rest, both by their keys."""
    kernels: dict[str, HostKernel | CompileError] = {}
    missing: dict[str, KernelSource] = {}
    cached = CachedLibraries()
    for key, source in sources:
        if key in kernels or key in missing:
            continue
        kernel = _load_cached(cached, source, key)
        if kernel is None:
            missing[key] = source
        else:
            kernels[key] = kernel
    return kernels, missing


def _entered(
    source: KernelSource, key: str, place: Place, cached: bool
) -> HostKernel | CompileError:
    """Returns a kernel of a library that was built now."""
    try:
        return HostKernel(source.name, key, place, cached=cached)
    except AttributeError as error:
        return CompileError(f"host_compiler: {source.name}: its library has no entry: {error}.")


def build(source: KernelSource) -> HostKernel:
    """Builds and loads one kernel; see `build_all`."""
    return build_all([source])[0]


# The library of threads, and the address of its functions: one for a process, whatever compiler
# made it.
_threads: dict[str, Any] = {}
_THREADS_LOCK = fork_safe_lock()


def chain_function() -> Callable[[int, int], int]:
    """Returns `mm_run_chain` of `kernels/host/chain.c`; kernels are built before."""
    function = _threads["library"].mm_run_chain
    function.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    function.restype = ctypes.c_int64
    return function


def _threads_source() -> KernelSource:
    code = "\n".join(map(kernel_text.read, THREADS_FILES))
    return KernelSource("threads", Dialect.HOST, code, "mm_set_threads", 0, 0)


def _key(compiler: HostCompiler, source: KernelSource) -> str:
    if source.dialect is not Dialect.HOST:
        raise CompileError(
            f"host_compiler: {source.name}: expected host text, got {source.dialect}."
        )
    return kernel_cache.make_key(
        "host",
        compiler.identity,
        "\0".join((*compiler.flags, *source.options)),
        source.entry,
        source.plain,
        shared=kernel_text.prelude(Dialect.HOST, source.plain),
    )


def _load_cached(cached: CachedLibraries, source: KernelSource, key: str) -> HostKernel | None:
    found = cached.find(key, source.entry)
    if found is None:
        return None
    try:
        return HostKernel(source.name, key, found, cached=True)
    except AttributeError:  # a damaged file
        return None


# ---- finding the compiler ------------------------------------------------------------------------


def _settings() -> tuple[str, str, str, str, bool]:
    current = config.current()
    environ = os.environ
    return (
        current.cc,
        environ.get("CC", ""),
        environ.get("PATH", os.defpath),
        kernel_cache.path(),
        current.nocache,
    )


@functools.cache
def _find(
    wanted: str, cc: str, search_path: str, cache: str, nocache: bool
) -> tuple[HostCompiler | None, str]:
    """Returns the first compiler that works, and why there is none."""
    return first_that_works(wanted, cc, search_path)
