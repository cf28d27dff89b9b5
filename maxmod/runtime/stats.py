"""`Stats`: what compiling took, and what a compiled model did since."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from maxmod.backends.base import Kernel
from maxmod.errors import CompileError


@dataclass(slots=True)
class Stats:
    """What a compiled model did so far.

    Attributes:
        calls: Number of calls.
        programs: Number of bound programs, one for each set of sizes.
        recordings: CUDA graphs that were captured.
        replays: How often one was started.
        recordings_refused: CUDA graphs that could not be captured; their steps are launched one by
            one.
        products_fallen_back: Products that took a slower way than the matrix library.
        slower: What ran slower than planned, in words, and how often: why a graph was refused, or a
            product fell back.
        plan_cached: Whether passes and planning were skipped, because the graph was known.
        kernels_cached: Kernels that came from the cache.
        kernels_built: Kernels that a compiler was run for.
        kernels_refused: Kernels that cannot be built or loaded; their ops run one by one.
        times_s: Seconds that compiling took by stage: trace, find (the kernel compiler), lookup
            (of the whole graph), import (of the compiler), passes, plan (fusion and kernel text),
            store, build (and load).
    """

    calls: int = 0
    programs: int = 0
    recordings: int = 0
    replays: int = 0
    recordings_refused: int = 0
    products_fallen_back: int = 0
    plan_cached: bool = False
    kernels_cached: int = 0
    kernels_built: int = 0
    kernels_refused: int = 0
    times_s: dict[str, float] = field(default_factory=dict)
    slower: dict[str, int] = field(default_factory=dict)

    @property
    def compile_s(self) -> float:
        """Seconds of all stages."""
        return sum(self.times_s.values())

    def count_kernels(self, kernels: Sequence[Kernel | CompileError]) -> None:
        """Notes where kernels came from."""
        made = [kernel for kernel in kernels if not isinstance(kernel, CompileError)]
        self.kernels_cached = sum(kernel.cached for kernel in made)
        self.kernels_built = len(made) - self.kernels_cached
        self.kernels_refused = len(kernels) - len(made)

    def count_refusal(self, reason: str) -> None:
        """Notes that steps were not recorded."""
        self.recordings_refused += 1
        self._count(f"no CUDA graph: {reason}")

    def count_fallback(self, reason: str) -> None:
        """Notes that a product took a slower way."""
        self.products_fallen_back += 1
        self._count(reason)

    def _count(self, reason: str) -> None:
        self.slower[reason] = self.slower.get(reason, 0) + 1

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            time_s = time.perf_counter() - start
            self.times_s[stage] = self.times_s.get(stage, 0.0) + time_s
