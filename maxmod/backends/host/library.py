"""Loading libraries of host kernels, and giving them the threads that all of them share."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import NamedTuple

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
