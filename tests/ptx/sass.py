"""What the assembler made of a kernel: registers, spills, widths of loads, bytes in flight.

The machine code (SASS) is shown by nvdisasm, which comes as a package: `pip install
nvidia-cuda-nvdisasm`. How long a load takes is not in it; how many of them are under way before the
first one is waited for is.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import build_cache

from maxmod.backends.cuda import nvrtc
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.kernel.text import prelude
from ptx.compiling import together

ARCHITECTURE = "sm_90"
# Of a multiprocessor. Source: CUDA C++ Programming Guide, compute capability 9.0.
REGISTERS, WARPS, SHARED_NBYTES, RESERVED_NBYTES = 65536, 64, 227 << 10, 1 << 10
_UNIT = 256  # registers that are given to a warp together
_SECTION = re.compile(r"^\.text\.([\w$]+):", re.M)
_LINE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+((?:@!?U?P\w+\s+)?[A-Z][^;]*);", re.M)
_GUARD = re.compile(r"@!?U?P\w+\s+")
_JUMP = re.compile(r"(BRA|EXIT|RET)\b(?!.*\bU?P\d)")  # for all threads
_LOAD = re.compile(r"(LDG\S*)\s+R(\d+),\s*(.*)")
_REGISTER = re.compile(r"\bR(\d+)(\.64)?")


@dataclass(frozen=True)
class Code:
    """The machine code of a kernel.

    Attributes:
        usage: Registers and spills.
        static_nbytes: Shared memory that its text declares.
        lines: Its instructions.
    """

    usage: nvrtc.Usage
    static_nbytes: int
    lines: tuple[str, ...]

    def count(self, pattern: str) -> int:
        """Returns how many instructions begin with a pattern."""
        return sum(re.match(pattern, _GUARD.sub("", line)) is not None for line in self.lines)

    @property
    def in_flight(self) -> int:
        """The most bytes of loads that a thread has under way before it waits for one of them."""
        return _in_flight(self.lines)

    def blocks(self, threads: int, shared_nbytes: int) -> int:
        """Returns how many blocks a multiprocessor holds.

        Args:
            threads: Of a block.
            shared_nbytes: Dynamic shared memory of a block.
        """
        of_warp = -(-self.usage.registers * 32 // _UNIT) * _UNIT
        warps = threads // 32
        shared = self.static_nbytes + shared_nbytes + RESERVED_NBYTES
        return min(REGISTERS // (of_warp * warps), WARPS // warps, SHARED_NBYTES // shared)


def _in_flight(lines: Sequence[str]) -> int:
    """Walks down the text: a use of a loaded register waits for that load and all before it."""
    pending: list[tuple[range, int]] = []
    most = 0
    for line in lines:
        bare = _GUARD.sub("", line)
        load = _LOAD.match(bare)
        used = _used(load[3] if load else bare)
        waits = [n for n, (registers, _) in enumerate(pending) if used & set(registers)]
        if waits:
            pending = pending[waits[-1] + 1 :]
        if load:
            nbytes, first = _width(load[1]), int(load[2])
            pending.append((range(first, first + max(nbytes // 4, 1)), nbytes))
            most = max(most, sum(nbytes for _, nbytes in pending))
        if _JUMP.match(line):  # what follows is reached from elsewhere
            pending = []
    return most


def _width(name: str) -> int:
    wide = {"128": 16, "64": 8, "U8": 1, "S8": 1, "U16": 2, "S16": 2}
    return next((wide[part] for part in name.split(".") if part in wide), 4)


def _used(text: str) -> set[int]:
    """Returns the registers that an instruction mentions; of stores all that they write."""
    found: set[int] = set()
    count = _width(text.split()[0]) // 4 if re.match(r"ST[GS]", text) else 1
    for match in _REGISTER.finditer(text):
        first = int(match[1])
        found |= set(range(first, first + max(2 if match[2] else 1, count)))
    return found


# ---- nvdisasm ------------------------------------------------------------------------------------


def unavailable_reason() -> str:
    """Why there is no machine code to look at; empty if there is."""
    if not nvrtc.is_available():
        return "needs NVRTC: pip install 'cuda-toolkit[nvrtc]'"
    return "" if _nvdisasm() else "needs nvdisasm: pip install nvidia-cuda-nvdisasm"


def _nvdisasm() -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for path in sorted(Path(folder).glob("*/bin/nvdisasm*")):
            return path
    return None


def codes_of(sources: Sequence[KernelSource], arch: str = ARCHITECTURE) -> list[Code]:
    """Compiles kernels together; returns the machine code of each, in order."""
    whole = together(sources)
    program = _nvdisasm()
    assert program is not None
    parts = [nvrtc.__name__, *map(str, nvrtc.load().version), arch, *whole.options]
    parts += [build_cache.identity(str(program)), prelude(Dialect.CUDA), whole.plain]
    made = build_cache.cached(".sass", parts, lambda: _disassembled(whole, arch, program))
    log, text = json.loads(made.read_text("utf-8"))
    usage, shared = nvrtc.usage(log), _shared(log)
    pieces = _SECTION.split(text)[1:]
    lines = {name: tuple(_LINE.findall(body)) for name, body in zip(pieces[::2], pieces[1::2])}
    names = [f"{source.entry}_{number}" for number, source in enumerate(sources)]
    return [Code(usage[name], shared[name], lines[name]) for name in names]


def _disassembled(source: KernelSource, arch: str, program: Path) -> bytes:
    cubin, log = nvrtc.compile_text(source, arch)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [program, "-c", file.name], capture_output=True, text=True, check=True
        )
    return json.dumps([log, done.stdout]).encode()


def _shared(log: str) -> dict[str, int]:
    """Returns the bytes of static shared memory of each kernel."""
    found: dict[str, int] = {}
    for part in log.split("Compiling entry function '")[1:]:
        nbytes = re.search(r"(\d+) bytes smem", part)
        found[part.partition("'")[0]] = int(nbytes[1]) if nbytes else 0
    return found
