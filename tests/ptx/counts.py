"""What a launch costs: sectors of global memory, passes of shared memory, instructions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ptx.text import Instruction

SECTOR = 32  # bytes that global memory moves at least
BANKS = 32  # of shared memory, 4 bytes each
Numbers = npt.NDArray[np.int64]


@dataclass
class Access:
    """What one load or store of the text cost.

    Attributes:
        instruction: The instruction.
        space: "global" or "shared".
        requests: How many warps executed it.
        used: Sectors that they touched, or passes that they took.
        ideal: As few as these bytes allow, wherever they were.
    """

    instruction: Instruction
    space: str
    requests: int = 0
    used: int = 0
    ideal: int = 0

    @property
    def ratio(self) -> float:
        """How many times the ideal it cost."""
        return self.used / max(self.ideal, 1)


@dataclass
class Counts:
    """What a launch cost.

    Attributes:
        accesses: By position of the instruction.
        instructions: How many warps executed instructions of each name.
    """

    accesses: dict[int, Access] = field(default_factory=dict[int, Access])
    instructions: Counter[str] = field(default_factory=Counter[str])

    def _ratio(self, space: str) -> float:
        found = [access for access in self.accesses.values() if access.space == space]
        ideal = sum(access.ideal for access in found)
        return sum(access.used for access in found) / ideal if ideal else 1.0

    @property
    def sector_ratio(self) -> float:
        """Sectors of global memory over those that the bytes would fit into."""
        return self._ratio("global")

    @property
    def pass_ratio(self) -> float:
        """Passes of shared memory over those without conflicts of banks."""
        return self._ratio("shared")

    @property
    def sectors(self) -> int:
        """Sectors of global memory that warps touched, loads and stores."""
        return sum(a.used for a in self.accesses.values() if a.space == "global")

    def worst(self, space: str) -> list[Access]:
        """Returns the accesses of a space that cost more than the ideal, the worst first."""
        found = [a for a in self.accesses.values() if a.space == space and a.used > a.ideal]
        return sorted(found, key=lambda access: access.ideal - access.used)

    def access(self, position: int, instruction: Instruction, space: str) -> Access:
        """Returns the entry of an instruction."""
        found = self.accesses.get(position)
        if found is None:
            found = self.accesses[position] = Access(instruction, space)
        return found


def count_sectors(access: Access, warps: Numbers, places: Numbers, nbytes: int) -> None:
    """Adds a request to global memory.

    Args:
        access: Where to add it.
        warps: The warp of each thread.
        places: The offset of each thread, a multiple of `nbytes`.
        nbytes: How many bytes each thread moves.
    """
    keys = warps << 44 | places
    keys.sort()
    distinct = keys[_firsts(keys)]
    sectors = distinct // SECTOR
    firsts = _firsts(sectors)
    of_warp = distinct >> 44
    starts = np.flatnonzero(_firsts(of_warp))
    counts = np.diff(starts, append=len(distinct))
    access.requests += len(starts)
    access.used += int(firsts.sum())
    access.ideal += int((-(-counts * nbytes // SECTOR)).sum())


def _firsts(ordered: Numbers) -> npt.NDArray[np.bool_]:
    """True where a number differs from the one before."""
    found = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=found[1:])
    return found


def count_passes(
    access: Access, warps: Numbers, lanes: Numbers, places: Numbers, nbytes: int
) -> None:
    """Adds a request to shared memory.

    A pass serves one word of each bank to a whole warp. Accesses of 8 bytes are served to half a
    warp at a time, those of 16 bytes to a quarter.

    Args:
        access: Where to add it.
        warps: The warp of each thread.
        lanes: The position of each thread in its warp.
        places: The offset of each thread, a multiple of `nbytes`.
        nbytes: How many bytes each thread moves.
    """
    words = max(nbytes // 4, 1)
    group = warps * 4 + lanes * words // 32
    word = (places // 4)[:, None] + np.arange(words)
    keys = (group[:, None] << 40 | word).reshape(-1)
    keys.sort()
    keys = keys[_firsts(keys)]
    bank = (keys >> 40) * BANKS + keys % BANKS
    bank.sort()
    starts = np.flatnonzero(_firsts(bank))
    depth = np.diff(starts, append=len(bank))  # words of each bank
    groups = bank[starts] // BANKS
    first = np.flatnonzero(_firsts(groups))
    access.requests += int(_firsts(groups[first] // 4).sum())
    access.used += int(np.maximum.reduceat(depth, first).sum())
    access.ideal += len(first)
