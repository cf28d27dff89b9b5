"""Loading libraries of host kernels, and giving them the threads that all of them share."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import NamedTuple

from maxmod.kernel import cache as kernel_cache

THREADS_FILE = "host/threads.c"
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


def place_in_unit(unit: str, entry: str) -> bytes:
    """Returns the data of a kernel that was built with others.

    Args:
        unit: The key of their library.
        entry: The name of its entry there.
    """
    return _IN_UNIT + f"{unit} {entry}".encode()


class CachedLibraries:
    """Libraries from the kernel cache; kernels that were built together share one."""

    def __init__(self) -> None:
        self._units: dict[str, ctypes.CDLL | None] = {}

    def find(self, key: str, entry: str) -> tuple[ctypes.CDLL, str] | None:
        """Returns the library of a kernel and the name of its entry there; None if it is lost.

        Args:
            key: The key of the kernel.
            entry: The name of its entry in a library of its own.
        """
        found = kernel_cache.load(key)
        if found is None:
            return None
        if not found.data.startswith(_IN_UNIT):
            library = _opened(found.path)
            return library and (library, entry)
        unit, _, entry = found.data[len(_IN_UNIT) :].decode("utf-8", "replace").partition(" ")
        if unit not in self._units:
            saved = kernel_cache.load(unit)
            self._units[unit] = saved and _opened(saved.path)
        library = self._units[unit]
        return library and (library, entry)


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
