"""Runs PTX, what NVRTC makes of a kernel, on NumPy: a proof of CUDA kernels without a GPU.

    (kernel,) = parse(text)
    made = Buffer.made((4,), np.float32)
    counts = launch(kernel, Grid(blocks=1, threads=32), [x, made, np.int64(4)])
    made.array, counts.sector_ratio, counts.instructions

All threads of some blocks run in step, the lowest instruction first, each instruction as one call
of NumPy. Every access to memory is checked: bounds, alignment, reads of what nobody wrote, races
between threads (two accesses without a barrier between them, one of which writes) and between
blocks (without a fence and an atomic). For each load and store the sectors of 32 bytes are counted
that it touches, or in shared memory the passes that conflicts of banks cost.

    text.py         PTX to instructions
    machine.py      which threads run when: branches, barriers, the launch
    registers.py    operands as arrays
    families.py     which file has an instruction: moves.py, integers.py, bits.py, floats.py,
                    conversions.py, warps.py, tensor_cores.py, accesses.py
    memory.py       what an access is checked for
    spaces.py       memory that knows what was written
    races.py        who wrote and read last
    counts.py       sectors, passes, instructions
    compiling.py    CUDA text to PTX, with NVRTC
    programs.py     small programs for the tests of all this

Source of everything: PTX ISA 8.8. Not modelled: latency, caches, the order of blocks. Approximate
functions (ex2.approx and others) are rounded from float64, better than on a GPU. Nothing here
imports pytest but the tests, so that benchmarks can use the counts.
"""

from ptx.counts import Access, Counts
from ptx.machine import Grid, launch
from ptx.spaces import Buffer, Fault
from ptx.text import Instruction, Kernel, parse

__all__ = [
    "Access",
    "Buffer",
    "Counts",
    "Fault",
    "Grid",
    "Instruction",
    "Kernel",
    "launch",
    "parse",
]
