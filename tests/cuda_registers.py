"""What CUDA kernels occupy on a GPU, as NVRTC reports it: no spills, few enough registers.

NVRTC takes about a second for a kernel and an architecture. Every kernel is compiled for one
architecture, and for the others those that take the most registers there: what has room to spare on
one architecture is not what spills on the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import build_cache

from maxmod.backends.cuda import nvrtc
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource

FIRST = "sm_90"
OTHERS = ("sm_80", "sm_100")
TIGHTEST = 2  # kernels that are compiled for the others, too


def report(source: KernelSource, arch: str) -> str:
    """Returns the log of NVRTC, which holds no warning."""
    parts = [nvrtc.__name__, *map(str, nvrtc.load()[1:]), arch, *source.options]
    parts += [kernel_text.prelude(Dialect.CUDA), source.plain]
    log = build_cache.cached(
        ".log", parts, lambda: nvrtc.compile_text(source, arch)[1].encode()
    ).read_text("utf-8")
    assert nvrtc.warnings_of(log) == ""
    return log


def assert_no_spills(sources: Sequence[KernelSource], registers: int) -> None:
    """Compiles kernels and looks at what they occupy.

    Args:
        sources: The kernels; their entries are `mm_kernel`.
        registers: How many a thread may take.
    """
    used = [_usage(source, FIRST, registers) for source in sources]
    order = sorted(range(len(sources)), key=lambda index: -used[index].registers)
    for arch in OTHERS:
        for index in order[:TIGHTEST]:
            _usage(sources[index], arch, registers)


def _usage(source: KernelSource, arch: str, registers: int) -> nvrtc.Usage:
    used = nvrtc.usage(report(source, arch))["mm_kernel"]
    assert used.spill_nbytes == 0, (arch, source.name, source.code)
    assert used.registers <= registers, (arch, source.name, source.code)
    return used
