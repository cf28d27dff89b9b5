"""Reading files that strangers made: never a pipe or a device, and never more than is expected."""

from __future__ import annotations

import errno
import os
import stat

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(
        os, "O_NONBLOCK", 0
    )  # to open a pipe, should one appear after the check, ends at once
    | getattr(os, "O_NOCTTY", 0)
)


def open_regular(path: str | os.PathLike[str]) -> int:
    """Opens a file for reading. Links are followed.

    A folder, pipe or device is refused, and not waited for: what a name in a folder of a stranger
    points at may be anything.

    Returns:
        A descriptor.

    Raises:
        OSError: If it is not a file or cannot be opened; `strerror` says why.
    """
    try:
        _expect_regular(os.stat(path))
        fd = os.open(path, _FLAGS)
    except ValueError as error:  # a NUL character in the name
        raise OSError(errno.EINVAL, str(error)) from None
    try:
        _expect_regular(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_regular(path: str | os.PathLike[str], max_nbytes: int) -> bytes:
    """Reads a whole file; see `open_regular`.

    Raises:
        OSError: As `open_regular`, also if the file is larger than `max_nbytes` or changes while it
            is read; `strerror` says why.
    """
    fd = open_regular(path)
    try:
        before = os.fstat(fd)
        if before.st_size > max_nbytes:
            raise OSError(errno.EFBIG, f"expected at most {max_nbytes} bytes, got {before.st_size}")
        data = read_at(fd, before.st_size, 0)
        if len(data) != before.st_size or stamp(os.fstat(fd)) != stamp(before):
            raise OSError(errno.EIO, "the file changed while it was read")
        return data
    finally:
        os.close(fd)


def read_at(fd: int, length: int, offset: int) -> bytes:
    """Returns up to `length` bytes at `offset` (fewer at the end of the file)."""
    parts = []
    while length:
        part = _pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return b"".join(parts)


def stamp(facts: os.stat_result) -> tuple[int, int]:
    """Returns what changes when somebody writes to a file: its size and the time of the change."""
    return facts.st_size, facts.st_mtime_ns


def _pread(fd: int, length: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(fd, length, offset)
    os.lseek(fd, offset, os.SEEK_SET)  # Windows
    return os.read(fd, length)


def _expect_regular(facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a pipe or device"
        raise OSError(errno.EINVAL, f"expected a file, got {kind}")
