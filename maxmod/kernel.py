"""The contract between the compiler and the backends: kernel text, and how it is called.

A kernel is text in one of two dialects with one entry point. The compiler makes `KernelSource`s on
any machine; a backend builds and launches them and never sees a graph.

Calling convention:
    host: ``void entry(void *const *buffers, const int64_t *scalars)``; the body loads its pointers
        and integers from the two tables and uses OpenMP itself.
    cuda: ``extern "C" __global__ void entry(T0 *b0, ..., long long s0, ...)``, buffers first.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from maxmod.dim import Size


class Dialect(enum.Enum):
    """A kernel language; its prelude is `kernels/prelude/<value>.h`."""

    HOST = "host"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True)
class Launch:
    """How many threads run a CUDA kernel; sizes may be symbolic until a program is bound.

    Attributes:
        elements: Work items; the grid covers them, capped, with a grid-stride loop in the kernel.
        items_per_block: Work items of one block.
        threads: Threads of one block.
        shared_nbytes: Dynamic shared memory of one block in bytes.
    """

    elements: Size = 1
    items_per_block: int = 256
    threads: int = 256
    shared_nbytes: int = 0


@dataclass(frozen=True, slots=True)
class KernelSource:
    """One kernel as text.

    Attributes:
        name: What a person calls it; not part of the cache key.
        dialect: Its language.
        code: The text after the prelude, with `entry` defined in it.
        entry: Name of the entry function.
        buffers: Number of buffer arguments (inputs, then outputs).
        scalars: Number of int64 arguments.
        launch: Grid rule, for CUDA.
        options: Extra compiler options.
    """

    name: str
    dialect: Dialect
    code: str
    entry: str
    buffers: int
    scalars: int
    launch: Launch = Launch()
    options: tuple[str, ...] = ()
