"""How much host memory a process can still allocate, where the system reports it."""

from __future__ import annotations

from pathlib import Path

from maxmod.errors import OutOfMemoryError

_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")  # of a container; version 2


def memory() -> dict[str, int]:
    """Returns `free_memory` and `total_memory` in bytes; nothing where they cannot be known.

    Free is what can be had without swapping: caches of files do not count as used. In a container
    its own limit counts, where it is lower.
    """
    table = _numbers(_MEMORY, unit=1024)
    if not {"MemAvailable:", "MemTotal:"} <= table.keys():
        return {}
    free, total = table["MemAvailable:"], table["MemTotal:"]
    limit = _number(_GROUP / "memory.max")
    used = _number(_GROUP / "memory.current")
    if limit is not None and used is not None:
        cached = _numbers(_GROUP / "memory.stat").get("inactive_file", 0)
        free, total = min(free, max(0, limit - used + cached)), min(total, limit)
    return {"free_memory": free, "total_memory": total}


def out_of_memory(what: str, error: MemoryError | None = None) -> OutOfMemoryError:
    """Returns the error for an allocation that failed, with the numbers of the system.

    Args:
        what: What needed the memory, and how much if that is known.
        error: The one of NumPy, whose message has the size.
    """
    if isinstance(error, OutOfMemoryError):
        return error
    reason = f": {error}" if error is not None and str(error) else ""
    numbers = memory()
    listed = ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in numbers.items())
    known = f" ({listed})" if listed else ""
    return OutOfMemoryError(
        f"cpu: out of memory in {what}{reason.rstrip('.')}{known}. Hint: end other programs, use "
        "smaller sizes, or raise the limit of the process (ulimit -v)."
    )


def _numbers(path: Path, unit: int = 1) -> dict[str, int]:
    """Reads lines of a name and a number."""
    try:
        lines = [line.split() for line in path.read_text("ascii").splitlines()]
        return {line[0]: int(line[1]) * unit for line in lines if len(line) > 1}
    except (OSError, ValueError):
        return {}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):  # "max" means no limit
        return None
