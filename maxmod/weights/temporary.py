"""Temporary files of saves: a writer that lives holds a lock on its file, one that died none."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat

try:
    import fcntl
except ImportError:  # Windows, where nobody can tell; files of killed saves stay there
    fcntl = None

_NAME = re.compile(r"\..+\.safetensors(\.index\.json)?\.[0-9a-f]{8}\.tmp")
_FLAGS = os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def new_temporary(path: str) -> tuple[int, str]:
    """Makes a file next to `path` that is to be renamed to it, and locks it.

    Returns:
        A descriptor to write to, and the name.

    Raises:
        OSError: If it cannot be made.
    """
    folder, name = os.path.split(path)
    while True:
        temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")
        fd = os.open(temporary, _FLAGS | os.O_WRONLY, 0o666)
        # Another save may have removed it before it was locked; it has no name then.
        if _lock(fd) is not False and _has_name(fd, temporary):
            return fd, temporary
        os.close(fd)


def remove_abandoned(folder: str) -> None:
    """Removes the temporary files of saves whose process has ended.

    Files that cannot be opened or locked are left alone, such as those of others, and all on a
    system without locks.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if _NAME.fullmatch(name):
                _remove_abandoned(os.path.join(folder, name))


def _remove_abandoned(path: str) -> None:
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return
        fd = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
        try:
            if _lock(fd) and _has_name(fd, path):
                os.unlink(path)
        finally:
            os.close(fd)


def _lock(fd: int) -> bool | None:
    """Locks an open file for as long as it is open.

    Returns:
        False if another has the lock; None if the system has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


def _has_name(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False
