"""The contract between the compiler and the backends: kernel text, and how it is called.

A kernel is text in one of two dialects with one entry point. The compiler makes `KernelSource`s on
any machine; a backend builds and launches them and never sees a graph.

Calling convention:
    host: ``void entry(void *const *buffers, const int64_t *scalars)``; the body loads its pointers
        and integers from the two tables and shares its work among threads with `mm_parallel`.
    cuda: ``extern "C" __global__ void entry(T0 *b0, ..., long long s0, ...)``, buffers first, all
        of them aligned to 16 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from maxmod.errors import CompileError
from maxmod.kernel.text import Dialect, prelude
from maxmod.values.dim import Size, evaluate

_SUFFIX = {Dialect.HOST: "c", Dialect.CUDA: "cu"}

# The line of a host kernel behind which its own text begins. What precedes it is the same for many
# kernels and defines a function `mm_run_shared`, or with MM_SHARED_ELSEWHERE a pointer to it, which
# is then in a library that is built once.
OWN = "// ==== the text of one kernel ===="

# Dynamic shared memory of a block: every GPU gives 48 KB unasked, and reductions take a little.
SHARED_NBYTES = 40 << 10
WARP = 32  # threads that a GPU runs in step

# Ops that a matrix library may apply to its sums, with their static arguments.
ACTIVATIONS: Mapping[str, Mapping[str, str]] = {"relu": {}, "gelu": {"approximate": "tanh"}}


class Grid(NamedTuple):
    """The numbers of one launch."""

    blocks: int
    threads: int
    shared_nbytes: int


@dataclass(frozen=True, slots=True)
class Launch:
    """The grid rule of a CUDA kernel; sizes may be symbolic until a program is bound.

    Attributes:
        elements: Work items; the grid covers them, capped, with a grid-stride loop in the kernel.
        items_per_block: Work items of one block.
        threads: Threads of one block; an upper limit if `row` is given.
        shared_nbytes: Dynamic shared memory of one block in bytes, at most 48 KB. If it is
            symbolic, a block gets none where it exceeds `SHARED_NBYTES`; the kernel
            makes the same test.
        row: Length of the row that the threads of a block share, if it is symbolic: short rows
            take fewer threads. 0 if `threads` is exact.
        inverse_occupancy: Threads that an SM can hold, divided by those that fit with the
            registers of this kernel. The grid has only blocks that can be resident: a
            persistent block does work once that further blocks would repeat.
    """

    elements: Size = 1
    items_per_block: int = 256
    threads: int = 256
    shared_nbytes: Size = 0
    row: Size = 0
    inverse_occupancy: int = 1

    def grid(self, dims: Mapping[str, int], resident_threads: int) -> Grid:
        """Returns the numbers of a launch.

        Args:
            dims: The value of each symbol.
            resident_threads: Threads that can be resident on the device; further blocks would only
                wait.

        Returns:
            The grid; 0 blocks if there is nothing to do.
        """
        threads = self.threads
        if self.row != 0:
            warps = -(-evaluate(self.row, dims) // (4 * WARP))  # four elements a thread, or more
            threads = min(threads, WARP << max(warps - 1, 0).bit_length())
        shared = evaluate(self.shared_nbytes, dims)
        wanted = -(-evaluate(self.elements, dims) // self.items_per_block)
        blocks = min(wanted, max(resident_threads // (threads * self.inverse_occupancy), 1))
        is_known = isinstance(self.shared_nbytes, int)
        return Grid(blocks, threads, shared if is_known or shared <= SHARED_NBYTES else 0)


class Reading(Protocol):
    """How to show a kernel to people."""

    def shown(self, text: str) -> str:
        """Returns the text of the kernel with readable variable names and comments."""
        ...


@dataclass(frozen=True, slots=True)
class KernelSource:
    """One kernel as text.

    Attributes:
        name: Readable name; not part of the cache key.
        dialect: Its language.
        plain: The text that is built, after the prelude, with `entry` defined in it. Its variables
            are numbered, so that equal kernels have equal text wherever they come from.
        entry: Name of the entry function.
        buffers: Number of buffer arguments (inputs, then outputs).
        scalars: Number of int64 arguments.
        launch: Grid rule, for CUDA.
        options: Extra compiler options.
        symbols: Names of the sizes that the integer arguments are, where `launch` mentions them.
        has_flag: True if one more buffer follows, of one int64: the kernel sets it to 0, or to
            something else if an index that it read was out of range, and its results are
            invalid. On the host only.
        elementwise: For a CUDA kernel that computes each element from those at the same position:
            inputs, outputs and statements as `cupy.ElementwiseKernel` takes them; else empty.
        scratch_floats: If not 0, one more buffer follows, of at least this many floats, which are
            undefined before and after.
        counters: If not 0, one more buffer follows, of at least this many int32, which are 0 before
            and after.
        reading: The names and comments of `code`; None for hand-written or stored text.
    """

    name: str
    dialect: Dialect
    plain: str
    entry: str
    buffers: int
    scalars: int
    launch: Launch = Launch()
    options: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    has_flag: bool = False
    scratch_floats: Size = 0
    counters: Size = 0
    elementwise: tuple[str, ...] = ()
    reading: Reading | None = field(default=None, compare=False, repr=False)

    @property
    def code(self) -> str:
        """The text for people: that which is built, with the names and lines of its first user."""
        return self.plain if self.reading is None else self.reading.shown(self.plain)

    def full_text(self) -> str:
        """Returns what a compiler gets: the prelude, then the code, with its own line numbers."""
        before = prelude(self.dialect, self.plain)
        return f'{before}\n#line 1 "kernel.{_SUFFIX[self.dialect]}"\n{self.plain}'

    def to_cupy(self) -> Any:
        """Returns the kernel as an object of CuPy, to be called, changed or timed without maxmod.

        Returns:
            A `cupy.ElementwiseKernel`, called with the inputs, where every result has at each
            position what the inputs have there, and CuPy knows all dtypes:
            ``y = compiled.kernels[0].to_cupy()(x)``. Else a `cupy.RawKernel` of `full_text()`,
            called with a grid, the inputs, the results, and the sizes in `symbols` as int64:

                grid = source.launch.grid({"n": n}, resident_threads=1 << 17)
                args = (x, y, numpy.int64(n))
                kernel((grid.blocks,), (grid.threads,), args, shared_mem=grid.shared_nbytes)

        Raises:
            CompileError: If it is a kernel of the host.
            ImportError: If CuPy is not installed.
        """
        if self.dialect is not Dialect.CUDA:
            raise CompileError(
                f"to_cupy: {self.name} is a host kernel. Hint: compile for an Accelerator()."
            )
        import cupy

        if self.elementwise:
            kernel = cupy.ElementwiseKernel
            return kernel(*self.elementwise, self.name, preamble=prelude(self.dialect))
        return cupy.RawKernel(self.full_text(), self.entry, ("--std=c++17", *self.options))
