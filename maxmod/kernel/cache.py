"""The kernel cache on disk: bytes in, bytes back.

Three files for each entry: `<key>.bin` (the data, then a digest of key and data), `<key>.src` (the
text it was made from) and `<key>.json` (information for people). The key is a digest of
everything that decides the result, so entries never change; names are not part of it. Whatever is
wrong with a file makes it a miss, and a folder that cannot be written only turns saving off.

Loaded code runs with the rights of the user, therefore a folder or file that somebody else owns, or
could write, is not used.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from maxmod import config
from maxmod.errors import MaxmodWarning
from maxmod.system.files import open_regular
from maxmod.system.locks import fork_safe_lock

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:  # the built-in modules load in 0.1 ms; hashlib loads OpenSSL first, which takes 4 ms
        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256
    except ImportError:  # some systems build Python without them
        from hashlib import sha256

FORMAT = 1  # part of every key: raise it when the layout of a file changes
_DIGEST_NBYTES = 32
_SUFFIXES = (".bin", ".src", ".json")
_TRIM_INTERVAL_S = 3600.0  # a folder is measured at most once an hour, and after much was written
_TRIM_TARGET = 0.75  # share of the limit that is left after trimming
_REFRESH_S = 86400.0  # how old a time of last use may be before it is written again
_TEMPORARY_S = 3600.0  # a temporary file older than this belongs to a process that died
_COUNTER = itertools.count()


class Entry(NamedTuple):
    """One loaded entry: its data, and the path of the file that starts with them."""

    key: str
    data: bytes
    path: str


class CacheInfo(NamedTuple):
    """What the cache holds, for people.

    Attributes:
        path: The folder.
        usable: Whether entries are read from it.
        writable: Whether entries are saved to it.
        entries: Number of entries.
        nbytes: Bytes of all their files.
        max_bytes: Size at which old entries are removed.
    """

    path: str
    usable: bool
    writable: bool
    entries: int
    nbytes: int
    max_bytes: int


@functools.cache
def _digest_of_shared(text: str) -> bytes:
    """Preludes are long and the same for every kernel: they are digested once a process."""
    return sha256(text.encode()).digest()


def make_key(*parts: str | bytes, shared: str = "") -> str:
    """Returns the key of an entry: 64 hexadecimal digits.

    Args:
        *parts: Everything that decides the result: code, dialect, architecture, compiler, options.
        shared: Text that many keys have in common (a prelude).
    """
    digest = sha256(b"maxmod %d" % FORMAT)
    digest.update(_digest_of_shared(shared))
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))  # the length keeps ("ab", "c") from ("a", "bc")
        digest.update(data)
    return digest.hexdigest()


def path() -> str:
    """Returns the folder of the cache; it need not exist."""
    root = config.current().cache_dir or _user_cache_dir()
    return os.path.join(os.path.abspath(os.path.expanduser(root)), "kernels")


def _user_cache_dir() -> str:
    if sys.platform == "linux":  # the rule of platformdirs, which takes 12 ms to import
        root = os.environ.get("XDG_CACHE_HOME", "")
        home = os.path.join(os.path.expanduser("~"), ".cache")
        return os.path.join(root if os.path.isabs(root) else home, "maxmod")
    import platformdirs

    return platformdirs.user_cache_dir("maxmod", appauthor=False)


def load(key: str) -> Entry | None:
    """Returns the entry of a key, or None: not there, damaged, not ours, or caching is off."""
    if config.current().nocache:
        return None
    folder = path()
    name = os.path.join(folder, key + ".bin")
    try:
        if not _is_trusted(folder):
            return None
        with open(open_regular(name), "rb") as file:
            facts = os.fstat(file.fileno())
            if not _is_own(facts):
                return None
            content = file.read()
    except OSError:
        return None
    data, digest = content[:-_DIGEST_NBYTES], content[-_DIGEST_NBYTES:]
    if not data or _sealed(key, data) != digest:
        return None
    if time.time() - facts.st_mtime > _REFRESH_S:  # trimming removes the least recently used
        with contextlib.suppress(OSError):
            os.utime(name)
    return Entry(key, data, name)


def store(key: str, data: bytes, *, source: str = "", note: str = "") -> str | None:
    """Saves an entry; what cannot be saved is left out without an error.

    Args:
        key: From `make_key`.
        data: What `load` will return; not empty.
        source: The text it was made from, for people.
        note: JSON text about it, for people.

    Returns:
        The path of the file that starts with the data, or None if it was not saved.
    """
    if config.current().nocache:
        return None
    folder = path()
    name = os.path.join(folder, key)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if not _is_trusted(folder):
            return None
        if note:
            _write(name + ".json", note.encode())
        if source:
            _write(name + ".src", source.encode())
        _write(name + ".bin", data + _sealed(key, data))
    except OSError as error:
        _warn_once(f"kernel cache: nothing can be saved in {folder}: {error.strerror}.")
        return None
    _Trimmer.account(folder, len(data) + len(source) + len(note))
    return name + ".bin"


def keep_source(key: str, source: str) -> str:
    """Saves source that a compiler rejected, next to the entries; `clear` removes it.

    Returns:
        The path, or an empty string if it could not be saved.
    """
    if config.current().nocache:
        return ""
    folder = path()
    name = os.path.join(folder, key + ".src")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _write(name, source.encode())
    except OSError:
        return ""
    return name


def info() -> CacheInfo:
    """Returns what the cache holds."""
    folder = path()
    files = list(_files(folder))
    usable = not config.current().nocache and _is_usable(folder)
    return CacheInfo(
        path=folder,
        usable=usable,
        writable=usable and os.access(_existing_parent(folder), os.W_OK),
        entries=sum(name.endswith(".bin") for name, _ in files),
        nbytes=sum(facts.st_size for _, facts in files),
        max_bytes=config.current().cache_max_bytes,
    )


def clear() -> int:
    """Removes every entry; returns how many there were."""
    removed = 0
    for name, _ in _files(path()):
        with contextlib.suppress(OSError):
            os.unlink(name)
            removed += name.endswith(".bin")
    return removed


def trim() -> int:
    """Removes the entries that were not used for longest until the cache is below its limit.

    Returns:
        The number of removed bytes.
    """
    limit = config.current().cache_max_bytes
    now = time.time()
    sizes: dict[str, int] = {}
    used: dict[str, float] = {}
    removed = 0
    for name, facts in list(_files(path())):
        stem, suffix = os.path.splitext(name)
        if suffix not in _SUFFIXES:  # left behind by a process that died
            if now - facts.st_mtime > _TEMPORARY_S:
                removed += _remove(name, facts.st_size)
            continue
        sizes[stem] = sizes.get(stem, 0) + facts.st_size
        used[stem] = max(used.get(stem, 0.0), facts.st_mtime)
    total = sum(sizes.values())
    if total <= limit:
        return removed
    for stem in sorted(sizes, key=used.__getitem__):
        if total <= limit * _TRIM_TARGET:
            break
        for suffix in _SUFFIXES:
            _remove(stem + suffix, 0)
        total -= sizes[stem]
        removed += sizes[stem]
    return removed


class _Trimmer:
    """Decides when the folder is measured: rarely, since that reads every name in it."""

    lock = fork_safe_lock()
    written = 0

    @classmethod
    def account(cls, folder: str, nbytes: int) -> None:
        with cls.lock:
            cls.written += nbytes
            much = cls.written > config.current().cache_max_bytes // 8
            if not much and not _is_due(os.path.join(folder, "trimmed")):
                return
            cls.written = 0
        trim()


def _is_due(stamp: str) -> bool:
    """Whether the folder was not measured for long; if so, the stamp is renewed."""
    with contextlib.suppress(OSError):
        if 0 <= time.time() - os.stat(stamp).st_mtime < _TRIM_INTERVAL_S:  # not a stamp of 2096
            return False
    with contextlib.suppress(OSError):
        _write(stamp, b"")
        return True
    return False


def _sealed(key: str, data: bytes) -> bytes:
    """Returns the digest that binds data to their key: a renamed entry is not valid."""
    digest = sha256(key.encode())
    digest.update(data)
    return digest.digest()


def _is_own(facts: os.stat_result) -> bool:
    """Whether this user or the administrator owns a file, and no one else can write it."""
    if sys.platform == "win32":
        return True  # protected by the folder of the user profile
    return facts.st_uid in (os.geteuid(), 0) and not facts.st_mode & 0o022


def _is_trusted(folder: str) -> bool:
    """Whether a folder, which must exist, is ours; warns if it is not."""
    if _is_own(os.stat(folder)):
        return True
    _warn_once(
        f"kernel cache: {folder} is not used: others own it or can write to it. Hint: "
        "chmod go-w, or set MAXMOD_CACHE_DIR to a folder of your own."
    )
    return False


def _is_usable(folder: str) -> bool:
    try:
        return _is_own(os.stat(folder))
    except OSError:
        return not os.path.exists(folder)


def _existing_parent(folder: str) -> str:
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return folder


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, MaxmodWarning, stacklevel=4)


def _write(name: str, data: bytes) -> None:
    """Writes a file so that readers see all of it or nothing."""
    temporary = f"{name}.{os.getpid()}-{threading.get_ident()}-{next(_COUNTER)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(data)
        os.replace(temporary, name)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _files(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yields the files of entries and leftovers, with their facts."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.endswith((*_SUFFIXES, ".tmp")):
            with contextlib.suppress(OSError):
                yield entry.path, entry.stat(follow_symlinks=False)


def _remove(name: str, nbytes: int) -> int:
    try:
        os.unlink(name)
    except OSError:
        return 0
    return nbytes
