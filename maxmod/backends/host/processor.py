"""What processor this is: its model and instruction sets, part of the key of every host kernel.

Kernels are built for the processor that they run on, so a cache in a home folder that several
machines share, or in a copied image, must keep those of each apart.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator

_CPUINFO = "/proc/cpuinfo"
_CPUINFO_NBYTES = 8192  # of the first CPU only: the file grows with their number
# Fields of x86, Arm, RISC-V, POWER and s390 that tell processors and instruction sets apart.
_FIELDS = {
    "model name", "flags", "Features", "features", "CPU implementer", "CPU part", "CPU variant",
    "isa", "uarch", "mvendorid", "marchid", "cpu",
}  # fmt: skip
_SYSCTL = (
    "machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features",
    "hw.cpufamily", "hw.optional.avx2_0", "hw.optional.avx512f", "hw.optional.avx512vnni",
    "hw.optional.arm.FEAT_DotProd", "hw.optional.arm.FEAT_FP16", "hw.optional.arm.FEAT_BF16",
    "hw.optional.arm.FEAT_I8MM", "hw.optional.arm.FEAT_SME", "hw.optional.arm.FEAT_SME2",
    "hw.model",
)  # fmt: skip
_WINDOWS_FEATURES = 128  # numbers of IsProcessorFeaturePresent; 91 was the highest in 2026


@functools.cache
def processor() -> str:
    """Returns the model and the instruction sets of the CPU; see `is_known`."""
    machine = os.uname().machine if hasattr(os, "uname") else ""
    lines = {"linux": _of_linux, "win32": _of_windows}.get(sys.platform, _of_sysctl)()
    return "\n".join((f"{sys.platform} {machine}".strip(), *lines))


def is_known(text: str) -> bool:
    """Whether the system told more than its name, so that machines can be told apart.

    Args:
        text: What `processor` returned.
    """
    return "\n" in text


def _of_linux() -> Iterator[str]:
    try:
        with open(_CPUINFO, encoding="utf-8", errors="replace") as file:
            text = file.read(_CPUINFO_NBYTES)
    except OSError:
        return
    for line in text.split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        if name.strip() in _FIELDS:
            yield value.strip()


def _of_sysctl() -> Iterator[str]:
    """macOS and the BSDs."""
    read = sysctl()
    for name in _SYSCTL if read else ():
        value = read(name) if read else b""
        if value:
            yield f"{name} {value.rstrip(bytes(1)).hex()}"


def sysctl() -> Callable[[str], bytes] | None:
    """Returns a function of the name of a number or text; it returns nothing for unknown ones."""
    try:
        function = ctypes.CDLL(None).sysctlbyname
    except (OSError, AttributeError, TypeError):
        return None

    def read(name: str) -> bytes:
        buffer = ctypes.create_string_buffer(4096)
        size = ctypes.c_size_t(ctypes.sizeof(buffer))
        failed = function(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0))
        return b"" if failed else buffer.raw[: size.value]

    return read


def _of_windows() -> Iterator[str]:
    for name in ("PROCESSOR_ARCHITECTURE", "PROCESSOR_IDENTIFIER"):
        if os.environ.get(name):
            yield os.environ[name]
    is_present = _windows_features()
    if is_present:
        yield " ".join(str(n) for n in range(_WINDOWS_FEATURES) if is_present(n))


def _windows_features() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL("kernel32").IsProcessorFeaturePresent
    except (OSError, AttributeError):
        return None
