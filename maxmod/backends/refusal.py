"""The error of a kernel that a compiler rejects, and that error in short."""

from __future__ import annotations

from maxmod.errors import CompileError
from maxmod.kernel import cache as kernel_cache
from maxmod.kernel.source import KernelSource

MAX_LOG_LINES = 40
MAX_SHORT = 300  # characters of a line of a compiler


def refused(tool: str, source: KernelSource, key: str, reason: str, log: str) -> CompileError:
    """Returns the error, after saving the source.

    Args:
        tool: Start of the message: which compiler.
        source: The kernel.
        key: Its key in the kernel cache, which names the saved source.
        reason: What happened, in a few words.
        log: What the compiler said; a long one is cut in the message.
    """
    path = kernel_cache.keep_source(key, source.full_text())
    lines = log.splitlines()
    shown = "\n".join(lines[:MAX_LOG_LINES])
    if len(lines) > MAX_LOG_LINES:
        shown += f"\n... {len(lines) - MAX_LOG_LINES} more lines"
    where = f"The source was saved as {path}." if path else "The source could not be saved."
    message = f"{tool}: {source.name}: {reason}:\n{shown}\n{where}"
    return CompileError(message, log=log, source_path=path)


def in_short(error: CompileError) -> str:
    """Returns which kernel was refused by what, and the first error line of the log."""
    first, *_ = str(error).splitlines() or [""]
    where = f". Its source: {error.source_path}" if error.source_path else ""
    return f"{first} {error_line(error.log)}".strip().rstrip(".") + where


def error_line(log: str) -> str:
    """Returns the first line of a log that is about an error, or else the first one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    found = (line for line in lines if "error" in line.lower())
    return next(found, lines[0] if lines else "")[:MAX_SHORT]
