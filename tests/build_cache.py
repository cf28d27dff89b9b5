"""What compilers made for tests: nothing is compiled twice, neither in a run nor in the next.

    path = cached(".so", [text, *flags], lambda: compile(text, flags))

The key is a digest of everything that decides the result, so an entry cannot hide a fault: it is
what the compiler would give again. All workers share the folder. It outlives the run in pytest's
own cache (`pytest --cache-clear` removes it); entries unused for a week are removed.

`share_host_builds` puts it behind the C compiler of the host kernels. The kernel cache of maxmod
lies above and does not notice: tests that are about it see every hit and miss as users do. What has
to be compiled finds the prelude precompiled, which changes how long a compiler takes (compared for
one small kernel, GCC 12: the library is the same to the byte).

`unoptimised_host_kernels` is for tests that are about something else than the code of kernels, and
`unoptimised_children` for those whose child processes build some.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from maxmod.backends.host import build as host_build
from maxmod.backends.host import compiler as host_compiler
from maxmod.kernel.text import Dialect, prelude

try:
    import fcntl
except ImportError:  # not a POSIX system: the same thing may be built twice at once
    fcntl = None

FOLDER = "TESTS_BUILD_FOLDER"  # the variable by which workers and child processes find it
_KEPT_S = 7 * 86400.0
_RUN = subprocess.run


def folder() -> Path:
    """Returns the folder of the entries."""
    found = Path(os.environ[FOLDER])
    found.mkdir(parents=True, exist_ok=True)
    return found


def cached(suffix: str, parts: Sequence[str], build: Callable[[], bytes]) -> Path:
    """Returns the file with a result, which is built if nobody did before.

    Args:
        suffix: The end of the file's name.
        parts: Everything that decides the result.
        build: Makes it. It must not ask for another entry, because it holds a lock.
    """
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    path = folder() / f"{digest}{suffix}"
    if not _is_used(path):
        with _locked(digest[:2]):
            if not _is_used(path):
                _write(path, build())
    return path


def _is_used(path: Path) -> bool:
    """Whether a file is there; marks it as used."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)
        return True
    return False


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """Keeps out other threads and processes; one of 256 locks, so that their files stay few."""
    if fcntl is None:
        yield
        return
    with open(folder() / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing unlocks


def trim() -> None:
    """Removes entries unused for a week, and leftovers of dead processes."""
    oldest = time.time() - _KEPT_S
    for path in folder().iterdir():
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()


# ---- host kernels --------------------------------------------------------------------------------


def share_host_builds() -> None:
    """Lets `host_build` take from here what a compiler of this system made before."""
    compile = host_build._compile

    def shared(path: str, flags: list[str], text: str, folder: str) -> bytes:
        # A compiler that a test made up, or a test that watches processes, is served as ever.
        if subprocess.run is not _RUN or os.path.realpath(path) not in _system_compilers():
            return compile(path, flags, text, folder)
        include, rest = _behind_prelude(path, tuple(flags), text)
        parts = [*_toolchain(path, flags), text]
        build = functools.partial(compile, path, [*flags, *include], rest, folder)
        return cached(".so", parts, build).read_bytes()

    host_build._compile = shared


def _toolchain(path: str, flags: Sequence[str]) -> list[str]:
    """Returns what decides the result, beside the text."""
    return [identity(path), host_compiler.processor(), *flags]


def _behind_prelude(path: str, flags: tuple[str, ...], text: str) -> tuple[list[str], str]:
    """Returns the option that includes the prelude, and the text without it."""
    start = prelude(Dialect.HOST)
    if not text.startswith(start):
        return [], text
    return ["-include", str(_precompiled(path, flags, start))], text.removeprefix(start)


@functools.cache
def _precompiled(path: str, flags: tuple[str, ...], text: str) -> Path:
    """Returns a header; what is compiled of it lies beside it.

    Compilers find that by the name, and read the header itself if the other does not fit.
    """
    parts = [*_toolchain(path, flags), text]
    header = cached(".h", parts, text.encode)

    def build() -> bytes:
        options = [flag for flag in flags if flag != "-shared"]
        with tempfile.NamedTemporaryFile() as output:
            _RUN([path, *options, "-x", "c-header", header, "-o", output.name], check=True)
            return Path(output.name).read_bytes()

    cached(".h.gch", parts, build)
    return header


@contextlib.contextmanager
def unoptimised_host_kernels() -> Iterator[None]:
    """Host kernels are built with -O0, which takes a third of the time for those with a product.

    Their keys in the kernel cache are others than those of optimised kernels.
    """
    find = host_compiler.find

    def found() -> host_compiler.HostCompiler | None:
        compiler = find()
        if compiler is None:
            return None
        flags = ("-O0" if flag == "-O3" else flag for flag in compiler.flags)
        return compiler._replace(flags=tuple(flags))

    host_compiler.find = found
    try:
        yield
    finally:
        host_compiler.find = find


@functools.cache
def unoptimised_children() -> dict[str, str]:
    """Returns the variables by which child processes build host kernels with -O0.

    They find a compiler that is the one of the system with this option at the end.
    """
    words = os.environ.get("MAXMOD_CC", "").split() or ["cc"]
    program = shutil.which(words[0])
    path = folder() / "unoptimised-cc"
    if os.name != "posix" or program is None or " " in str(path):
        return {}  # they run as ever
    text = f'#!/bin/sh\nexec {shlex.join([program, *words[1:]])} "$@" -O0\n'
    with _locked(path.name):
        if not _is_used(path) or path.read_text("utf-8") != text:
            _write(path, text.encode())
            path.chmod(0o755)
    return {"MAXMOD_CC": str(path)}


@functools.cache
def _system_compilers() -> set[str]:
    found = (shutil.which(name) for name in ("cc", "gcc", "clang"))
    return {os.path.realpath(path) for path in found if path}


@functools.cache
def identity(program: str) -> str:
    """Returns what tells versions of a program apart."""
    path = os.path.realpath(program)
    facts: Any = os.stat(path)
    return f"{path} {facts.st_size} {facts.st_mtime_ns}"
