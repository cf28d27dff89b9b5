"""What the machine code of a kernel says: registers, spills, and bytes of loads in flight.

Needs NVRTC, and for loads in flight `nvdisasm` (pip install nvidia-cuda-nvdisasm).
"""

from __future__ import annotations

import functools
import glob
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from maxmod.backends.cuda import nvrtc
from maxmod.kernel.source import KernelSource

_LABEL = re.compile(r"^\.L_x_\d+:")
_LINE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(.*?);")
_LOAD = re.compile(r"^LDG\S*\s+R(\d+),\s*(.*)")
_REGISTER = re.compile(r"\bR(\d+)\b")
_WIDTHS = ((".128", 16), (".64", 8), (".U8", 1), (".S8", 1), (".U16", 2), (".S16", 2))


@dataclass(frozen=True)
class MachineCode:
    """Facts about a compiled kernel.

    Attributes:
        registers: Of a thread.
        spills: Bytes of a thread that do not fit into registers.
        in_flight: Most bytes that a thread has asked for before it uses the first of them; None
            without `nvdisasm`.
    """

    registers: int
    spills: int
    in_flight: int | None

    def blocks(self, threads: int, shared_nbytes: int) -> int:
        """Returns the blocks that a multiprocessor of sm_90 holds at once."""
        of_warp = -(-self.registers * 32 // 256) * 256
        by_registers = 65536 // (of_warp * (threads // 32))
        by_memory = 227 * 1024 // (shared_nbytes + 1024)
        return max(min(by_registers, by_memory, 2048 // threads, 32), 1)


@functools.cache
def nvdisasm() -> str | None:
    """Returns where the disassembler is, or None."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in glob.glob(os.path.join(place, "*", "bin", "nvdisasm")):
            return path
    return shutil.which("nvdisasm")


def compiled(source: KernelSource, arch: str) -> MachineCode:
    """Compiles a kernel and reads its machine code."""
    cubin, log = nvrtc.compile_text(source, arch)
    used = nvrtc.usage(log)[source.entry]
    return MachineCode(used.registers, used.spill_nbytes, _in_flight(cubin))


def _in_flight(cubin: bytes) -> int | None:
    path = nvdisasm()
    if path is None:
        return None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([path, "-c", file.name], capture_output=True, text=True, check=True)
    return max(map(_most_waiting, _blocks(done.stdout)), default=0)


def _blocks(text: str) -> Iterator[list[str]]:
    """Yields straight pieces of code: they end at labels."""
    piece: list[str] = []
    for line in text.splitlines():
        if _LABEL.match(line):
            yield piece
            piece = []
        elif found := _LINE.match(line):
            piece.append(found[1].strip())
    yield piece


def _most_waiting(piece: list[str]) -> int:
    """Returns the most bytes that are loaded and not used yet; a use waits for all older loads."""
    waiting: list[tuple[range, int]] = []
    most = 0
    for instruction in piece:
        load = _LOAD.match(instruction)
        operands = load[2] if load else instruction.partition(" ")[2]
        used = {int(number) for number in _REGISTER.findall(operands)}
        hit = [n for n, (registers, _) in enumerate(waiting) if used.intersection(registers)]
        if hit:
            del waiting[: hit[-1] + 1]
        if load:
            name = instruction.partition(" ")[0]
            nbytes = next((width for part, width in _WIDTHS if part in name), 4)
            first = int(load[1])
            waiting.append((range(first, first + max(nbytes // 4, 1)), nbytes))
            most = max(most, sum(count for _, count in waiting))
    return most
