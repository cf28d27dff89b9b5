"""The sizes of this processor's caches, after which products on the host cut their blocks.

`kernels/host/gemm_operands.h` has the sizes that are assumed where the system does not tell, as on
Windows, in some containers and on many Arm processors. Other sizes are options of the compiler, and
with them a part of the key of every kernel.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator

from maxmod.backends.host.processor import sysctl

_CPU = "/sys/devices/system/cpu/cpu0/cache"
ASSUMED = {1: 32 << 10, 2: 512 << 10, 3: 32 << 20}  # bytes of each level
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}
# Of Apple's processors those of the fast cores, which do most of the work.
_SYSCTL = (
    ("hw.perflevel0.l1dcachesize", "hw.l1dcachesize"),
    ("hw.perflevel0.l2cachesize", "hw.l2cachesize"),
    ("hw.l3cachesize",),
)
# Least and largest sizes in bytes that are believed: virtual machines tell odd ones.
_BELIEVED = {1: (16 << 10, 256 << 10), 2: (256 << 10, 16 << 20), 3: (1 << 20, 1 << 30)}


def flags() -> list[str]:
    """Returns options of the compiler that define the sizes that are others than `ASSUMED`."""
    found = sizes()
    return [f"-DMM_L{n}_NBYTES={found[n]}" for n in sorted(found) if found[n] != ASSUMED[n]]


def sizes() -> dict[int, int]:
    """Returns the bytes of each level that is known: the first size that is believed."""
    told = _of_linux(_CPU) if sys.platform == "linux" else _of_sysctl(sysctl())
    found: dict[int, int] = {}
    for level, size in told:
        least, largest = _BELIEVED.get(level, (1, 0))
        if least <= size <= largest:
            found.setdefault(level, size)
    return found


def _of_linux(folder: str) -> Iterator[tuple[int, int]]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for index in names:
        cache = os.path.join(folder, index)
        level, kind, size = (_line(os.path.join(cache, n)) for n in ("level", "type", "size"))
        parsed = re.fullmatch(r"(\d+)([KM]?)", size)
        if parsed and level.isdecimal() and kind in ("Data", "Unified"):
            yield int(level), int(parsed[1]) * _UNITS[parsed[2]]


def _line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _of_sysctl(read: Callable[[str], bytes] | None) -> Iterator[tuple[int, int]]:
    for level, names in enumerate(_SYSCTL, 1):
        for name in names if read else ():
            yield level, int.from_bytes(read(name) if read else b"", sys.byteorder)
