"""Finding libraries of CUDA: in NVIDIA's wheels, in a toolkit, or where the loader looks."""

from __future__ import annotations

import ctypes
import functools
import glob
import importlib.util
import os
import re
import sys
from collections.abc import Iterator

_VERSION = re.compile(r"\d+")
_MAJORS = (13, 12)  # of CUDA, the newest first
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@functools.cache
def driver_major() -> int:
    """Returns the version of CUDA that the driver supports; 0 without a driver.

    A driver runs what libraries of this version and of older ones make, and nothing newer.
    """
    try:
        driver = ctypes.CDLL(_DRIVER)
        version = ctypes.c_int()
        status = driver.cuDriverGetVersion(ctypes.byref(version))  # needs no cuInit
    except (OSError, AttributeError):
        return 0
    return 0 if status else version.value // 1000


@functools.cache
def find(stem: str, major: int = 0) -> str | None:
    """Returns the path of a library, or the bare name if the loader finds it; None without one.

    What is newer than the driver supports is left out: its machine code would not load.

    Args:
        stem: Its name without prefix and suffix, such as `nvrtc`.
        major: The preferred version; 0 for that of the driver, or the newest without one.
    """
    most = driver_major() or sys.maxsize
    wanted = major or min(most, max(_MAJORS))
    found = [path for path in _candidates(stem) if major_of(path) <= most]
    found.sort(key=lambda path: major_of(path) != wanted)  # keeps the order of the places
    for path in found:
        return path
    for number in sorted(_MAJORS, key=lambda number: number != wanted):
        if number > most:
            continue
        name = f"{stem}64_{number}.dll" if sys.platform == "win32" else f"lib{stem}.so.{number}"
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    path = _from_pathfinder(stem)
    return None if path is None or major_of(path) > most else path


def too_new(stem: str) -> str:
    """Returns a library that is installed, but newer than the driver supports; empty if none is."""
    most = driver_major() or sys.maxsize
    return next((path for path in _candidates(stem) if major_of(path) > most), "")


def major_of(path: str) -> int:
    """Returns the version in the name of a library; 0 if there is none."""
    numbers = _numbers(path, after=r"\.so\.|64_")
    return 0 if not numbers else numbers[0] if numbers[0] < 100 else numbers[0] // 10


def _candidates(stem: str) -> Iterator[str]:
    names = f"{stem}64_*.dll" if sys.platform == "win32" else f"lib{stem}.so.*"
    spec = importlib.util.find_spec("nvidia")  # the wheels share this namespace package
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in places:
        found = glob.glob(os.path.join(place, "*", "lib", names))
        found += glob.glob(os.path.join(place, "*", "bin", "**", names), recursive=True)
        yield from sorted(found, key=_numbers, reverse=True)
    roots = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    for root in filter(None, roots):
        for folder in ("lib64", "lib", "bin"):
            yield from sorted(glob.glob(os.path.join(root, folder, names)), key=_numbers)


def _numbers(path: str, after: str = "") -> list[int]:
    name = os.path.basename(path)
    name = re.split(after, name, maxsplit=1)[-1] if after and re.search(after, name) else name
    return [int(number) for number in _VERSION.findall(name)]


def _from_pathfinder(stem: str) -> str | None:
    """Asks NVIDIA's package, which finds a few more locations, such as those of conda."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # type: ignore[import-not-found]

        return load_nvidia_dynamic_lib(stem).abs_path
    except (ImportError, RuntimeError):  # the package is missing, or the library is
        return None
