"""Loading libraries of host kernels, and giving them the threads that all of them share."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import NamedTuple

from maxmod.kernel import cache as kernel_cache

# The library that a process has once: its threads, and what runs many kernels.
THREADS_FILES = ("host/threads.c", "host/chain.c")
_THREADS_ENTRY = "mm_set_threads"
_FUNCTIONS = "mm_threads_of"  # what the library of threads offers
_WANTED = "mm_threads"  # where a kernel looks for it


class HostCompiler(NamedTuple):
    """A C compiler that works, with the flags that it accepts on this machine.

    Attributes:
        path: The program.
        version: Its kind and version.
        flags: Options for every kernel, warnings and libraries included.
        identity: Everything about compiler and CPU that affects the result.
    """

    path: str
    version: str
    flags: tuple[str, ...]
    identity: str


def open_library(path: str) -> ctypes.CDLL:
    """Loads a library."""
    return ctypes.CDLL(path)


# An entry of the cache that starts so is not a library: it says in which one the kernel is.
_IN_UNIT = b"in unit "
SHARED_ENTRY = "mm_shared"  # of a library of what kernels share


class Place(NamedTuple):
    """Where a loaded kernel is.

    Attributes:
        library: Its library.
        entry: The name of its entry there.
        shared: The library of what it shares with others.
    """

    library: ctypes.CDLL
    entry: str
    shared: ctypes.CDLL | None = None


def place_in_unit(unit: str, entry: str, shared: str = "", pointer: str = "") -> bytes:
    """Returns the data of a kernel that was built with others.

    Args:
        unit: The key of their library.
        entry: The name of its entry there.
        shared: The key of the library of what it shares with others, if there is one.
        pointer: The name of the pointer to the entry of that.
    """
    return _IN_UNIT + " ".join((unit, entry, shared, pointer)).encode()


def link(library: ctypes.CDLL, pointer: str, shared: ctypes.CDLL) -> None:
    """Lets a library of kernels find what they share.

    Raises:
        AttributeError: If one of them lacks what it should have.
    """
    entry = ctypes.cast(getattr(shared, SHARED_ENTRY), ctypes.c_void_p)
    try:
        ctypes.c_void_p.in_dll(library, pointer).value = entry.value
    except ValueError as error:
        raise AttributeError(str(error)) from None


class CachedLibraries:
    """Libraries from the kernel cache; kernels that were built together share one."""

    def __init__(self) -> None:
        self._opened: dict[str, ctypes.CDLL | None] = {}

    def find(self, key: str, entry: str) -> Place | None:
        """Returns where a kernel is; None if it is nowhere, or what it needs is not there.

        Args:
            key: The key of the kernel.
            entry: The name of its entry in a library of its own.
        """
        found = kernel_cache.load(key)
        if found is None:
            return None
        if not found.data.startswith(_IN_UNIT):
            library = _opened(found.path)
            return library and Place(library, entry)
        words = found.data[len(_IN_UNIT) :].decode("utf-8", "replace").split(" ")
        return self._in_unit(*words) if len(words) == 4 else None

    def _in_unit(self, unit: str, entry: str, shared: str, pointer: str) -> Place | None:
        library = self.library(unit)
        if library is None or not shared:
            return library and Place(library, entry)
        needed = self.library(shared)
        if needed is None:
            return None
        try:
            link(library, pointer, needed)
        except AttributeError:  # a damaged file
            return None
        return Place(library, entry, needed)

    def library(self, key: str) -> ctypes.CDLL | None:
        """Returns the library that is the entry of a key."""
        if key not in self._opened:
            saved = kernel_cache.load(key)
            self._opened[key] = saved and _opened(saved.path)
        return self._opened[key]


def _opened(path: str) -> ctypes.CDLL | None:
    """Returns a library; None in a folder without execution rights, or for a damaged file."""
    try:
        return open_library(path)
    except OSError:
        return None


def start_threads(library: ctypes.CDLL, count: int) -> int:
    """Tells the library of threads how many to use, and returns the address for `connect`."""
    function = getattr(library, _THREADS_ENTRY)
    function.argtypes = (ctypes.c_int64,)
    function.restype = None
    function(count)
    return ctypes.addressof(ctypes.c_void_p.in_dll(library, _FUNCTIONS))


def connect(library: ctypes.CDLL, threads: int) -> None:
    """Makes a library of kernels use the threads at an address."""
    with contextlib.suppress(ValueError):  # a library without kernels
        ctypes.c_void_p.in_dll(library, _WANTED).value = threads


def thread_count(wanted: int) -> int:
    """Returns how many threads kernels use.

    Args:
        wanted: `MAXMOD_THREADS`; 0 for `OMP_NUM_THREADS`, or else every CPU that the process
            may use, within the limit of its control group.
    """
    if wanted > 0:
        return wanted
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if text.isdecimal() and int(text) > 0:
        return int(text)
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cpus, _quota()))


def _quota() -> int:
    """Returns the CPU quota of the container, rounded up; a large number without one."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):  # no such file, or `max`
        return 1 << 16
